/* Formulas: folding, sharing, the meaning of codes at their edges, gradients against differences. */
#include <math.h>
#include <string.h>

#include "engine/graph/formula.h"
#include "tests/test.h"

static float value_1(const struct formula *f, float x)
{
    float out[MAX_FORMULA_OUT];

    formula_value(f, &x, out);
    return out[0];
}

/* --- building --------------------------------------------------------------------------------------------------------- */

TEST(constants_fold_in_double_and_equal_terms_are_shared)
{
    struct formula f = {0};
    term x = f_in(&f), y = f_in(&f);
    term a = f_add(&f, x, y), b = f_add(&f, y, x);

    CHECK_INT(a, b);
    CHECK_INT(f_mul(&f, a, b), f_mul(&f, b, a));
    CHECK(f_sub(&f, x, y) != f_sub(&f, y, x));
    CHECK_INT(f_const(&f, 0.5), f_div(&f, f_const(&f, 1), f_const(&f, 2)));
    CHECK_INT(f_exp(&f, f_const(&f, 1)), f_const(&f, M_E));
    CHECK(f_const(&f, 0.0) != f_const(&f, -0.0));
    CHECK_INT(f_const(&f, NAN), f_const(&f, NAN));
}

TEST(neutral_operands_disappear)
{
    struct formula f = {0};
    term x = f_in(&f), zero = f_const(&f, 0), one = f_const(&f, 1);

    CHECK_INT(f_add(&f, x, zero), x);
    CHECK_INT(f_sub(&f, x, zero), x);
    CHECK_INT(f_mul(&f, one, x), x);
    CHECK_INT(f_div(&f, x, one), x);
    CHECK_INT(f_pow(&f, x, one), x);
    CHECK_INT(f_pow(&f, x, f_const(&f, 2)), f_square(&f, x));
    CHECK_INT(f_neg(&f, f_neg(&f, x)), x);
    CHECK_INT(f_sub(&f, zero, x), f_neg(&f, x));
    CHECK_INT(f_max(&f, x, x), x);
    CHECK_INT(f_select(&f, one, x, zero), x);
    CHECK_INT(f_select(&f, x, one, one), one);
    CHECK_INT(f_abs(&f, f_neg(&f, x)), f_abs(&f, x));
}

TEST(a_product_with_zero_is_kept_since_it_may_be_nan)
{
    struct formula f = {0};
    term x = f_in(&f);

    f_out(&f, f_mul(&f, x, f_const(&f, 0)));
    CHECK(isnan(value_1(&f, INFINITY)));
    CHECK_NEAR(value_1(&f, 3), 0, 0);
}

TEST(too_many_terms_inputs_or_outputs_set_full)
{
    struct formula f = {0}, g = {0}, h = {0};
    term x = f_in(&f), t = x;

    for (int i = 0; i < MAX_TERMS; i++)
        t = f_exp(&f, t);
    CHECK(f.full);
    CHECK(f.n_terms <= MAX_TERMS);
    for (int i = 0; i < MAX_FORMULA_IN; i++)
        f_in(&g);
    CHECK(!g.full);
    f_in(&g);
    CHECK(g.full);
    x = f_in(&h);
    for (int i = 0; i < MAX_FORMULA_OUT; i++)
        f_out(&h, x);
    CHECK(!h.full);
    f_out(&h, x);
    CHECK(h.full);
}

/* --- meaning ---------------------------------------------------------------------------------------------------------- */

struct edge {
    enum term_code code;
    float a, b, c, want;
};

