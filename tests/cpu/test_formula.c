/* The formula engine and the dense kernels against the references, at every level. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cpu/compare.h"
#include "tests/test.h"

/* Adam as an optimizer would write it, with bias correction from a scalar step. */
static void adam(struct compare *c, int64_t n, bool guarded)
{
    struct formula f = {0};
    struct shape flat = SHAPE(n), scalar = SCALAR;
    value_id w = graph_leaf(c->g, AT_WEIGHT, F32, &flat), g = graph_leaf(c->g, AT_GRAD, F32, &flat);
    value_id m = graph_leaf(c->g, AT_SLOT, F32, &flat), v = graph_leaf(c->g, AT_SLOT, F32, &flat);
    value_id step = graph_leaf(c->g, AT_STATE, I64, &scalar), ok = graph_leaf(c->g, AT_STATE, F32, &scalar);
    float *positive = malloc((size_t)n * sizeof *positive), one = 1;

    for (int64_t i = 0; i < n; i++)
        positive[i] = 0.01f + 0.001f * (float)(i % 17);
    compare_put(c, v, positive);
    compare_put(c, step, &(int64_t){3});
    compare_put(c, ok, &one);
    free(positive);
    term tw = f_in(&f), tg = f_in(&f), tm = f_in(&f), tv = f_in(&f), ts = f_in(&f);
    term m1 = f_mix(&f, tm, tg, 1 - 0.9), v1 = f_mix(&f, tv, f_square(&f, tg), 1 - 0.999);
    term rate = f_div(&f, f_sqrt(&f, f_sub(&f, f_const(&f, 1), f_pow(&f, f_const(&f, 0.999), ts))),
                      f_sub(&f, f_const(&f, 1), f_pow(&f, f_const(&f, 0.9), ts)));

    rate = f_mul(&f, rate, f_const(&f, 0.001));
    f_out(&f, f_sub(&f, tw, f_div(&f, f_mul(&f, m1, rate), f_add(&f, f_sqrt(&f, v1), f_const(&f, 1e-7)))));
    f_out(&f, m1);
    f_out(&f, v1);
    c->b.ok = guarded ? ok : 0;
    emit_update(&c->b, &f, (value_id[]){w, g, m, v, step}, (value_id[]){w, m, v});
}

/* One output per code, so that each is compared by itself. */
static term every_code(struct formula *f, enum term_code code, term a, term b, term c)
{
    switch (code) {
    case TERM_ADD:
        return f_add(f, a, b);
    case TERM_SUB:
        return f_sub(f, a, b);
    case TERM_MUL:
        return f_mul(f, a, b);
    case TERM_DIV:
        return f_div(f, a, b);
    case TERM_MAX:
        return f_max(f, a, b);
    case TERM_MIN:
        return f_min(f, a, b);
    case TERM_POW:
        return f_pow(f, f_abs(f, a), b);
    case TERM_LT:
        return f_lt(f, a, b);
    case TERM_LE:
        return f_le(f, a, b);
    case TERM_EQ:
        return f_eq(f, f_round(f, a), f_round(f, b));
    case TERM_NEG:
        return f_neg(f, a);
    case TERM_ABS:
        return f_abs(f, a);
    case TERM_SIGN:
        return f_sign(f, a);
    case TERM_SQRT:
        return f_sqrt(f, f_abs(f, a));
    case TERM_EXP:
        return f_exp(f, a);
    case TERM_LOG:
        return f_log(f, f_abs(f, a));
    case TERM_LOG1P:
        return f_log1p(f, f_abs(f, a));
    case TERM_TANH:
        return f_tanh(f, a);
    case TERM_SIGMOID:
        return f_sigmoid(f, a);
    case TERM_ERF:
        return f_erf(f, a);
    case TERM_FLOOR:
        return f_floor(f, a);
    case TERM_ROUND:
        return f_round(f, a);
    case TERM_FINITE:
        return f_finite(f, a);
    case TERM_SELECT:
        return f_select(f, f_lt(f, a, b), b, c);
    case TERM_IN:
        return a;
    case TERM_CONST:
        return f_const(f, 0.25);
    case N_TERM_CODES:
        break;
    }
    return a;
}

