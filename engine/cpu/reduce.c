/* Reductions.
 *
 * Axes of the same kind (kept, reduced) that are neighbours are one axis, so every case is a chain of passes over
 * (outer, m, inner), each reducing m: down columns where inner > 1, along memory where it is 1. Sums of many elements are cut
 * in bands whose double sums are joined in order; bands follow from the shape, never from the team. */
#include "engine/cpu/cpu.h"

#include <math.h>

#define BAND_ELEMENTS 65536 /* of one long row */
#define MAX_BANDS     16    /* of rows, when columns are summed */
#define SHORT_ROW     32    /* summed by plain additions in double */

struct pass {
    int64_t outer, m, inner, bands, band; /* bands of `band` elements of m */
    int kind;                             /* SUM, SUM_SQUARES or MAX */
    size_t partial;                       /* bytes of the bands' results */
};

struct reduce_plan {
    const struct device *device;
    struct pass pass[MAX_RANK];
    int n_passes, kind;
    double divisor;
    size_t between[2]; /* places of results between passes, behind the partial sums */
};

static struct pass pass_make(int64_t outer, int64_t m, int64_t inner, int kind)
{
    struct pass p = {.outer = outer, .m = m, .inner = inner, .bands = 1, .band = m, .kind = kind};

    if (kind == REDUCE_MAX)
        return p;
    if (inner == 1) {
        p.band = BAND_ELEMENTS;
        p.bands = m > 0 ? (m + BAND_ELEMENTS - 1) / BAND_ELEMENTS : 1;
    } else if (m > 2 * SUM_BLOCK) {
        p.band = ((m + MAX_BANDS - 1) / MAX_BANDS + SUM_BLOCK - 1) / SUM_BLOCK * SUM_BLOCK;
        p.bands = (m + p.band - 1) / p.band;
    }
    p.partial = inner > 1 || p.bands > 1 ? (size_t)(outer * p.bands * inner) * sizeof(double) : 0;
    return p;
}

static KERNEL_PREPARE(reduce_prepare)
{
    const struct reduce *how = n->attr;
    const struct shape *x = &values[n->in[0]].shape;
    int64_t dim[MAX_RANK + 1];
    bool gone[MAX_RANK + 1];
    int groups = 0, kind = how->kind == REDUCE_MEAN ? REDUCE_SUM : how->kind;
    struct reduce_plan p = {.device = d, .kind = how->kind, .divisor = 1};
    size_t partial = 0, sizes[2] = {0, 0};

    if (values[n->in[0]].type != F32)
        return fail(problem, ST_UNSUPPORTED, "", "only float32");
    for (int i = 0; i < x->rank; i++) {
        bool g = how->axes >> i & 1;

        if (x->dim[i] == 1)
            continue;
        if (g && how->kind == REDUCE_MEAN)
            p.divisor *= (double)x->dim[i];
        if (groups && gone[groups - 1] == g) {
            dim[groups - 1] *= x->dim[i];
            continue;
        }
        gone[groups] = g;
        dim[groups++] = x->dim[i];
    }
    if (how->kind == REDUCE_ARGMAX) {
        if (groups > 2 || (groups && !gone[groups - 1]))
            return fail(problem, ST_UNSUPPORTED, "", "the place of the largest along an inner axis");
    }
    for (int last = groups - 1; last >= 0; last--) { /* the last reduced group first */
        int64_t outer = 1, inner = 1;

        if (!gone[last])
            continue;
        for (int i = 0; i < last; i++)
            outer *= dim[i];
        for (int i = last + 1; i < groups; i++)
            inner *= gone[i] ? 1 : dim[i];
        p.pass[p.n_passes] = pass_make(outer, dim[last], inner, kind);
        if (p.pass[p.n_passes].partial > partial)
            partial = p.pass[p.n_passes].partial;
        if (outer * inner * 4 > (int64_t)sizes[p.n_passes & 1])
            sizes[p.n_passes & 1] = (size_t)(outer * inner) * sizeof(float);
        p.n_passes++;
        if (kind == REDUCE_SUM_SQUARES)
            kind = REDUCE_SUM;
    }
    if (!p.n_passes) { /* nothing is reduced; still squares are to be taken */
        int64_t all = shape_count(x);

        p.pass[p.n_passes++] = pass_make(all, 1, 1, kind);
    }
    p.between[0] = (partial + 63) & ~(size_t)63;
    p.between[1] = p.between[0] + (p.n_passes > 1 ? (sizes[0] + 63) & ~(size_t)63 : 0);
    *scratch = p.between[1] + (p.n_passes > 2 ? sizes[1] : 0);
    struct reduce_plan *keep = must_alloc(sizeof *keep);

    *keep = p;
    *ret = keep;
    return ST_OK;
}

struct reduce_call {
    const struct simd_sums *simd;
    const struct pass *p;
    const float *x;
    float *y;
    double *partial, divisor;
};