TEST(codes_mean_the_same_at_the_edges_everywhere)
{
    static const struct edge edges[] = {
        {TERM_MAX, NAN, 0, 0, NAN},
        {TERM_MAX, 0, NAN, 0, NAN},
        {TERM_MAX, -2, 3, 0, 3},
        {TERM_MIN, NAN, 0, 0, NAN},
        {TERM_MIN, 0, NAN, 0, NAN},
        {TERM_MIN, -2, 3, 0, -2},
        {TERM_ROUND, 0.5f, 0, 0, 0},
        {TERM_ROUND, 1.5f, 0, 0, 2},
        {TERM_ROUND, 2.5f, 0, 0, 2},
        {TERM_ROUND, -2.5f, 0, 0, -2},
        {TERM_FLOOR, -0.5f, 0, 0, -1},
        {TERM_FINITE, INFINITY, 0, 0, 0},
        {TERM_FINITE, -INFINITY, 0, 0, 0},
        {TERM_FINITE, NAN, 0, 0, 0},
        {TERM_FINITE, 1e38f, 0, 0, 1},
        {TERM_SIGN, -3, 0, 0, -1},
        {TERM_SIGN, 0, 0, 0, 0},
        {TERM_SIGN, NAN, 0, 0, NAN},
        {TERM_SELECT, NAN, 1, 2, 1},
        {TERM_SELECT, 0, 1, 2, 2},
        {TERM_SELECT, -0.0f, 1, 2, 2},
        {TERM_LT, NAN, 1, 0, 0},
        {TERM_LE, 1, 1, 0, 1},
        {TERM_LT, 1, 1, 0, 0},
        {TERM_EQ, NAN, NAN, 0, 0},
        {TERM_SIGMOID, -INFINITY, 0, 0, 0},
        {TERM_SIGMOID, INFINITY, 0, 0, 1},
        {TERM_SIGMOID, 0, 0, 0, 0.5f},
        {TERM_EXP, 100, 0, 0, INFINITY},
        {TERM_LOG, 0, 0, 0, -INFINITY},
        {TERM_LOG, -1, 0, 0, NAN},
        {TERM_POW, -2, 3, 0, -8},
        {TERM_ERF, INFINITY, 0, 0, 1},
        {TERM_ADD, 1e8f, 1, 0, 1e8f},
    };

    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++) {
        const struct edge *e = &edges[i];
        float got = term_value(e->code, e->a, e->b, e->c);

        if (isnan(e->want) ? !isnan(got) : got != e->want)
            fail_msg("row %zu: code %d of %g, %g, %g is %g, expected %g", i, e->code, (double)e->a, (double)e->b, (double)e->c,
                     (double)got, (double)e->want);
    }
}

TEST(of_two_zeros_max_gives_its_second_operand)
{
    CHECK(!signbit(term_value(TERM_MAX, -0.0f, 0.0f, 0)));
    CHECK(signbit(term_value(TERM_MAX, 0.0f, -0.0f, 0)));
}

TEST(softplus_holds_at_both_ends)
{
    struct formula f = {0};

    f_out(&f, f_softplus(&f, f_in(&f)));
    CHECK_NEAR(value_1(&f, 0), log(2), 1e-7);
    CHECK_NEAR(value_1(&f, -20), log1p(exp(-20)), 1e-6);
    CHECK_NEAR(value_1(&f, 50), 50, 1e-7);
    CHECK_NEAR(value_1(&f, 3e38f), 3e38f, 1e-7);
    CHECK_NEAR(value_1(&f, -INFINITY), 0, 0);
    CHECK(isinf(value_1(&f, INFINITY)));
    CHECK(isnan(value_1(&f, NAN)));
}

TEST(mix_and_clip_are_what_they_say)
{
    struct formula f = {0};
    term x = f_in(&f), y = f_in(&f);
    float out[2];

    f_out(&f, f_mix(&f, x, y, 0.25));
    f_out(&f, f_clip(&f, x, -1, 1));
    formula_value(&f, (float[]){4, 8}, out);
    CHECK_NEAR(out[0], 5, 0);
    CHECK_NEAR(out[1], 1, 0);
}

/* --- inlining and trimming -------------------------------------------------------------------------------------------- */

TEST(an_inlined_formula_computes_the_same_and_shares_terms)
{
    struct formula inner = {0}, f = {0};
    term a = f_in(&inner), b = f_in(&inner), outs[2];
    float got[2];

    f_out(&inner, f_mul(&inner, f_add(&inner, a, b), f_const(&inner, 2)));
    f_out(&inner, f_tanh(&inner, a));
    term x = f_in(&f), sum = f_add(&f, x, f_const(&f, 3));
    int before = f.n_terms;

    formula_inline(&f, &inner, (term[]){x, f_const(&f, 3)}, outs);
    CHECK_INT(f.n_terms, before + 3); /* the constant 2, the product, tanh: the sum was there */
    f_out(&f, outs[0]);
    f_out(&f, outs[1]);
    formula_value(&f, (float[]){0.5f}, got);
    CHECK_NEAR(got[0], 7, 1e-6);
    CHECK_NEAR(got[1], tanh(0.5), 1e-6);
    CHECK(sum < f.n_terms);
}

TEST(trimming_drops_terms_and_inputs_that_no_output_needs)
{
    struct formula f = {0};
    term x = f_in(&f), y = f_in(&f), z = f_in(&f);
    int kept[MAX_FORMULA_IN];
    float out[1];

    f_exp(&f, f_add(&f, x, y));
    f_out(&f, f_sub(&f, z, y));
    formula_trim(&f, kept);
    CHECK_INT(f.n_in, 2);
    CHECK_INT(kept[0], 1);
    CHECK_INT(kept[1], 2);
    CHECK_INT(f.n_terms, 3);
    formula_value(&f, (float[]){10, 14}, out);
    CHECK_NEAR(out[0], 4, 0);
}

