/* Activations of Keras 1 and 3 by name: nearly all are formulas, so their gradients and kernels are those of "pointwise".
 *
 * Formulas are Keras 3's (keras/src/activations, ops/nn); where Keras 1 has another one of the same name it has a name of its
 * own here: keras1_hard_sigmoid. Branches that must not be computed beyond their side, since inf times 0 would be NaN in the
 * gradient, have their argument held there: exp(min(x, 0)). min(0, x) and not min(x, 0), since at 0 the derivative flows to
 * the second. */
#include "engine/ops/ops.h"

#include <math.h>
#include <string.h>

struct activation {
    term (*formula)(struct formula *f, term x); /* NULL: not pointwise */
    value_id (*whole)(struct build *b, value_id x);
};

static term of(struct formula *f, double x)
{
    return f_const(f, x);
}

static term linear(struct formula *f, term x)
{
    (void)f;
    return x;
}

/* x > 0: x; else a (exp x - 1). Clevert et al. 2015, arXiv:1511.07289 */
static term elu_with(struct formula *f, term x, double a)
{
    term negative = f_mul(f, of(f, a), f_sub(f, f_exp(f, f_min(f, of(f, 0), x)), of(f, 1)));

    return f_select(f, f_lt(f, of(f, 0), x), x, negative);
}

static term elu(struct formula *f, term x)
{
    return elu_with(f, x, 1);
}

/* scale and alpha of Klambauer et al. 2017, arXiv:1706.02515 */
static term selu(struct formula *f, term x)
{
    return f_mul(f, of(f, 1.0507009873554805), elu_with(f, x, 1.6732632423543772));
}

/* max(x, 0) + alpha (exp(min(x, 0) / alpha) - 1) with alpha 1. Barron 2017, arXiv:1704.07483 */
static term celu(struct formula *f, term x)
{
    return elu_with(f, x, 1);
}

static term softsign(struct formula *f, term x)
{
    return f_div(f, x, f_add(f, of(f, 1), f_abs(f, x)));
}

static term relu(struct formula *f, term x)
{
    return f_max(f, x, of(f, 0));
}

static term relu6(struct formula *f, term x)
{
    return f_clip(f, x, 0, 6);
}

static term leaky_relu(struct formula *f, term x)
{
    return f_select(f, f_lt(f, x, of(f, 0)), f_mul(f, of(f, 0.2), x), x);
}

static term hard_sigmoid(struct formula *f, term x)
{
    return f_clip(f, f_add(f, f_mul(f, x, of(f, 1.0 / 6)), of(f, 0.5)), 0, 1);
}

static term keras1_hard_sigmoid(struct formula *f, term x)
{
    return f_clip(f, f_add(f, f_mul(f, x, of(f, 0.2)), of(f, 0.5)), 0, 1);
}

static term silu(struct formula *f, term x)
{
    return f_mul(f, x, f_sigmoid(f, x));
}

static term hard_silu(struct formula *f, term x)
{
    return f_mul(f, x, hard_sigmoid(f, x));
}

/* x Phi(x). Hendrycks & Gimpel 2016, arXiv:1606.08415 */
static term gelu(struct formula *f, term x)
{
    term cdf2 = f_add(f, of(f, 1), f_erf(f, f_mul(f, x, of(f, M_SQRT1_2))));

    return f_mul(f, f_mul(f, of(f, 0.5), x), cdf2);
}

/* the same paper's approximation: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) */
static term gelu_tanh(struct formula *f, term x)
{
    term cube = f_mul(f, f_square(f, x), x);
    term inner = f_mul(f, of(f, sqrt(2 / M_PI)), f_add(f, x, f_mul(f, of(f, 0.044715), cube)));

    return f_mul(f, f_mul(f, of(f, 0.5), x), f_add(f, of(f, 1), f_tanh(f, inner)));
}

static term mish(struct formula *f, term x)
{
    return f_mul(f, x, f_tanh(f, f_softplus(f, x)));
}

static term log_sigmoid(struct formula *f, term x)
{
    return f_neg(f, f_softplus(f, f_neg(f, x)));
}

static term hard_tanh(struct formula *f, term x)
{
    return f_clip(f, x, -1, 1);
}

static term hard_shrink(struct formula *f, term x)
{
    return f_select(f, f_lt(f, of(f, 0.5), f_abs(f, x)), x, of(f, 0));
}

static term soft_shrink(struct formula *f, term x)
{
    term below = f_select(f, f_lt(f, x, of(f, -0.5)), f_add(f, x, of(f, 0.5)), of(f, 0));

    return f_select(f, f_lt(f, of(f, 0.5), x), f_sub(f, x, of(f, 0.5)), below);
}

static term tanh_shrink(struct formula *f, term x)
{
    return f_sub(f, x, f_tanh(f, x));
}

/* x > threshold: x; else a value. Keras gives neither a default; by its name alone both are 0. */
static term threshold(struct formula *f, term x)
{
    return f_select(f, f_lt(f, of(f, 0), x), x, of(f, 0));
}

/* (x + sqrt(x^2 + b)) / 2 with b 4. Barron 2021, arXiv:2112.11687 */
static term squareplus(struct formula *f, term x)
{
    term root = f_sqrt(f, f_add(f, f_square(f, x), of(f, 4)));

    return f_mul(f, f_add(f, x, root), of(f, 0.5));
}