static void run_formula(struct compare *c, const struct formula *f, const value_id *in)
{
    (void)emit_formula(&c->b, f, in);
    compare_run(c, true);
    CHECK(c->n_kernels > 0);
}

TEST(every_code_agrees_with_its_meaning_at_every_level_and_odd_sizes)
{
    static const int64_t sizes[] = {1, 3, 17, 257, 1025};

    for (int l = 0; compare_level(l); l++)
        for (int code = 0; code < N_TERM_CODES; code++)
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
                struct compare c = compare_make();
                struct formula f = {0};
                value_id in[3];

                c.simd = compare_level(l);
                for (int i = 0; i < 3; i++)
                    in[i] = compare_input(&c, F32, SHAPE(sizes[s]));
                term a = f_in(&f), b = f_in(&f), d = f_in(&f);

                f_out(&f, every_code(&f, (enum term_code)code, a, b, d));
                run_formula(&c, &f, in);
                compare_done(&c);
            }
}

TEST(constants_and_scalars_stand_on_either_side_of_every_code)
{
    for (int l = 0; compare_level(l); l++)
        for (int code = 0; code < N_TERM_CODES; code++)
            for (int form = 0; form < 8; form++) {
                struct compare c = compare_make();
                struct formula f = {0};
                value_id in[4];
                struct shape one = SCALAR;

                c.simd = compare_level(l);
                in[0] = compare_input(&c, F32, SHAPE(100));
                in[1] = compare_input(&c, F32, SHAPE(100));
                in[2] = compare_input(&c, F32, SHAPE(100));
                in[3] = compare_input(&c, F32, one);
                term x = f_in(&f), y = f_in(&f), z = f_in(&f), s = f_in(&f);
                term a = form & 1 ? s : x, b = form & 2 ? f_const(&f, 0.7) : y, d = form & 4 ? s : z;

                f_out(&f, every_code(&f, (enum term_code)code, a, b, d));
                f_out(&f, f_add(&f, x, y));
                run_formula(&c, &f, in);
                compare_done(&c);
            }
}

TEST(terms_that_become_one_instruction_keep_their_signs_and_order)
{
    for (int l = 0; compare_level(l); l++)
        for (int form = 0; form < 8; form++) {
            struct compare c = compare_make();
            struct formula f = {0};
            value_id in[3];
            struct shape one = SCALAR;

            c.simd = compare_level(l);
            for (int i = 0; i < 3; i++)
                in[i] = compare_input(&c, F32, form >> i & 1 ? one : SHAPE(70));
            term a = f_in(&f), b = f_in(&f), d = f_in(&f), wide;

            in[0] = form == 7 ? compare_input(&c, F32, SHAPE(70)) : in[0];
            wide = f_mul(&f, a, b);
            f_out(&f, f_add(&f, wide, d));
            f_out(&f, f_sub(&f, f_mul(&f, b, d), a));
            f_out(&f, f_sub(&f, d, f_mul(&f, a, a)));
            f_out(&f, f_sub(&f, d, f_div(&f, a, f_add(&f, f_abs(&f, b), f_const(&f, 1)))));
            f_out(&f, f_add(&f, f_sqrt(&f, f_abs(&f, a)), d));
            f_out(&f, f_add(&f, f_mul(&f, f_const(&f, 0.3), f_sub(&f, a, b)), b)); /* b + (a - b) k */
            f_out(&f, f_add(&f, d, f_mul(&f, f_sub(&f, d, a), b)));                /* not that one */
            f_out(&f, f_add(&f, a, f_mul(&f, f_sub(&f, f_mul(&f, b, d), a), f_const(&f, 0.1))));
            run_formula(&c, &f, in);
            compare_done(&c);
        }
}

