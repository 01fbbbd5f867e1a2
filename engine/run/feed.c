/* See feed.h. */
#include "engine/run/feed.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "engine/base/thread.h"

#define AHEAD_BYTES ((size_t)256 << 10) /* of inputs: what takes longer to gather than it takes to wake a thread (some 10 us) */
#define SHARE_BYTES ((size_t)64 << 10)  /* at least, for each thread of a team that gathers */

int64_t feed_steps(const struct feed *f)
{
    return (f->rows + f->batch - 1) / f->batch;
}

static int64_t rest(const struct feed *f)
{
    return f->rows % f->batch;
}

static void describe_arrays(struct feed *f, const struct model *model)
{
    const struct source *s = f->source;
    int weight = s->n_inputs + s->n_targets;

    for (int i = 0; i < s->n_inputs; i++)
        f->x[i] = (struct array_shape){s->array[i].type, s->array[i].row};
    for (int i = 0; i < s->n_targets; i++)
        f->y[i] = (struct array_shape){s->array[s->n_inputs + i].type, s->array[s->n_inputs + i].row};
    for (int i = 0; i < model->n_outputs; i++) {
        f->w[i].row.rank = -1;
        if (i < f->data->n_w && f->data->w[i]) {
            f->w[i] = (struct array_shape){s->array[weight].type, s->array[weight].row};
            weight++;
        }
    }
}

enum status feed_plan(struct feed *f, enum program_mode mode, const struct model *model, const struct compile_spec *compile,
                      struct weights *weights, const struct backend *backend, struct device *device, struct problem *problem)
{
    describe_arrays(f, model);
    struct program_request r = {.model = model,
                                .compile = compile,
                                .prepare = f->spec->prepare,
                                .mode = mode,
                                .x = f->x,
                                .y = f->y,
                                .w = f->source->n_weights ? f->w : NULL,
                                .class_weights = mode == PROGRAM_TRAIN && f->spec->n_class_weights > 0,
                                .weights = weights};
    const int64_t sizes[2] = {f->rows >= f->batch ? f->batch : 0, rest(f)};

    for (int i = 0; i < 2; i++) {
        if (!sizes[i])
            continue;
        r.batch = sizes[i];
        TRY(program_build(&r, &f->program[i], problem));
        TRY(program_plan(f->program[i], backend, device, problem));
    }
    if (r.class_weights)
        f->class_weight = must_alloc(sizeof(float) * (size_t)f->batch);
    return ST_OK;
}

void feed_needs(const struct feed *f, size_t needs[N_REGIONS], size_t *arena_bytes)
{
    for (int i = 0; i < 2; i++)
        if (f->program[i])
            program_needs(f->program[i], needs, arena_bytes);
}

enum status feed_start(struct feed *f, const struct regions *regions, void *arena, struct problem *problem)
{
    const struct plan *plan = (f->program[0] ? f->program[0] : f->program[1])->plan;

    f->ahead.beside = cpu_count() > plan->backend->threads(plan->device);
    for (int i = 0; i < 2; i++)
        if (f->program[i])
            TRY(program_start(f->program[i], regions, arena, problem));
    return ST_OK;
}

/* Where a batch goes: into the set of inputs that no step reads, if there are two. */
static void *place_of(const struct program *p, value_id v)
{
    return p->session->spare ? session_spare(p->session, v) : session_address(p->session, v);
}

struct gathering {
    struct source *source;
    int array;
    const int64_t *row;
    char *to;
    size_t row_bytes;
    atomic_bool *failed;
};

static void gather_rows(const void *context, int64_t begin, int64_t end)
{
    const struct gathering *g = context;
    struct problem ignored;

    if (g->source->gather(g->source, g->array, g->row + begin, end - begin, g->to + (size_t)begin * g->row_bytes, &ignored) !=
        ST_OK)
        atomic_store(g->failed, true);
}

/* The rows of a batch into memory of the host, by the team if it has nothing else to do. */
static enum status gather_batch(struct feed *f, const struct program *p, int array, const int64_t *row, void *to, size_t bytes,
                                struct problem *problem)
{
    const struct plan *plan = p->plan;
    struct source *s = f->source;
    size_t row_bytes = bytes / (size_t)p->batch;
    atomic_bool failed = false;
    struct gathering g = {s, array, row, to, row_bytes, &failed};

    TRY(source_expect(s, array, row, p->batch, problem));
    if (plan->backend->share && !f->ahead.beside && bytes >= 2 * SHARE_BYTES) {
        plan->backend->share(plan->device, p->batch, (int64_t)(SHARE_BYTES / row_bytes) + 1, gather_rows, &g);
        if (!failed)
            return ST_OK;
    }
    return s->gather(s, array, row, p->batch, to, problem); /* also for the words of what failed */
}

static enum status put_array(struct feed *f, struct program *p, value_id v, int array, const int64_t *row,
                             struct problem *problem)
{
    size_t bytes = value_bytes(&p->graph->values[v]);

    if (p->plan->backend->host_memory)
        return gather_batch(f, p, array, row, place_of(p, v), bytes, problem);
    if (f->staging_bytes < bytes) {
        big_free(f->staging, f->staging_bytes);
        f->staging = NULL;
        f->staging_bytes = 0;
        TRY(try_alloc(bytes, "a batch", &f->staging, problem));
        f->staging_bytes = bytes;
    }
    TRY(gather_batch(f, p, array, row, f->staging, bytes, problem));
    p->plan->backend->put(p->session->device, place_of(p, v), f->staging, bytes);
    return ST_OK;
}

