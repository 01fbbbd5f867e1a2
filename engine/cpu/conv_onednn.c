/* Convolutions by oneDNN's primitives.
 *
 * Activations are NHWC as everywhere; weights lie in HWIO and are brought into the primitive's own layout at each run, which is
 * noise beside the convolution and lets the optimizer see them flat. Primitives are made in prepare; what a run needs beside
 * them (handles of the tensors' addresses, a stream) is small and made in the run, because plans may be run by several threads
 * at once. Bfloat16 is taken where the device has units for it. A case that oneDNN would do by its slow reference is declined: conv_columns.c takes it. */
#ifdef HORN_ONEDNN
#include <string.h>

#include "engine/cpu/onednn.h"

enum direction { FORWARD, TO_INPUT, TO_WEIGHTS };

struct conv_plan {
    const struct device *device;
    enum direction direction;
    dnnl_primitive_t conv, reorder; /* reorder NULL: the layouts are the same */
    dnnl_memory_desc_t image, result, plain, own, bias, pad;
    size_t own_at, pad_at, reorder_pad_at; /* in scratch */
    dnnl_memory_desc_t reorder_pad;
    bool has_bias;
};

static dnnl_data_type_t type_of(const struct value *v)
{
    return v->type == BF16 ? dnnl_bf16 : dnnl_f32;
}

static bool nhwc(dnnl_memory_desc_t *md, const struct value *v)
{
    const struct shape *s = &v->shape;
    dnnl_dims_t dims = {s->dim[0], s->dim[3], s->dim[1], s->dim[2]};

    return is_ok(dnnl_memory_desc_init_by_tag(md, 4, dims, type_of(v), dnnl_nhwc));
}

/* HWIO as it lies in memory, and the same dimensions in a layout of the primitive's choice. */
static bool weights(dnnl_memory_desc_t *plain, dnnl_memory_desc_t *any, const struct value *v, int64_t groups)
{
    const struct shape *s = &v->shape;
    int64_t kh = s->dim[0], kw = s->dim[1], in = s->dim[2], out = s->dim[3];
    dnnl_data_type_t type = type_of(v);

    if (groups > 1) {
        dnnl_dims_t dims = {groups, out / groups, in, kh, kw}, strides = {out / groups, 1, out, kw * in * out, in * out};

        return is_ok(dnnl_memory_desc_init_by_strides(plain, 5, dims, type, strides)) &&
               is_ok(dnnl_memory_desc_init_by_tag(any, 5, dims, type, dnnl_format_tag_any));
    }
    dnnl_dims_t dims = {out, in, kh, kw}, strides = {1, out, kw * in * out, in * out};

    return is_ok(dnnl_memory_desc_init_by_strides(plain, 4, dims, type, strides)) &&
           is_ok(dnnl_memory_desc_init_by_tag(any, 4, dims, type, dnnl_format_tag_any));
}

/* The convolution's descriptor; false where oneDNN has nothing but its reference. */
static bool describe(struct conv_plan *p, const struct conv *how, const dnnl_memory_desc_t *any, dnnl_primitive_attr_t attr,
                     dnnl_primitive_desc_t *ret)
{
    dnnl_dims_t stride = {how->stride[0], how->stride[1]}, gap = {how->dilation[0] - 1, how->dilation[1] - 1};
    dnnl_dims_t before = {how->pad[0][0], how->pad[1][0]}, after = {how->pad[0][1], how->pad[1][1]};
    const dnnl_memory_desc_t *bias = p->has_bias ? &p->bias : NULL;
    dnnl_engine_t engine = p->device->engine;
    dnnl_memory_desc_t factors = *any; /* of the forward convolution, where `any` is a gradient of float32 */
    dnnl_convolution_desc_t c;
    dnnl_primitive_desc_t forward = NULL;
    const char *name = "ref";
    bool ok;

    factors.data_type = p->image.data_type;
    if (!is_ok(dnnl_dilated_convolution_forward_desc_init(
            &c, p->direction == FORWARD && !p->has_bias ? dnnl_forward_inference : dnnl_forward_training,
            dnnl_convolution_direct, &p->image, &factors, p->direction == TO_INPUT ? NULL : bias, &p->result, stride, gap,
            before, after)) ||
        !is_ok(dnnl_primitive_desc_create(&forward, &c, attr, engine, NULL)))
        return false;
    if (p->direction == FORWARD) {
        *ret = forward;
        ok = true;
    } else {
        if (p->direction == TO_INPUT)
            ok = is_ok(dnnl_dilated_convolution_backward_data_desc_init(&c, dnnl_convolution_direct, &p->image, any, &p->result,
                                                                        stride, gap, before, after));
        else
            ok = is_ok(dnnl_dilated_convolution_backward_weights_desc_init(&c, dnnl_convolution_direct, &p->image, any, bias,
                                                                           &p->result, stride, gap, before, after));
        ok = ok && is_ok(dnnl_primitive_desc_create(ret, &c, attr, engine, forward));
        (void)dnnl_primitive_desc_destroy(forward);
    }
    if (!ok)
        return false;
    (void)dnnl_primitive_desc_query(*ret, dnnl_query_impl_info_str, 0, &name);
    if (!strncmp(name, "ref", 3)) {
        (void)dnnl_primitive_desc_destroy(*ret);
        return false;
    }
    return true;
}