TEST(inputs_of_any_type_and_any_stretch_are_read_in_place)
{
    static const struct {
        struct shape a, b, c;
    } rows[] = {
        {{2, {5, 7}}, {1, {7}}, {2, {5, 1}}},
        {{3, {4, 3, 33}}, {3, {4, 1, 33}}, {3, {1, 3, 1}}},
        {{4, {2, 3, 4, 5}}, {4, {1, 3, 1, 5}}, {4, {2, 1, 4, 1}}},
        {{2, {600, 10}}, {1, {10}}, {1, {1}}},
        {{2, {3, 700}}, {1, {700}}, {2, {3, 1}}},
        {{1, {1}}, {2, {9, 1}}, {2, {1, 11}}},
    };

    for (int l = 0; compare_level(l); l++)
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
            for (int type = 0; type < N_DTYPES; type++)
                for (int place = 0; place < 2; place++) {
                    struct compare c = compare_make();
                    struct formula f = {0};
                    value_id in[3] = {compare_input(&c, place ? F32 : (enum dtype)type, rows[r].a),
                                      compare_input(&c, (enum dtype)type, rows[r].b), compare_input(&c, F32, rows[r].c)};

                    c.simd = compare_level(l);
                    c.in_place = place;
                    term x = f_in(&f), y = f_in(&f), z = f_in(&f);

                    f_out(&f, f_add(&f, f_mul(&f, x, y), z));
                    f_out(&f, f_sub(&f, x, z));
                    run_formula(&c, &f, in);
                    compare_done(&c);
                }
}

TEST(an_output_may_lie_over_an_input_that_is_still_to_be_read)
{
    for (int l = 0; compare_level(l); l++) {
        struct compare c = compare_make();
        struct formula f = {0};
        value_id x = compare_input(&c, F32, SHAPE(3000)), y = compare_input(&c, F32, SHAPE(3000));

        c.simd = compare_level(l);
        c.in_place = true;
        term a = f_in(&f), b = f_in(&f), first = f_mul(&f, a, b);

        f_out(&f, first);
        f_out(&f, f_add(&f, f_exp(&f, b), first));
        f_out(&f, a);
        f_out(&f, f_sub(&f, b, a));
        run_formula(&c, &f, (value_id[]){x, y});
        compare_done(&c);
    }
}

TEST(a_formula_with_every_term_and_many_live_values_still_runs)
{
    struct compare c = compare_make();
    struct formula f = {0};
    value_id x = compare_input(&c, F32, SHAPE(2000));
    term a = f_in(&f), t[20], s;

    for (int i = 0; i < 20; i++)
        t[i] = f_add(&f, f_tanh(&f, a), f_const(&f, i + 1)); /* all live until the end */
    s = t[0];
    for (int i = 19; i > 0; i--)
        s = f_max(&f, s, i % 2 ? f_sub(&f, a, t[i]) : t[i]);
    f_out(&f, s);
    CHECK(!f.full);
    run_formula(&c, &f, &x);
    compare_done(&c);
}

static uint32_t draw(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % below;
}

