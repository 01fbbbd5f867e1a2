/* The reverse sweep over real ops: against differences, for shared values, and what it leaves out. */
#include <math.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/ops/ops.h"
#include "tests/graph/machine.h"
#include "tests/test.h"

static value_id weight_leaf(struct graph *g, struct shape s)
{
    return graph_leaf(g, AT_WEIGHT, F32, &s);
}

static void fill_region(unsigned char *at, size_t bytes, uint64_t key)
{
    for (size_t i = 0; i < bytes / 4; i++) {
        float x = philox_unit(philox(key, 0, i).w[0]) * 2 - 1;

        memcpy(at + 4 * i, &x, 4);
    }
}

static double run_loss(struct machine *m, value_id loss)
{
    float y;

    machine_run(m);
    memcpy(&y, machine_at(m, loss), 4);
    return (double)y;
}

/* dwrt of every element of w against (loss(w + h) - loss(w - h)) / 2h. */
static void check_differences(struct machine *m, value_id loss, value_id w, value_id dw)
{
    int64_t n = shape_count(&m->g->values[w].shape);
    float *x = machine_at(m, w), got[256];
    const float h = 4e-3f;

    CHECK(dw != 0 && n <= 256);
    run_loss(m, loss);
    memcpy(got, machine_at(m, dw), sizeof(float) * (size_t)n);
    for (int64_t i = 0; i < n; i++) {
        float old = x[i];
        double up, down, want;

        x[i] = old + h;
        up = run_loss(m, loss);
        x[i] = old - h;
        down = run_loss(m, loss);
        x[i] = old;
        want = (up - down) / (2 * (double)h);
        if (!(fabs((double)got[i] - want) <= 5e-3 * fmax(1, fabs(want))))
            fail_msg("d loss / d %%%u[%lld] is %g, the difference says %g", w, (long long)i, (double)got[i], want);
    }
}

TEST(gradients_agree_with_differences_through_shared_weights_and_branches)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(5, 3), flat = SHAPE(5, 8, 1), back = SHAPE(5, 8);
    value_id x1 = input(&b, F32, &s), x2 = input(&b, F32, &s), w = weight_leaf(g, SHAPE(3, 8)), bias = weight_leaf(g, SHAPE(8));
    value_id scale = weight_leaf(g, SHAPE(8)), u = weight_leaf(g, SHAPE(8, 8)), dwrt[4];

    /* a siamese pair: both sides through w and bias; the left side is also used by itself */
    value_id left = emit_sigmoid(&b, emit_add(&b, emit_matmul(&b, x1, w, 0), bias));
    value_id right = emit_sigmoid(&b, emit_add(&b, emit_matmul(&b, x2, w, 0), bias));
    value_id joined = emit_mul(&b, emit_sub(&b, left, right), emit_mul(&b, left, scale));
    value_id deep = emit_reshape(&b, emit_reshape(&b, emit_matmul(&b, joined, u, 0), &flat), &back);
    value_id loss = emit_reduce_all(&b, emit_mul(&b, deep, emit_add(&b, deep, left)), REDUCE_MEAN);

    keep(&b, loss);
    graph_grad(&b, loss, (value_id[]){w, bias, scale, u}, 4, dwrt);
    CHECK_TEXT(b.problem.detail, "");
    CHECK_INT(b.problem.status, ST_OK);
    for (int i = 0; i < 4; i++)
        keep(&b, dwrt[i]);

    OWNED(machine_free) struct machine *m = machine_new(g, NULL);

    fill_region(m->base[AT_WEIGHT], g->bytes[AT_WEIGHT], 1);
    fill_region(m->base[AT_INPUT], g->bytes[AT_INPUT], 2);
    check_differences(m, loss, w, dwrt[0]);
    check_differences(m, loss, bias, dwrt[1]);
    check_differences(m, loss, scale, dwrt[2]);
    check_differences(m, loss, u, dwrt[3]);
}

TEST(no_gradient_is_made_for_data_or_for_what_does_not_lead_to_wrt)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 3);
    value_id x = input(&b, F32, &s), w = weight_leaf(g, SHAPE(3, 2)), other = weight_leaf(g, SHAPE(3)), dw, dother;
    value_id before = emit_sigmoid(&b, emit_sigmoid(&b, x)), y = emit_matmul(&b, before, w, 0);
    value_id loss = emit_reduce_all(&b, y, REDUCE_SUM);
    uint32_t nodes = g->n_nodes, products = 0;

    graph_grad(&b, loss, &w, 1, &dw);
    CHECK(dw != 0);
    for (uint32_t i = nodes; i < g->n_nodes; i++)
        products += strcmp(g->nodes[i].op->name, "matmul") == 0;
    CHECK_INT(products, 1); /* x^T dy, no dy w^T */
    graph_grad(&b, loss, &other, 1, &dother);
    CHECK_INT(dother, 0);
    CHECK_INT(b.problem.status, ST_OK);
}

