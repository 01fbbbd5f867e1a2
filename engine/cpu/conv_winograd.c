/* 3 x 3 convolutions of stride 1 by Winograd's minimal filtering (engine/cpu/simd/winograd.c): a quarter of the products.
 *
 *   y  = output(input(x) . kernel(k))                 over strips of tiles whose transforms stay in L2
 *   dx = the same of dy, with the kernel turned and transposed and the padding 2 - b
 *   dk = kernel_gradient(sum of input(x)^T . filter_of_gradient(dy)), in bands of tiles that join in order
 *   db = sum of dy, tile by tile on the way
 *
 * Strips and bands follow from shapes alone, so the bits do not depend on the number of threads. Taken where channels and
 * filters are multiples of 16 and tiles waste little; the largest error is 2 to 11 times that of a direct
 * convolution, 1e-6 to 4e-6 of the largest element (tests/cpu/test_winograd.c prints both). */
#include "engine/cpu/cpu.h"

#include <string.h>

#define MAX_BANDS   8
#define BAND_FLOATS (1 << 20) /* of all bands' sums together */
#define STRIP_TILES 48
#define MIN_TILES   48          /* below, the transform of the kernel costs more than the products that it saves */
#define MIN_TURNED  128         /* the same where the kernel is transposed too, or its bands are joined */
#define MAX_KERNEL  (512 * 512) /* channels times filters: above, 36 points of each band outgrow memory for little gain */
#define LINE        16          /* floats that keep the 36 points apart from each other in the cache's sets */

enum direction { FORWARD, TO_INPUT, TO_WEIGHTS };

struct winograd_plan {
    const struct device *device;
    struct winograd_tiles in, out; /* what windows are read from; what tiles are written to, or dy */
    int64_t tiles, strip, strips, bands;
    int64_t in_step, out_step, kernel_step;  /* floats between points */
    size_t bias_at, member_at, member_bytes; /* in scratch */
    bool turned;
};

static int64_t up4(int64_t n)
{
    return (n + 3) / 4;
}

static bool fits(enum direction direction, const struct conv *how, const struct shape *kernel, const struct shape *y)
{
    int64_t tiles = up4(y->dim[1]) * up4(y->dim[2]), padded = tiles * 16;

    if (y->dim[0] * tiles < (direction == FORWARD ? MIN_TILES : MIN_TURNED) || kernel->dim[2] * kernel->dim[3] > MAX_KERNEL)
        return false;
    return kernel->dim[0] == 3 && kernel->dim[1] == 3 && how->groups == 1 && how->stride[0] == 1 && how->stride[1] == 1 &&
           how->dilation[0] == 1 && how->dilation[1] == 1 && kernel->dim[2] % WINOGRAD_CHANNELS == 0 &&
           kernel->dim[3] % WINOGRAD_CHANNELS == 0 && padded * 2 <= y->dim[1] * y->dim[2] * 3;
}

/* x and y: what is read in windows and what is written in tiles (FORWARD, TO_INPUT), or x and dy (TO_WEIGHTS). */
static enum status make(struct device *d, enum direction direction, const struct conv *how, const struct shape *x,
                        const struct shape *kernel, const struct shape *y, void **ret, size_t *scratch, struct problem *problem)
{
    int64_t c = x->dim[3], f = y->dim[3];

    if (!fits(direction, how, kernel, y) || shape_count(x) <= 0 || shape_count(y) <= 0)
        return fail(problem, ST_UNSUPPORTED, "", "not a case for Winograd's convolution");
    struct winograd_plan *p = must_alloc(sizeof *p);

    *p = (struct winograd_plan){.device = d,
                                .in = {.h = x->dim[1], .w = x->dim[2], .c = c},
                                .out = {.h = y->dim[1], .w = y->dim[2], .c = f},
                                .turned = direction == TO_INPUT};
    p->in.rows = p->out.rows = up4(y->dim[1]);
    p->in.columns = p->out.columns = up4(y->dim[2]);
    for (int i = 0; i < 2; i++)
        p->in.pad[i] = direction == TO_INPUT ? 2 - how->pad[i][0] : how->pad[i][0];
    p->tiles = y->dim[0] * p->out.rows * p->out.columns;
    p->strip = c + f > 128 ? STRIP_TILES / 2 : STRIP_TILES;
    p->strips = (p->tiles + p->strip - 1) / p->strip;
    p->in_step = p->strip * c + LINE;
    p->out_step = p->strip * f + LINE;
    p->kernel_step = c * f + LINE;
    for (p->bands = MAX_BANDS; p->bands > 2 && p->bands * WINOGRAD_POINTS * p->kernel_step > BAND_FLOATS;)
        p->bands /= 2;
    if (p->bands > p->strips)
        p->bands = p->strips;

    size_t sums = (size_t)(WINOGRAD_POINTS * p->kernel_step) * sizeof(float), bias = (size_t)f * sizeof(double);

    p->bias_at = (direction == TO_WEIGHTS ? (size_t)p->bands : direction == TO_INPUT ? 2 : 1) * sums;
    p->member_at = p->bias_at + (direction == TO_WEIGHTS ? (size_t)p->bands * bias : 0);
    p->member_bytes = (size_t)(WINOGRAD_POINTS * p->in_step + (WINOGRAD_POINTS + 1) * p->out_step) * sizeof(float) + bias;
    *scratch = p->member_at + (size_t)d->threads * p->member_bytes;
    *ret = p;
    return ST_OK;
}