static bool plain_reorder(struct conv_plan *p, dnnl_primitive_attr_t attr)
{
    bool to_plain = p->direction == TO_WEIGHTS;
    const dnnl_memory_desc_t *from = to_plain ? &p->own : &p->plain, *to = to_plain ? &p->plain : &p->own;
    dnnl_engine_t engine = p->device->engine;
    dnnl_primitive_desc_t pd = NULL;

    if (dnnl_memory_desc_equal(from, to))
        return true;
    if (!is_ok(dnnl_reorder_primitive_desc_create(&pd, from, engine, to, engine, attr)))
        return false;
    p->reorder_pad = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    bool ok = is_ok(dnnl_primitive_create(&p->reorder, pd));

    (void)dnnl_primitive_desc_destroy(pd);
    return ok;
}

static void conv_release(void *prepared)
{
    struct conv_plan *p = prepared;

    if (p->conv)
        (void)dnnl_primitive_destroy(p->conv);
    if (p->reorder)
        (void)dnnl_primitive_destroy(p->reorder);
    free_null(p);
}

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;

    *at += (bytes + 63) & ~(size_t)63;
    return here;
}

static enum status make(struct device *d, enum direction direction, const struct conv *how, const struct value *image,
                        const struct value *kernel, const struct value *result, bool bias, void **ret, size_t *scratch,
                        struct problem *problem)
{
    if (!d->bfloat && (image->type == BF16 || kernel->type == BF16 || result->type == BF16))
        return fail(problem, ST_UNSUPPORTED, "", "no units for bfloat16");

    struct conv_plan *p = must_alloc(sizeof *p);
    dnnl_primitive_attr_t attr = user_pad();
    dnnl_primitive_desc_t pd = NULL;
    dnnl_memory_desc_t any;
    dnnl_dims_t width = {kernel->shape.dim[3]};

    p->device = d;
    p->direction = direction;
    p->has_bias = bias;
    bool ok = attr && nhwc(&p->image, image) && nhwc(&p->result, result) && weights(&p->plain, &any, kernel, how->groups) &&
              is_ok(dnnl_memory_desc_init_by_tag(&p->bias, 1, width, dnnl_f32, dnnl_x)) && describe(p, how, &any, attr, &pd);

    if (ok) {
        dnnl_query_t which = direction == TO_WEIGHTS ? dnnl_query_diff_weights_md : dnnl_query_weights_md;

        p->own = *dnnl_primitive_desc_query_md(pd, which, 0);
        p->pad = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        ok = is_ok(dnnl_primitive_create(&p->conv, pd)) && plain_reorder(p, attr);
        (void)dnnl_primitive_desc_destroy(pd);
    }
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    if (!ok) {
        conv_release(p);
        return fail(problem, ST_UNSUPPORTED, "", "oneDNN has no fast convolution for this shape");
    }
    *scratch = 0;
    p->own_at = place(scratch, p->reorder ? dnnl_memory_desc_get_size(&p->own) : 0);
    p->pad_at = place(scratch, dnnl_memory_desc_get_size(&p->pad));
    p->reorder_pad_at = place(scratch, p->reorder ? dnnl_memory_desc_get_size(&p->reorder_pad) : 0);
    *ret = p;
    return ST_OK;
}

