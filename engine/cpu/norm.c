/* Batch normalisation.
 *
 * The moments take two passes (mean, then squares around it), since E[x^2] - E[x]^2 loses all digits where the mean is large.
 * Rows are cut in bands that follow from their number alone; band sums are doubles and join in order. */
#include "engine/cpu/cpu.h"

#include <math.h>

#include "engine/ops/element.h"

#define MAX_BANDS 16

enum { IN_X, IN_GAMMA, IN_BETA, OUT_Y = 0, OUT_MEAN, OUT_VARIANCE, OUT_INVERSE };
enum { IN_DY, IN_DX_X, IN_DX_GAMMA, IN_DX_MEAN, IN_DX_INVERSE, OUT_DX = 0, OUT_DGAMMA, OUT_DBETA };

struct norm_plan {
    const struct device *device;
    int64_t rows, n, band, bands;
};

static KERNEL_PREPARE(norm_prepare)
{
    const struct shape *x = &values[n->out[0]].shape;
    struct norm_plan p = {.device = d, .rows = rows_of(x), .n = width_of(x)};

    TRY(all_f32(n, values, problem));
    p.band = ((p.rows + MAX_BANDS - 1) / MAX_BANDS + SUM_BLOCK - 1) / SUM_BLOCK * SUM_BLOCK;
    p.bands = p.rows > 0 ? (p.rows + p.band - 1) / p.band : 0;
    if (!p.bands)
        return fail(problem, ST_UNSUPPORTED, "", "no rows");
    /* two double sums a band, then three lines of floats */
    *scratch = (size_t)(2 * p.bands * p.n) * sizeof(double) + (size_t)(3 * p.n) * sizeof(float);
    struct norm_plan *keep = must_alloc(sizeof *keep);

    *keep = p;
    *ret = keep;
    return ST_OK;
}

struct norm_call {
    const struct norm_plan *p;
    const float *x, *dy, *mean, *scale, *of_x, *shift;
    float *y;
    double *sums, *more;
};

static int64_t band_rows(const struct norm_plan *p, int64_t band)
{
    int64_t left = p->rows - band * p->band;

    return left < p->band ? left : p->band;
}

/* sums[0] of the first band becomes the sum of all bands. */
static void join(const struct norm_plan *p, double *sums)
{
    for (int64_t b = 1; b < p->bands; b++)
        for (int64_t i = 0; i < p->n; i++)
            sums[i] += sums[b * p->n + i];
}

static void mean_part(const void *context, int64_t begin, int64_t end)
{
    const struct norm_call *c = context;

    for (int64_t b = begin; b < end; b++)
        c->p->device->simd->sums->sum_rows(c->sums + b * c->p->n, c->x + b * c->p->band * c->p->n, band_rows(c->p, b), c->p->n,
                                           false);
}

static void squares_part(const void *context, int64_t begin, int64_t end)
{
    const struct norm_call *c = context;

    for (int64_t b = begin; b < end; b++)
        c->p->device->simd->norms->squares_around(c->sums + b * c->p->n, c->x + b * c->p->band * c->p->n, c->mean,
                                                  band_rows(c->p, b), c->p->n);
}

static void line_part(const void *context, int64_t begin, int64_t end)
{
    const struct norm_call *c = context;
    int64_t at = begin * c->p->n;

    c->p->device->simd->norms->line(c->y + at, c->x + at, c->mean, c->scale, c->shift, end - begin, c->p->n);
}

static void norm_run(const struct kernel_call *c)
{
    const struct norm_plan *p = c->prepared;
    const struct batch_norm *how = c->node->attr;
    const float *gamma = c->in[IN_GAMMA], *beta = c->in[IN_BETA];
    float *mean = c->out[OUT_MEAN], *variance = c->out[OUT_VARIANCE], *inverse = c->out[OUT_INVERSE];
    double *sums = c->scratch;
    float *scale = (float *)(sums + 2 * p->bands * p->n), *shift = scale + p->n;
    struct norm_call call = {
        .p = p, .x = c->in[IN_X], .y = c->out[OUT_Y], .mean = mean, .scale = scale, .shift = shift, .sums = sums};
    int64_t grain = team_grain(p->band * p->n);

    team_run(p->device, p->bands, grain, mean_part, &call);
    join(p, sums);
    for (int64_t i = 0; i < p->n; i++)
        mean[i] = (float)(sums[i] / (double)p->rows);
    team_run(p->device, p->bands, grain, squares_part, &call);
    join(p, sums);
    for (int64_t i = 0; i < p->n; i++) {
        double v = sums[i] / (double)p->rows, s = 1 / sqrt(v + (double)how->epsilon);

        variance[i] = (float)v;
        inverse[i] = (float)s;
        scale[i] = (float)(s * (gamma ? (double)gamma[i] : 1));
        shift[i] = beta ? beta[i] : 0;
    }
    team_run(p->device, p->rows, team_grain(p->n), line_part, &call);
}

static void gradient_part(const void *context, int64_t begin, int64_t end)
{
    const struct norm_call *c = context;

    for (int64_t b = begin; b < end; b++) {
        int64_t at = b * c->p->band * c->p->n;

        c->p->device->simd->norms->gradient_sums(c->sums + b * c->p->n, c->more + b * c->p->n, c->dy + at, c->x + at, c->mean,
                                                 band_rows(c->p, b), c->p->n);
    }
}

static void plane_part(const void *context, int64_t begin, int64_t end)
{
    const struct norm_call *c = context;
    int64_t at = begin * c->p->n;

    c->p->device->simd->norms->plane(c->y + at, c->dy + at, c->x + at, c->mean, c->scale, c->of_x, c->shift, end - begin,
                                     c->p->n);
}

static void norm_dx_run(const struct kernel_call *c)
{
    const struct norm_plan *p = c->prepared;
    const float *gamma = c->in[IN_DX_GAMMA], *inverse = c->in[IN_DX_INVERSE];
    double *dbeta = c->scratch, *dgamma = dbeta + p->bands * p->n;
    float *scale = (float *)(dbeta + 2 * p->bands * p->n), *of_x = scale + p->n, *shift = of_x + p->n;
    struct norm_call call = {.p = p,
                             .x = c->in[IN_DX_X],
                             .dy = c->in[IN_DY],
                             .y = c->out[OUT_DX],
                             .mean = c->in[IN_DX_MEAN],
                             .scale = scale,
                             .of_x = of_x,
                             .shift = shift,
                             .sums = dbeta,
                             .more = dgamma};

    team_run(p->device, p->bands, team_grain(p->band * p->n), gradient_part, &call);
    join(p, dbeta);
    join(p, dgamma);
    for (int64_t i = 0; i < p->n; i++) {
        double s = inverse[i], g = s * (gamma ? (double)gamma[i] : 1), m = (double)p->rows;

        dgamma[i] *= s;
        ((float *)c->out[OUT_DGAMMA])[i] = (float)dgamma[i];
        ((float *)c->out[OUT_DBETA])[i] = (float)dbeta[i];
        scale[i] = (float)g;
        of_x[i] = (float)(-g * s * dgamma[i] / m);
        shift[i] = (float)(-g * dbeta[i] / m);
    }
    team_run(p->device, p->rows, team_grain(p->n), plane_part, &call);
}

const struct kernel kernel_batch_norm = {"batch_norm", "norm.forward", norm_prepare, norm_run, release_plain};
const struct kernel kernel_batch_norm_dx = {"batch_norm_dx", "norm.dx", norm_prepare, norm_dx_run, release_plain};
