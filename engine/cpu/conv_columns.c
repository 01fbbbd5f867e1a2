/* Convolutions as matrix products: the windows of a strip of output rows become the rows of a matrix.
 *
 *   y  = columns(x) w                    columns (positions, kh kw c / groups), w (kh kw c / groups, filters / groups)
 *   dx = back(dy w^T)                    back() adds each row to the window that it came from
 *   dw = columns(x)^T dy                 summed over strips and images in a fixed order
 *
 * Takes what oneDNN declines, and everything where oneDNN is not built. Images are split over the team; a strip's matrix stays
 * in L2. Groups are products over slices of the same rows. */
#include "engine/cpu/product.h"

#include <string.h>

#define STRIP_FLOATS (128 * 1024) /* of a strip's matrix: 512 KiB */
#define MAX_BANDS    8            /* partial weight gradients */

struct columns_plan {
    const struct device *device;
    struct conv how;
    int64_t n, h, w, c, kh, kw, oh, ow, f;
    int64_t depth;       /* kh kw c / groups: columns of the matrix for one group */
    int64_t strip;       /* output rows in a strip */
    int64_t bands, band; /* of images, for dw */
    size_t matrix;       /* floats of one thread's matrix, of one group */
};

static enum status columns_make(struct device *d, const struct conv *how, const struct shape *x, const struct shape *kernel,
                                const struct shape *y, bool to_weights, void **ret, size_t *scratch, struct problem *problem)
{
    struct columns_plan *p;
    int64_t depth = kernel->dim[0] * kernel->dim[1] * kernel->dim[2], row = y->dim[2] * depth;

    if (row <= 0 || x->dim[0] <= 0 || y->dim[1] <= 0 || row > INT32_MAX)
        return fail(problem, ST_UNSUPPORTED, "", "an empty or a very wide image");
    p = must_alloc(sizeof *p);
    *p = (struct columns_plan){.device = d,
                               .how = *how,
                               .n = x->dim[0],
                               .h = x->dim[1],
                               .w = x->dim[2],
                               .c = x->dim[3],
                               .kh = kernel->dim[0],
                               .kw = kernel->dim[1],
                               .oh = y->dim[1],
                               .ow = y->dim[2],
                               .f = y->dim[3],
                               .depth = depth};
    p->strip = STRIP_FLOATS / row < 1 ? 1 : STRIP_FLOATS / row < p->oh ? STRIP_FLOATS / row : p->oh;
    p->matrix = (size_t)(p->strip * row + 15) & ~(size_t)15;
    p->bands = p->n < MAX_BANDS ? p->n : MAX_BANDS;
    p->band = (p->n + p->bands - 1) / p->bands;
    p->bands = (p->n + p->band - 1) / p->band;
    *scratch = (size_t)d->threads * p->matrix * sizeof(float);
    if (to_weights)
        *scratch += (size_t)p->bands * (size_t)shape_count(kernel) * sizeof(float);
    *ret = p;
    return ST_OK;
}

static KERNEL_PREPARE(forward_prepare)
{
    TRY(all_f32(n, values, problem));
    return columns_make(d, n->attr, &values[n->in[0]].shape, &values[n->in[1]].shape, &values[n->out[0]].shape, false, ret,
                        scratch, problem);
}

static KERNEL_PREPARE(dx_prepare)
{
    TRY(all_f32(n, values, problem));
    return columns_make(d, n->attr, &values[n->out[0]].shape, &values[n->in[1]].shape, &values[n->in[0]].shape, false, ret,
                        scratch, problem);
}

static KERNEL_PREPARE(dw_prepare)
{
    TRY(all_f32(n, values, problem));
    return columns_make(d, n->attr, &values[n->in[0]].shape, &values[n->out[0]].shape, &values[n->in[1]].shape, true, ret,
                        scratch, problem);
}

/* The window at output (i, j) of one image, for one group's channels: to the matrix's row, or back into the image. */
static void window(const struct columns_plan *p, int64_t i, int64_t j, int64_t group, float *image, float *row, bool back)
{
    const struct conv *how = &p->how;
    int64_t width = p->c / how->groups, top = i * how->stride[0] - how->pad[0][0], left = j * how->stride[1] - how->pad[1][0];

    for (int64_t a = 0; a < p->kh; a++) {
        int64_t y = top + a * how->dilation[0];

        for (int64_t b = 0; b < p->kw; b++, row += width) {
            int64_t x = left + b * how->dilation[1];
            bool inside = y >= 0 && y < p->h && x >= 0 && x < p->w;
            float *pixel = image + (y * p->w + x) * p->c + group * width;

            if (!back && inside)
                memcpy(row, pixel, (size_t)width * sizeof *row);
            else if (!back)
                memset(row, 0, (size_t)width * sizeof *row);
            else if (inside)
                for (int64_t k = 0; k < width; k++)
                    pixel[k] += row[k];
        }
    }
}

static void windows(const struct columns_plan *p, int64_t first, int64_t rows, int64_t group, float *image, float *matrix,
                    bool back)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < p->ow; j++, matrix += p->depth)
            window(p, first + i, j, group, image, matrix, back);
}

struct columns_call {
    const struct columns_plan *p;
    const float *x, *w, *bias, *dy;
    float *y, *dx, *partial, *matrices;
};

