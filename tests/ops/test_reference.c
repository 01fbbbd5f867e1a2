/* The reference kernels: their gradients against differences for every case, then what each op promises beyond its formula. */
#include "tests/ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"
#include "tests/test.h"

#define STEP 0x1p-6 /* of the differences; exact in float, and below every distance to a kink */

/* --- gradients --------------------------------------------------------------------------------------------------------- */

/* The loss in double: float rounding of a sum would hide in it what a difference is to show. *square: sum of (r y)^2, from
 * which the rounding of the outputs themselves is estimated. */
static double loss_of(const struct trial *t, struct memory *m, double *square)
{
    double sum = 0;

    *square = 0;
    trial_run(t, m, 1, t->n_forward);
    for (int i = 0; i < t->n_out; i++) {
        int64_t n = shape_count(&t->graph->values[t->out[i]].shape);

        for (int64_t k = 0; k < n; k++) {
            double part = (double)((const float *)m->at[t->out[i]])[k] * (double)((const float *)m->at[t->r[i]])[k];

            sum += part;
            *square += part * part;
        }
    }
    return sum;
}

/* d loss along a direction over x, by differences of fourth order:
 * (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12 h, error about h^4 / 30 of the fifth derivative. */
static double difference(const struct trial *t, struct memory *m, float *x, const float *direction, int64_t n, double *noise)
{
    static const double at[] = {1, -1, 2, -2}, weight[] = {8, -8, -1, 1};
    float *saved = must_alloc(sizeof(float) * (size_t)n);
    double sum = 0, square = 0;

    memcpy(saved, x, sizeof(float) * (size_t)n);
    for (int i = 0; i < 4; i++) {
        for (int64_t k = 0; k < n; k++)
            x[k] = saved[k] + (float)(at[i] * STEP) * direction[k];
        sum += weight[i] * loss_of(t, m, &square);
    }
    memcpy(x, saved, sizeof(float) * (size_t)n);
    free_null(saved);
    *noise = 2 * 18 / (12 * STEP) * 0x1p-24 * sqrt(square); /* 18: the weights' sum; twice the half unit in the last place */
    return sum / (12 * STEP);
}

static void check_along(const struct trial *t, struct memory *m, int which, const float *direction, const char *what)
{
    int64_t n = shape_count(&t->graph->values[t->wrt[which]].shape);
    const float *gradient = t->gradient[which] ? m->at[t->gradient[which]] : NULL;
    double noise, want = difference(t, m, m->at[t->wrt[which]], direction, n, &noise), got = 0, scale = 1;
    double tolerance = t->row->tolerance > 0 ? t->row->tolerance : 2e-4;

    for (int64_t k = 0; gradient && k < n; k++) {
        got += (double)gradient[k] * (double)direction[k];
        scale = fmax(scale, fabs((double)gradient[k] * (double)direction[k]));
    }
    if (!(fabs(got - want) <= tolerance * fmax(scale, fabs(want)) + noise))
        fail_msg("%s, input %d, %s: the gradient is %.9g, differences say %.9g", t->row->name, which, what, got, want);
}

/* Some elements one by one, then all at once along two random directions of signs. */
static void check_input(const struct trial *t, struct memory *m, int which)
{
    int64_t n = shape_count(&t->graph->values[t->wrt[which]].shape), checks = n < 12 ? n : 12;
    float *direction = must_alloc(sizeof(float) * (size_t)n);
    char what[64];

    for (int64_t i = 0; i < checks; i++) {
        int64_t k = n <= 12 ? i : (int64_t)(philox((uint64_t)which, 2, (uint64_t)i).w[0] % (uint64_t)n);

        direction[k] = 1;
        snprintf(what, sizeof what, "element %lld", (long long)k);
        check_along(t, m, which, direction, what);
        direction[k] = 0;
    }
    for (int i = 0; i < 2; i++) {
        for (int64_t k = 0; k < n; k++) /* a tenth: through a product many small steps meet */
            direction[k] = philox((uint64_t)(i + 3), 4, (uint64_t)k).w[0] & 1 ? 0.125f : -0.125f;
        check_along(t, m, which, direction, "all elements");
    }
    free_null(direction);
}

