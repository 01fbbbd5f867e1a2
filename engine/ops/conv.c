/* Two-dimensional convolution (cross-correlation), NHWC, kernels (height, width, channels / groups, filters).
 *
 *   y[n,i,j,f]  = bias[f] + sum_{p,q,c} x[n, i s - b + p d, j s - b + q d, g c' + c] k[p,q,c,f]
 *   dx[n,h,w,c] = sum of dy[n,i,j,f] k[p,q,c,f] over all (i,j,p,q,f) that read x[n,h,w,c]
 *   dk[p,q,c,f] = sum_{n,i,j} x[n, ...] dy[n,i,j,f]
 *
 * Of bfloat16 images the kernel is rounded to bfloat16 too; y and dx are bfloat16, dk and the bias with its gradient float32.
 *
 * s stride, d dilation, b padding before, g the group of f, c' = channels / groups. Paddings are worked out once, when the node
 * is made: backends only read them. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

bool window_geometry(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int padding, int64_t *out, int64_t pad[2])
{
    int64_t reach = (kernel - 1) * dilation + 1;

    pad[0] = pad[1] = 0;
    *out = -1;
    if (n == -1 || kernel == -1)
        return true;
    if (padding == PADDING_SAME) {
        *out = (n + stride - 1) / stride;
        int64_t total = (*out - 1) * stride + reach - n;

        if (total > 0) {
            pad[0] = total / 2;
            pad[1] = total - total / 2;
        }
        return n > 0;
    }
    if (reach > n)
        return false;
    *out = (n - reach) / stride + 1;
    return true;
}

static int64_t output_size(int64_t n, int64_t kernel, const struct conv *how, int axis)
{
    int64_t reach = (kernel - 1) * how->dilation[axis] + 1;

    return n == -1 || kernel == -1 ? -1 : (n + how->pad[axis][0] + how->pad[axis][1] - reach) / how->stride[axis] + 1;
}

static enum status conv_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct conv *how = n->attr;
    const struct shape *x = &in[0].shape, *k = &in[1].shape;

    if (x->rank != 4 || k->rank != 4)
        return no_fit(problem,
                      "a convolution needs images (batch, height, width, channels) and a kernel of rank 4, not %s and %s",
                      shape_text(x).s, shape_text(k).s);
    if (in[0].type != in[1].type || (in[0].type != F32 && in[0].type != BF16))
        return no_fit(problem, "a convolution needs float32, or bfloat16 on both sides, not %s and %s", dtype_name(in[0].type),
                      dtype_name(in[1].type));
    if (x->dim[3] != -1 && x->dim[3] % how->groups != 0)
        return no_fit(problem, "%lld channels of the input %s cannot be divided into %lld groups", (long long)x->dim[3],
                      shape_text(x).s, (long long)how->groups);
    if (x->dim[3] != -1 && !dims_agree(x->dim[3] / how->groups, k->dim[2]))
        return no_fit(problem, "the kernel %s takes %lld channels%s, the input %s has %lld%s", shape_text(k).s,
                      (long long)k->dim[2], how->groups > 1 ? " in each group" : "", shape_text(x).s,
                      (long long)(x->dim[3] / how->groups), how->groups > 1 ? " for each group" : "");
    if (k->dim[3] != -1 && k->dim[3] % how->groups != 0)
        return no_fit(problem, "%lld filters cannot be divided into %lld groups", (long long)k->dim[3], (long long)how->groups);
    if (n->in[2] && (in[2].shape.rank != 1 || !dims_agree(in[2].shape.dim[0], k->dim[3]) || in[2].type != F32))
        return no_fit(problem, "the bias %s does not fit %lld filters", shape_text(&in[2].shape).s, (long long)k->dim[3]);
    out->shape =
        SHAPE(x->dim[0], output_size(x->dim[1], k->dim[0], how, 0), output_size(x->dim[2], k->dim[1], how, 1), k->dim[3]);
    out->type = in[0].type;
    return ST_OK;
}

/* The numbers of one convolution, whichever of the three ops it belongs to. */
struct geometry {
    int64_t n, h, w, c, oh, ow, f, kh, kw, cg, fg; /* cg, fg: channels and filters of one group */
    const struct conv *how;
};

static struct geometry geometry_of(const struct conv *how, const struct shape *x, const struct shape *k, const struct shape *y)
{
    return (struct geometry){
        x->dim[0],
        x->dim[1],
        x->dim[2],
        x->dim[3],
        y->dim[1],
        y->dim[2],
        y->dim[3],
        k->dim[0],
        k->dim[1],
        k->dim[2],
        y->dim[3] / how->groups,
        how,
    };
}

/* Row (axis 0) or column (axis 1) of x that output i reads with kernel element p; outside 0 .. size-1: padding. */
static int64_t place(const struct geometry *g, int axis, int64_t i, int64_t p)
{
    return i * g->how->stride[axis] - g->how->pad[axis][0] + p * g->how->dilation[axis];
}

