/* Reductions over any axes, and broadcasting, which is the gradient of a sum.
 *
 *   d sum: dy stretched;  d mean: dy / n stretched;  d sum of squares: 2 x dy;
 *   d max: dy shared equally by the elements that are the maximum (as JAX and TensorFlow do).
 *
 * Each result is summed in row-major order of its elements, in double, so it does not depend on other results. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static struct shape reduced(const struct shape *s, unsigned axes, bool keepdims)
{
    struct shape ret = SCALAR;

    for (int i = 0; i < s->rank; i++)
        if (!(axes >> i & 1))
            ret.dim[ret.rank++] = s->dim[i];
        else if (keepdims)
            ret.dim[ret.rank++] = 1;
    return ret;
}

static enum status reduce_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct reduce *how = n->attr;

    if (how->axes >> in->shape.rank)
        return no_fit(problem, "a reduction names an axis that %s does not have", shape_text(&in->shape).s);
    if (how->kind == REDUCE_ARGMAX && __builtin_popcount(how->axes) != 1)
        return no_fit(problem, "the place of the maximum is asked along one axis, not along %d", __builtin_popcount(how->axes));
    if (how->kind == REDUCE_MAX || how->kind == REDUCE_ARGMAX)
        for (int i = 0; i < in->shape.rank; i++)
            if ((how->axes >> i & 1) && in->shape.dim[i] == 0)
                return no_fit(problem, "%s has no largest element along axis %d", shape_text(&in->shape).s, i);
    out->shape = reduced(&in->shape, how->axes, how->keepdims);
    out->type = how->kind == REDUCE_ARGMAX ? I32 : F32;
    return ST_OK;
}

/* Elements along the reduced axes; -1 if one of them is unknown. */
static int64_t reduced_count(const struct shape *s, unsigned axes)
{
    struct shape part = reduced(s, ~axes, false);

    return shape_count(&part);
}

static void reduce_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct reduce *how = n->attr;
    value_id x = n->in[0], d = dout[0];
    struct shape shape = shape_of(b, x), kept = reduced(&shape, how->axes, true);

    (void)need;
    if (how->kind == REDUCE_ARGMAX || !is_float(value_of(b, x)->type))
        return;
    if (how->kind == REDUCE_MAX) {
        struct formula f = {0};
        term s = f_in(&f), t = f_in(&f);

        f_out(&f, f_eq(&f, s, t));
        value_id is_max = emit_formula(b, &f, (value_id[]){x, emit_reshape(b, n->out[0], &kept)});
        value_id count = emit_reduce(b, is_max, REDUCE_SUM, how->axes, true);

        din[0] = emit_mul(b, is_max, emit_div(b, emit_reshape(b, d, &kept), count));
        return;
    }
    if (how->kind == REDUCE_MEAN)
        d = emit_scale(b, d, 1 / (double)reduced_count(&shape, how->axes));
    d = emit_reshape(b, d, &kept);
    if (how->kind == REDUCE_SUM_SQUARES)
        din[0] = emit_mul(b, emit_scale(b, x, 2), d);
    else
        din[0] = emit_expand(b, d, &shape);
}

static void reduce_reference(const struct kernel_call *c)
{
    const struct reduce *how = c->node->attr;
    const struct value *x = IN_VALUE(c, 0);
    struct shape kept = reduced(&x->shape, how->axes, false), inner = reduced(&x->shape, ~how->axes, false);
    int64_t own[MAX_RANK], outer_stride[MAX_RANK] = {0}, inner_stride[MAX_RANK] = {0}, at[MAX_RANK] = {0};
    int64_t n = shape_count(&kept), m = shape_count(&inner);

    strides_of(&x->shape, own);
    for (int i = 0, o = 0, r = 0; i < x->shape.rank; i++)
        if (how->axes >> i & 1)
            inner_stride[r++] = own[i];
        else
            outer_stride[o++] = own[i];
    for (int64_t i = 0; i < n; i++, advance(&kept, at)) {
        int64_t base = dot_strides(kept.rank, at, outer_stride), in_at[MAX_RANK] = {0}, best = 0;
        double sum = 0, largest = 0;

        for (int64_t k = 0; k < m; k++, advance(&inner, in_at)) {
            double v = element(c->in[0], x->type, base + dot_strides(inner.rank, in_at, inner_stride));

            sum += how->kind == REDUCE_SUM_SQUARES ? v * v : v;
            if (k == 0 || v > largest || (isnan(v) && !isnan(largest))) {
                largest = v;
                best = k;
            }
        }
        if (how->kind == REDUCE_ARGMAX)
            ((int32_t *)c->out[0])[i] = (int32_t)best;
        else
            ((float *)c->out[0])[i] = (float)(how->kind == REDUCE_MAX    ? largest
                                              : how->kind == REDUCE_MEAN ? sum / (double)m
                                                                         : sum);
    }
}