/* x <= -1: 0; x >= 1: x; between (x + 1)^2 / 4 */
static term sparse_plus(struct formula *f, term x)
{
    term middle = f_mul(f, f_square(f, f_add(f, x, of(f, 1))), of(f, 0.25));
    term high = f_select(f, f_lt(f, x, of(f, 1)), middle, x);

    return f_select(f, f_le(f, x, of(f, -1)), of(f, 0), high);
}

static term sparse_sigmoid(struct formula *f, term x)
{
    return f_clip(f, f_mul(f, f_add(f, x, of(f, 1)), of(f, 0.5)), 0, 1);
}

/* first half of the last axis times sigmoid of the second. Dauphin et al. 2016, arXiv:1612.08083 */
static value_id glu(struct build *b, value_id x)
{
    struct shape shape = shape_of(b, x);
    int64_t width = last_dim(b, x);

    if (!x)
        return 0;
    if (shape.rank < 1 || width < 0 || width % 2 != 0)
        return build_fail(b, ST_INVALID, "glu halves the last axis, which must be known and even; the input is %s",
                          shape_text(&shape).s);
    return emit_mul(b, emit_slice(b, x, -1, 0, width / 2), emit_sigmoid(b, emit_slice(b, x, -1, width / 2, width)));
}

/* name, formula, function of whole values */
#define ACTIVATION_MAP(X)                               \
    X("linear", linear, NULL)                           \
    X("softmax", NULL, emit_softmax)                    \
    X("elu", elu, NULL)                                 \
    X("selu", selu, NULL)                               \
    X("softplus", f_softplus, NULL)                     \
    X("softsign", softsign, NULL)                       \
    X("relu", relu, NULL)                               \
    X("relu6", relu6, NULL)                             \
    X("tanh", f_tanh, NULL)                             \
    X("sigmoid", f_sigmoid, NULL)                       \
    X("hard_sigmoid", hard_sigmoid, NULL)               \
    X("keras1_hard_sigmoid", keras1_hard_sigmoid, NULL) \
    X("exponential", f_exp, NULL)                       \
    X("silu", silu, NULL)                               \
    X("swish", silu, NULL)                              \
    X("gelu", gelu, NULL)                               \
    X("gelu_tanh", gelu_tanh, NULL)                     \
    X("leaky_relu", leaky_relu, NULL)                   \
    X("mish", mish, NULL)                               \
    X("celu", celu, NULL)                               \
    X("glu", NULL, glu)                                 \
    X("log_softmax", NULL, emit_log_softmax)            \
    X("log_sigmoid", log_sigmoid, NULL)                 \
    X("hard_silu", hard_silu, NULL)                     \
    X("hard_swish", hard_silu, NULL)                    \
    X("hard_tanh", hard_tanh, NULL)                     \
    X("hard_shrink", hard_shrink, NULL)                 \
    X("soft_shrink", soft_shrink, NULL)                 \
    X("tanh_shrink", tanh_shrink, NULL)                 \
    X("threshold", threshold, NULL)                     \
    X("squareplus", squareplus, NULL)                   \
    X("sparse_plus", sparse_plus, NULL)                 \
    X("sparse_sigmoid", sparse_sigmoid, NULL)           \
    X("sparsemax", NULL, emit_sparsemax)

static const struct activation activations[] = {
#define X(name, formula, whole) {formula, whole},
    ACTIVATION_MAP(X)
#undef X
};

value_id emit_activation(struct build *b, value_id x, int which)
{
    struct formula f = {0};
    term y;

    if (which <= 0 || !x)
        return x;
    if (!activation_term(&f, which, f_in(&f), &y))
        return activations[which].whole(b, x);
    f_out(&f, y);
    return emit_formula(b, &f, &x);
}

int activation_find(const char *name)
{
    for (int i = 0; activation_names[i]; i++)
        if (strcmp(activation_names[i], name) == 0)
            return i;
    return -1;
}

bool activation_term(struct formula *f, int which, term x, term *ret)
{
    const struct activation *a = &activations[which < 0 ? 0 : which];

    if (!a->formula)
        return false;
    *ret = a->formula(f, x);
    return true;
}

/* x >= max_value: max_value; threshold < x < max_value: x; else slope (x - threshold). */
value_id emit_relu(struct build *b, value_id x, double slope, double max_value, double threshold_value)
{
    struct formula f = {0};
    term t = f_in(&f), y;

    if (slope == 0 && threshold_value == 0) {
        y = f_max(&f, t, of(&f, 0)); /* its gradient needs y alone */
    } else {
        term above = f_lt(&f, of(&f, threshold_value), t);

        y = f_select(&f, above, t, f_mul(&f, of(&f, slope), f_sub(&f, t, of(&f, threshold_value))));
    }
    if (!isnan(max_value))
        y = f_select(&f, f_le(&f, of(&f, max_value), t), of(&f, max_value), y);
    f_out(&f, y);
    return emit_formula(b, &f, &x);
}

const char *const activation_names[] = {
#define X(name, formula, whole) name,
    ACTIVATION_MAP(X)
#undef X
        NULL,
};