static double conv_at(const struct geometry *g, const float *x, const float *k, int64_t i, int64_t j, int64_t f)
{
    int64_t first = f / g->fg * g->cg;
    double sum = 0;

    for (int64_t p = 0; p < g->kh; p++)
        for (int64_t q = 0; q < g->kw; q++) {
            int64_t row = place(g, 0, i, p), column = place(g, 1, j, q);

            if (row < 0 || row >= g->h || column < 0 || column >= g->w)
                continue;
            for (int64_t c = 0; c < g->cg; c++)
                sum +=
                    (double)x[(row * g->w + column) * g->c + first + c] * (double)k[((p * g->kw + q) * g->cg + c) * g->f + f];
        }
    return sum;
}

static void conv_reference(const struct kernel_call *c)
{
    if (reference_widened(c, conv_reference))
        return;

    struct geometry g = geometry_of(c->node->attr, &IN_VALUE(c, 0)->shape, &IN_VALUE(c, 1)->shape, &OUT_VALUE(c, 0)->shape);
    const float *bias = c->in[2];
    float *y = c->out[0];

    for (int64_t n = 0; n < g.n; n++)
        for (int64_t i = 0; i < g.oh; i++)
            for (int64_t j = 0; j < g.ow; j++)
                for (int64_t f = 0; f < g.f; f++)
                    *y++ = (float)(conv_at(&g, (const float *)c->in[0] + n * g.h * g.w * g.c, c->in[1], i, j, f) +
                                   (bias ? bias[f] : 0));
}

/* The output that reads place `at` with kernel element p, or -1. */
static int64_t reader(const struct geometry *g, int axis, int64_t at, int64_t p, int64_t size)
{
    int64_t distance = at + g->how->pad[axis][0] - p * g->how->dilation[axis];

    if (distance < 0 || distance % g->how->stride[axis] != 0 || distance / g->how->stride[axis] >= size)
        return -1;
    return distance / g->how->stride[axis];
}

static double conv_dx_at(const struct geometry *g, const float *dy, const float *k, int64_t row, int64_t column, int64_t c)
{
    int64_t group = c / g->cg;
    double sum = 0;

    for (int64_t p = 0; p < g->kh; p++)
        for (int64_t q = 0; q < g->kw; q++) {
            int64_t i = reader(g, 0, row, p, g->oh), j = reader(g, 1, column, q, g->ow);

            if (i < 0 || j < 0)
                continue;
            for (int64_t f = group * g->fg; f < (group + 1) * g->fg; f++)
                sum += (double)dy[(i * g->ow + j) * g->f + f] * (double)k[((p * g->kw + q) * g->cg + c % g->cg) * g->f + f];
        }
    return sum;
}

static void conv_dx_reference(const struct kernel_call *c)
{
    if (reference_widened(c, conv_dx_reference))
        return;

    struct geometry g = geometry_of(c->node->attr, &OUT_VALUE(c, 0)->shape, &IN_VALUE(c, 1)->shape, &IN_VALUE(c, 0)->shape);
    float *dx = c->out[0];

    for (int64_t n = 0; n < g.n; n++)
        for (int64_t row = 0; row < g.h; row++)
            for (int64_t column = 0; column < g.w; column++)
                for (int64_t channel = 0; channel < g.c; channel++)
                    *dx++ =
                        (float)conv_dx_at(&g, (const float *)c->in[0] + n * g.oh * g.ow * g.f, c->in[1], row, column, channel);
}

static double conv_dw_at(const struct geometry *g, const float *x, const float *dy, int64_t p, int64_t q, int64_t c, int64_t f)
{
    double sum = 0;

    for (int64_t n = 0; n < g->n; n++)
        for (int64_t i = 0; i < g->oh; i++)
            for (int64_t j = 0; j < g->ow; j++) {
                int64_t row = place(g, 0, i, p), column = place(g, 1, j, q);

                if (row >= 0 && row < g->h && column >= 0 && column < g->w)
                    sum += (double)x[((n * g->h + row) * g->w + column) * g->c + f / g->fg * g->cg + c] *
                           (double)dy[((n * g->oh + i) * g->ow + j) * g->f + f];
            }
    return sum;
}

static void conv_dw_reference(const struct kernel_call *c)
{
    if (reference_widened(c, conv_dw_reference))
        return;

    struct geometry g = geometry_of(c->node->attr, &IN_VALUE(c, 0)->shape, &OUT_VALUE(c, 0)->shape, &IN_VALUE(c, 1)->shape);
    const float *dy = c->in[1];
    float *dw = c->out[0];

    for (int64_t p = 0; p < g.kh; p++)
        for (int64_t q = 0; q < g.kw; q++)
            for (int64_t channel = 0; channel < g.cg; channel++)
                for (int64_t f = 0; f < g.f; f++)
                    *dw++ = (float)conv_dw_at(&g, c->in[0], dy, p, q, channel, f);
    for (int64_t f = 0; c->node->n_out > 1 && f < g.f; f++) {
        double sum = 0;

        for (int64_t i = 0; i < g.n * g.oh * g.ow; i++)
            sum += dy[i * g.f + f];
        ((float *)c->out[1])[f] = (float)sum;
    }
}

