/* Products of bfloat16 by oneDNN's primitive, on a CPU with units for them.
 *
 * The factors are given as they lie, transposed or not, by their strides. As with convolutions the primitive is made in
 * prepare, its handles in the run. */
#ifdef HORN_ONEDNN
#include <string.h>

#include "engine/cpu/onednn.h"

struct bfloat_plan {
    const struct device *device;
    dnnl_primitive_t product;
    dnnl_memory_desc_t x, w, bias, y, pad;
    bool has_bias;
};

/* (batch, rows, columns) as it lies; the last two axes are swapped in memory if transposed. One matrix for all: batch axis of 1. */
static bool matrices(dnnl_memory_desc_t *md, int64_t batch, int64_t rows, int64_t columns, bool transposed,
                     dnnl_data_type_t type)
{
    dnnl_dims_t dims = {batch, rows, columns}, strides = {rows * columns, transposed ? 1 : columns, transposed ? rows : 1};

    return is_ok(dnnl_memory_desc_init_by_strides(md, 3, dims, type, strides));
}

static void bfloat_release(void *prepared)
{
    struct bfloat_plan *p = prepared;

    if (p->product)
        (void)dnnl_primitive_destroy(p->product);
    free_null(p);
}

/* The primitive of the descriptors in p; false where there is none but oneDNN's reference. */
static bool make(struct bfloat_plan *p)
{
    dnnl_primitive_attr_t attr = user_pad();
    dnnl_primitive_desc_t pd = NULL;
    dnnl_matmul_desc_t d;
    const char *name = "ref";
    bool ok = attr && is_ok(dnnl_matmul_desc_init(&d, &p->x, &p->w, p->has_bias ? &p->bias : NULL, &p->y)) &&
              is_ok(dnnl_primitive_desc_create(&pd, &d, attr, p->device->engine, NULL));

    if (ok) {
        (void)dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
        p->pad = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
        ok = strncmp(name, "ref", 3) != 0 && is_ok(dnnl_primitive_create(&p->product, pd));
        (void)dnnl_primitive_desc_destroy(pd);
    }
    if (attr)
        (void)dnnl_primitive_attr_destroy(attr);
    return ok;
}

static KERNEL_PREPARE(bfloat_prepare)
{
    const struct matmul *how = n->attr;
    const struct value *x = &values[n->in[0]], *w = &values[n->in[1]], *y = &values[n->out[0]];
    bool tx = how->flags & MATMUL_TX, tw = how->flags & MATMUL_TW;
    int xr = x->shape.rank, wr = w->shape.rank;

    if (!d->bfloat || x->type != BF16 || w->type != BF16 || wr < 2 || shape_count(&y->shape) == 0)
        return fail(problem, ST_UNSUPPORTED, "", "no product of bfloat16");
    int64_t k = x->shape.dim[xr - (tx ? 2 : 1)], m = x->shape.dim[xr - (tx ? 1 : 2)], units = w->shape.dim[wr - (tw ? 2 : 1)];
    int64_t batch = k && m ? shape_count(&x->shape) / (k * m) : 0;

    if (!batch)
        return fail(problem, ST_UNSUPPORTED, "", "an empty product");
    struct bfloat_plan *p = must_alloc(sizeof *p);
    dnnl_dims_t bias = {1, 1, units}, bias_strides = {units, units, 1};

    p->device = d;
    p->has_bias = n->n_in > 2 && n->in[2];
    if (!matrices(&p->x, batch, m, k, tx, dnnl_bf16) || !matrices(&p->w, wr == 2 ? 1 : batch, k, units, tw, dnnl_bf16) ||
        !matrices(&p->y, batch, m, units, false, y->type == BF16 ? dnnl_bf16 : dnnl_f32) ||
        !is_ok(dnnl_memory_desc_init_by_strides(&p->bias, 3, bias, dnnl_f32, bias_strides)) || !make(p)) {
        bfloat_release(p);
        return fail(problem, ST_UNSUPPORTED, "", "oneDNN has no fast product for this shape");
    }
    *scratch = dnnl_memory_desc_get_size(&p->pad);
    *ret = p;
    return ST_OK;
}

static void bfloat_run(const struct kernel_call *c)
{
    const struct bfloat_plan *p = c->prepared;
    struct handles h = handles_make(p->device);

    handle(&h, DNNL_ARG_SRC, &p->x, c->in[0]);
    handle(&h, DNNL_ARG_WEIGHTS, &p->w, c->in[1]);
    handle(&h, DNNL_ARG_DST, &p->y, c->out[0]);
    if (p->has_bias)
        handle(&h, DNNL_ARG_BIAS, &p->bias, c->in[2]);
    if (dnnl_memory_desc_get_size(&p->pad))
        handle(&h, DNNL_ARG_SCRATCHPAD, &p->pad, c->scratch);
    execute(&h, p->product);
    handles_done(&h);
}

const struct kernel kernel_matmul_onednn = {"matmul", "matmul_onednn.bfloat", bfloat_prepare, bfloat_run, bfloat_release};
#else
typedef int matmul_onednn_is_not_built;
#endif