static void check_gradients(const struct op_case *row, int *n_inputs)
{
    OWNED(trial_free) struct trial *t = trial_new(row);
    OWNED(memory_free) struct memory *m = memory_new(t->graph);
    OWNED(memory_free) struct memory *work = memory_new(t->graph);

    trial_feed(t, m);
    trial_run(t, m, 1, t->graph->n_nodes);
    if (!memory_intact(m))
        fail_msg("%s: a reference kernel wrote outside its output", row->name);
    trial_feed(t, work);
    for (int i = 0; i < t->n_wrt; i++) {
        /* gradients are read from m, differences change work */
        struct memory both = {.graph = t->graph, .at = must_alloc(sizeof(void *) * t->graph->n_values)};

        memcpy(both.at, work->at, sizeof(void *) * t->graph->n_values);
        if (t->gradient[i])
            both.at[t->gradient[i]] = m->at[t->gradient[i]];
        check_input(t, &both, i);
        free_null(both.at);
        (*n_inputs)++;
    }
}

TEST(gradients_of_every_case_equal_differences)
{
    int n_inputs = 0;

    for (int i = 0; i < n_op_cases; i++)
        if (op_cases[i].tolerance >= 0)
            check_gradients(&op_cases[i], &n_inputs);
    printf("%d cases, gradients of %d inputs checked\n", n_op_cases, n_inputs);
    CHECK(n_inputs > 300);
}

TEST(every_result_is_written_whole)
{
    for (int i = 0; i < n_op_cases; i++) {
        OWNED(trial_free) struct trial *t = trial_new(&op_cases[i]);
        OWNED(memory_free) struct memory *m = memory_new(t->graph);

        trial_feed(t, m);
        trial_run(t, m, 1, t->graph->n_nodes);
        for (uint32_t v = 1; v < t->graph->n_values; v++) {
            const struct value *value = &t->graph->values[v];
            int64_t n = shape_count(&value->shape);

            for (int64_t k = 0; value->type == F32 && k < n; k++)
                if (!isfinite(((const float *)m->at[v])[k]))
                    fail_msg("%s: element %lld of value %u is %g", t->row->name, (long long)k, v,
                             (double)((const float *)m->at[v])[k]);
        }
    }
}

/* --- small programs of their own --------------------------------------------------------------------------------------- */

struct small {
    struct graph *graph;
    struct build b;
    struct memory *m;
};

static struct small small_new(void)
{
    struct small s = {.graph = graph_new()};

    s.b = build_make(s.graph);
    return s;
}

static void small_done(struct small *s)
{
    memory_free(s->m);
    graph_free(s->graph);
}

static value_id in(struct small *s, struct shape shape)
{
    return input(&s->b, F32, &shape);
}

static void small_ready(struct small *s)
{
    if (build_failed(&s->b))
        fail_msg("%s: %s", s->b.problem.where, s->b.problem.detail);
    s->m = memory_new(s->graph);
}

static void set(struct small *s, value_id v, const float *x)
{
    memcpy(s->m->at[v], x, value_bytes(&s->graph->values[v]));
}

static void small_run(struct small *s)
{
    trial_run(&(struct trial){.graph = s->graph}, s->m, 1, s->graph->n_nodes);
}

#define CHECK_VALUE(s, v, ...)                                                      \
    do {                                                                            \
        const float want_[] = {__VA_ARGS__};                                        \
        CHECK_INT(shape_count(&(s).graph->values[v].shape), (int64_t)COUNT(want_)); \
        CHECK_FLOATS((const float *)(s).m->at[v], want_, COUNT(want_), 1e-6);       \
    } while (0)

#define REFUSES(message, ...)                           \
    do {                                                \
        CLEAN(small_done) struct small s = small_new(); \
        (void)(__VA_ARGS__);                            \
        CHECK_INT(s.b.problem.status, ST_INVALID);      \
        CHECK_TEXT(s.b.problem.detail, message);        \
    } while (0)