static enum status conv_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct conv_grad *how = n->attr;

    (void)problem;
    out->shape = how->shape;
    out->type = in[0].type;
    return ST_OK;
}

static enum status conv_dw_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct conv_grad *how = n->attr;

    (void)in, (void)problem;
    out[0].shape = how->shape;
    out[0].type = F32;
    if (n->n_out > 1) {
        out[1].shape = SHAPE(how->shape.dim[3]);
        out[1].type = F32;
    }
    return ST_OK;
}

static void conv_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    struct conv_grad how = {.how = *(const struct conv *)n->attr};
    value_id dy = emit_cast(b, dout[0], value_of(b, n->in[0])->type);
    bool bias = n->in[2] && need[2];

    if (need[0]) {
        how.shape = shape_of(b, n->in[0]);
        din[0] = emit(b, &op_conv_dx, &how, (value_id[]){dy, n->in[1]}, 2, 1);
    }
    if (need[1]) {
        how.shape = shape_of(b, n->in[1]);
        din[1] = emit(b, &op_conv_dw, &how, (value_id[]){n->in[0], dy}, 2, bias ? 2 : 1);
        din[2] = bias ? build_out(b, din[1], 1) : 0;
    } else if (bias) {
        din[2] = emit_reduce(b, dout[0], REDUCE_SUM, 7, false);
    }
}

/* Products of one run; the same for all three ops: every filter element meets every output. */
static double products(const struct shape *y, const struct shape *k)
{
    return 2.0 * (double)y->dim[0] * (double)y->dim[1] * (double)y->dim[2] * (double)shape_count(k);
}

static double conv_flops(const struct node *n, const struct value *values)
{
    return products(&values[n->out[0]].shape, &values[n->in[1]].shape);
}

static double conv_dx_flops(const struct node *n, const struct value *values)
{
    return products(&values[n->in[0]].shape, &values[n->in[1]].shape);
}

static double conv_dw_flops(const struct node *n, const struct value *values)
{
    return products(&values[n->in[1]].shape, &values[n->out[0]].shape);
}

value_id emit_conv(struct build *b, value_id x, value_id kernel, value_id bias, struct conv how)
{
    struct shape xs = shape_of(b, x), ks = shape_of(b, kernel);
    int64_t out;
    bool fits = true;

    if (!x || !kernel)
        return 0;
    kernel = emit_cast(b, kernel, value_of(b, x)->type);
    for (int axis = 0; axis < 2; axis++) /* the bounds keep products of two within int64 */
        if (how.stride[axis] < 1 || how.dilation[axis] < 1 || how.stride[axis] > INT32_MAX || how.dilation[axis] > INT32_MAX)
            return build_fail(b, ST_INVALID, "strides %s and dilations %s must be from 1 to %d",
                              shape_text(&SHAPE(how.stride[0], how.stride[1])).s,
                              shape_text(&SHAPE(how.dilation[0], how.dilation[1])).s, INT32_MAX);
    for (int axis = 0; axis < 2 && ks.rank == 4; axis++)
        if (ks.dim[axis] > INT32_MAX || ks.dim[axis] == 0)
            return build_fail(b, ST_INVALID, "the kernel %s must have sizes from 1 to %d",
                              shape_text(&SHAPE(ks.dim[0], ks.dim[1])).s, INT32_MAX);
    if (how.groups < 1)
        return build_fail(b, ST_INVALID, "a convolution needs at least one group, not %lld", (long long)how.groups);
    for (int axis = 0; axis < 2 && xs.rank == 4 && ks.rank == 4; axis++)
        fits &= window_geometry(xs.dim[1 + axis], ks.dim[axis], how.stride[axis], how.dilation[axis], how.padding, &out,
                                how.pad[axis]);
    if (!fits && how.dilation[0] == 1 && how.dilation[1] == 1)
        return build_fail(b, ST_INVALID, "the kernel %s is larger than the input %s",
                          shape_text(&SHAPE(ks.dim[0], ks.dim[1])).s, shape_text(&SHAPE(xs.dim[1], xs.dim[2])).s);
    if (!fits)
        return build_fail(b, ST_INVALID, "the kernel %s, dilated by %s, is larger than the input %s",
                          shape_text(&SHAPE(ks.dim[0], ks.dim[1])).s, shape_text(&SHAPE(how.dilation[0], how.dilation[1])).s,
                          shape_text(&SHAPE(xs.dim[1], xs.dim[2])).s);
    return emit(b, &op_conv, &how, (value_id[]){x, kernel, bias}, 3, 1);
}

const struct op op_conv = {
    .name = "conv",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct conv),
    .infer = conv_infer,
    .grad = conv_grad,
    .reference = conv_reference,
    .flops = conv_flops,
};

const struct op op_conv_dx = {
    .name = "conv_dx",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct conv_grad),
    .infer = conv_dx_infer,
    .reference = conv_dx_reference,
    .flops = conv_dx_flops,
};

const struct op op_conv_dw = {
    .name = "conv_dw",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct conv_grad),
    .infer = conv_dw_infer,
    .reference = conv_dw_reference,
    .flops = conv_dw_flops,
};
