/* See cases.h. The functions first, one per op or family; then the table. */
#include "tests/ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/ops/all.h"
#include "tests/test.h"

#define GUARD 64

static const struct filling unit = {FILL_UNIFORM, -1, 1, {0}, 0};
static const struct filling distinct = {FILL_DISTINCT, 0, 0, {0}, 0};

/* --- feeding ----------------------------------------------------------------------------------------------------------- */

static value_id feed_at(struct trial *t, enum region at, enum dtype type, struct shape shape, struct filling how, bool smooth)
{
    value_id v = graph_leaf(t->graph, at, type, &shape);

    if (t->n_fed == MAX_FED)
        abort();
    t->fed[t->n_fed++] = (struct fed){v, how, smooth};
    return v;
}

static value_id feed(struct trial *t, struct shape shape)
{
    return feed_at(t, AT_INPUT, F32, shape, unit, true);
}

static value_id feed_with(struct trial *t, enum dtype type, struct shape shape, struct filling how)
{
    return feed_at(t, AT_INPUT, type, shape, how, false);
}

static value_id feed_index(struct trial *t, enum dtype type, struct shape shape, int64_t below)
{
    return feed_with(t, type, shape, (struct filling){FILL_WHOLE, 0, (double)below, {0}, 0});
}

static struct filling range(double low, double high)
{
    return (struct filling){FILL_UNIFORM, low, high, {0}, 0};
}

static void output(struct trial *t, value_id v)
{
    if (t->n_out == 8)
        abort();
    t->out[t->n_out++] = v;
}

static void counters(struct trial *t)
{
    t->b.seed = feed_at(t, AT_STATE, I64, SCALAR, range(5, 5), false);
    t->b.step = feed_at(t, AT_STATE, I64, SCALAR, range(7, 7), false);
}

/* --- products ---------------------------------------------------------------------------------------------------------- */

enum { ONE = 0, SHARED = 1, EACH = 2 }; /* batches: none; one w for all; one w each */

/* m, k, n, flags, batch, kind of batch, bias */
static void make_matmul(struct trial *t, const int64_t *p)
{
    int64_t m = p[0], k = p[1], n = p[2], batch = p[4];
    bool tx = p[3] & MATMUL_TX, tw = p[3] & MATMUL_TW;
    int64_t xr = tx ? k : m, xc = tx ? m : k, wr = tw ? n : k, wc = tw ? k : n;
    value_id x = feed(t, p[5] ? SHAPE(batch, xr, xc) : SHAPE(xr, xc));
    value_id w = feed(t, p[5] == EACH ? SHAPE(batch, wr, wc) : SHAPE(wr, wc));
    value_id bias = p[6] ? feed(t, SHAPE(n)) : 0;

    output(t, emit_matmul_bias(&t->b, x, w, bias, (unsigned)p[3]));
}

/* The same with factors rounded to bfloat16 first. */
static void make_matmul_bfloat(struct trial *t, const int64_t *p)
{
    int64_t m = p[0], k = p[1], n = p[2], batch = p[4];
    bool tx = p[3] & MATMUL_TX, tw = p[3] & MATMUL_TW;
    int64_t xr = tx ? k : m, xc = tx ? m : k;
    value_id x = emit_cast(&t->b, feed(t, p[5] ? SHAPE(batch, xr, xc) : SHAPE(xr, xc)), BF16);
    value_id w = feed(t, tw ? SHAPE(n, k) : SHAPE(k, n)), bias = p[6] ? feed(t, SHAPE(n)) : 0;

    output(t, emit_cast(&t->b, emit_matmul_bias(&t->b, x, w, bias, (unsigned)p[3]), F32));
}

static void make_matmul_vector(struct trial *t, const int64_t *p)
{
    output(t, emit_matmul(&t->b, feed(t, SHAPE(p[0])), feed(t, SHAPE(p[0], p[1])), 0));
}

/* n, h, w, c, kh, kw, f, sh, sw, dh, dw, groups, padding, bias */
static void make_conv(struct trial *t, const int64_t *p)
{
    struct conv how = {.stride = {p[7], p[8]}, .dilation = {p[9], p[10]}, .groups = p[11], .padding = (int)p[12]};
    value_id x = feed(t, SHAPE(p[0], p[1], p[2], p[3])), k = feed(t, SHAPE(p[4], p[5], p[3] / p[11], p[6]));

    output(t, emit_conv(&t->b, x, k, p[13] ? feed(t, SHAPE(p[6])) : 0, how));
}

static void make_conv_bfloat(struct trial *t, const int64_t *p)
{
    struct conv how = {.stride = {p[7], p[8]}, .dilation = {p[9], p[10]}, .groups = p[11], .padding = (int)p[12]};
    value_id x = emit_cast(&t->b, feed(t, SHAPE(p[0], p[1], p[2], p[3])), BF16);
    value_id k = feed(t, SHAPE(p[4], p[5], p[3] / p[11], p[6])), bias = p[13] ? feed(t, SHAPE(p[6])) : 0;

    output(t, emit_cast(&t->b, emit_conv(&t->b, x, k, bias, how), F32));
}

/* --- pooling, normalisation -------------------------------------------------------------------------------------------- */

/* kind, n, h, w, c, size h, size w, stride h, stride w, padding, inference */
static void make_pool(struct trial *t, const int64_t *p)
{
    struct pool how = {.kind = (int)p[0], .size = {p[5], p[6]}, .stride = {p[7], p[8]}, .padding = (int)p[9]};
    value_id x = feed_at(t, AT_INPUT, F32, SHAPE(p[1], p[2], p[3], p[4]), p[0] == POOL_MAX ? distinct : unit, true);

    t->b.training = !p[10];
    output(t, emit_pool(&t->b, x, how));
}

/* rows, channels, gamma, beta, rank 4, moments have gradients too */
static void make_batch_norm(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, p[4] ? SHAPE(p[0], 2, 3, p[1]) : SHAPE(p[0], p[1]));
    value_id gamma = p[2] ? feed(t, SHAPE(p[1])) : 0, beta = p[3] ? feed(t, SHAPE(p[1])) : 0;
    struct batch_norm_out o = emit_batch_norm(&t->b, x, gamma, beta, (struct batch_norm){0.1f});

    output(t, o.y);
    if (p[5]) {
        output(t, o.mean);
        output(t, o.variance);
    }
}

/* rows, channels, gamma, beta */
static void make_batch_norm_fixed(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[0], p[1])), gamma = p[2] ? feed(t, SHAPE(p[1])) : 0, beta = p[3] ? feed(t, SHAPE(p[1])) : 0;
    value_id mean = feed_with(t, F32, SHAPE(p[1]), unit), variance = feed_with(t, F32, SHAPE(p[1]), range(0.5, 2));

    output(t, emit_batch_norm_fixed(&t->b, x, gamma, beta, mean, variance, (struct batch_norm){1e-3f}));
}

/* --- softmax, cross-entropy -------------------------------------------------------------------------------------------- */

static value_id (*const row_functions[])(struct build *, value_id) = {emit_softmax, emit_log_softmax, emit_sparsemax};

/* function, rows, width; rows 0: one axis */
static void make_rows(struct trial *t, const int64_t *p)
{
    struct shape shape = p[1] ? SHAPE(p[1], p[2]) : SHAPE(p[2]);
    value_id x = feed_at(t, AT_INPUT, F32, shape, p[0] == 2 ? distinct : range(-3, 3), true);

    output(t, row_functions[p[0]](&t->b, x));
}

