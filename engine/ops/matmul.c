/* Matrix products, alone or in batches, with a bias.
 *
 *   y = op(x) op(w) + bias
 *   dx = dy op(w)^T    dw = op(x)^T dy    dbias = sum of the rows of dy
 *
 * Factors of bfloat16 give bfloat16, except that gradients of weights are float32: the weights are.
 *
 * Products against one shared w are collapsed to two matrices when they are built, so that backends see one large product and
 * the gradient of w is one product too. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

/* Rows and columns of the last two axes after the transposition. */
static int64_t rows_after(const struct shape *s, bool transposed)
{
    return s->dim[s->rank - (transposed ? 1 : 2)];
}

static int64_t columns_after(const struct shape *s, bool transposed)
{
    return s->dim[s->rank - (transposed ? 2 : 1)];
}

static enum status matmul_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct matmul *how = n->attr;
    const struct shape *x = &in[0].shape, *w = &in[1].shape;
    bool tx = how->flags & MATMUL_TX, tw = how->flags & MATMUL_TW;
    struct shape y = *x;

    if (x->rank < 2 || w->rank < 2 || (w->rank > 2 && w->rank != x->rank))
        return no_fit(problem, "a matrix product needs matrices, or batches of equal rank, not %s and %s", shape_text(x).s,
                      shape_text(w).s);
    if (in[0].type != in[1].type || (in[0].type != F32 && in[0].type != BF16))
        return no_fit(problem, "a matrix product needs float32, or bfloat16 on both sides, not %s and %s",
                      dtype_name(in[0].type), dtype_name(in[1].type));
    if (!dims_agree(columns_after(x, tx), rows_after(w, tw)))
        return no_fit(problem, "the weights %s%s take %lld features, the input %s%s has %lld", shape_text(w).s,
                      tw ? " transposed" : "", (long long)rows_after(w, tw), shape_text(x).s, tx ? " transposed" : "",
                      (long long)columns_after(x, tx));
    for (int i = 0; i + 2 < w->rank; i++) {
        if (!dims_agree(x->dim[i], w->dim[i]))
            return no_fit(problem, "the leading axes of %s and %s are not the same", shape_text(x).s, shape_text(w).s);
        y.dim[i] = dim_of_both(x->dim[i], w->dim[i]);
    }
    y.dim[y.rank - 2] = rows_after(x, tx);
    y.dim[y.rank - 1] = columns_after(w, tw);
    if (n->n_in > 2) {
        const struct shape *bias = &in[2].shape;

        if (bias->rank != 1 || !dims_agree(bias->dim[0], y.dim[y.rank - 1]) || in[2].type != F32)
            return no_fit(problem, "the bias %s does not fit the product %s", shape_text(bias).s, shape_text(&y).s);
    }
    out->shape = y;
    out->type = how->flags & MATMUL_FLOAT ? F32 : in[0].type;
    return ST_OK;
}

static void matmul_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    unsigned flags = ((const struct matmul *)n->attr)->flags;
    bool tx = flags & MATMUL_TX, tw = flags & MATMUL_TW;
    value_id x = n->in[0], w = n->in[1], dy = emit_cast(b, dout[0], value_of(b, x)->type);
    int rank = shape_of(b, x).rank;
    bool shared = shape_of(b, w).rank < rank;

    if (need[0] && !tx) {
        din[0] = emit_matmul(b, dy, w, tw ? 0 : MATMUL_TW);
    } else if (need[0] && !shared) {
        din[0] = emit_matmul(b, w, dy, (tw ? MATMUL_TX : 0) | MATMUL_TW);
    } else if (need[0]) { /* the transpose of what an untransposed x would get */
        int axis[MAX_RANK];

        for (int i = 0; i < rank; i++)
            axis[i] = i < rank - 2 ? i : 2 * rank - 3 - i;
        din[0] = emit_transpose(b, emit_matmul(b, dy, w, tw ? 0 : MATMUL_TW), axis);
    }
    if (need[1]) {
        value_id dw = tw ? emit_matmul(b, dy, x, MATMUL_FLOAT | MATMUL_TX | (tx ? MATMUL_TW : 0))
                         : emit_matmul(b, x, dy, MATMUL_FLOAT | (tx ? 0 : MATMUL_TX));
        struct shape shape = shape_of(b, w);

        din[1] = emit_sum_to(b, dw, &shape);
    }
    if (n->n_in > 2 && need[2])
        din[2] = emit_reduce(b, dout[0], REDUCE_SUM, (1u << (shape_of(b, dy).rank - 1)) - 1, false);
}

