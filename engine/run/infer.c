/* Inference over batches in memory (predictor) and over sources (evaluate, bulk predict). */
#include "engine/run/infer.h"

#include <math.h>
#include <string.h>

#include "engine/base/thread.h"
#include "engine/run/feed.h"

#define N_BUCKETS 8 /* 1, 2, 4 ... 128 rows */

struct predictor {
    const struct model *model;
    struct weights *layout; /* own: a build writes into it, and others build for the same version */
    struct prepare *const *prepare;
    const struct backend *backend;
    struct device *device;
    struct regions regions; /* weights borrowed, constants and state owned */
    struct array_shape x[MAX_ARRAYS];
    struct shape y[MAX_ARRAYS]; /* rows */
    struct program *bucket[N_BUCKETS];
    double flops;
};

/* --- predictor ----------------------------------------------------------------------------------------------------------- */

static enum status build_bucket(struct predictor *p, int i, bool constants, struct program **ret, struct problem *problem)
{
    struct program_request r = {.model = p->model,
                                .prepare = p->prepare,
                                .mode = PROGRAM_PREDICT,
                                .batch = (int64_t)1 << i,
                                .x = p->x,
                                .weights = p->layout,
                                .constants = constants};

    return program_build(&r, ret, problem);
}

/* All buckets read the constants that the first one has worked out; one whose graph needs others goes without. */
static enum status open_bucket(struct predictor *p, int i, struct problem *problem)
{
    OWNED(program_free) struct program *program = NULL;
    size_t needs[N_REGIONS] = {0};

    TRY(build_bucket(p, i, true, &program, problem));
    if (i > 0 && !graph_constants_equal(program->graph, p->bucket[0]->graph)) {
        program = program_free(program);
        TRY(build_bucket(p, i, false, &program, problem));
    }
    TRY(program_plan(program, p->backend, p->device, problem));
    needs[AT_CONST] = program->graph->bytes[AT_CONST];
    TRY(regions_grow(&p->regions, p->device, p->backend, needs, problem));
    TRY(program_start(program, &p->regions, NULL, problem));
    if (i == 0)
        TRY(session_constants(program->session, problem));
    p->bucket[i] = STEAL(program);
    return ST_OK;
}

static struct shape row_of(const struct shape *batched)
{
    struct shape row = {.rank = batched->rank - 1};

    memcpy(row.dim, batched->dim + 1, sizeof row.dim[0] * (size_t)row.rank);
    return row;
}

enum status predictor_new(const struct model *m, struct weights *layout, const void *weights, struct prepare *const *prepare,
                          const struct shape *raw_rows, const struct backend *backend, struct device *device,
                          struct predictor **ret, struct problem *problem)
{
    OWNED(predictor_free) struct predictor *p = must_alloc(sizeof *p);
    size_t state[N_REGIONS] = {[AT_STATE] = 1024};

    p->model = m;
    p->layout = weights_new();
    p->prepare = prepare;
    p->backend = backend;
    p->device = device;
    TRY(regions_grow(&p->regions, device, backend, state, problem));
    p->regions.base[AT_WEIGHT] = (void *)(uintptr_t)weights; /* inference only reads it */
    for (int i = 0; i < m->n_inputs; i++) {
        bool raw = (prepare && prepare[i]) || m->inputs[i].shape.rank < 0;

        p->x[i] = (struct array_shape){F32, raw ? raw_rows[i] : row_of(&m->inputs[i].shape)};
        if (!shape_known(&p->x[i].row))
            return fail(problem, ST_UNSUPPORTED, m->inputs[i].name,
                        "the input has rows of %s: predict needs known dimensions; only the batch axis may be open",
                        shape_text(&p->x[i].row).s);
    }
    TRY(open_bucket(p, 0, problem));
    if (p->layout->bytes != layout->bytes)
        return fail(problem, ST_INTERNAL, m->name, "the weights take %zu bytes, their region has %zu", p->layout->bytes,
                    layout->bytes);
    for (int i = 0; i < m->n_outputs; i++)
        p->y[i] = row_of(&p->bucket[0]->graph->values[p->bucket[0]->outputs[i]].shape);
    p->flops = p->bucket[0]->plan->report.flops;
    *ret = STEAL(p);
    return ST_OK;
}

struct predictor *predictor_free(struct predictor *p)
{
    if (!p)
        return NULL;
    for (int i = 0; i < N_BUCKETS; i++)
        program_free(p->bucket[i]);
    weights_free(p->layout);
    p->regions.base[AT_WEIGHT] = NULL;
    regions_done(&p->regions, p->device, p->backend);
    return free_null(p);
}

