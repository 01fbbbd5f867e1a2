/* Pooling: output rows, and images for the gradient, split over the team. */
#include "engine/cpu/cpu.h"

struct pool_plan {
    const struct device *device;
    struct pool_shape shape;
    int64_t n;
};

static enum status pool_make(struct device *d, const struct pool *how, const struct shape *x, const struct shape *y, void **ret,
                             struct problem *problem)
{
    struct pool_plan *p;

    if (how->size[0] * how->size[1] > 256 && how->kind == POOL_MAX)
        return fail(problem, ST_UNSUPPORTED, "", "a window whose places need more than a byte");
    p = must_alloc(sizeof *p);
    *p = (struct pool_plan){.device = d,
                            .n = x->dim[0],
                            .shape = {.h = x->dim[1],
                                      .w = x->dim[2],
                                      .c = x->dim[3],
                                      .oh = y->dim[1],
                                      .ow = y->dim[2],
                                      .size = {how->size[0], how->size[1]},
                                      .stride = {how->stride[0], how->stride[1]},
                                      .pad = {how->pad[0][0], how->pad[1][0]},
                                      .max = how->kind == POOL_MAX}};
    *ret = p;
    return ST_OK;
}

static KERNEL_PREPARE(pool_prepare)
{
    (void)scratch;
    return pool_make(d, n->attr, &values[n->in[0]].shape, &values[n->out[0]].shape, ret, problem);
}

static KERNEL_PREPARE(pool_dx_prepare)
{
    (void)scratch;
    return pool_make(d, &((const struct pool_grad *)n->attr)->how, &values[n->out[0]].shape, &values[n->in[0]].shape, ret,
                     problem);
}

struct pool_call {
    const struct pool_plan *p;
    const float *in;
    float *out;
    uint8_t *place;
};

static void pool_part(const void *context, int64_t begin, int64_t end)
{
    const struct pool_call *c = context;

    c->p->device->simd->windows->pool(&c->p->shape, c->in, c->out, c->place, begin, end);
}

static void pool_run(const struct kernel_call *c)
{
    const struct pool_plan *p = c->prepared;
    const struct pool_shape *s = &p->shape;

    team_run(p->device, p->n * s->oh, team_grain(s->ow * s->c * s->size[0] * s->size[1]), pool_part,
             &(struct pool_call){p, c->in[0], c->out[0], c->node->n_out > 1 ? c->out[1] : NULL});
}

static void pool_dx_part(const void *context, int64_t begin, int64_t end)
{
    const struct pool_call *c = context;

    c->p->device->simd->windows->pool_dx(&c->p->shape, c->out, c->in, c->place, begin, end);
}

static void pool_dx_run(const struct kernel_call *c)
{
    const struct pool_plan *p = c->prepared;

    team_run(p->device, p->n, team_grain(p->shape.h * p->shape.w * p->shape.c), pool_dx_part,
             &(struct pool_call){p, c->in[0], c->out[0], c->node->n_in > 1 ? c->in[1] : NULL});
}

const struct kernel kernel_pool = {"pool", "pool.forward", pool_prepare, pool_run, release_plain};
const struct kernel kernel_pool_dx = {"pool_dx", "pool.dx", pool_dx_prepare, pool_dx_run, release_plain};
