/* One claimed job from its document to its end:
 *
 *     read (job.c) -> start values: checkpoint, version or none -> fit, evaluate or predict -> publish or finish
 *                  |               a stop on the way: checkpoint, requeue;  a problem: finish as failed
 *
 * The result of a training that meets a full disk is tried for some seconds, the end of a job until it is stored. */
#include "server/lane_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/run/infer.h"
#include "engine/run/train.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/registry.h"
#include "server/reply.h"
#include "storage/checkpoint.h"

/* --- results ----------------------------------------------------------------------------------------------------------------- */

static enum status publish(struct lane *l, const struct snapshot *last, int64_t *version, struct problem *problem)
{
    const struct work *w = l->work;
    char path[512], *text, *raw_shapes, *prepare = work_prepare(w, &raw_shapes);
    struct job_news news = lane_news(l, &text);
    struct version_new v = {.model = w->name,
                            .architecture = w->architecture,
                            .compile = w->compile->text,
                            .prepare = prepare,
                            .raw_shapes = raw_shapes,
                            .metrics = l->metrics,
                            .job = l->row.id,
                            .news = &news,
                            .temp = path};
    enum status status = lane_write_model(l, last, false, path, problem);

    if (status == ST_OK)
        status = models_publish(lane_db(l), &v, version, problem);
    if (status == ST_OK)
        lane_news_over(l);
    else
        (void)unlink(path);
    free(text);
    free(prepare);
    free(raw_shapes);
    return status;
}

static enum status fit_result(void *context, const struct snapshot *last, struct problem *problem)
{
    struct lane *l = context;
    struct registry *registry = l->lanes->server->registry;
    int64_t version = 0;
    enum status status;

    registry_swap_begin(registry, l->work->name);
    status = PATIENTLY(l, PATIENCE_SECONDS, publish(l, last, &version, problem));
    registry_swap_end(registry, l->work->name, version);
    TRY(status);
    log_event(LOG_INFO, l->row.id, "done: %s version %lld", l->work->name, (long long)version);
    return ST_OK;
}

/* A row's end must reach the disk, however long that takes; a stop leaves the job running, and the next start queues it again. */
static void finish(struct lane *l, enum job_state state, const char *result, const struct problem *why)
{
    char *text = why ? problem_text(why) : NULL, *progress;
    struct job_news news = lane_news(l, &progress);
    struct problem problem;
    enum status status = PATIENTLY(l, 1e9, jobs_finish(lane_db(l), l->row.id, state, result, text, &news, &problem));

    free(text);
    free(progress);
    if (status != ST_OK)
        log_problem(LOG_ERROR, l->row.id, "its end could not be stored", &problem);
    else if (why)
        log_problem(LOG_ERROR, l->row.id, "failed", why);
    else
        log_event(LOG_INFO, l->row.id, "%s", job_state_name(state));
}

static void requeue(struct lane *l)
{
    struct problem problem;

    if (jobs_requeue(lane_db(l), l->row.id, &problem) != ST_OK)
        log_problem(LOG_WARNING, l->row.id, "will be queued at the next start", &problem);
    else
        log_event(LOG_INFO, l->row.id, "stopped, queued again");
}

/* --- start values --------------------------------------------------------------------------------------------------------------- */

struct start { /* memory that a snapshot points to */
    struct checkpoint *checkpoint;
    struct snapshot now;
    void *weights, *slots;
    size_t weight_bytes, slot_bytes;
};

static void start_done(struct start *s)
{
    checkpoint_free(s->checkpoint);
    big_free(s->weights, s->weight_bytes);
    big_free(s->slots, s->slot_bytes);
}

static enum status read_version(struct lane *l, struct h5 *f, struct start *s, bool with_optimizer, struct problem *problem)
{
    const struct work *w = l->work;
    char note[256] = "";
    double rate = NAN;
    bool found;

    TRY(try_alloc(w->layout->bytes, "the version's weights", &s->weights, problem));
    s->weight_bytes = w->layout->bytes;
    TRY(keras_h5_read_weights(f, w->model, w->layout, s->weights, problem));
    s->now = (struct snapshot){.model = w->model, .layout = w->layout, .weights = s->weights, .rate = NAN};
    if (!with_optimizer)
        return ST_OK;
    TRY(try_alloc((size_t)w->compile->optimizer.n_slots * w->layout->trainable_bytes, "the version's optimizer state",
                  &s->slots, problem));
    s->slot_bytes = (size_t)w->compile->optimizer.n_slots * w->layout->trainable_bytes;
    TRY(keras_h5_read_optimizer(f, w->model, w->layout, &w->compile->optimizer, s->slots, &s->now.updates, &rate, &found, note,
                                problem));
    if (!found) {
        log_event(LOG_INFO, l->row.id, "the optimizer begins anew: %s", note);
        return ST_OK;
    }
    s->now.optimizer = &w->compile->optimizer;
    s->now.slots = s->slots;
    s->now.rate = (float)rate;
    return ST_OK;
}