static KERNEL_PREPARE(forward_prepare)
{
    TRY(all_f32(n, values, problem));
    return make(d, FORWARD, n->attr, &values[n->in[0]].shape, &values[n->in[1]].shape, &values[n->out[0]].shape, ret, scratch,
                problem);
}

static KERNEL_PREPARE(dx_prepare)
{
    TRY(all_f32(n, values, problem));
    return make(d, TO_INPUT, n->attr, &values[n->in[0]].shape, &values[n->in[1]].shape, &values[n->out[0]].shape, ret, scratch,
                problem);
}

static KERNEL_PREPARE(dw_prepare)
{
    TRY(all_f32(n, values, problem));
    return make(d, TO_WEIGHTS, n->attr, &values[n->in[0]].shape, &values[n->out[0]].shape, &values[n->in[1]].shape, ret,
                scratch, problem);
}

struct winograd_call {
    const struct winograd_plan *p;
    const float *x, *k, *bias, *dy;
    float *y, *kernel, *turned, *dk, *db;
    char *scratch;
};

static float *member(const struct winograd_call *c)
{
    return (float *)(c->scratch + c->p->member_at + (size_t)team_member() * c->p->member_bytes);
}

static int64_t strip_end(const struct winograd_plan *p, int64_t strip)
{
    int64_t end = (strip + 1) * p->strip;

    return end < p->tiles ? end : p->tiles;
}

static void kernel_part(const void *context, int64_t begin, int64_t end)
{
    const struct winograd_call *c = context;
    const struct winograd_plan *p = c->p;

    if (!p->turned)
        p->device->simd->winograd->kernel(c->k, p->in.c, p->out.c, false, c->kernel, p->kernel_step, begin, end);
    else
        p->device->simd->winograd->kernel(c->k, p->out.c, p->in.c, true, c->turned, p->kernel_step, begin, end);
}

static void transpose_part(const void *context, int64_t begin, int64_t end)
{
    const struct winograd_call *c = context;
    const struct winograd_plan *p = c->p;

    for (int64_t i = begin; i < end; i++)
        p->device->simd->winograd->transpose(c->kernel + i * p->kernel_step, c->turned + i * p->kernel_step, p->out.c, p->in.c);
}

static void strip_part(const void *context, int64_t begin, int64_t end)
{
    const struct winograd_call *c = context;
    const struct winograd_plan *p = c->p;
    const struct simd_winograd *simd = p->device->simd->winograd;
    float *in = member(c), *out = in + WINOGRAD_POINTS * p->in_step;

    for (int64_t s = begin; s < end; s++) {
        int64_t first = s * p->strip, last = strip_end(p, s);

        simd->input(&p->in, c->x, in, p->in_step, first, last);
        for (int i = 0; i < WINOGRAD_POINTS; i++)
            simd->product(last - first, p->out.c, p->in.c, in + i * p->in_step, p->in.c, 1, c->kernel + i * p->kernel_step,
                          out + i * p->out_step, false);
        simd->output(&p->out, out, p->out_step, c->bias, c->y, first, last);
    }
}

/* y, or dx. */
static void run(const struct winograd_plan *p, struct winograd_call *c)
{
    c->kernel = (float *)c->scratch;
    c->turned = c->kernel + WINOGRAD_POINTS * p->kernel_step;
    team_run(p->device, p->turned ? p->out.c : p->in.c, team_grain(WINOGRAD_POINTS * (p->turned ? p->in.c : p->out.c)),
             kernel_part, c);
    if (p->turned)
        team_run(p->device, WINOGRAD_POINTS, team_grain(p->in.c * p->out.c), transpose_part, c);
    team_run(p->device, p->strips, 1, strip_part, c);
}