static KERNEL_PREPARE(forward_prepare)
{
    return make(d, FORWARD, n->attr, &values[n->in[0]], &values[n->in[1]], &values[n->out[0]], n->n_in > 2 && n->in[2], ret,
                scratch, problem);
}

static KERNEL_PREPARE(dx_prepare)
{
    return make(d, TO_INPUT, n->attr, &values[n->out[0]], &values[n->in[1]], &values[n->in[0]], false, ret, scratch, problem);
}

static KERNEL_PREPARE(dw_prepare)
{
    return make(d, TO_WEIGHTS, n->attr, &values[n->in[0]], &values[n->out[0]], &values[n->in[1]], n->n_out > 1, ret, scratch,
                problem);
}

/* --- a run --------------------------------------------------------------------------------------------------------------- */

static void reorder(struct handles *h, const struct conv_plan *p, const dnnl_memory_desc_t *from_md, void *from,
                    const dnnl_memory_desc_t *to_md, void *to, void *pad)
{
    handle(h, DNNL_ARG_FROM, from_md, from);
    handle(h, DNNL_ARG_TO, to_md, to);
    if (dnnl_memory_desc_get_size(&p->reorder_pad))
        handle(h, DNNL_ARG_SCRATCHPAD, &p->reorder_pad, pad);
    execute(h, p->reorder);
}

static void conv_run(const struct kernel_call *c)
{
    const struct conv_plan *p = c->prepared;
    struct handles h = handles_make(p->device);
    char *scratch = c->scratch;
    void *plain = p->direction == TO_WEIGHTS ? c->out[0] : c->in[1];
    void *own = p->reorder ? scratch + p->own_at : plain;

    if (p->reorder && p->direction != TO_WEIGHTS)
        reorder(&h, p, &p->plain, plain, &p->own, own, scratch + p->reorder_pad_at);
    if (p->direction == FORWARD) {
        handle(&h, DNNL_ARG_SRC, &p->image, c->in[0]);
        handle(&h, DNNL_ARG_WEIGHTS, &p->own, own);
        handle(&h, DNNL_ARG_DST, &p->result, c->out[0]);
        if (p->has_bias)
            handle(&h, DNNL_ARG_BIAS, &p->bias, c->in[2]);
    } else if (p->direction == TO_INPUT) {
        handle(&h, DNNL_ARG_DIFF_SRC, &p->image, c->out[0]);
        handle(&h, DNNL_ARG_WEIGHTS, &p->own, own);
        handle(&h, DNNL_ARG_DIFF_DST, &p->result, c->in[0]);
    } else {
        handle(&h, DNNL_ARG_SRC, &p->image, c->in[0]);
        handle(&h, DNNL_ARG_DIFF_WEIGHTS, &p->own, own);
        handle(&h, DNNL_ARG_DIFF_DST, &p->result, c->in[1]);
        if (p->has_bias)
            handle(&h, DNNL_ARG_DIFF_BIAS, &p->bias, c->out[1]);
    }
    if (dnnl_memory_desc_get_size(&p->pad))
        handle(&h, DNNL_ARG_SCRATCHPAD, &p->pad, scratch + p->pad_at);
    execute(&h, p->conv);
    if (p->reorder && p->direction == TO_WEIGHTS)
        reorder(&h, p, &p->own, own, &p->plain, plain, scratch + p->reorder_pad_at);
    handles_done(&h);
}

const struct kernel kernel_conv_onednn = {"conv", "conv_onednn.forward", forward_prepare, conv_run, conv_release};
const struct kernel kernel_conv_dx_onednn = {"conv_dx", "conv_onednn.dx", dx_prepare, conv_run, conv_release};
const struct kernel kernel_conv_dw_onednn = {"conv_dw", "conv_onednn.dw", dw_prepare, conv_run, conv_release};
#else
typedef int conv_onednn_is_not_built;
#endif
