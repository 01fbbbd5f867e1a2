/* The op matmul: batches of products, and the bias in one pass behind them. */
#include "engine/cpu/product.h"

struct matmul_plan {
    const struct device *device;
    bool tx, tw;
    int64_t batch, m, n, k; /* a batch of one where w is shared: all rows of x in one product */
    int64_t x_step, w_step; /* elements from one product of the batch to the next */
};

static KERNEL_PREPARE(matmul_prepare)
{
    const struct matmul *how = n->attr;
    const struct shape *x = &values[n->in[0]].shape, *w = &values[n->in[1]].shape;
    struct matmul_plan p = {.device = d, .tx = how->flags & MATMUL_TX, .tw = how->flags & MATMUL_TW};

    (void)scratch;
    TRY(all_f32(n, values, problem));
    if (w->rank < 2)
        return fail(problem, ST_UNSUPPORTED, "", "a product with a vector");
    p.n = w->dim[w->rank - (p.tw ? 2 : 1)];
    if (w->rank == 2 && !p.tx) {
        p.batch = 1;
        p.k = x->dim[x->rank - 1];
        p.m = p.k ? shape_count(x) / p.k : 0;
    } else {
        p.m = x->dim[x->rank - (p.tx ? 1 : 2)];
        p.k = x->dim[x->rank - (p.tx ? 2 : 1)];
        p.batch = 1;
        for (int i = 0; i < x->rank - 2; i++)
            p.batch *= x->dim[i];
        p.x_step = p.m * p.k;
        p.w_step = w->rank == 2 ? 0 : p.k * p.n;
    }
    if (p.m > INT32_MAX || p.n > INT32_MAX || p.k > INT32_MAX)
        return fail(problem, ST_UNSUPPORTED, "", "more rows than the libraries count");
    struct matmul_plan *keep = must_alloc(sizeof *keep);

    *keep = p;
    *ret = keep;
    return ST_OK;
}

static void one_product(const struct matmul_plan *p, const float *x, const float *w, float *y)
{
    product(p->device, p->tx, p->tw, p->m, p->n, p->k, x, p->tx ? p->m : p->k, w, p->tw ? p->k : p->n, 0, y, p->n);
}

struct batch_part {
    const struct matmul_plan *p;
    const float *x, *w;
    float *y;
};

static void run_batch(const void *context, int64_t begin, int64_t end)
{
    const struct batch_part *c = context;

    for (int64_t i = begin; i < end; i++)
        one_product(c->p, c->x + i * c->p->x_step, c->w + i * c->p->w_step, c->y + i * c->p->m * c->p->n);
}

struct bias_part {
    const struct simd_sums *sums;
    const float *bias;
    float *y;
    int64_t n;
};

static void add_bias(const void *context, int64_t begin, int64_t end)
{
    const struct bias_part *c = context;

    c->sums->add_row(c->y + begin * c->n, c->bias, end - begin, c->n);
}

static void matmul_run(const struct kernel_call *c)
{
    const struct matmul_plan *p = c->prepared;
    struct batch_part part = {p, c->in[0], c->in[1], c->out[0]};

    if (p->batch == 1)
        one_product(p, part.x, part.w, part.y);
    else
        team_run(p->device, p->batch, 1 + 200000 / (p->m * p->n * p->k + 1), run_batch, &part);
    if (c->node->n_in > 2 && c->in[2])
        team_run(p->device, p->batch * p->m, team_grain(p->n), add_bias,
                 &(struct bias_part){p->device->simd->sums, c->in[2], part.y, p->n});
}

const struct kernel kernel_matmul = {"matmul", "matmul.product", matmul_prepare, matmul_run, release_plain};