static struct conv conv_how(int padding, int64_t stride)
{
    return (struct conv){.stride = {stride, stride}, .dilation = {1, 1}, .groups = 1, .padding = padding};
}

TEST(shapes_that_do_not_fit_are_named_with_both_sides)
{
    struct conv valid = conv_how(PADDING_VALID, 1), wide = valid, grouped = valid;

    wide.dilation[0] = wide.dilation[1] = 2;
    grouped.groups = 2;
    REFUSES("the kernel (5, 5) is larger than the input (3, 3)",
            emit_conv(&s.b, in(&s, SHAPE(1, 3, 3, 8)), in(&s, SHAPE(5, 5, 8, 16)), 0, valid));
    REFUSES("the kernel (3, 3), dilated by (2, 2), is larger than the input (4, 4)",
            emit_conv(&s.b, in(&s, SHAPE(1, 4, 4, 8)), in(&s, SHAPE(3, 3, 8, 16)), 0, wide));
    REFUSES("the kernel (3, 3, 4, 8) takes 4 channels, the input (1, 5, 5, 3) has 3",
            emit_conv(&s.b, in(&s, SHAPE(1, 5, 5, 3)), in(&s, SHAPE(3, 3, 4, 8)), 0, valid));
    REFUSES("7 filters cannot be divided into 2 groups",
            emit_conv(&s.b, in(&s, SHAPE(1, 5, 5, 4)), in(&s, SHAPE(3, 3, 2, 7)), 0, grouped));
    REFUSES("the kernel (3, 3, 4, 8) takes 4 channels in each group, the input (1, 5, 5, 6) has 3 for each group",
            emit_conv(&s.b, in(&s, SHAPE(1, 5, 5, 6)), in(&s, SHAPE(3, 3, 4, 8)), 0, grouped));
    REFUSES("5 channels of the input (1, 5, 5, 5) cannot be divided into 2 groups",
            emit_conv(&s.b, in(&s, SHAPE(1, 5, 5, 5)), in(&s, SHAPE(3, 3, 2, 8)), 0, grouped));
    REFUSES("strides (0, 0) and dilations (1, 1) must be from 1 to 2147483647",
            emit_conv(&s.b, in(&s, SHAPE(1, 5, 5, 4)), in(&s, SHAPE(3, 3, 4, 7)), 0, conv_how(PADDING_SAME, 0)));
    REFUSES("the window (4, 4) is larger than the input (3, 3)",
            emit_pool(&s.b, in(&s, SHAPE(1, 3, 3, 2)),
                      (struct pool){.kind = POOL_MAX, .size = {4, 4}, .stride = {1, 1}, .padding = PADDING_VALID}));
    REFUSES("the weights (784, 10) take 784 features, the input (32, 28) has 28",
            emit_matmul(&s.b, in(&s, SHAPE(32, 28)), in(&s, SHAPE(784, 10)), 0));
    REFUSES("the weights (784, 10) take 784 features, the input (32, 28, 28) has 28",
            emit_matmul(&s.b, in(&s, SHAPE(32, 28, 28)), in(&s, SHAPE(784, 10)), 0));
    REFUSES("the shapes (2, 3) and (4, 3) do not fit each other element by element",
            emit_add(&s.b, in(&s, SHAPE(2, 3)), in(&s, SHAPE(4, 3))));
    REFUSES("(2, 3) cannot be reshaped to (4, 2): 6 elements against 8", emit_reshape(&s.b, in(&s, SHAPE(2, 3)), &SHAPE(4, 2)));
    REFUSES("(2, 3) cannot be reshaped to (None, 4): 6 elements are no multiple of 4",
            emit_reshape(&s.b, in(&s, SHAPE(2, 3)), &SHAPE(-1, 4)));
    REFUSES("(2, 3) and (3, 3) cannot be joined along axis 1: the other axes must be equal",
            emit_concat(&s.b, 2, (value_id[]){in(&s, SHAPE(2, 3)), in(&s, SHAPE(3, 3))}, -1));
    REFUSES("elements 2 to 9 of axis 1 are wanted, the input is (2, 3)", emit_slice(&s.b, in(&s, SHAPE(2, 3)), 1, 2, 9));
    REFUSES("class numbers as targets of shape (4,) do not fit predictions of shape (3, 10)",
            emit_cross_entropy(&s.b, in(&s, SHAPE(3, 10)), in(&s, SHAPE(4)), true));
    REFUSES("distributions as targets of shape (3, 9) do not fit predictions of shape (3, 10)",
            emit_cross_entropy(&s.b, in(&s, SHAPE(3, 10)), in(&s, SHAPE(3, 9)), false));
    REFUSES("the recurrent kernel of an LSTM must be (units, 4 units), it is (4, 12)",
            emit_rnn(&s.b, in(&s, SHAPE(2, 3, 5)), in(&s, SHAPE(5, 16)), in(&s, SHAPE(4, 12)), 0, 0, 0, 0, (struct rnn){0}).h);
    REFUSES("the kernel of an LSTM over (2, 3, 5) must be (5, 16), it is float32 (6, 16)",
            emit_rnn(&s.b, in(&s, SHAPE(2, 3, 5)), in(&s, SHAPE(6, 16)), in(&s, SHAPE(4, 16)), 0, 0, 0, 0, (struct rnn){0}).h);
    REFUSES("glu halves the last axis, which must be known and even; the input is (2, 3)",
            emit_activation(&s.b, in(&s, SHAPE(2, 3)), activation_find("glu")));
    REFUSES("a table to look up in must be float32 (rows, features), it is float32 (3,)",
            emit_gather(&s.b, in(&s, SHAPE(3)), in(&s, SHAPE(2))));
}