static void forward_part(const void *context, int64_t begin, int64_t end)
{
    const struct columns_call *c = context;
    const struct columns_plan *p = c->p;
    float *matrix = c->matrices + (size_t)team_member() * p->matrix;
    int64_t filters = p->f / p->how.groups;

    for (int64_t n = begin; n < end; n++)
        for (int64_t first = 0; first < p->oh; first += p->strip) {
            int64_t rows = p->oh - first < p->strip ? p->oh - first : p->strip;
            float *y = c->y + ((n * p->oh + first) * p->ow) * p->f;

            for (int64_t g = 0; g < p->how.groups; g++) {
                windows(p, first, rows, g, (float *)c->x + n * p->h * p->w * p->c, matrix, false);
                product(p->device, false, false, rows * p->ow, filters, p->depth, matrix, p->depth, c->w + g * filters, p->f, 0,
                        y + g * filters, p->f);
            }
            if (c->bias)
                p->device->simd->sums->add_row(y, c->bias, rows * p->ow, p->f);
        }
}

static void dx_part(const void *context, int64_t begin, int64_t end)
{
    const struct columns_call *c = context;
    const struct columns_plan *p = c->p;
    float *matrix = c->matrices + (size_t)team_member() * p->matrix;
    int64_t filters = p->f / p->how.groups, image = p->h * p->w * p->c;

    memset(c->dx + begin * image, 0, (size_t)((end - begin) * image) * sizeof(float));
    for (int64_t n = begin; n < end; n++)
        for (int64_t first = 0; first < p->oh; first += p->strip) {
            int64_t rows = p->oh - first < p->strip ? p->oh - first : p->strip;
            const float *dy = c->dy + ((n * p->oh + first) * p->ow) * p->f;

            for (int64_t g = 0; g < p->how.groups; g++) {
                product(p->device, false, true, rows * p->ow, p->depth, filters, dy + g * filters, p->f, c->w + g * filters,
                        p->f, 0, matrix, p->depth);
                windows(p, first, rows, g, c->dx + n * image, matrix, true);
            }
        }
}

static void dw_part(const void *context, int64_t begin, int64_t end)
{
    const struct columns_call *c = context;
    const struct columns_plan *p = c->p;
    float *matrix = c->matrices + (size_t)team_member() * p->matrix;
    int64_t filters = p->f / p->how.groups;

    for (int64_t band = begin; band < end; band++) {
        float *dw = c->partial + band * p->depth * p->f, beta = 0;
        int64_t last = (band + 1) * p->band < p->n ? (band + 1) * p->band : p->n;

        for (int64_t n = band * p->band; n < last; n++)
            for (int64_t first = 0; first < p->oh; first += p->strip) {
                int64_t rows = p->oh - first < p->strip ? p->oh - first : p->strip;
                const float *dy = c->dy + ((n * p->oh + first) * p->ow) * p->f;

                for (int64_t g = 0; g < p->how.groups; g++) {
                    windows(p, first, rows, g, (float *)c->x + n * p->h * p->w * p->c, matrix, false);
                    product(p->device, true, false, p->depth, filters, rows * p->ow, matrix, p->depth, dy + g * filters, p->f,
                            beta, dw + g * filters, p->f);
                }
                beta = 1;
            }
    }
}

static void forward_run(const struct kernel_call *c)
{
    const struct columns_plan *p = c->prepared;
    struct columns_call call = {.p = p,
                                .x = c->in[0],
                                .w = c->in[1],
                                .y = c->out[0],
                                .matrices = c->scratch,
                                .bias = c->node->n_in > 2 ? c->in[2] : NULL};

    team_run(p->device, p->n, 1, forward_part, &call);
}

static void dx_run(const struct kernel_call *c)
{
    const struct columns_plan *p = c->prepared;

    team_run(p->device, p->n, 1, dx_part,
             &(struct columns_call){.p = p, .dy = c->in[0], .w = c->in[1], .dx = c->out[0], .matrices = c->scratch});
}

/* Sums over images of dy, joined in double like every sum. */
static void bias_gradient(const struct columns_plan *p, const float *dy, float *dbias)
{
    double sums[64];

    for (int64_t at = 0; at < p->f; at += 64) {
        int64_t width = p->f - at < 64 ? p->f - at : 64;

        memset(sums, 0, sizeof sums);
        for (int64_t r = 0; r < p->n * p->oh * p->ow; r++)
            for (int64_t k = 0; k < width; k++)
                sums[k] += (double)dy[r * p->f + at + k];
        for (int64_t k = 0; k < width; k++)
            dbias[at + k] = (float)sums[k];
    }
}

static void dw_run(const struct kernel_call *c)
{
    const struct columns_plan *p = c->prepared;
    int64_t size = p->depth * p->f;
    float *matrices = c->scratch, *partial = matrices + (size_t)p->device->threads * p->matrix;

    team_run(p->device, p->bands, 1, dw_part,
             &(struct columns_call){.p = p, .x = c->in[0], .dy = c->in[1], .partial = partial, .matrices = matrices});
    memcpy(c->out[0], partial, (size_t)size * sizeof(float));
    for (int64_t band = 1; band < p->bands; band++)
        p->device->simd->sums->add(c->out[0], partial + band * size, size);
    if (c->node->n_out > 1 && c->out[1])
        bias_gradient(p, c->in[1], c->out[1]);
}

const struct kernel kernel_conv = {"conv", "conv_columns.forward", forward_prepare, forward_run, release_plain};
const struct kernel kernel_conv_dx = {"conv_dx", "conv_columns.dx", dx_prepare, dx_run, release_plain};
const struct kernel kernel_conv_dw = {"conv_dw", "conv_columns.dw", dw_prepare, dw_run, release_plain};