struct shape predictor_input(const struct predictor *p, int i)
{
    return p->x[i].row;
}
struct shape predictor_output(const struct predictor *p, int i)
{
    return p->y[i];
}
double predictor_flops(const struct predictor *p)
{
    return p->flops;
}

/* Smallest bucket that holds n rows, the largest for more. */
static int bucket_for(int64_t n)
{
    int i = 0;

    while (i < N_BUCKETS - 1 && ((int64_t)1 << i) < n)
        i++;
    return i;
}

/* Where a piece begins: row `at` of caller `i`. */
struct cursor {
    const struct rows *of;
    int i;
    int64_t at;
};

/* Moves n rows of array k between the callers from `c` on and the session: in, or back. */
static void move_rows(struct predictor *p, struct cursor c, int k, char *device, int64_t n, bool back)
{
    const struct shape *row = back ? &p->y[k] : &p->x[k].row;
    int64_t size = shape_count(row);

    while (n > 0) {
        int64_t here = c.of[c.i].n - c.at < n ? c.of[c.i].n - c.at : n;
        size_t bytes = (size_t)(here * size) * sizeof(float);

        if (back)
            p->backend->get(p->device, c.of[c.i].y[k] + c.at * size, device, bytes);
        else
            p->backend->put(p->device, device, c.of[c.i].x[k] + c.at * size, bytes);
        device += bytes;
        n -= here;
        c.i++;
        c.at = 0;
    }
}

/* n rows from the cursor on, padded with zero rows up to the bucket; what the padding gives is dropped. */
static enum status run_piece(struct predictor *p, struct cursor c, int64_t n, struct problem *problem)
{
    int i = bucket_for(n);

    if (!p->bucket[i])
        TRY(open_bucket(p, i, problem));
    struct program *program = p->bucket[i];
    struct session *s = program->session;

    for (int k = 0; k < p->model->n_inputs; k++) {
        int64_t row = shape_count(&p->x[k].row);
        size_t used = (size_t)(n * row) * sizeof(float), all = (size_t)(program->batch * row) * sizeof(float);
        char *device = session_address(s, program->x[k]);

        move_rows(p, c, k, device, n, false);
        if (used < all)
            memset(device + used, 0, all - used);
    }
    TRY(session_run(s, problem));
    for (int k = 0; k < p->model->n_outputs; k++)
        move_rows(p, c, k, session_address(s, program->outputs[k]), n, true);
    return p->backend->sync(p->device, problem);
}

enum status predictor_run_rows(struct predictor *p, const struct rows *of, int n_of, struct problem *problem)
{
    const int64_t largest = (int64_t)1 << (N_BUCKETS - 1);
    struct cursor c = {.of = of};
    int64_t left = 0;

    for (int i = 0; i < n_of; i++)
        left += of[i].n;
    while (left > 0) {
        int64_t n = left < largest ? left : largest, skip = n;

        TRY(run_piece(p, c, n, problem));
        left -= n;
        while (skip > 0 && left > 0) { /* to the row behind the piece */
            int64_t here = of[c.i].n - c.at;

            if (here > skip) {
                c.at += skip;
                break;
            }
            skip -= here;
            c.i++;
            c.at = 0;
        }
    }
    return ST_OK;
}

enum status predictor_run(struct predictor *p, const float *const *x, int64_t n, float *const *y, struct problem *problem)
{
    struct rows all = {.n = n};

    for (int i = 0; i < p->model->n_inputs; i++)
        all.x[i] = x[i];
    for (int i = 0; i < p->model->n_outputs; i++)
        all.y[i] = y[i];
    return predictor_run_rows(p, &all, 1, problem);
}

/* --- over a source ----------------------------------------------------------------------------------------------------- */

struct pass {
    const struct evaluate_setup *s;
    struct feed feed;
    struct regions regions;
    void *arena;
    size_t arena_bytes;
};

static enum status pass_open(struct pass *p, enum program_mode mode, struct problem *problem)
{
    const struct evaluate_setup *s = p->s;
    size_t needs[N_REGIONS] = {0};

    p->feed = (struct feed){
        .source = s->source, .spec = s->spec, .data = &s->spec->data, .rows = s->source->rows, .batch = s->spec->batch_size};
    TRY(feed_plan(&p->feed, mode, s->model, s->compile, s->weights, s->backend, s->device, problem));
    feed_needs(&p->feed, needs, &p->arena_bytes);
    if (needs[AT_WEIGHT] < s->weights->bytes)
        needs[AT_WEIGHT] = s->weights->bytes;
    TRY(regions_grow(&p->regions, s->device, s->backend, needs, problem));
    if (p->arena_bytes)
        TRY(s->backend->alloc(s->device, p->arena_bytes, &p->arena, problem));
    TRY(feed_start(&p->feed, &p->regions, p->arena, problem));
    s->backend->put(s->device, p->regions.base[AT_WEIGHT], s->values, s->weights->bytes);
    return s->backend->sync(s->device, problem);
}