TEST(a_softmax_inside_a_recurrent_layer_is_refused_by_name)
{
    CLEAN(small_done) struct small s = small_new();
    struct rnn how = {.activation = activation_find("softmax")};

    CHECK_INT(emit_rnn(&s.b, in(&s, SHAPE(2, 3, 5)), in(&s, SHAPE(5, 16)), in(&s, SHAPE(4, 16)), 0, 0, 0, 0, how).h, 0);
    CHECK_INT(s.b.problem.status, ST_UNSUPPORTED);
    CHECK_CONTAINS(s.b.problem.detail, "softmax");
}

TEST(unknown_dimensions_pass_every_shape_rule)
{
    CLEAN(small_done) struct small s = small_new();
    struct build *b = &s.b;
    value_id x = in(&s, SHAPE(-1, 28, 28, 3)), y, z;
    struct pool half = {.kind = POOL_MAX, .size = {2, 2}, .stride = {2, 2}, .padding = PADDING_VALID};

    y = emit_conv(b, x, in(&s, SHAPE(3, 3, 3, 8)), in(&s, SHAPE(8)), conv_how(PADDING_SAME, 2));
    CHECK_TEXT(shape_text(&s.graph->values[y].shape).s, "(None, 14, 14, 8)");
    y = emit_pool(b, y, half);
    y = emit_batch_norm(b, y, in(&s, SHAPE(8)), in(&s, SHAPE(8)), (struct batch_norm){1e-3f}).y;
    z = emit_matmul(b, y, in(&s, SHAPE(8, 5)), 0);
    CHECK_TEXT(shape_text(&s.graph->values[z].shape).s, "(None, 7, 7, 5)");
    z = emit_reduce(b, z, REDUCE_MEAN, 6, false);
    CHECK_TEXT(shape_text(&s.graph->values[z].shape).s, "(None, 5)");
    z = emit_add(b, emit_softmax(b, z), in(&s, SHAPE(-1, 5)));
    z = emit_cross_entropy(b, z, in(&s, SHAPE(-1)), true);
    CHECK_TEXT(shape_text(&s.graph->values[z].shape).s, "(None,)");
    x = in(&s, SHAPE(-1, -1, 6));
    y = emit_rnn(b, x, in(&s, SHAPE(6, 16)), in(&s, SHAPE(4, 16)), in(&s, SHAPE(16)), 0, 0, in(&s, SHAPE(-1, -1)),
                 (struct rnn){.activation = activation_find("tanh")})
            .sequence;
    y = emit_concat(b, 2, (value_id[]){y, emit_gather(b, in(&s, SHAPE(-1, 3)), in(&s, SHAPE(-1, -1)))}, 2);
    y = emit_matmul(b, y, in(&s, SHAPE(7, 2)), 0);
    CHECK_TEXT(shape_text(&s.graph->values[y].shape).s, "(None, None, 2)");
    y = emit_conv(b, in(&s, SHAPE(1, -1, 9, 3)), in(&s, SHAPE(3, 3, 3, 8)), 0, conv_how(PADDING_VALID, 2));
    CHECK_TEXT(shape_text(&s.graph->values[y].shape).s, "(1, None, 4, 8)");
    CHECK_INT(b->problem.status, ST_OK);
}