static enum status open_version(struct lane *l, struct start *s, bool with_optimizer, struct problem *problem)
{
    OWNED(h5_free) struct h5 *f = NULL;
    char path[1024];

    snprintf(path, sizeof path, "%s/%s", db_folder(lane_db(l)), l->work->base.path);
    TRY(h5_own(h5_open(path, l->work->base.path, &f, problem), path, l->work->base.path, problem));
    return h5_own(read_version(l, f, s, with_optimizer, problem), path, l->work->base.path, problem);
}

/* --- running ---------------------------------------------------------------------------------------------------------------------- */

static enum status run_fit(struct lane *l, bool compile_given, struct problem *problem)
{
    struct work *w = l->work;
    CLEAN(start_done) struct start start = {0};
    struct fit_setup setup = {.model = w->model,
                              .weights = w->layout,
                              .compile = w->compile,
                              .fit = w->spec,
                              .backend = l->lanes->backend,
                              .device = l->device,
                              .seed = (uint64_t)l->row.seed,
                              .train = w->train,
                              .validation = w->validation};
    enum fit_end end = FIT_DONE;

    if (l->row.checkpoint) {
        TRY(checkpoint_load(lane_db(l), l->row.checkpoint, w->model, w->layout, &w->compile->optimizer, &start.checkpoint,
                            problem));
        setup.start = &start.checkpoint->now;
        setup.resume = true;
        log_event(LOG_INFO, l->row.id, "goes on at epoch %d, step %lld", start.checkpoint->now.epoch + 1,
                  (long long)start.checkpoint->now.step);
    } else if (w->base.id) {
        TRY(open_version(l, &start, !compile_given, problem));
        setup.start = &start.now;
    }
    TRY(fit_run(&setup, &l->sink, fit_result, l, &end, problem));
    if (end == FIT_STOPPED)
        requeue(l);
    else if (end == FIT_CANCELLED)
        finish(l, JOB_CANCELLED, NULL, NULL);
    return ST_OK;
}

static struct evaluate_setup evaluate_setup(struct lane *l, const struct start *start)
{
    struct work *w = l->work;

    return (struct evaluate_setup){.model = w->model,
                                   .weights = w->layout,
                                   .values = start->weights,
                                   .compile = w->compile,
                                   .spec = w->spec,
                                   .backend = l->lanes->backend,
                                   .device = l->device,
                                   .source = w->train};
}

/* Cancelled or stopped: what comes of the job. Any other status is the caller's. */
static enum status after_pass(struct lane *l, enum status status, bool stopped)
{
    if (status != ST_CANCELLED)
        return status;
    if (atomic_load(&l->wanted) || !stopped)
        finish(l, JOB_CANCELLED, NULL, NULL);
    else
        requeue(l);
    return status;
}

static struct json *result_of(const struct work *w)
{
    struct json *j = json_new_object();

    json_put(j, "model", json_new_text(w->name));
    json_put(j, "version", json_new_int(w->base.version));
    return j;
}

static enum status run_evaluate(struct lane *l, struct problem *problem)
{
    CLEAN(start_done) struct start start = {0};
    struct evaluate_setup setup;
    const char *names[64];
    double values[64];
    bool stopped = false;
    enum status status;
    int n = 0;

    TRY(open_version(l, &start, false, problem));
    setup = evaluate_setup(l, &start);
    status = evaluate_run(&setup, &l->sink, &n, names, values, &stopped, problem);
    status = after_pass(l, status, stopped);
    if (status == ST_CANCELLED)
        return ST_OK;
    TRY(status);

    OWNED(json_free) struct json *result = result_of(l->work);
    char *text;

    for (int i = 0; i < n; i++)
        json_put(result, names[i], json_new_number(values[i]));
    text = json_print(result, 0);
    finish(l, JOB_DONE, text, NULL);
    free(text);
    return ST_OK;
}

struct predictions {
    struct array_writer *writer[MAX_ARRAYS];
    int n;
};

static void predictions_done(struct predictions *p)
{
    for (int i = 0; i < p->n; i++)
        array_writer_free(p->writer[i]);
}

static enum status take_rows(void *context, int output, const float *rows, int64_t n, struct problem *problem)
{
    struct predictions *p = context;

    return array_writer_add(p->writer[output], rows, n, problem);
}

/* "outer/dense_1" as the name of an array. */
static void array_name(const char *output, char to[129])
{
    int n = 0;

    if (!((*output >= 'a' && *output <= 'z') || (*output >= 'A' && *output <= 'Z') || (*output >= '0' && *output <= '9')))
        to[n++] = 'o';
    for (; *output && n < 128; output++) {
        char c = *output;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-';

        to[n++] = plain ? c : '_';
    }
    to[n] = 0;
}