static void pass_close(struct pass *p)
{
    feed_done(&p->feed);
    if (p->arena)
        p->s->backend->release(p->s->device, p->arena, p->arena_bytes);
    regions_done(&p->regions, p->s->device, p->s->backend);
}

static enum status poll_pass(struct sink *sink, bool *stopped, struct problem *problem)
{
    unsigned asked = sink->poll(sink);

    if (asked & POLL_STOP)
        *stopped = true;
    return asked & (POLL_CANCEL | POLL_STOP) ? fail(problem, ST_CANCELLED, "job", "cancelled") : ST_OK;
}

static void report_pass(struct sink *sink, const struct pass *p, int64_t step, double began, double *reported)
{
    double now = clock_seconds(), samples = (double)step * (double)p->feed.batch;
    double rate = now > began ? samples / (now - began) : 0;

    if (now - *reported < 0.1 && step < feed_steps(&p->feed))
        return;
    *reported = now;
    sink->progress(sink, &(struct progress){.epochs = 1,
                                            .step = step,
                                            .steps_per_epoch = feed_steps(&p->feed),
                                            .samples_per_second = rate,
                                            .eta_seconds = rate > 0 ? ((double)p->feed.rows - samples) / rate : NAN});
}

typedef enum status (*after_step)(struct pass *p, struct program *program, void *context, struct problem *problem);

static enum status pass_run(struct pass *p, struct sink *sink, after_step after, void *context, bool *stopped,
                            struct problem *problem)
{
    double began = clock_seconds(), reported = 0;

    *stopped = false;
    for (int64_t step = 0; step < feed_steps(&p->feed); step++) {
        struct program *program;

        TRY(poll_pass(sink, stopped, problem));
        TRY(feed_step(&p->feed, step, NULL, &program, problem));
        TRY(session_run(program->session, problem));
        if (after)
            TRY(after(p, program, context, problem));
        report_pass(sink, p, step + 1, began, &reported);
    }
    return ST_OK;
}

static enum status read_metrics(struct pass *p, int *n, const char **names, double *values, struct problem *problem)
{
    struct program *program = p->feed.program[0] ? p->feed.program[0] : p->feed.program[1];
    double sums[128];

    *n = program->n_metrics < 64 ? program->n_metrics : 64;
    session_get(program->session, program->accumulators, sums, sizeof(double) * 2 * (size_t)*n);
    TRY(p->s->backend->sync(p->s->device, problem));
    for (int i = 0; i < *n; i++) {
        names[i] = arena_text(p->s->model->mem, program->metric_names[i]);
        values[i] = sums[2 * i + 1] != 0 ? sums[2 * i] / sums[2 * i + 1] : NAN;
    }
    return ST_OK;
}

enum status evaluate_run(const struct evaluate_setup *s, struct sink *sink, int *n, const char **names, double *values,
                         bool *stopped, struct problem *problem)
{
    struct pass p = {.s = s};
    enum status status = pass_open(&p, PROGRAM_TEST, problem);

    if (status == ST_OK)
        status = pass_run(&p, sink, NULL, NULL, stopped, problem);
    if (status == ST_OK)
        status = read_metrics(&p, n, names, values, problem);
    pass_close(&p);
    return status;
}

struct taker {
    enum status (*take)(void *context, int output, const float *rows, int64_t n, struct problem *problem);
    void *context;
};

static enum status take_outputs(struct pass *p, struct program *program, void *context, struct problem *problem)
{
    const struct taker *t = context;

    for (int i = 0; i < p->s->model->n_outputs; i++) {
        size_t bytes = value_bytes(&program->graph->values[program->outputs[i]]);
        CLEAN(free_owned) float *rows = must_alloc(bytes);

        session_get(program->session, program->outputs[i], rows, bytes);
        TRY(p->s->backend->sync(p->s->device, problem));
        TRY(t->take(t->context, i, rows, program->batch, problem));
    }
    return ST_OK;
}

enum status predict_run(const struct evaluate_setup *s, struct sink *sink,
                        enum status (*take)(void *context, int output, const float *rows, int64_t n, struct problem *problem),
                        void *context, bool *stopped, struct problem *problem)
{
    struct pass p = {.s = s};
    struct taker taker = {take, context};
    enum status status = pass_open(&p, PROGRAM_PREDICT, problem);

    if (status == ST_OK)
        status = pass_run(&p, sink, take_outputs, &taker, stopped, problem);
    pass_close(&p);
    return status;
}