TEST(same_padding_puts_the_odd_element_behind)
{
    int64_t out, pad[2];

    CHECK(window_geometry(5, 2, 1, 1, PADDING_SAME, &out, pad));
    CHECK_INT(out, 5);
    CHECK_INT(pad[0], 0);
    CHECK_INT(pad[1], 1);
    CHECK(window_geometry(6, 3, 2, 1, PADDING_SAME, &out, pad));
    CHECK_INT(out, 3);
    CHECK_INT(pad[0], 0);
    CHECK_INT(pad[1], 1);
    CHECK(window_geometry(7, 3, 2, 1, PADDING_SAME, &out, pad));
    CHECK_INT(out, 4);
    CHECK_INT(pad[0], 1);
    CHECK_INT(pad[1], 1);
    CHECK(window_geometry(7, 3, 2, 2, PADDING_VALID, &out, pad));
    CHECK_INT(out, 2);
    CHECK(!window_geometry(4, 3, 1, 2, PADDING_VALID, &out, pad));
    CHECK(window_geometry(-1, 3, 1, 2, PADDING_VALID, &out, pad));
    CHECK_INT(out, -1);
}

TEST(a_convolution_is_a_cross_correlation)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(1, 1, 4, 1)), k = in(&s, SHAPE(1, 2, 1, 1));
    value_id y = emit_conv(&s.b, x, k, 0, conv_how(PADDING_VALID, 1)), z = emit_conv(&s.b, x, k, 0, conv_how(PADDING_SAME, 1));

    small_ready(&s);
    set(&s, x, (float[]){1, 2, 3, 5});
    set(&s, k, (float[]){10, 1});
    small_run(&s);
    CHECK_VALUE(s, y, 12, 23, 35);
    CHECK_VALUE(s, z, 12, 23, 35, 50);
}

TEST(an_average_counts_real_elements_only_and_a_maximum_keeps_the_first_place)
{
    CLEAN(small_done) struct small s = small_new();
    struct pool how = {.kind = POOL_AVERAGE, .size = {2, 2}, .stride = {2, 2}, .padding = PADDING_SAME};
    value_id x = in(&s, SHAPE(1, 3, 3, 1)), average = emit_pool(&s.b, x, how), largest;

    s.b.training = true;
    how.kind = POOL_MAX;
    largest = emit_pool(&s.b, x, how);
    small_ready(&s);
    set(&s, x, (float[]){7, 7, -1, 7, 0, -2, -5, -4, -3});
    small_run(&s);
    CHECK_VALUE(s, average, 5.25f, -1.5f, -4.5f, -3);
    CHECK_VALUE(s, largest, 7, -1, -4, -3);
    CHECK_INT(((uint8_t *)s.m->at[build_out(&s.b, largest, 1)])[0], 0);
    CHECK_INT(((uint8_t *)s.m->at[build_out(&s.b, largest, 1)])[2], 1);
}