/* --- gradients -------------------------------------------------------------------------------------------------------- */

/* Central difference of output o by input i, in float with a step that suits it. */
static double difference(const struct formula *f, const float *at, int i, int o)
{
    float x[MAX_FORMULA_IN], up[MAX_FORMULA_OUT], down[MAX_FORMULA_OUT];
    float h = 2e-3f * fmaxf(1, fabsf(at[i]));

    memcpy(x, at, sizeof(float) * f->n_in);
    x[i] = at[i] + h;
    formula_value(f, x, up);
    x[i] = at[i] - h;
    formula_value(f, x, down);
    return ((double)up[o] - (double)down[o]) / ((double)(at[i] + h) - (double)(at[i] - h));
}

static void check_gradient(const char *name, const struct formula *f, const float *at)
{
    struct formula g;
    bool need[MAX_FORMULA_IN], uses[MAX_FORMULA_IN];
    float in[MAX_FORMULA_IN] = {0}, y[MAX_FORMULA_OUT], got[MAX_FORMULA_OUT];

    memset(need, 1, sizeof(need));
    if (!formula_grad(f, need, &g, uses))
        fail_msg("%s: no gradient", name);
    formula_value(f, at, y);
    for (int i = 0; i < f->n_in; i++)
        in[i] = uses[i] ? at[i] : NAN; /* what is said not to be read must not matter */
    for (int o = 0; o < f->n_out; o++) {
        in[f->n_in + o] = uses[f->n_in + o] ? y[o] : NAN;
        in[f->n_in + f->n_out + o] = 0.5f + (float)o;
    }
    formula_value(&g, in, got);
    for (int i = 0; i < f->n_in; i++) {
        double want = 0;

        for (int o = 0; o < f->n_out; o++)
            want += (0.5 + o) * difference(f, at, i, o);
        if (!(fabs((double)got[i] - want) <= 2e-3 * fmax(1, fabs(want))))
            fail_msg("%s: d/dx%d at %g is %g, the difference says %g", name, i, (double)at[0], (double)got[i], want);
    }
}

TEST(every_code_has_the_gradient_that_differences_show)
{
    static const char *const names[] = {
#define X(name, n) #name,
        TERM_MAP(X)
#undef X
    };
    static const float points[][3] = {{0.7f, 1.3f, 0.4f}, {1.6f, 0.3f, 2.1f}, {0.26f, 2.2f, -0.8f}};

    for (int code = TERM_ADD; code < N_TERM_CODES; code++) {
        for (int p = 0; p < 3; p++) {
            struct formula f = {0};
            term in[3];

            for (int i = 0; i < term_operands[code]; i++)
                in[i] = f_in(&f);
            f_out(&f, f_term(&f, (enum term_code)code, in[0], in[1], in[2]));
            check_gradient(names[code], &f, points[p]);
        }
    }
}

TEST(gradients_at_negative_arguments_are_right_too)
{
    static const enum term_code codes[] = {TERM_ABS, TERM_TANH, TERM_SIGMOID, TERM_ERF, TERM_EXP, TERM_SIGN, TERM_FLOOR};

    for (size_t k = 0; k < sizeof(codes) / sizeof(codes[0]); k++) {
        struct formula f = {0};

        f_out(&f, f_term(&f, codes[k], f_in(&f), 0, 0));
        check_gradient("unary", &f, (float[]){-0.63f});
    }
}

TEST(gradients_of_several_outputs_and_uses_add_up)
{
    struct formula f = {0};
    term x = f_in(&f), y = f_in(&f), z = f_in(&f), xy = f_mul(&f, x, y);

    f_out(&f, f_add(&f, xy, f_exp(&f, f_neg(&f, z))));
    f_out(&f, f_div(&f, f_square(&f, xy), f_add(&f, f_softplus(&f, z), x)));
    f_out(&f, f_pow(&f, x, f_const(&f, 1.5)));
    check_gradient("mixture", &f, (float[]){0.8f, -1.2f, 0.5f});
}

static float slope_at(struct formula *f, float x)
{
    struct formula g;
    bool need[MAX_FORMULA_IN] = {true}, uses[MAX_FORMULA_IN];
    float y[1], got[1];

    CHECK(formula_grad(f, need, &g, uses));
    formula_value(f, &x, y);
    formula_value(&g, (float[]){x, y[0], 1}, got);
    return got[0];
}