/* rows, classes, sparse, type of y, trailing axis of 1, probabilities have a gradient too */
static void make_cross_entropy(struct trial *t, const int64_t *p)
{
    value_id x = feed_at(t, AT_INPUT, F32, SHAPE(p[0], 3, p[1]), range(-3, 3), true), y, loss;

    if (p[2])
        y = feed_index(t, (enum dtype)p[3], p[4] ? SHAPE(p[0], 3, 1) : SHAPE(p[0], 3), p[1]);
    else
        y = p[3] == F32 ? feed_with(t, F32, SHAPE(p[0], 3, p[1]), range(0, 1))
                        : feed_index(t, (enum dtype)p[3], SHAPE(p[0], 3, p[1]), 2);
    loss = emit_cross_entropy(&t->b, x, y, p[2]);
    output(t, loss);
    if (p[5])
        output(t, build_out(&t->b, loss, 1));
}

/* --- reductions -------------------------------------------------------------------------------------------------------- */

/* kind, axes, keepdims, type, shape (3) */
static void make_reduce(struct trial *t, const int64_t *p)
{
    bool smooth = p[3] == F32 && p[0] != REDUCE_ARGMAX;
    struct filling how = p[3] != F32                                   ? (struct filling){FILL_WHOLE, 0, 2, {0}, 0}
                         : p[0] == REDUCE_MAX || p[0] == REDUCE_ARGMAX ? distinct
                                                                       : unit;
    value_id x = feed_at(t, AT_INPUT, (enum dtype)p[3], SHAPE(p[4], p[5], p[6]), how, smooth);
    value_id y = emit_reduce(&t->b, x, (enum reduce_kind)p[0], (unsigned)p[1], p[2]);

    if (smooth)
        output(t, y);
}

static void make_reduce_all(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[0], p[1]));

    output(t, emit_reduce_all(&t->b, x, REDUCE_MEAN));
    output(t, emit_reduce_last(&t->b, x, REDUCE_SUM));
}

static void make_expand(struct trial *t, const int64_t *p)
{
    output(t, emit_expand(&t->b, feed(t, SHAPE(p[0], 1, p[1])), &SHAPE(p[2], p[0], p[3], p[1])));
}

static void make_sum_to(struct trial *t, const int64_t *p)
{
    output(t, emit_sum_to(&t->b, feed(t, SHAPE(p[0], p[1], p[2])), &SHAPE(p[1], 1)));
}

/* --- pointwise --------------------------------------------------------------------------------------------------------- */

/* shapes of two inputs, three axes each: every operation with two operands, then a second output */
static void make_pointwise(struct trial *t, const int64_t *p)
{
    value_id x = feed_at(t, AT_INPUT, F32, SHAPE(p[0], p[1], p[2]), range(1, 2), true);
    value_id y = feed_at(t, AT_INPUT, F32, SHAPE(p[3], p[4], p[5]), range(0.25, 0.75), true), first;
    struct formula f = {0};
    term s = f_in(&f), u = f_in(&f);
    term a = f_div(&f, f_sub(&f, s, u), f_add(&f, s, u)), power = f_pow(&f, s, u);
    term choice = f_select(&f, f_lt(&f, u, s), f_max(&f, s, u), f_min(&f, s, u));

    f_out(&f, f_add(&f, f_mul(&f, a, power), choice));
    f_out(&f, f_sigmoid(&f, f_mix(&f, s, u, 0.25)));
    first = emit_formula(&t->b, &f, (value_id[]){x, y});
    output(t, first);
    output(t, build_out(&t->b, first, 1));
}

/* every operation with one operand, on n elements */
static void make_pointwise_unary(struct trial *t, const int64_t *p)
{
    static term (*const functions[])(struct formula *, term) = {f_neg,   f_abs,   f_sign,   f_sqrt,     f_exp,
                                                                f_log,   f_log1p, f_tanh,   f_sigmoid,  f_erf,
                                                                f_floor, f_round, f_finite, f_softplus, f_square};
    value_id x = feed_at(t, AT_INPUT, F32, SHAPE(p[0]), range(0.6, 0.9), true);

    for (size_t i = 0; i < COUNT(functions); i += 7) { /* with 8 outputs a formula has no gradient: 1 + 8 + 8 > 16 inputs */
        struct formula f = {0};
        term s = f_in(&f);
        value_id first;

        for (size_t k = i; k < COUNT(functions) && k < i + 7; k++)
            f_out(&f, functions[k](&f, s));
        first = emit_formula(&t->b, &f, &x);
        for (int k = 0; k < f.n_out; k++)
            if (t->n_out < 7)
                output(t, build_out(&t->b, first, k));
            else
                t->out[k] = emit_add(&t->b, t->out[k], build_out(&t->b, first, k));
    }
}

/* type of the second input, its axes: it is only read */
static void make_pointwise_types(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(3, 17)), y = feed_index(t, (enum dtype)p[0], p[1] ? SHAPE(3, 17) : SHAPE(1, 17), 2);

    output(t, emit_add(&t->b, emit_mul(&t->b, x, y), y));
}

/* inputs: more than a gradient node has outputs */
static void make_pointwise_wide(struct trial *t, const int64_t *p)
{
    value_id in[MAX_FORMULA_IN];
    struct formula f = {0};
    term sum = f_const(&f, 1);

    for (int i = 0; i < p[0]; i++) {
        in[i] = feed(t, SHAPE(p[1]));
        sum = f_mul(&f, sum, f_add(&f, f_in(&f), f_const(&f, 2)));
    }
    f_out(&f, f_log(&f, sum));
    output(t, emit_formula(&t->b, &f, in));
}

/* which activation, rows, width */
static void make_activation(struct trial *t, const int64_t *p)
{
    static const struct filling away = {FILL_UNIFORM, -4, 8, {-3, -2.5, -1, -0.5, 0, 0.5, 1, 2.5, 3, 6}, 10};
    struct filling how = p[0] == activation_find("sparsemax") ? distinct : away;

    output(t, emit_activation(&t->b, feed_at(t, AT_INPUT, F32, SHAPE(p[1], p[2]), how, true), (int)p[0]));
}

/* ok: 0 none, 1 holds, 2 does not; n; old values are inputs already */
static void make_update(struct trial *t, const int64_t *p)
{
    value_id w = feed_at(t, AT_WEIGHT, F32, SHAPE(p[1]), unit, false), v = feed_at(t, AT_SLOT, F32, SHAPE(p[1]), unit, false);
    value_id g = feed_with(t, F32, SHAPE(p[1]), unit), rate = feed_at(t, AT_STATE, F32, SCALAR, range(0.1, 0.1), false);
    struct formula f = {0};

    if (p[0])
        t->b.ok = feed_with(t, F32, SCALAR, range(p[0] == 1, p[0] == 1));
    if (p[2]) {
        term s = f_in(&f), u = f_in(&f), h = f_in(&f), r = f_in(&f);
        term next = f_mix(&f, u, h, 0.1);

        f_out(&f, f_sub(&f, s, f_mul(&f, r, next)));
        f_out(&f, next);
        emit_update(&t->b, &f, (value_id[]){w, v, g, rate}, (value_id[]){w, v});
    } else {
        term h = f_in(&f), r = f_in(&f);

        f_out(&f, f_mul(&f, h, r));
        emit_update(&t->b, &f, (value_id[]){g, rate}, &w);
    }
}