TEST(the_gradient_by_the_loss_itself_is_one_and_by_intermediate_values_right)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(3);
    value_id x = input(&b, F32, &s), y = emit_scale(&b, x, 3), z = emit_mul(&b, y, y), d[3];
    value_id loss = emit_reduce_all(&b, z, REDUCE_SUM);

    graph_grad(&b, loss, (value_id[]){loss, y, x}, 3, d);
    CHECK_INT(b.problem.status, ST_OK);

    OWNED(machine_free) struct machine *m = machine_new(g, NULL);

    memcpy(machine_at(m, x), (float[]){1, 2, -1}, 12);
    machine_run(m);
    CHECK_FLOATS((float *)machine_at(m, d[0]), ((float[]){1}), 1, 1e-7);
    CHECK_FLOATS((float *)machine_at(m, d[1]), ((float[]){6, 12, -6}), 3, 1e-6);
    CHECK_FLOATS((float *)machine_at(m, d[2]), ((float[]){18, 36, -18}), 3, 1e-6);
}

static enum status like_input(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    out[0].shape = in[0].shape;
    return ST_OK;
}

static void wrong_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)n, (void)need;
    din[0] = emit_reduce_all(b, dout[0], REDUCE_SUM);
}

static void passing_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)n, (void)need, (void)b;
    din[0] = dout[0];
}

static const struct op blunt = {.name = "blunt", .infer = like_input};
static const struct op wrong = {.name = "wrong", .infer = like_input, .grad = wrong_grad};
static const struct op passing = {.name = "passing", .infer = like_input, .grad = passing_grad};

static struct build loss_through(struct graph *g, const struct op *op, value_id *loss, value_id *w)
{
    struct build b = build_make(g);

    *w = weight_leaf(g, SHAPE(4));
    b.origin = "layer_7";
    *loss = emit(&b, op, NULL, w, 1, 1);
    b.origin = "loss";
    *loss = emit_reduce_all(&b, *loss, REDUCE_SUM);
    return b;
}

TEST(an_op_without_gradient_is_named_with_its_layer)
{
    OWNED(graph_free) struct graph *g = graph_new();
    value_id loss, w, dw;
    struct build b = loss_through(g, &blunt, &loss, &w);

    graph_grad(&b, loss, &w, 1, &dw);
    CHECK_INT(dw, 0);
    CHECK_INT(b.problem.status, ST_UNSUPPORTED);
    CHECK_TEXT(b.problem.where, "layer_7");
    CHECK_CONTAINS(b.problem.detail, "blunt has no gradient");
}

TEST(a_gradient_of_another_shape_than_its_input_is_found)
{
    OWNED(graph_free) struct graph *g = graph_new();
    value_id loss, w, dw;
    struct build b = loss_through(g, &wrong, &loss, &w);

    graph_grad(&b, loss, &w, 1, &dw);
    CHECK_INT(b.problem.status, ST_INTERNAL);
    CHECK_CONTAINS(b.problem.detail, "has shape (), the input has (4,)");
}

TEST(nodes_of_a_gradient_carry_the_name_of_the_layer)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id w = weight_leaf(g, SHAPE(4)), y, loss, dw;

    b.origin = "act_1";
    y = emit_sigmoid(&b, w);
    b.origin = "loss";
    loss = emit_reduce_all(&b, emit(&b, &passing, NULL, &y, 1, 1), REDUCE_SUM);
    graph_grad(&b, loss, &w, 1, &dw);
    CHECK_TEXT(g->nodes[g->values[dw].producer].origin, "act_1");
    CHECK_TEXT(b.origin, "loss");
}

TEST(a_loss_that_is_no_scalar_is_refused)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id w = weight_leaf(g, SHAPE(4)), dw = 77;

    graph_grad(&b, emit_sigmoid(&b, w), &w, 1, &dw);
    CHECK_INT(b.problem.status, ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "(4,)");
    CHECK_INT(dw, 0);
}

TEST(after_a_problem_all_gradients_are_none)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id w = weight_leaf(g, SHAPE(4)), dw = 77, loss = emit_reduce_all(&b, w, REDUCE_SUM);

    build_fail(&b, ST_INVALID, "before");
    graph_grad(&b, loss, &w, 1, &dw);
    CHECK_INT(dw, 0);
    CHECK_TEXT(b.problem.detail, "before");
}