TEST(batch_norm_divides_the_variance_by_n)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(2, 1));
    struct batch_norm_out o = emit_batch_norm(&s.b, x, 0, 0, (struct batch_norm){0});

    small_ready(&s);
    set(&s, x, (float[]){1, 3});
    small_run(&s);
    CHECK_VALUE(s, o.y, -1, 1);
    CHECK_VALUE(s, o.mean, 2);
    CHECK_VALUE(s, o.variance, 1);
}

TEST(softmax_and_cross_entropy_stand_large_numbers)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(2, 2)), y = in(&s, SHAPE(2)), p = emit_softmax(&s.b, x);
    value_id loss = emit_cross_entropy(&s.b, x, y, true), logs = emit_log_softmax(&s.b, x);

    small_ready(&s);
    set(&s, x, (float[]){1000, 0, -1000, -1000});
    set(&s, y, (float[]){1, 0});
    small_run(&s);
    CHECK_VALUE(s, p, 1, 0, 0.5f, 0.5f);
    CHECK_VALUE(s, loss, 1000, (float)M_LN2);
    CHECK_VALUE(s, logs, 0, -1000, (float)-M_LN2, (float)-M_LN2);
}

TEST(a_class_outside_makes_the_loss_nan)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(3, 2)), y = in(&s, SHAPE(3)), loss = emit_cross_entropy(&s.b, x, y, true);

    small_ready(&s);
    set(&s, x, (float[]){0, 0, 0, 0, 0, 0});
    set(&s, y, (float[]){2, -1, 1});
    small_run(&s);
    CHECK_VALUE(s, loss, NAN, NAN, (float)M_LN2);
}

TEST(a_lookup_outside_gives_nan_and_its_gradient_nothing)
{
    CLEAN(small_done) struct small s = small_new();
    value_id table = in(&s, SHAPE(2, 2)), index = in(&s, SHAPE(4)), y = emit_gather(&s.b, table, index), d;
    value_id loss = emit_reduce_all(&s.b, y, REDUCE_SUM), hot = emit_one_hot(&s.b, index, 2);

    graph_grad(&s.b, loss, &table, 1, &d);
    small_ready(&s);
    set(&s, table, (float[]){1, 2, 3, 4});
    set(&s, index, (float[]){1, 2, -1, 1.9f});
    small_run(&s);
    CHECK_VALUE(s, y, 3, 4, NAN, NAN, NAN, NAN, 3, 4);
    CHECK_VALUE(s, d, 0, 0, 2, 2);
    CHECK_VALUE(s, hot, 0, 1, 0, 0, 0, 0, 0, 1);
}

TEST(the_gradient_of_a_maximum_is_shared_by_equals)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(4)), loss = emit_reduce_all(&s.b, x, REDUCE_MAX), d;
    value_id first = emit_reduce(&s.b, x, REDUCE_ARGMAX, 1, false);

    graph_grad(&s.b, loss, &x, 1, &d);
    small_ready(&s);
    set(&s, x, (float[]){1, 3, 3, 2});
    small_run(&s);
    CHECK_VALUE(s, d, 0, 0.5f, 0.5f, 0);
    CHECK_INT(*(int32_t *)s.m->at[first], 1);
}

TEST(dropout_keeps_the_stated_share_and_its_gradient_draws_the_same_mask)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(100, 100)), y, other, d;
    int64_t kept = 0, differ = 0;

    s.b.training = true;
    s.b.seed = graph_leaf(s.graph, AT_STATE, I64, &SCALAR);
    s.b.step = graph_leaf(s.graph, AT_STATE, I64, &SCALAR);
    y = emit_dropout(&s.b, x, 0.25, NULL);
    other = emit_dropout(&s.b, x, 0.25, NULL);
    graph_grad(&s.b, emit_reduce_all(&s.b, y, REDUCE_SUM), &x, 1, &d);
    small_ready(&s);
    *(int64_t *)s.m->at[s.b.seed] = 42;
    *(int64_t *)s.m->at[s.b.step] = 1;
    for (int i = 0; i < 10000; i++)
        ((float *)s.m->at[x])[i] = 3;
    small_run(&s);
    for (int i = 0; i < 10000; i++) {
        float v = ((float *)s.m->at[y])[i];

        CHECK(v == 0 || v == 4);
        CHECK(((float *)s.m->at[d])[i] == (v == 0 ? 0 : (float)(4.0 / 3)));
        kept += v != 0;
        differ += v != ((float *)s.m->at[other])[i];
    }
    CHECK(kept > 7300 && kept < 7700); /* 7500 +- 4.6 standard deviations */
    CHECK(differ > 3000);              /* 3750: another layer draws another mask */
}