/* rows of the table, width, type, n indices, which step: 0 momentum, 1 Adam with slots of zero, 2 plain; as for updates */
static void make_update_rows(struct trial *t, const int64_t *p)
{
    struct shape whole = SHAPE(p[0] * p[1]);
    struct filling zero = range(0, 0);
    value_id w = feed_at(t, AT_WEIGHT, F32, whole, unit, false);
    value_id m = feed_at(t, AT_SLOT, F32, whole, p[4] ? zero : unit, false);
    value_id v = feed_at(t, AT_SLOT, F32, whole, p[4] ? zero : range(0.01, 1), false);
    value_id rate = feed_at(t, AT_STATE, F32, SCALAR, range(0.1, 0.1), false),
             dy = feed_with(t, F32, SHAPE(2, p[3], p[1]), unit);
    value_id index = feed_index(t, (enum dtype)p[2], SHAPE(2, p[3]), p[0] + 1); /* one outside */
    value_id sums = emit(&t->b, &op_scatter_rows, &(struct scatter_add){p[0]}, (value_id[]){dy, index}, 2, 2);
    struct formula f = {0};
    term s = f_in(&f), h = f_in(&f), r = f_in(&f);

    if (p[5])
        t->b.ok = feed_with(t, F32, SCALAR, range(p[5] == 1, p[5] == 1));
    t->b.by_rows = sums;
    t->b.where = build_out(&t->b, sums, 1);
    if (p[4] == 2) {
        f_out(&f, f_sub(&f, s, f_mul(&f, r, h)));
        emit_update(&t->b, &f, (value_id[]){w, sums, rate}, &w);
    } else {
        term mean = f_mix(&f, f_in(&f), h, 0.1), square = f_mix(&f, f_in(&f), f_square(&f, h), 0.001);
        term change = f_div(&f, f_mul(&f, mean, r), f_add(&f, f_sqrt(&f, square), f_const(&f, 1e-3)));

        f_out(&f, p[4] ? f_sub(&f, s, change) : f_add(&f, s, f_neg(&f, change)));
        f_out(&f, mean);
        f_out(&f, square);
        emit_update(&t->b, &f, (value_id[]){w, sums, rate, m, v}, (value_id[]){w, m, v});
    }
    t->b.by_rows = t->b.where = 0;
}

static void make_fill(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[0], p[1]));

    output(t, emit_mul(&t->b, x, emit_fill(&t->b, &SHAPE(p[0], p[1]), 2.5f)));
}

/* --- movement ---------------------------------------------------------------------------------------------------------- */

static void make_reshape(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[0], p[1], p[2]));

    output(t, emit_sigmoid(&t->b, emit_reshape(&t->b, x, &SHAPE(p[1], -1))));
}

/* shape (4), axes (4) */
static void make_transpose(struct trial *t, const int64_t *p)
{
    int axis[] = {(int)p[4], (int)p[5], (int)p[6], (int)p[7]};

    output(t, emit_transpose(&t->b, feed(t, SHAPE(p[0], p[1], p[2], p[3])), axis));
}

/* axis, outer, inner, lengths of three parts */
static void make_concat(struct trial *t, const int64_t *p)
{
    value_id x[3];

    for (int i = 0; i < 3; i++) {
        struct shape shape = SHAPE(p[1], p[1] + 1, p[2]);

        x[i] = feed(t, shape_with(&shape, (int)p[0], p[3 + i]));
    }
    output(t, emit_concat(&t->b, 3, x, (int)p[0]));
}

/* axis, begin, end, shape (3) */
static void make_slice(struct trial *t, const int64_t *p)
{
    output(t, emit_slice(&t->b, feed(t, SHAPE(p[3], p[4], p[5])), (int)p[0], p[1], p[2]));
}

/* shape (3), before (3), after (3) */
static void make_pad(struct trial *t, const int64_t *p)
{
    struct pad how = {.before = {p[3], p[4], p[5]}, .after = {p[6], p[7], p[8]}, .value = 0.5f};

    output(t, emit_pad(&t->b, feed(t, SHAPE(p[0], p[1], p[2])), how));
}

static void make_copy(struct trial *t, const int64_t *p)
{
    output(t, emit_copy(&t->b, feed(t, SHAPE(p[0]))));
}

/* ok: as for updates; n */
static void make_store(struct trial *t, const int64_t *p)
{
    value_id w = feed_at(t, AT_WEIGHT, F32, SHAPE(p[1]), unit, false);

    if (p[0])
        t->b.ok = feed_with(t, BOOL, SCALAR, range(p[0] == 1, p[0] == 1));
    emit_store(&t->b, w, feed_with(t, F32, SHAPE(p[1]), unit));
}

/* from, to, n */
static void make_cast(struct trial *t, const int64_t *p)
{
    struct filling how =
        p[0] == F32 && (p[1] == F16 || p[1] == F64) ? range(-100, 100) : (struct filling){FILL_WHOLE, 0, 200, {0}, 0};

    emit_cast(&t->b, feed_with(t, (enum dtype)p[0], SHAPE(p[2]), how), (enum dtype)p[1]);
}

/* rows, columns, rows and columns of the second operand; 1: the second is float32, and so is the sum */
static void make_bfloat(struct trial *t, const int64_t *p)
{
    value_id x = emit_cast(&t->b, feed(t, SHAPE(p[0], p[1])), BF16), y = feed(t, SHAPE(p[2], p[3]));
    int axis[2] = {1, 0};

    x = emit_relu(&t->b, x, 0.1, NAN, 0);
    y = emit_add(&t->b, x, p[4] ? y : emit_cast(&t->b, y, BF16));
    y = emit_transpose(&t->b, emit_concat(&t->b, 2, (value_id[]){y, emit_scale(&t->b, y, 3)}, 1), axis);
    output(t, emit_cast(&t->b, emit_slice(&t->b, emit_reverse(&t->b, y, 0), 0, 1, p[1] + 1), F32));
}

static void make_cast_grad(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[0]));

    output(t, emit_cast(&t->b, emit_cast(&t->b, x, F64), F32));
}

static void make_reverse(struct trial *t, const int64_t *p)
{
    output(t, emit_reverse(&t->b, feed(t, SHAPE(p[1], p[2], p[3])), (int)p[0]));
}

/* --- lookups, random, recurrent, state --------------------------------------------------------------------------------- */

/* rows of the table, features, type, n indices */
static void make_gather(struct trial *t, const int64_t *p)
{
    value_id table = feed(t, SHAPE(p[0], p[1]));

    output(t, emit_gather(&t->b, table, feed_index(t, (enum dtype)p[2], SHAPE(2, p[3]), p[0])));
}

static void make_pick(struct trial *t, const int64_t *p)
{
    output(t, emit_pick(&t->b, feed(t, SHAPE(p[0], p[1])), feed_index(t, (enum dtype)p[2], SHAPE(p[0]), p[1])));
}

static void make_one_hot(struct trial *t, const int64_t *p)
{
    emit_one_hot(&t->b, feed_index(t, (enum dtype)p[2], SHAPE(p[0]), p[1] + 2), p[1]);
}

/* rate in percent, rows, width, noise shared along the first axis */
static void make_dropout(struct trial *t, const int64_t *p)
{
    value_id x = feed(t, SHAPE(p[1], 3, p[2]));
    struct shape noise = SHAPE(p[1], 1, p[2]);

    t->b.training = true;
    counters(t);
    t->b.n_random = 3;
    output(t, emit_dropout(&t->b, x, (double)p[0] / 100, p[3] ? &noise : NULL));
}