static void forward_run(const struct kernel_call *c)
{
    run(c->prepared, &(struct winograd_call){.p = c->prepared,
                                             .x = c->in[0],
                                             .k = c->in[1],
                                             .bias = c->node->n_in > 2 ? c->in[2] : NULL,
                                             .y = c->out[0],
                                             .scratch = c->scratch});
}

static void dx_run(const struct kernel_call *c)
{
    run(c->prepared,
        &(struct winograd_call){.p = c->prepared, .x = c->in[0], .k = c->in[1], .y = c->out[0], .scratch = c->scratch});
}

/* Adds a strip's sums of dy to its band's. */
static void add_bias(const struct winograd_call *c, double *bias, const float *out, int64_t tiles, double *strip)
{
    const struct winograd_plan *p = c->p;

    p->device->simd->sums->sum_rows(strip, out + WINOGRAD_POINTS * p->out_step, tiles, p->out.c, false);
    for (int64_t i = 0; i < p->out.c; i++)
        bias[i] += strip[i];
}

static void band_part(const void *context, int64_t begin, int64_t end)
{
    const struct winograd_call *c = context;
    const struct winograd_plan *p = c->p;
    const struct simd_winograd *simd = p->device->simd->winograd;
    float *in = member(c), *out = in + WINOGRAD_POINTS * p->in_step;

    for (int64_t b = begin; b < end; b++) {
        float *sums = (float *)c->scratch + b * WINOGRAD_POINTS * p->kernel_step;
        double *bias = (double *)(c->scratch + p->bias_at) + b * p->out.c;

        memset(bias, 0, (size_t)p->out.c * sizeof *bias);
        for (int64_t s = p->strips * b / p->bands, from = s; s < p->strips * (b + 1) / p->bands; s++) {
            int64_t first = s * p->strip, last = strip_end(p, s);

            simd->input(&p->in, c->x, in, p->in_step, first, last);
            simd->filter_of_gradient(&p->out, c->dy, out, p->out_step, first, last);
            for (int i = 0; i < WINOGRAD_POINTS; i++)
                simd->product(p->in.c, p->out.c, last - first, in + i * p->in_step, 1, p->in.c, out + i * p->out_step,
                              sums + i * p->kernel_step, s > from);
            if (c->db)
                add_bias(c, bias, out, last - first, (double *)(out + (WINOGRAD_POINTS + 1) * p->out_step));
        }
    }
}

static void join_part(const void *context, int64_t begin, int64_t end)
{
    const struct winograd_call *c = context;
    const struct winograd_plan *p = c->p;
    float *sums = (float *)c->scratch;

    for (int64_t b = 1; b < p->bands; b++)
        for (int i = 0; i < WINOGRAD_POINTS; i++)
            p->device->simd->sums->add(sums + i * p->kernel_step + begin * p->out.c,
                                       sums + (b * WINOGRAD_POINTS + i) * p->kernel_step + begin * p->out.c,
                                       (end - begin) * p->out.c);
    p->device->simd->winograd->kernel_gradient(sums, p->kernel_step, p->in.c, p->out.c, c->dk, begin, end);
}

static void dw_run(const struct kernel_call *c)
{
    const struct winograd_plan *p = c->prepared;
    struct winograd_call call = {.p = p,
                                 .x = c->in[0],
                                 .dy = c->in[1],
                                 .dk = c->out[0],
                                 .db = c->node->n_out > 1 ? c->out[1] : NULL,
                                 .scratch = c->scratch};

    team_run(p->device, p->bands, 1, band_part, &call);
    team_run(p->device, p->in.c, team_grain(WINOGRAD_POINTS * p->bands * p->out.c), join_part, &call);
    for (int64_t i = 0; call.db && i < p->out.c; i++) {
        const double *bias = (const double *)(call.scratch + p->bias_at) + i;
        double sum = 0;

        for (int64_t b = 0; b < p->bands; b++)
            sum += bias[b * p->out.c];
        call.db[i] = (float)sum;
    }
}

const struct kernel kernel_conv_winograd = {"conv", "conv_winograd.forward", forward_prepare, forward_run, release_plain};
const struct kernel kernel_conv_dx_winograd = {"conv_dx", "conv_winograd.dx", dx_prepare, dx_run, release_plain};
const struct kernel kernel_conv_dw_winograd = {"conv_dw", "conv_winograd.dw", dw_prepare, dw_run, release_plain};
