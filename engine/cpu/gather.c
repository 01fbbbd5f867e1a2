/* Looking up rows and elements by index, and the sums that are their gradients.
 *
 * scatter_add gives each thread a range of columns, not of indices: every element of the table is then summed in index order,
 * whatever the team. scatter_rows, whose sums lie close together, gives each thread a range of sums, for the same reason. It
 * writes what was looked up alone: of 20,000 rows of which a step reads 2,560, an eighth of the memory. */
#include "engine/cpu/cpu.h"

#include <math.h>
#include <string.h>

#include "engine/ops/element.h"

struct lookup {
    const struct device *device;
    const float *x;
    float *y;
    const void *index;
    enum dtype type;
    int64_t n, rows, width; /* indices; of the table or row */
};

static void gather_part(const void *context, int64_t begin, int64_t end)
{
    const struct lookup *c = context;
    size_t bytes = (size_t)c->width * sizeof(float);

    for (int64_t i = begin; i < end; i++) {
        int64_t row = element_index(c->index, c->type, i, c->rows);

        if (row >= 0)
            memcpy(c->y + i * c->width, c->x + row * c->width, bytes);
        else
            c->device->simd->formulas->fill(c->y + i * c->width, NAN, c->width);
    }
}

static void gather_run(const struct kernel_call *c)
{
    const struct shape *table = &IN_VALUE(c, 0)->shape;
    struct lookup call = {.device = DEVICE(c),
                          .x = c->in[0],
                          .y = c->out[0],
                          .index = c->in[1],
                          .type = IN_VALUE(c, 1)->type,
                          .rows = table->dim[0],
                          .width = table->dim[1]};

    team_run(call.device, shape_count(&IN_VALUE(c, 1)->shape), team_grain(call.width), gather_part, &call);
}

static KERNEL_PREPARE(scatter_prepare)
{
    TRY(prepare_plain(d, n, values, ret, scratch, problem));
    *scratch = (size_t)count_of(values, n->in[1]) * sizeof(int64_t);
    return ST_OK;
}

static void clear_part(const void *context, int64_t begin, int64_t end)
{
    const struct lookup *c = context;

    memset(c->y + begin, 0, (size_t)(end - begin) * sizeof(float));
}

static void scatter_part(const void *context, int64_t begin, int64_t end)
{
    const struct lookup *c = context;
    const int64_t *rows = c->index;

    for (int64_t i = 0; i < c->n; i++)
        if (rows[i] >= 0)
            c->device->simd->sums->add(c->y + rows[i] * c->width + begin, c->x + i * c->width + begin, end - begin);
}

static void scatter_run(const struct kernel_call *c)
{
    const struct shape *table = &OUT_VALUE(c, 0)->shape;
    int64_t *rows = c->scratch;
    struct lookup call = {.device = DEVICE(c),
                          .x = c->in[0],
                          .y = c->out[0],
                          .index = rows,
                          .n = shape_count(&IN_VALUE(c, 1)->shape),
                          .rows = table->dim[0],
                          .width = table->dim[1]};

    for (int64_t i = 0; i < call.n; i++)
        rows[i] = element_index(c->in[1], IN_VALUE(c, 1)->type, i, call.rows);
    team_run(call.device, call.rows * call.width, 4 * TEAM_GRAIN, clear_part, &call);
    /* not below 16 columns a thread: a cache line each */
    int64_t grain = team_grain(call.n);

    team_run(call.device, call.width, grain < 16 ? 16 : grain, scatter_part, &call);
}

static KERNEL_PREPARE(scatter_rows_prepare)
{
    TRY(prepare_plain(d, n, values, ret, scratch, problem));
    *scratch = (size_t)count_of(values, n->in[1]) * sizeof(int32_t);
    return ST_OK;
}

/* Sums begin .. end, all columns: indices that come together mostly have sums that lie together. The sums are numbered as their
 * rows first come, so that the first index of a row is the one that has the next number. */
static void scatter_rows_part(const void *context, int64_t begin, int64_t end)
{
    const struct lookup *c = context;
    const int32_t *place = c->index;
    size_t bytes = (size_t)c->width * sizeof(float);
    int64_t next = begin;

    for (int64_t i = 0; i < c->n; i++) {
        if (place[i] < begin || place[i] >= end)
            continue;
        float *to = c->y + place[i] * c->width;

        if (place[i] == next) {
            memset(to, 0, bytes);
            next++;
        }
        c->device->simd->sums->add(to, c->x + i * c->width, c->width);
    }
    memset(c->y + next * c->width, 0, (size_t)(end - next) * bytes);
}

static void scatter_rows_run(const struct kernel_call *c)
{
    const struct shape *sums = &OUT_VALUE(c, 0)->shape;
    int32_t *place = c->scratch, *where = c->out[1], used = 0;
    struct lookup call = {.device = DEVICE(c),
                          .x = c->in[0],
                          .y = c->out[0],
                          .index = place,
                          .n = sums->dim[0],
                          .rows = OUT_VALUE(c, 1)->shape.dim[0],
                          .width = sums->dim[1]};

    memset(where, 0xff, (size_t)call.rows * sizeof *where);
    for (int64_t i = 0; i < call.n; i++) {
        int64_t row = element_index(c->in[1], IN_VALUE(c, 1)->type, i, call.rows);

        if (row >= 0 && where[row] < 0)
            where[row] = used++;
        place[i] = row < 0 ? -1 : where[row];
    }
    team_run(call.device, call.n, team_grain(call.width), scatter_rows_part, &call);
}

static void pick_run(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape), width = width_of(&IN_VALUE(c, 0)->shape);
    const float *x = c->in[0];
    float *y = c->out[0];

    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[1], IN_VALUE(c, 1)->type, i, width);

        y[i] = k < 0 ? NAN : x[i * width + k];
    }
}

static void pick_dx_run(const struct kernel_call *c)
{
    int64_t n = shape_count(&IN_VALUE(c, 0)->shape), width = width_of(&OUT_VALUE(c, 0)->shape);
    const float *dy = c->in[0];
    float *dx = c->out[0];

    memset(dx, 0, (size_t)(n * width) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[1], IN_VALUE(c, 1)->type, i, width);

        if (k >= 0)
            dx[i * width + k] = dy[i];
    }
}

static void one_hot_run(const struct kernel_call *c)
{
    const struct one_hot *how = c->node->attr;
    int64_t n = shape_count(&IN_VALUE(c, 0)->shape);
    float *y = c->out[0];

    memset(y, 0, (size_t)(n * how->classes) * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[0], IN_VALUE(c, 0)->type, i, how->classes);

        if (k >= 0)
            y[i * how->classes + k] = 1;
    }
}

const struct kernel kernel_gather = {"gather", "gather.gather", prepare_plain, gather_run, release_plain};
const struct kernel kernel_scatter_add = {"scatter_add", "gather.scatter_add", scatter_prepare, scatter_run, release_plain};
const struct kernel kernel_scatter_rows = {"scatter_rows", "gather.scatter_rows", scatter_rows_prepare, scatter_rows_run,
                                           release_plain};
const struct kernel kernel_pick = {"pick", "gather.pick", prepare_plain, pick_run, release_plain};
const struct kernel kernel_pick_dx = {"pick_dx", "gather.pick_dx", prepare_plain, pick_dx_run, release_plain};
const struct kernel kernel_one_hot = {"one_hot", "gather.one_hot", prepare_plain, one_hot_run, release_plain};