/* batch, time, in, units, parts (1 bias, 2 states, 4 mask), reverse, zero output, activations, inference */
static void make_rnn(struct trial *t, const int64_t *p)
{
    struct rnn how = {.kind = RNN_LSTM,
                      .reverse = (int)p[5],
                      .zero_output_for_mask = (int)p[6],
                      .activation = activation_find(p[7] == 0   ? "tanh"
                                                    : p[7] == 1 ? "softsign"
                                                                : "gelu"),
                      .recurrent_activation = activation_find(p[7] == 0 ? "sigmoid" : "hard_sigmoid")};
    value_id x = feed(t, SHAPE(p[0], p[1], p[2])), w = feed(t, SHAPE(p[2], 4 * p[3])), u = feed(t, SHAPE(p[3], 4 * p[3]));
    value_id bias = p[4] & 1 ? feed(t, SHAPE(4 * p[3])) : 0;
    value_id h0 = p[4] & 2 ? feed(t, SHAPE(p[0], p[3])) : 0, c0 = p[4] & 2 ? feed(t, SHAPE(p[0], p[3])) : 0;
    value_id mask = p[4] & 4 ? feed_index(t, p[6] ? BOOL : F32, SHAPE(p[0], p[1]), 2) : 0;
    struct rnn_out o;

    t->b.training = !p[8];
    o = emit_rnn(&t->b, x, w, u, bias, h0, c0, mask, how);
    if (p[8])
        return;
    output(t, o.sequence);
    output(t, o.h);
    output(t, o.c);
}

/* only the last state has a gradient */
static void make_rnn_last(struct trial *t, const int64_t *p)
{
    make_rnn(t, p);
    t->out[0] = t->out[1];
    t->n_out = 1;
}

/* ok, n, type of x, kept as a vector */
static void make_accumulate(struct trial *t, const int64_t *p)
{
    value_id state = feed_at(t, AT_STATE, F64, p[3] ? SHAPE(p[1]) : SCALAR, unit, false);

    if (p[0])
        t->b.ok = feed_with(t, F32, SCALAR, range(p[0] == 1, p[0] == 1));
    emit_accumulate(&t->b, state, feed_with(t, (enum dtype)p[2], p[3] ? SHAPE(p[1]) : SCALAR, range(0, 9)));
}

static void make_step_next(struct trial *t, const int64_t *p)
{
    value_id step = feed_at(t, AT_STATE, I64, SCALAR, range(41, 41), false);

    if (p[0])
        t->b.ok = feed_with(t, F32, SCALAR, range(p[0] == 1, p[0] == 1));
    emit_step_next(&t->b, step);
}

/* --- trials ------------------------------------------------------------------------------------------------------------ */

static void add_loss(struct trial *t)
{
    for (int i = 0; i < t->n_out; i++) {
        struct shape shape = shape_of(&t->b, t->out[i]);
        value_id product;

        t->r[i] = feed_with(t, F32, shape, range(0.5, 1.5));
        product = emit_reduce_all(&t->b, emit_mul(&t->b, t->out[i], t->r[i]), REDUCE_SUM);
        t->loss = t->loss ? emit_add(&t->b, t->loss, product) : product;
    }
    for (int i = 0; t->loss && i < t->n_fed; i++)
        if (t->fed[i].smooth)
            t->wrt[t->n_wrt++] = t->fed[i].v;
    if (t->n_wrt)
        graph_grad(&t->b, t->loss, t->wrt, t->n_wrt, t->gradient);
}

struct trial *trial_new(const struct op_case *row)
{
    struct trial *t = must_alloc(sizeof(struct trial));

    t->row = row;
    t->graph = graph_new();
    t->b = build_make(t->graph);
    t->b.origin = row->name;
    row->make(t, row->p);
    t->n_forward = t->graph->n_nodes;
    add_loss(t);
    if (build_failed(&t->b))
        fail_msg("%s: %s: %s", row->name, t->b.problem.where, t->b.problem.detail);
    return t;
}

struct trial *trial_free(struct trial *t)
{
    if (t)
        graph_free(t->graph);
    return free_null(t);
}

