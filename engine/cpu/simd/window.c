/* Pooling, NHWC: the loops over channels are vector code, windows and pixels go around them.
 *
 * Channels go in strips so that a strip's running maximum, place or sum stays in registers or L1 while the window is read. */
#include "engine/cpu/simd/simd.h"

#define STRIP 64

struct range {
    int64_t first, begin, end; /* first row or column of the window; its elements that exist */
};

static struct range range_of(const struct pool_shape *g, int axis, int64_t i, int64_t n)
{
    struct range r = {.first = i * g->stride[axis] - g->pad[axis]};

    r.begin = r.first < 0 ? -r.first : 0;
    r.end = r.first + g->size[axis] > n ? n - r.first : g->size[axis];
    return r;
}

static void max_pixel(const struct pool_shape *g, const float *x, float *y, uint8_t *place, struct range p, struct range q)
{
    for (int64_t at = 0; at < g->c; at += STRIP) {
        int width = (int)(g->c - at < STRIP ? g->c - at : STRIP);
        float best[STRIP];
        int32_t where[STRIP];
        const float *from = x + ((p.first + p.begin) * g->w + q.first + q.begin) * g->c + at;

        for (int k = 0; k < width; k++) {
            best[k] = from[k];
            where[k] = (int32_t)(p.begin * g->size[1] + q.begin);
        }
        for (int64_t a = p.begin; a < p.end; a++)
            for (int64_t b = a == p.begin ? q.begin + 1 : q.begin; b < q.end; b++) {
                int32_t number = (int32_t)(a * g->size[1] + b);

                from = x + ((p.first + a) * g->w + q.first + b) * g->c + at;
#pragma omp simd
                for (int k = 0; k < width; k++) { /* a NaN is larger than any number; the first of equals stays */
                    int larger = (from[k] > best[k]) | ((from[k] != from[k]) & (best[k] == best[k]));

                    best[k] = larger ? from[k] : best[k];
                    where[k] = larger ? number : where[k];
                }
            }
        for (int k = 0; k < width; k++)
            y[at + k] = best[k];
        if (place)
            for (int k = 0; k < width; k++)
                place[at + k] = (uint8_t)where[k];
    }
}

static void mean_pixel(const struct pool_shape *g, const float *x, float *y, struct range p, struct range q)
{
    float scale = 1.0f / (float)((p.end - p.begin) * (q.end - q.begin));

    for (int64_t at = 0; at < g->c; at += STRIP) {
        int width = (int)(g->c - at < STRIP ? g->c - at : STRIP);
        float sum[STRIP] = {0};

        for (int64_t a = p.begin; a < p.end; a++)
            for (int64_t b = q.begin; b < q.end; b++) {
                const float *from = x + ((p.first + a) * g->w + q.first + b) * g->c + at;

#pragma omp simd
                for (int k = 0; k < width; k++)
                    sum[k] += from[k];
            }
        for (int k = 0; k < width; k++)
            y[at + k] = sum[k] * scale;
    }
}

static void pool(const struct pool_shape *g, const float *x, float *y, uint8_t *place, int64_t begin, int64_t end)
{
    for (int64_t row = begin; row < end; row++) {
        const float *image = x + row / g->oh * g->h * g->w * g->c;
        struct range p = range_of(g, 0, row % g->oh, g->h);

        for (int64_t j = 0; j < g->ow; j++) {
            struct range q = range_of(g, 1, j, g->w);
            int64_t o = (row * g->ow + j) * g->c;

            if (g->max)
                max_pixel(g, image, y + o, place ? place + o : NULL, p, q);
            else
                mean_pixel(g, image, y + o, p, q);
        }
    }
}

/* Windows that touch nothing twice: every element of dx is written once. */
static void max_back_apart(const struct pool_shape *g, float *dx, const float *dy, const uint8_t *place, struct range p,
                           struct range q)
{
    for (int64_t a = p.begin; a < p.end; a++)
        for (int64_t b = q.begin; b < q.end; b++) {
            float *to = dx + ((p.first + a) * g->w + q.first + b) * g->c;
            int number = (int)(a * g->size[1] + b);

#pragma omp simd
            for (int64_t k = 0; k < g->c; k++)
                to[k] = place[k] == number ? dy[k] : 0.0f;
        }
}

static void max_back(const struct pool_shape *g, float *dx, const float *dy, const uint8_t *place, struct range p,
                     struct range q)
{
    for (int64_t a = p.begin; a < p.end; a++)
        for (int64_t b = q.begin; b < q.end; b++) {
            float *to = dx + ((p.first + a) * g->w + q.first + b) * g->c;
            int number = (int)(a * g->size[1] + b);

#pragma omp simd
            for (int64_t k = 0; k < g->c; k++)
                to[k] += place[k] == number ? dy[k] : 0.0f;
        }
}

static void mean_back(const struct pool_shape *g, float *dx, const float *dy, struct range p, struct range q)
{
    float count = (float)((p.end - p.begin) * (q.end - q.begin));

    for (int64_t a = p.begin; a < p.end; a++)
        for (int64_t b = q.begin; b < q.end; b++) {
            float *to = dx + ((p.first + a) * g->w + q.first + b) * g->c;

#pragma omp simd
            for (int64_t k = 0; k < g->c; k++)
                to[k] += dy[k] / count;
        }
}

static void pool_dx(const struct pool_shape *g, float *dx, const float *dy, const uint8_t *place, int64_t begin, int64_t end)
{
    int64_t size = g->h * g->w * g->c;
    bool whole = g->stride[0] == g->size[0] && g->stride[1] == g->size[1] && !g->pad[0] && !g->pad[1] &&
                 g->oh * g->size[0] == g->h && g->ow * g->size[1] == g->w && g->max;

    for (int64_t n = begin; n < end; n++) {
        float *image = dx + n * size;

        for (int64_t i = 0; i < size && !whole; i++)
            image[i] = 0;
        for (int64_t i = 0; i < g->oh; i++) {
            struct range p = range_of(g, 0, i, g->h);

            for (int64_t j = 0; j < g->ow; j++) {
                struct range q = range_of(g, 1, j, g->w);
                int64_t o = ((n * g->oh + i) * g->ow + j) * g->c;

                if (whole)
                    max_back_apart(g, image, dy + o, place + o, p, q);
                else if (g->max)
                    max_back(g, image, dy + o, place + o, p, q);
                else
                    mean_back(g, image, dy + o, p, q);
            }
        }
    }
}

const struct simd_windows SIMD(simd_windows) = {pool, pool_dx};