/* Class of a target row, as Keras finds it: the largest of several values, the value itself of one. */
static int64_t class_of(const void *row, enum dtype type, int64_t n)
{
    int64_t best = 0;
    double largest = -INFINITY;

    for (int64_t i = 0; i < n; i++) {
        double x = type == F32   ? (double)((const float *)row)[i]
                   : type == I32 ? ((const int32_t *)row)[i]
                                 : ((const uint8_t *)row)[i];

        if (n == 1)
            return llrint(x);
        if (x > largest) {
            largest = x;
            best = i;
        }
    }
    return best;
}

static enum status put_class_weights(struct feed *f, struct program *p, const int64_t *row, struct problem *problem)
{
    struct source *s = f->source;
    const struct source_array *a = &s->array[s->n_inputs];
    int64_t n = shape_count(&a->row);
    size_t row_bytes = (size_t)n * dtype_bytes(a->type);
    CLEAN(free_owned) char *y = must_alloc(row_bytes * (size_t)p->batch);

    TRY(source_expect(s, s->n_inputs, row, p->batch, problem));
    TRY(s->gather(s, s->n_inputs, row, p->batch, y, problem));
    for (int64_t i = 0; i < p->batch; i++) {
        int64_t class = class_of(y + (size_t)i * row_bytes, a->type, n);

        f->class_weight[i] = 1;
        for (int k = 0; k < f->spec->n_class_weights; k++)
            if (f->spec->class_ids[k] == class)
                f->class_weight[i] = (float)f->spec->class_weights[k];
    }
    p->plan->backend->put(p->session->device, place_of(p, p->class_weight), f->class_weight, sizeof(float) * (size_t)p->batch);
    return ST_OK;
}

static struct program *program_of(const struct feed *f, int64_t step)
{
    return f->rows - step * f->batch >= f->batch ? f->program[0] : f->program[1];
}

static enum status gather_step(struct feed *f, int64_t step, const int64_t *order, struct problem *problem)
{
    int64_t begin = step * f->batch;
    struct program *p = program_of(f, step);
    struct source *s = f->source;
    int weight = s->n_inputs + s->n_targets;
    CLEAN(free_owned) int64_t *own = NULL;
    const int64_t *row = order ? order + begin : NULL;

    if (!order) {
        own = must_alloc(sizeof *own * (size_t)p->batch);
        for (int64_t i = 0; i < p->batch; i++)
            own[i] = f->first + begin + i;
        row = own;
    }
    for (int i = 0; i < p->n_x; i++)
        TRY(put_array(f, p, p->x[i], i, row, problem));
    for (int i = 0; i < p->n_y; i++)
        if (p->y[i])
            TRY(put_array(f, p, p->y[i], s->n_inputs + i, row, problem));
    for (int i = 0; i < p->n_y; i++) {
        if (f->w[i].row.rank < 0)
            continue;
        if (p->w[i])
            TRY(put_array(f, p, p->w[i], weight, row, problem));
        weight++;
    }
    if (p->class_weight)
        TRY(put_class_weights(f, p, row, problem));
    return ST_OK;
}

static void gather_ahead(void *context)
{
    struct feed *f = context;

    f->ahead.status = gather_step(f, f->ahead.step, f->ahead.order, &f->ahead.problem);
}

/* Has the reader begin with that step. */
static enum status ask_ahead(struct feed *f, int64_t step, const int64_t *order, struct problem *problem)
{
    struct program *p;

    if (step >= feed_steps(f))
        return ST_OK;
    p = program_of(f, step);
    if (p->graph->bytes[AT_INPUT] < AHEAD_BYTES || !f->ahead.beside)
        return ST_OK;
    TRY(session_double(p->session, problem));
    if (!f->ahead.reader)
        f->ahead.reader = reader_new(gather_ahead, f);
    f->ahead.step = step;
    f->ahead.order = order;
    f->ahead.asked = true;
    reader_start(f->ahead.reader);
    return ST_OK;
}

enum status feed_step(struct feed *f, int64_t step, const int64_t *order, struct program **ret, struct problem *problem)
{
    struct program *p = program_of(f, step);
    bool there = f->ahead.asked && f->ahead.step == step && f->ahead.order == order;

    feed_settle(f);
    if (!there) {
        TRY(gather_step(f, step, order, problem));
    } else if (f->ahead.status != ST_OK) {
        *problem = f->ahead.problem;
        return f->ahead.status;
    }
    if (p->session->spare)
        session_swap(p->session);
    TRY(ask_ahead(f, step + 1, order, problem));
    *ret = p;
    return ST_OK;
}

void feed_settle(struct feed *f)
{
    if (f->ahead.asked)
        reader_wait(f->ahead.reader);
    f->ahead.asked = false;
}

void feed_done(struct feed *f)
{
    f->ahead.reader = reader_free(f->ahead.reader);
    f->ahead.asked = false;
    for (int i = 0; i < 2; i++)
        f->program[i] = program_free(f->program[i]);
    big_free(f->staging, f->staging_bytes);
    f->staging = NULL;
    f->class_weight = free_null(f->class_weight);
}