TEST(dropout_outside_training_and_at_rate_0_is_its_input)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(3));

    CHECK_INT(emit_dropout(&s.b, x, 0.5, NULL), x);
    s.b.training = true;
    CHECK_INT(emit_dropout(&s.b, x, 0, NULL), x);
    CHECK_INT(s.b.problem.status, ST_OK);
}

TEST(an_update_that_is_not_ok_changes_nothing_even_if_it_is_nan)
{
    CLEAN(small_done) struct small s = small_new();
    value_id w = graph_leaf(s.graph, AT_WEIGHT, F32, &SHAPE(2)), g = in(&s, SHAPE(2));
    value_id step = graph_leaf(s.graph, AT_STATE, I64, &SCALAR), total = graph_leaf(s.graph, AT_STATE, F64, &SHAPE(2));
    struct formula f = {0};

    s.b.ok = in(&s, SCALAR);
    f_out(&f, f_in(&f));
    emit_update(&s.b, &f, &g, &w);
    emit_store(&s.b, w, g);
    emit_accumulate(&s.b, total, g);
    emit_step_next(&s.b, step);
    small_ready(&s);
    for (int ok = 0; ok < 2; ok++) {
        set(&s, w, (float[]){1, 2});
        set(&s, g, ok ? (float[]){5, 6} : (float[]){NAN, NAN});
        set(&s, s.b.ok, &(float){(float)ok});
        *(int64_t *)s.m->at[step] = 9;
        memset(s.m->at[total], 0, 16);
        small_run(&s);
        CHECK_FLOATS((float *)s.m->at[w], (ok ? (float[]){5, 6} : (float[]){1, 2}), 2, 0);
        CHECK_INT(*(int64_t *)s.m->at[step], 9 + ok);
        CHECK_NEAR(((double *)s.m->at[total])[1], ok ? 6 : 0, 0);
    }
}

TEST(an_update_of_another_shape_than_its_state_is_refused)
{
    CLEAN(small_done) struct small s = small_new();
    value_id w = graph_leaf(s.graph, AT_WEIGHT, F32, &SHAPE(2));
    struct formula f = {0};

    f_out(&f, f_in(&f));
    emit_update(&s.b, &f, (value_id[]){in(&s, SHAPE(3))}, &w);
    CHECK_INT(s.b.problem.status, ST_INVALID);
    CHECK_TEXT(s.b.problem.detail, "an update gives float32 (3,), the state is float32 (2,)");
}

/* One unit with W = 0, U = 0 and a bias that opens all gates but for the candidate, so that c counts the valid steps. */
static void run_masked_lstm(struct small *s, struct rnn how, struct rnn_out *ret)
{
    value_id x = in(s, SHAPE(1, 5, 1)), w = in(s, SHAPE(1, 4)), u = in(s, SHAPE(1, 4)), bias = in(s, SHAPE(4));
    value_id mask = in(s, SHAPE(1, 5)), h0 = in(s, SHAPE(1, 1));

    how.activation = how.recurrent_activation = activation_find("linear");
    *ret = emit_rnn(&s->b, x, w, u, bias, h0, 0, mask, how);
    small_ready(s);
    set(s, x, (float[]){1, 2, 3, 4, 5});
    set(s, w, (float[]){0, 0, 1, 0});
    set(s, u, (float[]){0, 0, 0, 0});
    set(s, bias, (float[]){1, 1, 0, 1});
    set(s, mask, (float[]){0, 1, 0, 1, 0});
    set(s, h0, (float[]){7});
    small_run(s);
}

