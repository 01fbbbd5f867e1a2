/* Dropout. The mask is never stored: an element's number follows from (seed, stream, step, element), so the gradient is the
 * same op on dy and draws the same mask again. Srivastava et al. 2014, JMLR 15; scaled while training ("inverted"), as Keras
 * does. */
#include "engine/ops/ops.h"

#include "engine/base/philox.h"
#include "engine/ops/all.h"
#include "engine/ops/element.h"

static enum status dropout_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct dropout *how = n->attr;
    bool fits = how->noise.rank == in[0].shape.rank;

    for (int i = 0; fits && i < how->noise.rank; i++)
        fits = how->noise.dim[i] == 1 || dims_agree(how->noise.dim[i], in[0].shape.dim[i]);
    if (!fits)
        return no_fit(problem, "the noise shape %s has neither 1 nor the size of the input %s on some axis",
                      shape_text(&how->noise).s, shape_text(&in[0].shape).s);
    if (in[0].type != F32 || in[1].type != I64 || in[2].type != I64)
        return no_fit(problem, "dropout needs float32 and two int64 counters, not %s, %s and %s", dtype_name(in[0].type),
                      dtype_name(in[1].type), dtype_name(in[2].type));
    out->shape = in[0].shape;
    out->type = F32;
    return ST_OK;
}

static void dropout_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    if (need[0])
        din[0] = emit(b, &op_dropout, n->attr, (value_id[]){dout[0], n->in[1], n->in[2]}, 3, 1);
}

static void dropout_reference(const struct kernel_call *c)
{
    const struct dropout *how = c->node->attr;
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    struct shape noise = *s;
    uint64_t key = dropout_key((uint64_t) * (const int64_t *)c->in[1], how->stream);
    uint64_t step = (uint64_t) * (const int64_t *)c->in[2];
    const float *x = c->in[0];
    float *y = c->out[0], scale = 1 / (1 - how->rate);
    int64_t stride[MAX_RANK], at[MAX_RANK] = {0}, n = shape_count(s);

    for (int i = 0; i < s->rank; i++)
        noise.dim[i] = how->noise.dim[i] == 1 ? 1 : s->dim[i];
    strides_broadcast(&noise, s, stride);
    for (int64_t i = 0; i < n; i++, advance(s, at)) {
        uint64_t element = (uint64_t)dot_strides(s->rank, at, stride);
        float u = philox_unit(philox(key, step, element / 4).w[element % 4]);

        y[i] = u >= how->rate ? x[i] * scale : 0;
    }
}

value_id emit_dropout(struct build *b, value_id x, double rate, const struct shape *noise)
{
    struct dropout how = {.rate = (float)rate};

    if (!x || !b->training || rate == 0)
        return x;
    if (!(rate > 0 && rate <= 1))
        return build_fail(b, ST_INVALID, "a dropout rate of %g is not between 0 and 1", rate);
    if (!b->seed || !b->step)
        return build_fail(b, ST_INTERNAL, "dropout has no seed and step to draw from");
    how.noise = noise ? *noise : shape_of(b, x);
    how.stream = b->n_random++;
    return emit(b, &op_dropout, &how, (value_id[]){x, b->seed, b->step}, 3, 1);
}

const struct op op_dropout = {
    .name = "dropout",
    .flags = OP_IN_PLACE | OP_RANDOM,
    .attr_size = sizeof(struct dropout),
    .infer = dropout_infer,
    .grad = dropout_grad,
    .reference = dropout_reference,
};