static double row_sum(const struct simd_sums *simd, const float *x, int64_t m, int kind)
{
    double s = 0;

    if (m > SHORT_ROW)
        return kind == REDUCE_SUM ? simd->sum(x, m) : simd->sum_squares(x, m);
    for (int64_t i = 0; i < m; i++)
        s += kind == REDUCE_SUM ? (double)x[i] : (double)x[i] * (double)x[i];
    return s;
}

static float row_max(const struct simd_sums *simd, const float *x, int64_t m)
{
    float largest = x[0];

    if (m > SHORT_ROW)
        return simd->largest(x, m);
    for (int64_t i = 1; i < m; i++)
        largest = x[i] > largest || x[i] != x[i] ? x[i] : largest >= x[i] || largest != largest ? largest : x[i];
    return largest;
}

/* Whole rows. */
static void rows_part(const void *context, int64_t begin, int64_t end)
{
    const struct reduce_call *c = context;

    for (int64_t r = begin; r < end; r++) {
        const float *x = c->x + r * c->p->m;

        c->y[r] = c->p->kind == REDUCE_MAX ? row_max(c->simd, x, c->p->m)
                                           : (float)(row_sum(c->simd, x, c->p->m, c->p->kind) / c->divisor);
    }
}

/* Bands of long rows. */
static void bands_part(const void *context, int64_t begin, int64_t end)
{
    const struct reduce_call *c = context;
    const struct pass *p = c->p;

    for (int64_t i = begin; i < end; i++) {
        int64_t row = i / p->bands, at = i % p->bands * p->band;

        c->partial[i] = row_sum(c->simd, c->x + row * p->m + at, p->m - at < p->band ? p->m - at : p->band, p->kind);
    }
}

/* Bands of rows, summed down columns. */
static void columns_part(const void *context, int64_t begin, int64_t end)
{
    const struct reduce_call *c = context;
    const struct pass *p = c->p;

    for (int64_t i = begin; i < end; i++) {
        int64_t at = i % p->bands * p->band, rows = p->m - at < p->band ? p->m - at : p->band;
        const float *x = c->x + (i / p->bands * p->m + at) * p->inner;

        if (p->kind == REDUCE_MAX)
            c->simd->largest_rows(c->y + i * p->inner, x, p->m, p->inner);
        else
            c->simd->sum_rows(c->partial + i * p->inner, x, rows, p->inner, p->kind == REDUCE_SUM_SQUARES);
    }
}

static void join_bands(const struct reduce_call *c)
{
    const struct pass *p = c->p;

    for (int64_t o = 0; o < p->outer; o++) {
        double *first = c->partial + o * p->bands * p->inner;

        for (int64_t b = 1; b < p->bands; b++)
            for (int64_t i = 0; i < p->inner; i++)
                first[i] += first[b * p->inner + i];
        for (int64_t i = 0; i < p->inner; i++)
            c->y[o * p->inner + i] = (float)(first[i] / c->divisor);
    }
}

static void run_pass(const struct device *d, const struct reduce_call *c)
{
    const struct pass *p = c->p;

    if (p->inner == 1 && p->bands == 1) {
        team_run(d, p->outer, team_grain(p->m), rows_part, c);
        return;
    }
    if (p->inner == 1)
        team_run(d, p->outer * p->bands, team_grain(p->band), bands_part, c);
    else
        team_run(d, p->outer * p->bands, team_grain(p->band * p->inner), columns_part, c);
    if (p->kind != REDUCE_MAX)
        join_bands(c);
}

static void argmax(const float *x, int64_t rows, int64_t m, int32_t *y)
{
    for (int64_t r = 0; r < rows; r++, x += m) {
        int64_t best = 0;

        for (int64_t i = 1; i < m && x[best] == x[best]; i++)
            if (x[i] > x[best] || x[i] != x[i])
                best = i;
        y[r] = (int32_t)best;
    }
}

static void reduce_run(const struct kernel_call *c)
{
    const struct reduce_plan *p = c->prepared;
    struct reduce_call call = {.simd = p->device->simd->sums, .x = c->in[0], .partial = c->scratch};

    if (p->kind == REDUCE_ARGMAX) {
        argmax(c->in[0], p->pass[0].outer, p->pass[0].m, c->out[0]);
        return;
    }
    for (int i = 0; i < p->n_passes; i++) {
        bool last = i == p->n_passes - 1;

        call.p = &p->pass[i];
        call.y = last ? c->out[0] : (float *)((char *)c->scratch + p->between[i & 1]);
        call.divisor = last ? p->divisor : 1;
        run_pass(p->device, &call);
        call.x = call.y;
    }
}

const struct kernel kernel_reduce = {"reduce", "reduce.reduce", reduce_prepare, reduce_run, release_plain};
