/* Dropout: vectorised Philox where every element has its own number, else the stretched mask row by row. */
#include "engine/cpu/cpu.h"

#include <math.h>

#include "engine/base/philox.h"

struct dropout_call {
    const struct simd *simd;
    const float *x;
    float *y, scale;
    uint64_t key, step;
    uint32_t threshold;
    int64_t n;
};

/* Only a mask of the input's own shape; a shared one (rare) is left to the reference. */
static KERNEL_PREPARE(dropout_prepare)
{
    const struct dropout *how = n->attr;
    int64_t noise = 1;

    for (int i = 0; i < how->noise.rank; i++)
        noise *= how->noise.dim[i] == 1 ? 1 : values[n->in[0]].shape.dim[i];
    if (noise != count_of(values, n->in[0]))
        return fail(problem, ST_UNSUPPORTED, "", "a shared mask");
    return prepare_plain(d, n, values, ret, scratch, problem);
}

static void dropout_part(const void *context, int64_t begin, int64_t end)
{
    const struct dropout_call *c = context;
    int64_t first = begin * 4, last = end * 4 < c->n ? end * 4 : c->n;

    c->simd->random->dropout(c->y, c->x, c->key, c->step, c->threshold, c->scale, first, last);
}

static void dropout_run(const struct kernel_call *c)
{
    const struct dropout *how = c->node->attr;
    const struct device *d = DEVICE(c);
    struct dropout_call call = {.simd = d->simd,
                                .x = c->in[0],
                                .y = c->out[0],
                                .scale = 1 / (1 - how->rate),
                                .key = dropout_key((uint64_t) * (const int64_t *)c->in[1], how->stream),
                                .step = (uint64_t) * (const int64_t *)c->in[2],
                                .n = shape_count(&OUT_VALUE(c, 0)->shape)};

    /* k 2^-24 >= rate for the whole number k: k >= rate 2^24, which a float holds exactly */
    call.threshold = (uint32_t)ceilf(how->rate * 0x1p24f);
    team_run(d, (call.n + 3) / 4, TEAM_GRAIN / 8, dropout_part, &call);
}

const struct kernel kernel_dropout = {"dropout", "random.dropout", dropout_prepare, dropout_run, release_plain};