TEST(random_formulas_agree_with_the_reference_in_place_or_not)
{
    for (uint64_t round = 0; round < 400; round++) {
        struct compare c = compare_make();
        struct formula f = {0};
        uint64_t seed = round * 77 + 5;
        value_id in[5];
        term t[60];
        int n = 0;

        for (; n < 5; n++) {
            struct shape stretched[] = {SHAPE(6, 50), SHAPE(50), SHAPE(6, 1), SCALAR};

            in[n] = compare_input(&c, draw(&seed, 6) ? F32 : I32, n < 2 ? SHAPE(6, 50) : stretched[draw(&seed, 4)]);
            t[n] = f_in(&f);
        }
        while (n < 45) {
            term a = t[draw(&seed, (uint32_t)n)], b = t[n - 1 - (int)draw(&seed, 5)];

            switch (draw(&seed, 9)) {
            case 0:
                t[n++] = f_add(&f, a, b);
                break;
            case 1:
                t[n++] = f_sub(&f, a, b);
                break;
            case 2:
            case 3:
                t[n++] = f_mul(&f, f_tanh(&f, a), b);
                break;
            case 4:
                t[n++] = f_div(&f, a, f_add(&f, f_abs(&f, b), f_const(&f, 1)));
                break;
            case 5:
                t[n++] = f_sqrt(&f, f_abs(&f, f_mul(&f, a, b)));
                break;
            case 6:
                t[n++] = f_max(&f, a, f_const(&f, 0.25));
                break;
            case 7:
                t[n++] = f_mix(&f, a, b, 0.3);
                break;
            default:
                t[n++] = f_sub(&f, b, f_mul(&f, a, f_const(&f, 0.5)));
                break;
            }
            if (f.n_terms > 85)
                break;
        }
        for (int o = 0; o < 4; o++)
            f_out(&f, t[n - 1 - (int)draw(&seed, o ? (uint32_t)n : 1)]);
        c.in_place = round & 1;
        c.tolerance = 1e-4; /* forty roundings, and differences of what is nearly equal */
        run_formula(&c, &f, in);
        compare_done(&c);
    }
}

TEST(nan_and_infinity_pass_through_every_code_as_the_reference_says)
{
    static const float specials[] = {0.0f,  -0.0f, INFINITY, -INFINITY, NAN,    1,      -1,  88.7f,
                                     89.5f, -88,   -120,     3e38f,     -3e38f, 1e-30f, 0.5f};
    enum { N = sizeof specials / sizeof specials[0] };

    for (int l = 0; compare_level(l); l++)
        for (int code = 0; code < N_TERM_CODES; code++) {
            struct compare c = compare_make();
            struct formula f = {0};
            value_id in[3];
            float a[N * N], b[N * N];

            for (int i = 0; i < N * N; i++)
                a[i] = specials[i / N], b[i] = specials[i % N];
            c.simd = compare_level(l);
            for (int i = 0; i < 3; i++)
                in[i] = compare_input(&c, F32, SHAPE(N * N));
            compare_put(&c, in[0], a);
            compare_put(&c, in[1], b);
            compare_put(&c, in[2], b);
            term x = f_in(&f), y = f_in(&f), z = f_in(&f);

            f_out(&f, every_code(&f, (enum term_code)code, x, y, z));
            run_formula(&c, &f, in);
            compare_done(&c);
        }
}

TEST(adam_in_one_pass_agrees_with_its_formula)
{
    for (int l = 0; compare_level(l); l++)
        for (int guarded = 0; guarded < 2; guarded++) {
            struct compare c = compare_make();

            c.simd = compare_level(l);
            adam(&c, 5003, guarded);
            compare_run(&c, true);
            CHECK_INT(c.n_kernels, 1);
            compare_done(&c);
        }
}

TEST(a_guarded_update_changes_nothing_when_the_guard_is_zero)
{
    struct compare c = compare_make();
    struct formula f = {0};
    struct shape flat = SHAPE(700), scalar = SCALAR;
    value_id w = graph_leaf(c.g, AT_WEIGHT, F32, &flat), g = graph_leaf(c.g, AT_GRAD, F32, &flat);
    value_id ok = graph_leaf(c.g, AT_STATE, F32, &scalar);
    float zero = 0;

    compare_put(&c, ok, &zero);
    c.b.ok = ok;
    f_out(&f, f_sub(&f, f_in(&f), f_in(&f)));
    emit_update(&c.b, &f, (value_id[]){w, g}, &w);
    compare_run(&c, true); /* the reference keeps the old values too */
    compare_done(&c);
}

/* --- dense kernels ---------------------------------------------------------------------------------------------------- */