TEST(a_masked_step_repeats_the_output_and_keeps_the_state)
{
    CLEAN(small_done) struct small s = small_new();
    struct rnn_out o;

    run_masked_lstm(&s, (struct rnn){0}, &o);
    CHECK_VALUE(s, o.sequence, 0, 2, 2, 6, 6);
    CHECK_VALUE(s, o.h, 6);
    CHECK_VALUE(s, o.c, 6);
}

TEST(a_masked_step_may_put_out_zeros)
{
    CLEAN(small_done) struct small s = small_new();
    struct rnn_out o;

    run_masked_lstm(&s, (struct rnn){.zero_output_for_mask = 1}, &o);
    CHECK_VALUE(s, o.sequence, 0, 2, 0, 6, 0);
    CHECK_VALUE(s, o.h, 6);
}

TEST(a_reversed_sequence_comes_out_in_processing_order)
{
    CLEAN(small_done) struct small s = small_new();
    struct rnn_out o;

    run_masked_lstm(&s, (struct rnn){.reverse = 1}, &o);
    CHECK_VALUE(s, o.sequence, 0, 4, 4, 6, 6);
}

TEST(casts_cut_to_the_range_of_the_type)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(4)), bytes = emit_cast(&s.b, x, U8), truths = emit_cast(&s.b, x, BOOL);
    value_id half = emit_cast(&s.b, emit_cast(&s.b, x, F16), F32), brain = emit_cast(&s.b, emit_cast(&s.b, x, BF16), F32);

    small_ready(&s);
    set(&s, x, (float[]){-3, 2.9f, 300, NAN});
    small_run(&s);
    CHECK_INT(memcmp(s.m->at[bytes], (uint8_t[]){0, 2, 255, 0}, 4), 0);
    CHECK_INT(memcmp(s.m->at[truths], (uint8_t[]){1, 1, 1, 1}, 4), 0);
    CHECK_VALUE(s, half, -3, 2.900390625f, 300, NAN);
    CHECK_VALUE(s, brain, -3, 2.90625f, 300, NAN);
}

TEST(broadcast_gradients_are_summed_back_to_their_shapes)
{
    CLEAN(small_done) struct small s = small_new();
    value_id x = in(&s, SHAPE(2, 3)), y = in(&s, SHAPE(3)), z = in(&s, SHAPE(2, 1)), d[3];
    value_id wrt[] = {x, y, z};

    graph_grad(&s.b, emit_reduce_all(&s.b, emit_mul(&s.b, emit_add(&s.b, x, y), z), REDUCE_SUM), wrt, 3, d);
    small_ready(&s);
    set(&s, x, (float[]){1, 2, 3, 4, 5, 6});
    set(&s, y, (float[]){10, 20, 30});
    set(&s, z, (float[]){2, 3});
    small_run(&s);
    CHECK_VALUE(s, d[0], 2, 2, 2, 3, 3, 3);
    CHECK_VALUE(s, d[1], 5, 5, 5);
    CHECK_VALUE(s, d[2], 66, 75);
}

TEST(a_problem_stays_the_first_and_needs_no_checks)
{
    CLEAN(small_done) struct small s = small_new();
    value_id y = emit_add(&s.b, in(&s, SHAPE(2)), in(&s, SHAPE(3)));

    CHECK_INT(y, 0);
    y = emit_matmul(&s.b, y, y, 0);
    y = emit_conv(&s.b, y, y, y, conv_how(PADDING_SAME, 1));
    y = emit_reshape(&s.b, emit_softmax(&s.b, emit_reduce_all(&s.b, y, REDUCE_SUM)), &SHAPE(7));
    y = emit_relu(&s.b, emit_slice(&s.b, y, 0, 1, 2), 0.1, NAN, 0);
    y = emit_batch_norm(&s.b, y, y, y, (struct batch_norm){1}).mean;
    y = emit_rnn(&s.b, y, y, y, y, y, y, y, (struct rnn){0}).c;
    CHECK_INT(y, 0);
    CHECK_TEXT(s.b.problem.detail, "the shapes (2,) and (3,) do not fit each other element by element");
}