static enum status open_predictions(struct lane *l, struct predictions *p, struct problem *problem)
{
    struct work *w = l->work;
    OWNED(program_free) struct program *program = NULL;
    struct array_shape x[MAX_ARRAYS];
    struct program_request r = {
        .model = w->model, .prepare = w->spec->prepare, .mode = PROGRAM_PREDICT, .batch = 1, .x = x, .weights = w->layout};

    for (int i = 0; i < w->model->n_inputs; i++)
        x[i] = (struct array_shape){w->train->array[i].type, w->train->array[i].row};
    TRY(program_build(&r, &program, problem));
    for (int i = 0; i < w->model->n_outputs; i++) {
        struct shape shape = shape_with(&program->graph->values[program->outputs[i]].shape, 0, w->train->rows);

        TRY(array_writer_new(lane_db(l), &shape, &p->writer[i], problem));
        p->n = i + 1;
    }
    return ST_OK;
}

static enum status run_predict(struct lane *l, struct problem *problem)
{
    CLEAN(start_done) struct start start = {0};
    CLEAN(predictions_done) struct predictions p = {0};
    struct work *w = l->work;
    struct evaluate_setup setup;
    char dataset[129], suffix[40];
    bool stopped = false;
    enum status status;

    TRY(open_version(l, &start, false, problem));
    TRY(open_predictions(l, &p, problem));
    setup = evaluate_setup(l, &start);
    status = predict_run(&setup, &l->sink, take_rows, &p, &stopped, problem);
    status = after_pass(l, status, stopped);
    if (status == ST_CANCELLED)
        return ST_OK;
    TRY(status);

    OWNED(json_free) struct json *result = result_of(w);
    struct json *arrays = json_new_array();
    char *text;

    snprintf(suffix, sizeof suffix, "-predict-%lld", (long long)l->row.id);
    snprintf(dataset, sizeof dataset, "%.*s%s", (int)(128 - strlen(suffix)), w->name, suffix);
    json_put(result, "dataset", json_new_text(dataset));
    json_put(result, "arrays", arrays);
    for (int i = 0; i < w->model->n_outputs; i++) {
        char name[129];

        array_name(w->model->output_names[i], name);
        json_push(arrays, json_new_text(name));
        TRY(PATIENTLY(l, PATIENCE_SECONDS, array_writer_finish(p.writer[i], dataset, name, problem)));
    }
    text = json_print(result, 0);
    finish(l, JOB_DONE, text, NULL);
    free(text);
    return ST_OK;
}

/* Bits depend on device, threads, SIMD level and library versions; the claim noted ours. */
static void compare_environment(const struct lane *l)
{
    const char *here = l->lanes->backend->describe(l->device), *before = l->row.environment;

    if (before && l->row.checkpoint && strcmp(before, here) != 0)
        log_event(LOG_WARNING, l->row.id, "goes on under \"%s\", it began under \"%s\": not reproducible", here, before);
}

static enum status run_claimed(struct lane *l, struct arena *mem, struct problem *problem)
{
    OWNED(json_free) struct json *document = NULL;
    struct job_body body = {0};
    enum status status;

    TRY(job_read(l->row.request, mem, &document, &body, problem));
    compare_environment(l);
    TRY(work_open(lane_db(l), &body, &l->work, problem));
    switch (l->work->type) {
    case WORK_FIT:
        status = run_fit(l, body.compile != NULL, problem);
        break;
    case WORK_EVALUATE:
        status = run_evaluate(l, problem);
        break;
    default:
        status = run_predict(l, problem);
    }
    return status;
}

/* What the last committed epoch measured, for a job that goes on behind its last one. */
static char *committed_metrics(const struct job_row *row)
{
    OWNED(json_free) struct json *progress = NULL;
    struct problem ignored;

    if (!row->progress || json_parse(row->progress, strlen(row->progress), NULL, 0, &progress, &ignored) != ST_OK ||
        !json_get(progress, "metrics"))
        return NULL;
    return json_print(json_get(progress, "metrics"), 0);
}

void lane_run_job(struct lane *l, struct arena *mem)
{
    struct problem problem = {0};

    log_event(LOG_INFO, l->row.id, "%s of %s on %s, attempt %d", l->row.type, l->row.model, l->name, l->row.attempt);
    metrics_attempt();
    l->checkpointed = clock_seconds();
    l->checkpoint_number = l->row.checkpoint_number;
    l->rows_seen = -1;
    lane_news_over(l); /* nothing yet */
    l->metrics = committed_metrics(&l->row);
    if (run_claimed(l, mem, &problem) != ST_OK) {
        if (atomic_load(&l->lanes->stop) && lane_may_pass(problem.status))
            requeue(l); /* stopped while the disk was full: the last checkpoint stands */
        else
            finish(l, JOB_FAILED, NULL, &problem);
    }
    lane_news_over(l);
    l->work = work_free(l->work);
    l->metrics = free_null(l->metrics);
}