TEST(products_of_every_form_agree_with_the_reference)
{
    static const int64_t sizes[][3] = {{1, 1, 1},    {1, 17, 33},    {3, 5, 7},       {17, 1, 9},
                                       {64, 64, 64}, {130, 70, 257}, {257, 300, 129}, {5, 3, 600}};

    for (int threads = 1; threads <= 2; threads++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            for (unsigned flags = 0; flags < 4; flags++)
                for (int bias = 0; bias < 2; bias++) {
                    struct compare c = compare_make();
                    int64_t m = sizes[s][0], n = sizes[s][1], k = sizes[s][2];
                    value_id x = compare_input(&c, F32, flags & MATMUL_TX ? SHAPE(k, m) : SHAPE(m, k));
                    value_id w = compare_input(&c, F32, flags & MATMUL_TW ? SHAPE(n, k) : SHAPE(k, n));
                    value_id row = bias ? compare_input(&c, F32, SHAPE(n)) : 0;

                    c.threads = threads;
                    (void)emit_matmul_bias(&c.b, x, w, row, flags);
                    compare_run(&c, true);
                    CHECK_INT(c.n_kernels, 1);
                    compare_done(&c);
                }
}

TEST(batches_of_products_agree_with_the_reference)
{
    for (int threads = 1; threads <= 2; threads++)
        for (unsigned flags = 0; flags < 4; flags++)
            for (int shared = 0; shared < 2; shared++) {
                struct compare c = compare_make();
                value_id x = compare_input(&c, F32, flags & MATMUL_TX ? SHAPE(6, 40, 33) : SHAPE(6, 33, 40));
                value_id w = compare_input(&c, F32,
                                           shared              ? flags & MATMUL_TW ? SHAPE(50, 40) : SHAPE(40, 50)
                                                        : flags & MATMUL_TW ? SHAPE(6, 50, 40)
                                                               : SHAPE(6, 40, 50));

                c.threads = threads;
                (void)emit_matmul(&c.b, x, w, flags);
                compare_run(&c, true);
                compare_done(&c);
            }
}

TEST(reductions_over_any_axes_agree_with_the_reference)
{
    static const struct shape shapes[] = {{1, {1}},        {1, {3}},        {1, {257}},        {1, {200003}},
                                          {2, {5, 10}},    {2, {40, 300}},  {2, {1500, 3}},    {2, {3000, 65}},
                                          {3, {7, 33, 5}}, {3, {3, 1, 90}}, {4, {3, 4, 5, 6}}, {4, {2, 70, 3, 40}}};
    static const enum reduce_kind kinds[] = {REDUCE_SUM, REDUCE_MEAN, REDUCE_MAX, REDUCE_SUM_SQUARES};

    for (int l = 0; compare_level(l); l++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (unsigned axes = 0; axes < 1u << shapes[s].rank; axes++)
                for (int k = 0; k < 4; k++) {
                    struct compare c = compare_make();

                    c.simd = compare_level(l);
                    c.threads = 1 + (int)(axes & 1);
                    (void)emit_reduce(&c.b, compare_input(&c, F32, shapes[s]), kinds[k], axes, k & 1);
                    compare_run(&c, true);
                    compare_done(&c);
                }
}

TEST(the_place_of_the_largest_is_the_first_of_equals_and_a_nan_wins)
{
    struct compare c = compare_make();
    value_id x = compare_input(&c, F32, SHAPE(4, 5));
    const float data[20] = {1, 5, 5, 2, 0, -1, -1, -1, -1, -1, 3, NAN, 9, NAN, 1, -INFINITY, 0, INFINITY, INFINITY, 1};

    compare_put(&c, x, data);
    (void)emit_reduce_last(&c.b, x, REDUCE_ARGMAX);
    compare_run(&c, true);
    compare_done(&c);
}

TEST(softmax_and_cross_entropy_agree_with_the_reference_for_short_and_long_rows)
{
    static const int64_t widths[] = {1, 2, 10, 63, 64, 65, 300, 1000}, rows[] = {1, 5, 16, 33};

    for (int l = 0; compare_level(l); l++)
        for (size_t w = 0; w < sizeof widths / sizeof widths[0]; w++)
            for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
                for (int kind = 0; kind < 4; kind++) {
                    struct compare c = compare_make();
                    value_id x = compare_input(&c, F32, SHAPE(rows[r], widths[w])), loss = 0, dx;

                    c.simd = compare_level(l);
                    c.whole_below = (int)widths[w] + (kind == 3);
                    c.in_place = true;
                    if (kind == 0)
                        loss = emit_reduce_all(&c.b, emit_mul(&c.b, emit_softmax(&c.b, x), x), REDUCE_SUM);
                    else if (kind == 1)
                        loss = emit_cross_entropy(&c.b, x, compare_input(&c, F32, SHAPE(rows[r], widths[w])), false);
                    else
                        loss = emit_cross_entropy(&c.b, x, compare_input(&c, kind == 2 ? I32 : U8, SHAPE(rows[r])), true);
                    loss = emit_reduce_all(&c.b, loss, REDUCE_MEAN);
                    graph_grad(&c.b, loss, &x, 1, &dx);
                    c.tolerance = 5e-6;
                    compare_run(&c, true);
                    compare_done(&c);
                }
}

TEST(cross_entropy_of_huge_and_infinite_logits_is_what_the_reference_says)
{
    for (int l = 0; compare_level(l); l++) {
        struct compare c = compare_make();
        value_id x = compare_input(&c, F32, SHAPE(4, 3)), t = compare_input(&c, U8, SHAPE(4, 3));
        const float logits[12] = {1000, 0, -1000, -INFINITY, 2, 1, NAN, 0, 0, 1, 1, 1};
        const uint8_t target[12] = {1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0};

        c.simd = compare_level(l);
        compare_put(&c, x, logits);
        compare_put(&c, t, target);
        (void)emit_cross_entropy(&c.b, x, t, false);
        compare_run(&c, true);
        compare_done(&c);
    }
}

TEST(dropout_draws_the_very_mask_of_the_reference_at_every_level)
{
    static const double rates[] = {0.1, 0.25, 0.5, 0.9, 1.0};
    static const int64_t sizes[] = {1, 3, 17, 255, 256, 257, 70001};

    for (int l = 0; compare_level(l); l++)
        for (size_t r = 0; r < sizeof rates / sizeof rates[0]; r++)
            for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
                struct compare c = compare_make();
                struct shape scalar = SCALAR;

                c.simd = compare_level(l);
                c.threads = 1 + (int)(s & 1);
                c.tolerance = 0; /* the same bits */
                c.in_place = r & 1;
                c.b.training = true;
                c.b.seed = compare_input(&c, I64, scalar);
                c.b.step = compare_input(&c, I64, scalar);
                compare_put(&c, c.b.seed, &(int64_t){-77123456789});
                compare_put(&c, c.b.step, &(int64_t){(int64_t)1 << 33});
                (void)emit_dropout(&c.b, compare_input(&c, F32, SHAPE(sizes[s])), rates[r], NULL);
                compare_run(&c, true);
                compare_done(&c);
            }
}

TEST(metric_sums_grow_only_where_the_step_was_good)
{
    for (int good = 0; good < 2; good++) {
        struct compare c = compare_make();
        struct shape scalar = SCALAR, two = SHAPE(2);
        value_id state = graph_leaf(c.g, AT_STATE, F64, &two), ok = graph_leaf(c.g, AT_STATE, F32, &scalar);
        float flag = (float)good;

        compare_put(&c, ok, &flag);
        c.b.ok = ok;
        emit_accumulate(&c.b, state, compare_input(&c, F32, two));
        compare_run(&c, true);
        compare_done(&c);
    }
}