TEST(kinks_have_the_derivative_that_keras_gives_them)
{
    struct formula relu = {0}, magnitude = {0}, softplus = {0};

    f_out(&relu, f_max(&relu, f_in(&relu), f_const(&relu, 0)));
    f_out(&magnitude, f_abs(&magnitude, f_in(&magnitude)));
    f_out(&softplus, f_softplus(&softplus, f_in(&softplus)));
    CHECK_NEAR(slope_at(&relu, 0), 0, 0);
    CHECK_NEAR(slope_at(&relu, 1e-30f), 1, 0);
    CHECK_NEAR(slope_at(&magnitude, 0), 0, 0);
    CHECK_NEAR(slope_at(&softplus, 0), 0.5, 1e-7);
    CHECK_NEAR(slope_at(&softplus, 90), 1, 1e-7);
    CHECK_NEAR(slope_at(&softplus, -3), 1 / (1 + exp(3)), 1e-6);
}

static unsigned uses_of(struct formula *f)
{
    struct formula g;
    bool need[MAX_FORMULA_IN] = {true}, uses[MAX_FORMULA_IN];
    unsigned bits = 0;

    CHECK(formula_grad(f, need, &g, uses));
    for (int i = 0; i < f->n_in + 2 * f->n_out; i++)
        bits |= (unsigned)uses[i] << i;
    return bits;
}

TEST(gradients_read_the_output_where_it_suffices)
{
    static const enum term_code by_output[] = {TERM_TANH, TERM_SIGMOID, TERM_EXP, TERM_SQRT};
    struct formula relu = {0}, linear = {0}, logarithm = {0};

    for (size_t i = 0; i < sizeof(by_output) / sizeof(by_output[0]); i++) {
        struct formula f = {0};

        f_out(&f, f_term(&f, by_output[i], f_in(&f), 0, 0));
        CHECK_INT(uses_of(&f), 6); /* y and dy, not x */
    }
    f_out(&relu, f_max(&relu, f_in(&relu), f_const(&relu, 0)));
    CHECK_INT(uses_of(&relu), 6);
    f_out(&linear, f_mul(&linear, f_in(&linear), f_const(&linear, 3)));
    CHECK_INT(uses_of(&linear), 4);
    f_out(&logarithm, f_log(&logarithm, f_in(&logarithm)));
    CHECK_INT(uses_of(&logarithm), 5);
}

TEST(only_the_wanted_gradients_are_made)
{
    struct formula f = {0}, g;
    term x = f_in(&f), y = f_in(&f);
    bool uses[MAX_FORMULA_IN];

    f_out(&f, f_mul(&f, x, f_exp(&f, y)));
    CHECK(formula_grad(&f, (bool[]){true, false}, &g, uses));
    CHECK_INT(g.n_out, 1);
    CHECK_INT(g.n_in, 4);
    CHECK(!uses[0] && uses[1] && !uses[2] && uses[3]);
}

TEST(an_input_without_influence_has_gradient_zero)
{
    struct formula f = {0}, g;
    term x = f_in(&f), y = f_in(&f);
    bool uses[MAX_FORMULA_IN];
    float got[2];

    f_out(&f, f_select(&f, f_lt(&f, x, y), y, f_const(&f, 1)));
    CHECK(formula_grad(&f, (bool[]){true, true}, &g, uses));
    formula_value(&g, (float[]){1, 2, 2, 5}, got);
    CHECK_NEAR(got[0], 0, 0);
    CHECK_NEAR(got[1], 5, 0);
}

TEST(a_gradient_that_is_masked_out_stays_zero_even_when_infinite)
{
    struct formula f = {0}, g;
    bool need[MAX_FORMULA_IN] = {true}, uses[MAX_FORMULA_IN];
    float got[1];

    f_out(&f, f_max(&f, f_in(&f), f_const(&f, 0)));
    CHECK(formula_grad(&f, need, &g, uses));
    formula_value(&g, (float[]){-1, 0, INFINITY}, got);
    CHECK_NEAR(got[0], 0, 0);
}

TEST(a_formula_too_wide_for_its_gradient_is_refused)
{
    struct formula f = {0}, g;
    bool need[MAX_FORMULA_IN] = {true}, uses[MAX_FORMULA_IN];
    term sum = f_in(&f);

    for (int i = 1; i < MAX_FORMULA_IN - 1; i++)
        sum = f_add(&f, sum, f_in(&f));
    f_out(&f, sum);
    CHECK(!formula_grad(&f, need, &g, uses));
}