static double reduce_flops(const struct node *n, const struct value *values)
{
    return (double)shape_count(&values[n->in[0]].shape);
}

value_id emit_reduce(struct build *b, value_id x, enum reduce_kind kind, unsigned axes, bool keepdims)
{
    struct reduce how = {.kind = kind, .axes = axes, .keepdims = keepdims};

    if (!x)
        return 0;
    if (!axes && (kind == REDUCE_SUM || kind == REDUCE_MEAN || kind == REDUCE_MAX) && value_of(b, x)->type == F32)
        return x;
    return emit(b, &op_reduce, &how, &x, 1, 1);
}

value_id emit_reduce_all(struct build *b, value_id x, enum reduce_kind kind)
{
    return emit_reduce(b, x, kind, (1u << shape_of(b, x).rank) - 1, false);
}

value_id emit_reduce_last(struct build *b, value_id x, enum reduce_kind kind)
{
    int rank = shape_of(b, x).rank;

    return emit_reduce(b, x, kind, rank ? 1u << (rank - 1) : 0, false);
}

value_id emit_sum_to(struct build *b, value_id x, const struct shape *shape)
{
    struct shape from = shape_of(b, x);
    int missing = from.rank - shape->rank;
    unsigned axes = 0;

    if (!x || shape_equal(&from, shape))
        return x;
    if (missing < 0)
        return build_fail(b, ST_INVALID, "%s cannot be summed to %s", shape_text(&from).s, shape_text(shape).s);
    for (int i = 0; i < from.rank; i++)
        if (i < missing || (shape->dim[i - missing] == 1 && from.dim[i] != 1))
            axes |= 1u << i;
        else if (!dims_agree(from.dim[i], shape->dim[i - missing]))
            return build_fail(b, ST_INVALID, "%s cannot be summed to %s", shape_text(&from).s, shape_text(shape).s);
    return emit_reshape(b, emit_reduce(b, x, REDUCE_SUM, axes, false), shape);
}

/* --- expand ------------------------------------------------------------------------------------------------------------ */

static enum status expand_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct expand *how = n->attr;
    struct shape shape;

    if (!shape_broadcast(&in->shape, &how->shape, &shape) || shape.rank != how->shape.rank)
        return no_fit(problem, "%s does not stretch to %s", shape_text(&in->shape).s, shape_text(&how->shape).s);
    out->shape = how->shape;
    out->type = in->type;
    return ST_OK;
}

static void expand_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    struct shape shape = shape_of(b, n->in[0]);

    (void)need;
    din[0] = emit_sum_to(b, dout[0], &shape);
}

static void expand_reference(const struct kernel_call *c)
{
    const struct shape *to = &OUT_VALUE(c, 0)->shape;
    size_t size = dtype_bytes(OUT_VALUE(c, 0)->type);
    int64_t stride[MAX_RANK], at[MAX_RANK] = {0}, n = shape_count(to);

    strides_broadcast(&IN_VALUE(c, 0)->shape, to, stride);
    for (int64_t i = 0; i < n; i++, advance(to, at))
        memcpy((char *)c->out[0] + (size_t)i * size, (const char *)c->in[0] + (size_t)dot_strides(to->rank, at, stride) * size,
               size);
}

value_id emit_expand(struct build *b, value_id x, const struct shape *shape)
{
    struct shape from = shape_of(b, x);

    if (!x || shape_equal(&from, shape))
        return x;
    return emit(b, &op_expand, &(struct expand){*shape}, &x, 1, 1);
}

const struct op op_reduce = {
    .name = "reduce",
    .attr_size = sizeof(struct reduce),
    .infer = reduce_infer,
    .grad = reduce_grad,
    .reference = reduce_reference,
    .flops = reduce_flops,
};

const struct op op_expand = {
    .name = "expand",
    .attr_size = sizeof(struct expand),
    .infer = expand_infer,
    .grad = expand_grad,
    .reference = expand_reference,
};
