/* Pooling of images, NHWC: the largest element or the mean of each window.
 *
 * Windows may hang over the edge where padding is "same"; only elements that exist take part. While training the maximum keeps
 * the place of its element, so that its gradient reads one byte per window and neither x nor y. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static enum dtype place_type(const struct pool *how)
{
    return how->size[0] * how->size[1] > 256 ? I32 : U8;
}

static int64_t output_size(int64_t n, const struct pool *how, int axis)
{
    return n == -1 ? -1 : (n + how->pad[axis][0] + how->pad[axis][1] - how->size[axis]) / how->stride[axis] + 1;
}

static enum status pool_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct pool *how = n->attr;
    const struct shape *x = &in->shape;

    if (x->rank != 4)
        return no_fit(problem, "pooling needs images (batch, height, width, channels), not %s", shape_text(x).s);
    if (in->type != F32)
        return no_fit(problem, "pooling needs float32, not %s", dtype_name(in->type));
    for (int i = 0; i < n->n_out; i++) {
        out[i].shape = SHAPE(x->dim[0], output_size(x->dim[1], how, 0), output_size(x->dim[2], how, 1), x->dim[3]);
        out[i].type = i ? place_type(how) : F32;
    }
    return ST_OK;
}

/* First row or column of window i, and the part of the window that exists: elements [begin, end). */
static int64_t window(const struct pool *how, int axis, int64_t i, int64_t n, int64_t *begin, int64_t *end)
{
    int64_t first = i * how->stride[axis] - how->pad[axis][0];

    *begin = first < 0 ? -first : 0;
    *end = first + how->size[axis] > n ? n - first : how->size[axis];
    return first;
}

static void pool_reference(const struct kernel_call *c)
{
    const struct pool *how = c->node->attr;
    const struct shape *xs = &IN_VALUE(c, 0)->shape, *ys = &OUT_VALUE(c, 0)->shape;
    int64_t h = xs->dim[1], w = xs->dim[2], channels = xs->dim[3], o = 0;

    for (int64_t n = 0; n < xs->dim[0]; n++)
        for (int64_t i = 0; i < ys->dim[1]; i++)
            for (int64_t j = 0; j < ys->dim[2]; j++)
                for (int64_t k = 0; k < channels; k++, o++) {
                    int64_t p0, p1, q0, q1, best = -1;
                    int64_t row = window(how, 0, i, h, &p0, &p1), column = window(how, 1, j, w, &q0, &q1);
                    double sum = 0;
                    float largest = 0;

                    for (int64_t p = p0; p < p1; p++)
                        for (int64_t q = q0; q < q1; q++) {
                            float x = ((const float *)c->in[0])[((n * h + row + p) * w + column + q) * channels + k];

                            sum += x;
                            if (best < 0 || x > largest || (isnan(x) && !isnan(largest))) {
                                largest = x;
                                best = p * how->size[1] + q;
                            }
                        }
                    ((float *)c->out[0])[o] = how->kind == POOL_MAX ? largest : (float)(sum / (double)((p1 - p0) * (q1 - q0)));
                    if (c->node->n_out > 1)
                        element_put(c->out[1], OUT_VALUE(c, 1)->type, o, (double)best);
                }
}

static enum status pool_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct pool_grad *how = n->attr;

    (void)in, (void)problem;
    out->shape = how->shape;
    out->type = F32;
    return ST_OK;
}

static void pool_dx_reference(const struct kernel_call *c)
{
    const struct pool *how = &((const struct pool_grad *)c->node->attr)->how;
    const struct shape *xs = &OUT_VALUE(c, 0)->shape, *ys = &IN_VALUE(c, 0)->shape;
    int64_t h = xs->dim[1], w = xs->dim[2], channels = xs->dim[3], o = 0;
    float *dx = c->out[0];

    memset(dx, 0, value_bytes(OUT_VALUE(c, 0)));
    for (int64_t n = 0; n < xs->dim[0]; n++)
        for (int64_t i = 0; i < ys->dim[1]; i++)
            for (int64_t j = 0; j < ys->dim[2]; j++)
                for (int64_t k = 0; k < channels; k++, o++) {
                    int64_t p0, p1, q0, q1;
                    int64_t row = window(how, 0, i, h, &p0, &p1), column = window(how, 1, j, w, &q0, &q1);
                    float d = ((const float *)c->in[0])[o];

                    if (how->kind == POOL_MAX) {
                        int64_t best = (int64_t)element(c->in[1], IN_VALUE(c, 1)->type, o);

                        p0 = best / how->size[1];
                        q0 = best % how->size[1];
                        p1 = p0 + 1;
                        q1 = q0 + 1;
                    } else {
                        d /= (float)((p1 - p0) * (q1 - q0));
                    }
                    for (int64_t p = p0; p < p1; p++)
                        for (int64_t q = q0; q < q1; q++)
                            dx[((n * h + row + p) * w + column + q) * channels + k] += d;
                }
}

static void pool_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    struct pool_grad how = {.how = *(const struct pool *)n->attr, .shape = shape_of(b, n->in[0])};
    value_id place = n->n_out > 1 ? n->out[1] : 0;
    bool is_max = how.how.kind == POOL_MAX;

    (void)need;
    if (is_max && !place) /* built for inference: find the places now */
        place = build_out(b, emit(b, &op_pool, n->attr, n->in, 1, 2), 1);
    if (dout[0] && (place || !is_max))
        din[0] = emit(b, &op_pool_dx, &how, (value_id[]){dout[0], place}, is_max ? 2 : 1, 1);
}

static double pool_flops(const struct node *n, const struct value *values)
{
    const struct pool *how = n->attr;

    return (double)shape_count(&values[n->out[0]].shape) * (double)(how->size[0] * how->size[1]);
}

value_id emit_pool(struct build *b, value_id x, struct pool how)
{
    struct shape xs = shape_of(b, x);
    int64_t out;
    bool fits = true;

    if (!x)
        return 0;
    for (int axis = 0; axis < 2; axis++)
        if (how.size[axis] < 1 || how.stride[axis] < 1 || how.size[axis] > INT32_MAX)
            return build_fail(b, ST_INVALID, "a pooling window %s with strides %s must have sizes of at least 1",
                              shape_text(&SHAPE(how.size[0], how.size[1])).s,
                              shape_text(&SHAPE(how.stride[0], how.stride[1])).s);
    for (int axis = 0; axis < 2 && xs.rank == 4; axis++)
        fits &= window_geometry(xs.dim[1 + axis], how.size[axis], how.stride[axis], 1, how.padding, &out, how.pad[axis]);
    if (!fits)
        return build_fail(b, ST_INVALID, "the window %s is larger than the input %s",
                          shape_text(&SHAPE(how.size[0], how.size[1])).s, shape_text(&SHAPE(xs.dim[1], xs.dim[2])).s);
    return emit(b, &op_pool, &how, &x, 1, how.kind == POOL_MAX && b->training ? 2 : 1);
}

const struct op op_pool = {
    .name = "pool",
    .attr_size = sizeof(struct pool),
    .infer = pool_infer,
    .grad = pool_grad,
    .reference = pool_reference,
    .flops = pool_flops,
};

const struct op op_pool_dx = {
    .name = "pool_dx",
    .attr_size = sizeof(struct pool_grad),
    .infer = pool_dx_infer,
    .reference = pool_dx_reference,
};