static size_t rounded(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

void *guarded_new(size_t bytes)
{
    size_t size = GUARD + rounded(bytes) + GUARD;
    unsigned char *p = aligned_alloc(64, size);

    if (!p)
        abort();
    memset(p, 0xA5, size);
    memset(p + GUARD, 0xFF, bytes);
    return p + GUARD;
}

bool guarded_intact(const void *p, size_t bytes)
{
    const unsigned char *begin = (const unsigned char *)p - GUARD;

    for (size_t i = 0; i < GUARD + rounded(bytes) + GUARD; i++)
        if ((i < GUARD || i >= GUARD + bytes) && begin[i] != 0xA5)
            return false;
    return true;
}

void guarded_free(void *p)
{
    if (p)
        free((unsigned char *)p - GUARD);
}

struct memory *memory_new(const struct graph *g)
{
    struct memory *m = must_alloc(sizeof(struct memory));

    m->graph = g;
    m->at = must_alloc(sizeof(void *) * g->n_values);
    for (uint32_t v = 1; v < g->n_values; v++)
        m->at[v] = g->values[v].view_of ? m->at[g->values[v].view_of] : guarded_new(value_bytes(&g->values[v]));
    return m;
}

struct memory *memory_free(struct memory *m)
{
    if (!m)
        return NULL;
    for (uint32_t v = 1; v < m->graph->n_values; v++)
        if (!m->graph->values[v].view_of)
            guarded_free(m->at[v]);
    free_null(m->at);
    return free_null(m);
}

bool memory_intact(const struct memory *m)
{
    for (uint32_t v = 1; v < m->graph->n_values; v++)
        if (!guarded_intact(m->at[v], value_bytes(&m->graph->values[v])))
            return false;
    return true;
}

static double drawn(const struct filling *how, uint64_t key, uint64_t i, uint64_t n)
{
    double u = ((double)philox(key, 1, i).w[0] + 0.5) * 0x1p-32, x;

    if (how->kind == FILL_DISTINCT) /* i times a number without a factor in common with n is a permutation */
        return 0.125 * ((double)(i * 7919 % (n % 7919 ? n : n + 1)) - (double)n / 2);
    if (how->kind == FILL_WHOLE)
        return floor(how->low + u * (how->high - how->low));
    x = how->low + u * (how->high - how->low);
    for (int k = 0; k < how->n_kinks; k++)
        if (fabs(x - how->kinks[k]) < 0.1)
            x = how->kinks[k] + (x < how->kinks[k] ? -0.1 : 0.1);
    return x;
}

static void put(void *p, enum dtype type, uint64_t i, double x)
{
    switch (type) {
    case F32:
        ((float *)p)[i] = (float)x;
        break;
    case F64:
        ((double *)p)[i] = x;
        break;
    case I64:
        ((int64_t *)p)[i] = (int64_t)x;
        break;
    case I32:
        ((int32_t *)p)[i] = (int32_t)x;
        break;
    case BOOL:
        ((uint8_t *)p)[i] = x != 0;
        break;
    case U8:
        ((uint8_t *)p)[i] = (uint8_t)x;
        break;
    default: /* halves are fed as small whole numbers: exact powers of two times 0 or 1 */
        ((uint16_t *)p)[i] = x == 0 ? 0 : type == F16 ? 0x3c00 : 0x3f80;
        break;
    }
}

void trial_feed(const struct trial *t, struct memory *m)
{
    for (int i = 0; i < t->n_fed; i++) {
        const struct value *v = &t->graph->values[t->fed[i].v];
        uint64_t n = (uint64_t)shape_count(&v->shape), key = text_hash(t->row->name) + (uint64_t)i;

        for (uint64_t k = 0; k < n; k++)
            put(m->at[t->fed[i].v], v->type, k, drawn(&t->fed[i].how, key, k, n));
    }
}

void trial_run(const struct trial *t, struct memory *m, uint32_t begin, uint32_t end)
{
    for (uint32_t i = begin; i < end; i++) {
        const struct node *n = &t->graph->nodes[i];
        void *in[64], *out[64];

        if (n->op->flags & OP_VIEW)
            continue;
        for (int k = 0; k < n->n_in; k++)
            in[k] = n->in[k] ? m->at[n->in[k]] : NULL;
        for (int k = 0; k < n->n_out; k++)
            out[k] = m->at[n->out[k]];
        n->op->reference(&(struct kernel_call){.node = n, .values = t->graph->values, .in = in, .out = out});
    }
}

/* --- the table --------------------------------------------------------------------------------------------------------- */

#define ACTIVATION_CASES(i)                                       \
    {"activation " #i, make_activation, {i, 3, 18}, 0},           \
    {                                                             \
        "activation " #i " long", make_activation, {i, 17, 34}, 0 \
    }

const struct op_case op_cases[] = {
    {"matmul 1x1x1", make_matmul, {1, 1, 1, 0, 0, ONE, 0}, 0},
    {"matmul 3x17x257", make_matmul, {3, 17, 257, 0, 0, ONE, 1}, 0},
    {"matmul 17x257x3", make_matmul, {17, 257, 3, 0, 0, ONE, 0}, 0},
    {"matmul 257x3x17", make_matmul, {257, 3, 17, 0, 0, ONE, 1}, 0},
    {"matmul 1x257x17", make_matmul, {1, 257, 17, 0, 0, ONE, 1}, 0},
    {"matmul 17x257x1", make_matmul, {17, 257, 1, 0, 0, ONE, 0}, 0},
    {"matmul x transposed", make_matmul, {17, 5, 33, MATMUL_TX, 0, ONE, 1}, 0},
    {"matmul w transposed", make_matmul, {17, 5, 33, MATMUL_TW, 0, ONE, 1}, 0},
    {"matmul both transposed", make_matmul, {17, 5, 33, MATMUL_TX | MATMUL_TW, 0, ONE, 0}, 0},
    {"matmul one row", make_matmul, {1, 300, 530, 0, 0, ONE, 1}, SKIP_DIFFERENCES},
    {"matmul two rows", make_matmul, {2, 259, 71, 0, 0, ONE, 0}, 0},
    {"matmul five rows", make_matmul, {5, 513, 97, 0, 0, ONE, 1}, SKIP_DIFFERENCES},
    {"matmul eight rows", make_matmul, {8, 40, 112, 0, 0, ONE, 0}, 0},
    {"matmul 31 rows", make_matmul, {31, 33, 115, 0, 0, ONE, 1}, 0},
    {"matmul one row, w transposed", make_matmul, {1, 65, 33, MATMUL_TW, 0, ONE, 0}, 0},
    {"matmul rows of batches", make_matmul, {5, 7, 9, 0, 3, SHARED, 1}, 0},
    {"matmul shared w, x transposed", make_matmul, {5, 7, 9, MATMUL_TX, 3, SHARED, 1}, 0},
    {"matmul shared w, both transposed", make_matmul, {5, 7, 9, MATMUL_TX | MATMUL_TW, 3, SHARED, 0}, 0},
    {"matmul batches", make_matmul, {5, 7, 9, 0, 3, EACH, 0}, 0},
    {"matmul batches, bias", make_matmul, {3, 1, 17, 0, 2, EACH, 1}, 0},
    {"matmul batches, x transposed", make_matmul, {5, 7, 9, MATMUL_TX, 3, EACH, 0}, 0},
    {"matmul batches, w transposed", make_matmul, {5, 7, 9, MATMUL_TW, 3, EACH, 0}, 0},
    {"matmul batches, both transposed", make_matmul, {5, 7, 9, MATMUL_TX | MATMUL_TW, 3, EACH, 0}, 0},
    {"matmul bfloat16", make_matmul_bfloat, {17, 33, 5, 0, 0, ONE, 1}, SKIP_DIFFERENCES},
    {"matmul bfloat16, transposed", make_matmul_bfloat, {17, 33, 5, MATMUL_TX | MATMUL_TW, 0, ONE, 0}, SKIP_DIFFERENCES},
    {"matmul bfloat16, rows of batches", make_matmul_bfloat, {5, 7, 9, 0, 3, SHARED, 1}, SKIP_DIFFERENCES},
    {"matmul vector", make_matmul_vector, {17, 5}, 0},

    /* n, h, w, c, kh, kw, f, sh, sw, dh, dw, groups, padding, bias */
    {"conv 1x1", make_conv, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, PADDING_VALID, 0}, 0},
    {"conv 3x3 valid", make_conv, {2, 9, 7, 3, 3, 3, 5, 1, 1, 1, 1, 1, PADDING_VALID, 1}, 0},
    {"conv 3x3 same", make_conv, {2, 9, 7, 3, 3, 3, 5, 1, 1, 1, 1, 1, PADDING_SAME, 1}, 0},
    {"conv even kernel same", make_conv, {2, 8, 7, 3, 2, 4, 5, 1, 1, 1, 1, 1, PADDING_SAME, 1}, 0},
    {"conv strided valid", make_conv, {2, 10, 11, 2, 3, 2, 3, 2, 3, 1, 1, 1, PADDING_VALID, 1}, 0},
    {"conv strided same", make_conv, {3, 10, 9, 2, 3, 3, 17, 2, 2, 1, 1, 1, PADDING_SAME, 0}, 0},
    {"conv stride over kernel", make_conv, {1, 11, 11, 2, 2, 1, 3, 3, 4, 1, 1, 1, PADDING_VALID, 0}, 0},
    {"conv dilated valid", make_conv, {2, 11, 9, 3, 3, 3, 4, 1, 1, 2, 3, 1, PADDING_VALID, 1}, 0},
    {"conv dilated same", make_conv, {2, 11, 9, 3, 3, 3, 4, 1, 1, 2, 3, 1, PADDING_SAME, 1}, 0},
    {"conv groups", make_conv, {2, 7, 6, 6, 3, 3, 4, 1, 1, 1, 1, 2, PADDING_SAME, 1}, 0},
    {"conv depthwise", make_conv, {2, 7, 6, 5, 3, 3, 5, 1, 1, 1, 1, 5, PADDING_SAME, 1}, 0},
    {"conv depthwise, multiplier", make_conv, {1, 7, 6, 3, 3, 3, 6, 2, 1, 1, 1, 3, PADDING_VALID, 0}, 0},
    {"conv one row", make_conv, {2, 1, 17, 3, 1, 5, 4, 1, 1, 1, 1, 1, PADDING_SAME, 1}, 0},
    {"conv larger kernel same", make_conv, {1, 3, 3, 2, 5, 5, 2, 1, 1, 1, 1, 1, PADDING_SAME, 0}, 0},
    {"conv many channels", make_conv, {1, 5, 5, 33, 3, 3, 32, 1, 1, 1, 1, 1, PADDING_SAME, 1}, 0},
    {"conv 1x1 kernel", make_conv, {2, 5, 3, 17, 1, 1, 9, 1, 1, 1, 1, 1, PADDING_VALID, 1}, 0},

    /* kind, n, h, w, c, size, stride, padding, inference */
    {"pool max", make_pool, {POOL_MAX, 2, 6, 8, 3, 2, 2, 2, 2, PADDING_VALID, 0}, 0},
    {"pool max, odd", make_pool, {POOL_MAX, 1, 7, 5, 17, 2, 3, 2, 3, PADDING_VALID, 0}, 0},
    {"pool max, overlapping", make_pool, {POOL_MAX, 2, 7, 5, 3, 3, 3, 1, 2, PADDING_SAME, 0}, 0},
    {"pool max, same", make_pool, {POOL_MAX, 2, 7, 5, 1, 2, 2, 2, 2, PADDING_SAME, 0}, 0},
    {"pool max, large window", make_pool, {POOL_MAX, 1, 18, 17, 2, 17, 17, 1, 1, PADDING_VALID, 0}, 0},
    {"pool max, inference", make_pool, {POOL_MAX, 2, 6, 8, 3, 2, 2, 2, 2, PADDING_VALID, 1}, 0},
    {"pool average", make_pool, {POOL_AVERAGE, 2, 6, 8, 3, 2, 2, 2, 2, PADDING_VALID, 0}, 0},
    {"pool average, same", make_pool, {POOL_AVERAGE, 2, 7, 5, 17, 3, 3, 2, 2, PADDING_SAME, 0}, 0},
    {"pool average, overlapping", make_pool, {POOL_AVERAGE, 1, 7, 9, 33, 3, 2, 1, 1, PADDING_SAME, 0}, 0},

    {"batch_norm", make_batch_norm, {17, 3, 1, 1, 0, 0}, 0},
    {"batch_norm 257 rows", make_batch_norm, {257, 17, 1, 1, 0, 0}, 0},
    {"batch_norm images, no gamma", make_batch_norm, {3, 33, 0, 1, 1, 0}, 0},
    {"batch_norm no beta", make_batch_norm, {5, 1, 1, 0, 0, 0}, 0},
    {"batch_norm bare, moments", make_batch_norm, {5, 4, 0, 0, 0, 1}, 0},
    {"batch_norm fixed", make_batch_norm_fixed, {17, 33, 1, 1}, 0},
    {"batch_norm fixed, bare", make_batch_norm_fixed, {3, 5, 0, 0}, 0},

    {"softmax one axis", make_rows, {0, 0, 17}, 0},
    {"softmax 1", make_rows, {0, 3, 1}, 0},
    {"softmax 17x10", make_rows, {0, 17, 10}, 0},
    {"softmax 3x257", make_rows, {0, 3, 257}, 0},
    {"log_softmax 17x10", make_rows, {1, 17, 10}, 0},
    {"log_softmax 3x257", make_rows, {1, 3, 257}, 0},
    {"sparsemax 5x17", make_rows, {2, 5, 17}, 0},
    {"sparsemax 3x257", make_rows, {2, 3, 257}, 0},
    {"cross_entropy", make_cross_entropy, {6, 10, 0, F32, 0, 0}, 0},
    {"cross_entropy wide", make_cross_entropy, {1, 257, 0, F32, 0, 0}, 0},
    {"cross_entropy bytes", make_cross_entropy, {2, 5, 0, U8, 0, 0}, 0},
    {"cross_entropy probabilities", make_cross_entropy, {2, 5, 0, F32, 0, 1}, 0},
    {"cross_entropy sparse", make_cross_entropy, {6, 10, 1, I64, 0, 0}, 0},
    {"cross_entropy sparse bytes", make_cross_entropy, {6, 17, 1, U8, 1, 0}, 0},
    {"cross_entropy sparse floats", make_cross_entropy, {1, 3, 1, F32, 1, 0}, 0},
    {"cross_entropy sparse int32", make_cross_entropy, {1, 3, 1, I32, 0, 1}, 0},

    /* kind, axes, keepdims, type, shape */
    {"reduce sum all", make_reduce, {REDUCE_SUM, 7, 0, F32, 3, 5, 17}, 0},
    {"reduce sum rows", make_reduce, {REDUCE_SUM, 3, 0, F32, 3, 17, 33}, 0},
    {"reduce sum long rows", make_reduce, {REDUCE_SUM, 3, 0, F32, 257, 3, 17}, 0},
    {"reduce sum last", make_reduce, {REDUCE_SUM, 4, 0, F32, 3, 5, 257}, 0},
    {"reduce sum middle", make_reduce, {REDUCE_SUM, 2, 1, F32, 3, 17, 5}, 0},
    {"reduce sum outer and last", make_reduce, {REDUCE_SUM, 5, 1, F32, 3, 17, 5}, 0},
    {"reduce sum of bytes", make_reduce, {REDUCE_SUM, 4, 0, U8, 3, 5, 17}, 0},
    {"reduce sum of truths", make_reduce, {REDUCE_SUM, 7, 0, BOOL, 3, 5, 17}, 0},
    {"reduce sum of nothing", make_reduce, {REDUCE_SUM, 0, 0, BOOL, 3, 5, 17}, 0},
    {"reduce mean all", make_reduce, {REDUCE_MEAN, 7, 0, F32, 3, 5, 17}, 0},
    {"reduce mean last", make_reduce, {REDUCE_MEAN, 4, 1, F32, 17, 3, 5}, 0},
    {"reduce mean middle", make_reduce, {REDUCE_MEAN, 2, 0, F32, 2, 49, 17}, 0},
    {"reduce max last", make_reduce, {REDUCE_MAX, 4, 0, F32, 3, 5, 17}, 0},
    {"reduce max middle", make_reduce, {REDUCE_MAX, 2, 0, F32, 2, 17, 5}, 0},
    {"reduce max all", make_reduce, {REDUCE_MAX, 7, 0, F32, 2, 17, 5}, 0},
    {"reduce squares all", make_reduce, {REDUCE_SUM_SQUARES, 7, 0, F32, 3, 5, 257}, 0},
    {"reduce squares last", make_reduce, {REDUCE_SUM_SQUARES, 4, 1, F32, 3, 5, 17}, 0},
    {"reduce argmax last", make_reduce, {REDUCE_ARGMAX, 4, 0, F32, 3, 5, 17}, 0},
    {"reduce argmax first", make_reduce, {REDUCE_ARGMAX, 1, 1, F32, 17, 3, 5}, 0},
    {"reduce to mean and last", make_reduce_all, {3, 17}, 0},
    {"expand", make_expand, {3, 17, 2, 5}, 0},
    {"sum_to", make_sum_to, {2, 3, 17}, 0},

    {"pointwise equal shapes", make_pointwise, {3, 17, 5, 3, 17, 5}, 0},
    {"pointwise one element", make_pointwise, {1, 1, 1, 1, 1, 1}, 0},
    {"pointwise long", make_pointwise, {1, 3, 1031, 1, 3, 1031}, 0},
    {"pointwise row", make_pointwise, {3, 5, 17, 1, 1, 17}, 0},
    {"pointwise column", make_pointwise, {3, 5, 17, 3, 5, 1}, 0},
    {"pointwise scalar", make_pointwise, {3, 5, 257, 1, 1, 1}, 0},
    {"pointwise middle", make_pointwise, {3, 5, 17, 3, 1, 17}, 0},
    {"pointwise outer product", make_pointwise, {3, 1, 17, 1, 5, 1}, 0},
    {"pointwise unary", make_pointwise_unary, {17}, 0},
    {"pointwise unary long", make_pointwise_unary, {257}, 0},
    {"pointwise int64", make_pointwise_types, {I64, 1}, 0},
    {"pointwise int64 row", make_pointwise_types, {I64, 0}, 0},
    {"pointwise int32", make_pointwise_types, {I32, 1}, 0},
    {"pointwise bytes", make_pointwise_types, {U8, 0}, 0},
    {"pointwise truths", make_pointwise_types, {BOOL, 1}, 0},
    {"pointwise doubles", make_pointwise_types, {F64, 1}, 0},
    {"pointwise halves", make_pointwise_types, {F16, 1}, 0},
    {"pointwise bfloat16", make_pointwise_types, {BF16, 0}, 0},
    {"pointwise many inputs", make_pointwise_wide, {11, 17}, 0},
    {"fill", make_fill, {3, 17}, 0},
    {"pointwise_update", make_update, {0, 257, 1}, 0},
    {"pointwise_update one element", make_update, {0, 1, 1}, 0},
    {"pointwise_update ok", make_update, {1, 17, 1}, 0},
    {"pointwise_update not ok", make_update, {2, 17, 1}, 0},
    {"pointwise_update not ok, new leaf", make_update, {2, 17, 0}, 0},

    {"reshape", make_reshape, {3, 5, 4}, 0},
    {"transpose last two", make_transpose, {2, 3, 17, 33, 0, 1, 3, 2}, 0},
    {"transpose channels last", make_transpose, {2, 3, 5, 7, 0, 2, 3, 1}, 0},
    {"transpose channels first", make_transpose, {2, 5, 7, 3, 0, 3, 1, 2}, 0},
    {"transpose reversed", make_transpose, {2, 3, 5, 17, 3, 2, 1, 0}, 0},
    {"transpose batch and time", make_transpose, {3, 5, 1, 17, 1, 0, 2, 3}, 0},
    {"concat first", make_concat, {0, 2, 5, 1, 3, 2}, 0},
    {"concat middle", make_concat, {1, 2, 5, 1, 3, 2}, 0},
    {"concat last", make_concat, {2, 3, 5, 1, 17, 2}, 0},
    {"slice first", make_slice, {0, 1, 3, 5, 3, 7}, 0},
    {"slice middle", make_slice, {1, 0, 2, 2, 5, 7}, 0},
    {"slice last", make_slice, {2, 3, 17, 3, 5, 17}, 0},
    {"pad edges", make_pad, {3, 5, 4, 0, 1, 0, 0, 2, 0}, 0},
    {"pad everywhere", make_pad, {2, 3, 17, 1, 0, 3, 2, 1, 0}, 0},
    {"copy", make_copy, {257}, 0},
    {"store", make_store, {0, 17}, 0},
    {"store ok", make_store, {1, 17}, 0},
    {"store not ok", make_store, {2, 17}, 0},
    {"cast bytes to float", make_cast, {U8, F32, 257}, 0},
    {"cast int64 to float", make_cast, {I64, F32, 17}, 0},
    {"cast int32 to float", make_cast, {I32, F32, 17}, 0},
    {"cast truths to float", make_cast, {BOOL, F32, 17}, 0},
    {"cast float to truths", make_cast, {F32, BOOL, 17}, 0},
    {"cast float to bytes", make_cast, {F32, U8, 17}, 0},
    {"cast float to int32", make_cast, {F32, I32, 17}, 0},
    {"cast float to int64", make_cast, {F32, I64, 17}, 0},
    {"cast float to double", make_cast, {F32, F64, 17}, 0},
    {"cast double to float", make_cast, {F64, F32, 17}, 0},
    {"cast float to half", make_cast, {F32, F16, 257}, 0},
    {"cast half to float", make_cast, {F16, F32, 17}, 0},
    {"cast float to bfloat16", make_cast, {F32, BF16, 257}, 0},
    {"cast bfloat16 to float", make_cast, {BF16, F32, 257}, 0},
    {"bfloat16 formulas", make_bfloat, {5, 17, 5, 17, 0}, SKIP_DIFFERENCES},
    {"bfloat16 formulas, row", make_bfloat, {5, 17, 1, 17, 0}, SKIP_DIFFERENCES},
    {"bfloat16 formulas, float operand", make_bfloat, {3, 257, 3, 257, 1}, SKIP_DIFFERENCES},
    {"large bfloat16 formulas", make_bfloat, {131, 257, 131, 257, 0}, SKIP_DIFFERENCES},
    {"cast int64 to int32", make_cast, {I64, I32, 17}, 0},
    {"cast there and back", make_cast_grad, {17}, 0},
    {"reverse time", make_reverse, {1, 3, 5, 17}, 0},
    {"reverse last", make_reverse, {2, 3, 5, 17}, 0},
    {"reverse first", make_reverse, {0, 3, 1, 1}, 0},

    {"gather int64", make_gather, {257, 17, I64, 33}, 0},
    {"gather floats", make_gather, {5, 3, F32, 17}, 0},
    {"gather bytes, one feature", make_gather, {5, 1, U8, 17}, 0},
    {"gather int32", make_gather, {3, 33, I32, 257}, 0},
    {"update_rows", make_update_rows, {100, 17, I64, 15, 0, 0}, 0},
    {"update_rows from floats, ok", make_update_rows, {33, 5, F32, 40, 1, 1}, 0},
    {"update_rows not ok", make_update_rows, {33, 5, U8, 3, 1, 2}, 0},
    {"update_rows one feature", make_update_rows, {257, 1, I32, 9, 1, 0}, 0},
    {"update_rows plain", make_update_rows, {64, 32, I32, 5, 2, 1}, 0},
    {"pick int64", make_pick, {17, 10, I64}, 0},
    {"pick floats", make_pick, {3, 257, F32}, 0},
    {"one_hot int64", make_one_hot, {17, 10, I64}, 0},
    {"one_hot bytes", make_one_hot, {3, 5, U8}, 0},
    {"one_hot floats", make_one_hot, {3, 5, F32}, 0},
    {"dropout", make_dropout, {20, 17, 33, 0}, 0},
    {"dropout half, one element", make_dropout, {50, 1, 1, 0}, 0},
    {"dropout shared", make_dropout, {50, 3, 17, 1}, 0},
    {"dropout all", make_dropout, {100, 3, 5, 0}, 0},

    /* batch, time, in, units, parts, reverse, zero output, activations, inference */
    {"rnn_seq", make_rnn, {3, 5, 7, 4, 1, 0, 0, 0, 0}, 0},
    {"rnn_seq one of each", make_rnn, {1, 1, 1, 1, 0, 0, 0, 0, 0}, 0},
    {"rnn_seq states", make_rnn, {2, 3, 5, 17, 3, 0, 0, 0, 0}, 0},
    {"rnn_seq reversed", make_rnn, {3, 4, 5, 3, 3, 1, 0, 0, 0}, 0},
    {"rnn_seq masked", make_rnn, {5, 6, 3, 4, 7, 0, 0, 0, 0}, 0},
    {"rnn_seq masked, reversed", make_rnn, {5, 6, 3, 4, 5, 1, 0, 0, 0}, 0},
    {"rnn_seq masked, zero output", make_rnn, {5, 6, 3, 4, 7, 0, 1, 0, 0}, 0},
    {"rnn_seq softsign", make_rnn, {3, 4, 3, 4, 7, 0, 0, 1, 0}, 2e-3},
    {"rnn_seq gelu", make_rnn, {3, 4, 3, 4, 7, 0, 0, 2, 0}, 2e-3},
    {"rnn_seq last state", make_rnn_last, {17, 3, 5, 33, 1, 0, 0, 0, 0}, 0},
    {"rnn_seq inference", make_rnn, {3, 5, 7, 4, 7, 0, 0, 0, 1}, 0},
    {"accumulate", make_accumulate, {0, 17, F32, 1}, 0},
    {"accumulate scalar", make_accumulate, {1, 1, F32, 0}, 0},
    {"accumulate not ok", make_accumulate, {2, 17, F32, 1}, 0},
    {"accumulate int32", make_accumulate, {0, 3, I32, 1}, 0},
    {"step_next", make_step_next, {0}, 0},
    {"step_next ok", make_step_next, {1}, 0},
    {"step_next not ok", make_step_next, {2}, 0},

    /* enough work for a team of threads */
    {"large matmul", make_matmul, {129, 65, 130, 0, 0, ONE, 1}, SKIP_DIFFERENCES},
    {"large matmul, batches", make_matmul, {33, 65, 34, 0, 5, EACH, 0}, SKIP_DIFFERENCES},
    {"large conv", make_conv, {5, 17, 19, 9, 3, 3, 17, 1, 1, 1, 1, 1, PADDING_SAME, 1}, SKIP_DIFFERENCES},
    {"large conv, 16 channels", make_conv, {17, 13, 12, 16, 3, 3, 32, 1, 1, 1, 1, 1, PADDING_SAME, 1}, SKIP_DIFFERENCES},
    {"large conv, 32 channels", make_conv, {19, 14, 14, 32, 3, 3, 16, 1, 1, 1, 1, 1, PADDING_VALID, 0}, SKIP_DIFFERENCES},
    {"large conv, groups", make_conv, {5, 17, 19, 8, 3, 3, 16, 2, 1, 1, 1, 4, PADDING_SAME, 1}, SKIP_DIFFERENCES},
    {"large conv, bfloat16", make_conv_bfloat, {17, 13, 12, 16, 3, 3, 32, 1, 1, 1, 1, 1, PADDING_SAME, 1}, SKIP_DIFFERENCES},
    {"conv bfloat16, stride and groups",
     make_conv_bfloat,
     {2, 9, 8, 4, 3, 2, 6, 2, 1, 1, 1, 2, PADDING_SAME, 1},
     SKIP_DIFFERENCES},
    {"large matmul, bfloat16", make_matmul_bfloat, {129, 65, 130, 0, 0, ONE, 1}, SKIP_DIFFERENCES},
    {"large pool", make_pool, {POOL_MAX, 7, 33, 35, 17, 3, 3, 2, 2, PADDING_SAME, 0}, SKIP_DIFFERENCES},
    {"large pool, average", make_pool, {POOL_AVERAGE, 7, 33, 35, 17, 2, 2, 2, 2, PADDING_VALID, 0}, SKIP_DIFFERENCES},
    {"large batch_norm", make_batch_norm, {4099, 17, 1, 1, 0, 0}, SKIP_DIFFERENCES},
    {"large batch_norm, many channels", make_batch_norm, {131, 515, 1, 1, 0, 0}, SKIP_DIFFERENCES},
    {"large softmax", make_rows, {0, 515, 130}, SKIP_DIFFERENCES},
    {"large log_softmax", make_rows, {1, 4099, 10}, SKIP_DIFFERENCES},
    {"large cross_entropy", make_cross_entropy, {1031, 10, 0, F32, 0, 0}, SKIP_DIFFERENCES},
    {"large cross_entropy, sparse", make_cross_entropy, {515, 33, 1, I64, 0, 0}, SKIP_DIFFERENCES},
    {"large reduce all", make_reduce, {REDUCE_SUM, 7, 0, F32, 5, 131, 257}, SKIP_DIFFERENCES},
    {"large reduce rows", make_reduce, {REDUCE_SUM, 3, 0, F32, 5, 1031, 33}, SKIP_DIFFERENCES},
    {"large reduce last", make_reduce, {REDUCE_MEAN, 4, 0, F32, 5, 131, 257}, SKIP_DIFFERENCES},
    {"large reduce middle", make_reduce, {REDUCE_MAX, 2, 0, F32, 17, 131, 65}, SKIP_DIFFERENCES},
    {"large reduce squares", make_reduce, {REDUCE_SUM_SQUARES, 7, 0, F32, 5, 131, 257}, SKIP_DIFFERENCES},
    {"large reduce argmax", make_reduce, {REDUCE_ARGMAX, 4, 0, F32, 5, 1031, 10}, SKIP_DIFFERENCES},
    {"large pointwise", make_pointwise, {3, 131, 257, 3, 131, 257}, SKIP_DIFFERENCES},
    {"large pointwise, row", make_pointwise, {3, 131, 257, 1, 1, 257}, SKIP_DIFFERENCES},
    {"large pointwise, column", make_pointwise, {3, 1031, 17, 3, 1031, 1}, SKIP_DIFFERENCES},
    {"large pointwise, scalar", make_pointwise, {1, 257, 257, 1, 1, 1}, SKIP_DIFFERENCES},
    {"large pointwise_update", make_update, {1, 70001, 1}, SKIP_DIFFERENCES},
    {"large transpose", make_transpose, {5, 17, 19, 33, 0, 3, 1, 2}, SKIP_DIFFERENCES},
    {"large concat", make_concat, {2, 131, 0, 17, 33, 1}, SKIP_DIFFERENCES},
    {"large slice", make_slice, {2, 3, 257, 3, 131, 260}, SKIP_DIFFERENCES},
    {"large pad", make_pad, {3, 131, 129, 1, 0, 3, 0, 2, 1}, SKIP_DIFFERENCES},
    {"large cast", make_cast, {U8, F32, 70001}, SKIP_DIFFERENCES},
    {"large update_rows", make_update_rows, {1031, 65, I64, 130, 1, 1}, SKIP_DIFFERENCES},
    {"large update_rows, momentum", make_update_rows, {517, 256, I32, 130, 0, 1}, SKIP_DIFFERENCES},
    {"large update_rows, plain", make_update_rows, {517, 256, I32, 130, 2, 1}, SKIP_DIFFERENCES},
    {"large gather", make_gather, {257, 65, I64, 515}, SKIP_DIFFERENCES},
    {"large dropout", make_dropout, {20, 515, 33, 0}, SKIP_DIFFERENCES},
    {"large dropout, shared", make_dropout, {20, 515, 33, 1}, SKIP_DIFFERENCES},
    {"large rnn_seq", make_rnn, {33, 7, 17, 65, 3, 0, 0, 0, 0}, SKIP_DIFFERENCES},
    {"large rnn_seq, masked", make_rnn, {33, 7, 17, 65, 7, 1, 0, 0, 0}, SKIP_DIFFERENCES},
    {"large accumulate", make_accumulate, {0, 70001, F32, 1}, SKIP_DIFFERENCES},

    ACTIVATION_CASES(1),
    ACTIVATION_CASES(2),
    ACTIVATION_CASES(3),
    ACTIVATION_CASES(4),
    ACTIVATION_CASES(5),
    ACTIVATION_CASES(6),
    ACTIVATION_CASES(7),
    ACTIVATION_CASES(8),
    ACTIVATION_CASES(9),
    ACTIVATION_CASES(10),
    ACTIVATION_CASES(11),
    ACTIVATION_CASES(12),
    ACTIVATION_CASES(13),
    ACTIVATION_CASES(14),
    ACTIVATION_CASES(15),
    ACTIVATION_CASES(16),
    ACTIVATION_CASES(17),
    ACTIVATION_CASES(18),
    ACTIVATION_CASES(19),
    ACTIVATION_CASES(20),
    ACTIVATION_CASES(21),
    ACTIVATION_CASES(22),
    ACTIVATION_CASES(23),
    ACTIVATION_CASES(24),
    ACTIVATION_CASES(25),
    ACTIVATION_CASES(26),
    ACTIVATION_CASES(27),
    ACTIVATION_CASES(28),
    ACTIVATION_CASES(29),
    ACTIVATION_CASES(30),
    ACTIVATION_CASES(31),
    ACTIVATION_CASES(32),
    ACTIVATION_CASES(33),
};

const int n_op_cases = (int)COUNT(op_cases);