static void matmul_reference(const struct kernel_call *c)
{
    if (reference_widened(c, matmul_reference))
        return;

    const struct matmul *how = c->node->attr;
    const struct shape *xs = &IN_VALUE(c, 0)->shape, *ws = &IN_VALUE(c, 1)->shape, *ys = &OUT_VALUE(c, 0)->shape;
    bool tx = how->flags & MATMUL_TX, tw = how->flags & MATMUL_TW;
    int64_t m = ys->dim[ys->rank - 2], n = ys->dim[ys->rank - 1], k = columns_after(xs, tx), batch = 1;
    const float *bias = c->node->n_in > 2 ? c->in[2] : NULL; // (n)

    for (int i = 0; i + 2 < ys->rank; i++)
        batch *= ys->dim[i];
    for (int64_t p = 0; p < batch; p++) {
        const float *x = (const float *)c->in[0] + p * m * k;                      // (m, k) or (k, m)
        const float *w = (const float *)c->in[1] + (ws->rank > 2 ? p * k * n : 0); // (k, n) or (n, k)
        float *y = (float *)c->out[0] + p * m * n;                                 // (m, n)

        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < n; j++) {
                double sum = bias ? bias[j] : 0;

                for (int64_t l = 0; l < k; l++)
                    sum += (double)x[tx ? l * m + i : i * k + l] * (double)w[tw ? j * k + l : l * n + j];
                y[i * n + j] = (float)sum;
            }
    }
}

static double matmul_flops(const struct node *n, const struct value *values)
{
    const struct matmul *how = n->attr;

    return 2.0 * (double)shape_count(&values[n->out[0]].shape) *
           (double)columns_after(&values[n->in[0]].shape, how->flags & MATMUL_TX);
}

value_id emit_matmul_bias(struct build *b, value_id x, value_id w, value_id bias, unsigned flags)
{
    struct shape xs = shape_of(b, x), ws = shape_of(b, w);
    struct matmul how = {flags};

    if (!x || !w)
        return 0;
    if (value_of(b, x)->type == BF16 || value_of(b, w)->type == BF16) {
        x = emit_cast(b, x, BF16);
        w = emit_cast(b, w, BF16);
    }
    if (ws.rank != 2 || (flags & MATMUL_TX) || xs.rank == 2 || xs.rank == 0)
        return emit(b, &op_matmul, &how, (value_id[]){x, w, bias}, bias ? 3 : 2, 1);

    /* x (..., k) as (rows, k); of several unknown leading axes only the product is unknown */
    int64_t k = xs.dim[xs.rank - 1], units = columns_after(&ws, flags & MATMUL_TW);
    struct shape leading = shape_without(&xs, xs.rank - 1), back = shape_with(&xs, xs.rank - 1, units);
    int64_t rows = shape_count(&leading);

    if (!dims_agree(k, rows_after(&ws, flags & MATMUL_TW)))
        return build_fail(b, ST_INVALID, "the weights %s%s take %lld features, the input %s has %lld", shape_text(&ws).s,
                          flags & MATMUL_TW ? " transposed" : "", (long long)rows_after(&ws, flags & MATMUL_TW),
                          shape_text(&xs).s, (long long)k);
    value_id flat = emit_reshape(b, x, &SHAPE(rows, k));
    value_id y = emit(b, &op_matmul, &how, (value_id[]){flat, w, bias}, bias ? 3 : 2, 1);

    return emit_reshape(b, y, &back);
}

value_id emit_matmul(struct build *b, value_id x, value_id w, unsigned flags)
{
    return emit_matmul_bias(b, x, w, 0, flags);
}

const struct op op_matmul = {
    .name = "matmul",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct matmul),
    .infer = matmul_infer,
    .grad = matmul_grad,
    .reference = matmul_reference,
    .flops = matmul_flops,
};
