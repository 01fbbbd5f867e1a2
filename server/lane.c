/* Lanes. The life of one job in one:
 *
 *     claim -> read (job.c) -> start values: checkpoint, version or none -> fit, evaluate or predict -> publish or finish
 *                |                 a stop on the way: checkpoint, requeue;  a problem: finish as failed
 *
 * Locking: lanes->claiming is held over a claim, which waits for the disk, so that a cancel that found the row running also finds
 * the lane. lanes->lock guards `job` of all lanes, lane->lock the snapshot; neither is held over anything slow, since HTTP threads
 * take them. Order: claiming, lanes->lock, lane->lock.
 *
 * A full disk must not end a training: a checkpoint that cannot be written is tried again when the next is due, rows and the
 * result are tried for some seconds. */
#include "server/lane.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "engine/run/infer.h"
#include "engine/run/train.h"
#include "server/job.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/reply.h"
#include "server/registry.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/checkpoint.h"
#include "storage/jobs.h"

#define IDLE_SECONDS     1.0  /* between two looks at the queue without a notice */
#define PATIENCE_SECONDS 10.0 /* for a write that fails because the disk is full */

struct lane {
    struct sink sink; /* first: the sink's calls get the lane by its address */
    struct lanes *lanes;
    pthread_t thread;
    struct wake wake;
    int number, threads;
    char name[32]; /* "cpu:0" */
    struct device *device;
    int64_t job;          /* that runs now, 0: none; guarded by lanes->lock */
    atomic_bool wanted;   /* its cancelling; set under lanes->lock */
    pthread_mutex_t lock; /* guards shown */
    struct json *shown;   /* progress of the running job, NULL before the first */
    /* of the running job, the lane's thread alone */
    struct job_row row;
    struct work *work;
    double checkpointed; /* clock */
    int64_t checkpoint_number;
    int64_t rows_seen; /* for the counter of samples */
    char *metrics;     /* JSON object of the last epoch, for the version */
};

struct lanes {
    struct server *server;
    const struct backend *backend;
    pthread_mutex_t claiming, lock;
    pthread_cond_t ended; /* a job ended */
    atomic_bool stop;
    int n;
    struct lane *lane;
};

static struct db *db_of(const struct lane *l)
{
    return l->lanes->server->db;
}

/* --- progress -------------------------------------------------------------------------------------------------------------- */

static struct json *metrics_json(int n, const char *const *names, const double *values)
{
    struct json *j = json_new_object();

    for (int i = 0; i < n; i++) {
        if (!isnan(values[i])) /* not known yet: val_loss in the first epoch */
            json_put(j, names[i], json_new_number(values[i]));
    }
    return j;
}

struct json *progress_json(const struct progress *p)
{
    struct json *j = json_new_object(), *progress = json_put(j, "progress", json_new_object());
    int epoch = p->epoch < p->epochs ? p->epoch + 1 : p->epochs;

    json_put(progress, "epoch", json_new_int(epoch));
    json_put(progress, "epochs", json_new_int(p->epochs));
    json_put(progress, "step", json_new_int(p->step));
    json_put(progress, "steps_per_epoch", json_new_int(p->steps_per_epoch));
    json_put(progress, "samples_per_second", json_new_number(round(p->samples_per_second * 10) / 10));
    json_put(progress, "eta_seconds", json_new_number(round(p->eta_seconds * 10) / 10));
    json_put(j, "metrics", metrics_json(p->n, p->names, p->values));
    return j;
}

static void show(struct lane *l, struct json *takes)
{
    pthread_mutex_lock(&l->lock);
    json_free(l->shown);
    l->shown = takes;
    pthread_mutex_unlock(&l->lock);
}

/* A finished epoch: all its steps, and its final metrics. */
static void show_epoch(struct lane *l, int epoch, const struct json *metrics)
{
    struct json *progress;
    int64_t steps;

    pthread_mutex_lock(&l->lock);
    progress = json_get(l->shown, "progress");
    if (progress) {
        json_put(progress, "epoch", json_new_int(epoch + 1));
        if (json_int(json_get(progress, "steps_per_epoch"), &steps))
            json_put(progress, "step", json_new_int(steps));
        json_put(l->shown, "metrics", json_copy(metrics));
    }
    pthread_mutex_unlock(&l->lock);
}

/* What is shown now, as text, to be stored; NULL before the first progress. Caller frees. */
static char *shown_text(struct lane *l)
{
    char *s;

    pthread_mutex_lock(&l->lock);
    s = l->shown ? json_print(l->shown, 0) : NULL;
    pthread_mutex_unlock(&l->lock);
    return s;
}

/* --- patience ---------------------------------------------------------------------------------------------------------------- */

static bool may_pass(enum status s)
{
    return s == ST_DISK_FULL || s == ST_STORAGE;
}

static void pause_writing(const struct lane *l)
{
    for (int i = 0; i < 10 && !atomic_load(&l->lanes->stop); i++)
        usleep(50000);
}

/* expression: a call that stores something. Tried again while the disk is full, until `seconds` are over or the daemon stops. */
#define PATIENTLY(lane, seconds, expression)                                                                              \
    ({                                                                                                                    \
        double until_ = clock_seconds() + (seconds);                                                                      \
        enum status tried_;                                                                                               \
        while (tried_ = (expression), may_pass(tried_) && clock_seconds() < until_ && !atomic_load(&(lane)->lanes->stop)) \
            pause_writing(lane);                                                                                          \
        tried_;                                                                                                           \
    })

/* --- the sink ---------------------------------------------------------------------------------------------------------------- */

static struct lane *lane_of(struct sink *s)
{
    return (struct lane *)s;
}

static unsigned sink_poll(struct sink *s)
{
    struct lane *l = lane_of(s);
    unsigned asked = POLL_GO;

    if (atomic_load_explicit(&l->wanted, memory_order_relaxed))
        asked |= POLL_CANCEL;
    if (atomic_load_explicit(&l->lanes->stop, memory_order_relaxed))
        asked |= POLL_STOP;
    if (clock_seconds() - l->checkpointed >= l->lanes->server->settings->checkpoint_seconds)
        asked |= POLL_CHECKPOINT;
    return asked;
}

static void sink_progress(struct sink *s, const struct progress *p)
{
    struct lane *l = lane_of(s);
    int64_t seen = ((int64_t)p->epoch * p->steps_per_epoch + p->step) * l->work->spec->batch_size;

    if (l->work->type == WORK_FIT && l->rows_seen >= 0 && seen > l->rows_seen)
        metrics_samples(seen - l->rows_seen);
    l->rows_seen = seen;
    show(l, progress_json(p));
}

static enum status sink_epoch(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                              struct problem *problem)
{
    struct lane *l = lane_of(s);
    OWNED(json_free) struct json *metrics = metrics_json(n, names, values);
    CLEAN(text_done) struct text line = text_make(1000);
    char *progress;
    enum status status;

    show_epoch(l, epoch, metrics);
    progress = shown_text(l);
    status = PATIENTLY(l, PATIENCE_SECONDS, jobs_epoch(db_of(l), l->row.id, epoch, n, names, values, progress, problem));
    free(progress);
    free(l->metrics);
    l->metrics = json_print(metrics, 0);
    for (int i = 0; i < n; i++)
        text_printf(&line, " %s %.6g", names[i], values[i]);
    log_event(LOG_INFO, l->row.id, "epoch %d/%lld:%s", epoch + 1, (long long)l->work->spec->epochs, line.s);
    return status;
}

static enum status save_checkpoint(struct lane *l, const struct snapshot *now, struct problem *problem)
{
    char path[128], *progress = shown_text(l);
    double began = clock_seconds();
    enum status status = checkpoint_save(db_of(l), l->row.id, l->checkpoint_number + 1, now, path, problem);

    if (status == ST_OK)
        status = jobs_checkpoint(db_of(l), l->row.id, path, l->checkpoint_number + 1, now->epoch, progress, problem);
    free(progress);
    if (status == ST_OK) {
        l->checkpoint_number++;
        metrics_checkpoint(clock_seconds() - began);
    }
    return status;
}

/* The old checkpoint stays when a new one cannot be written, and training goes on. */
static enum status sink_checkpoint(struct sink *s, const struct snapshot *now, struct problem *problem)
{
    struct lane *l = lane_of(s);
    enum status status = save_checkpoint(l, now, problem);

    l->checkpointed = clock_seconds();
    if (!may_pass(status))
        return status;
    log_problem(LOG_WARNING, l->row.id, "no checkpoint could be written, training goes on", problem);
    *problem = (struct problem){0};
    return ST_OK;
}

static enum status write_model(struct lane *l, const struct snapshot *now, bool weights_only, char path[512],
                               struct problem *problem)
{
    enum status status;
    int fd;

    TRY(db_temp(db_of(l), path, &fd, problem));
    (void)close(fd);
    status = keras_h5_write(path, now, weights_only, false, problem);
    if (status != ST_OK)
        (void)unlink(path);
    return status;
}

static enum status put_file(struct lane *l, const char *name, bool weights_only, const struct snapshot *now,
                            struct problem *problem)
{
    char path[512];
    enum status status;

    TRY(write_model(l, now, weights_only, path, problem));
    status = jobs_file_put(db_of(l), l->row.id, name, path, problem);
    if (status != ST_OK)
        (void)unlink(path);
    return status;
}

static enum status sink_file(struct sink *s, const char *name, bool weights_only, const struct snapshot *now,
                             struct problem *problem)
{
    struct lane *l = lane_of(s);

    return PATIENTLY(l, PATIENCE_SECONDS, put_file(l, name, weights_only, now, problem));
}

static void sink_note(struct sink *s, const char *line)
{
    log_event(LOG_INFO, lane_of(s)->row.id, "%s", line);
}

/* --- results ----------------------------------------------------------------------------------------------------------------- */

static enum status publish(struct lane *l, const struct snapshot *last, int64_t *version, struct problem *problem)
{
    const struct work *w = l->work;
    char path[512], *raw_shapes, *prepare = work_prepare(w, &raw_shapes);
    struct version_new v = {.model = w->name,
                            .architecture = w->architecture,
                            .compile = w->compile->text,
                            .prepare = prepare,
                            .raw_shapes = raw_shapes,
                            .metrics = l->metrics,
                            .job = l->row.id,
                            .temp = path};
    enum status status = write_model(l, last, false, path, problem);

    if (status == ST_OK)
        status = models_publish(db_of(l), &v, version, problem);
    if (status != ST_OK)
        (void)unlink(path);
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
    char *text = why ? problem_text(why) : NULL;
    struct problem problem;
    enum status status = PATIENTLY(l, 1e9, jobs_finish(db_of(l), l->row.id, state, result, text, &problem));

    free(text);
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

    if (jobs_requeue(db_of(l), l->row.id, &problem) != ST_OK)
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

    snprintf(path, sizeof path, "%s/%s", db_folder(db_of(l)), l->work->base.path);
    TRY(h5_open(path, l->work->base.path, &f, problem));
    return read_version(l, f, s, with_optimizer, problem);
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
        TRY(checkpoint_load(db_of(l), l->row.checkpoint, w->model, w->layout, &w->compile->optimizer, &start.checkpoint,
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
    status = after_pass(l, evaluate_run(&setup, &l->sink, &n, names, values, &stopped, problem), stopped);
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

        TRY(array_writer_new(db_of(l), &shape, &p->writer[i], problem));
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
    status = after_pass(l, predict_run(&setup, &l->sink, take_rows, &p, &stopped, problem), stopped);
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

/* Bits depend on device, threads, SIMD level and library versions: the first attempt notes them, a later one compares. */
static enum status note_environment(struct lane *l, struct problem *problem)
{
    const char *here = l->lanes->backend->describe(l->device);
    bool same = !l->row.environment || !l->row.checkpoint || strcmp(l->row.environment, here) == 0;

    if (l->row.environment && strcmp(l->row.environment, here) == 0)
        return ST_OK;
    if (!same)
        log_event(LOG_WARNING, l->row.id, "goes on under \"%s\", it began under \"%s\": not reproducible", here,
                  l->row.environment);
    return jobs_environment(db_of(l), l->row.id, here, same && l->row.reproducible, problem);
}

static enum status run_claimed(struct lane *l, struct arena *mem, struct problem *problem)
{
    OWNED(json_free) struct json *document = NULL;
    struct job_body body = {0};
    enum status status;

    TRY(json_parse(l->row.request, strlen(l->row.request), &(struct json_limits){.bytes = 1u << 31}, JSON_NAN, &document,
                   problem));
    TRY(field_parse(stored_fields, document, &body, mem, "", FIELD_STRICT, NULL, problem));
    TRY(PATIENTLY(l, PATIENCE_SECONDS, note_environment(l, problem)));
    TRY(work_open(db_of(l), &body, &l->work, problem));
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

static void run_job(struct lane *l, struct arena *mem)
{
    struct problem problem = {0};

    log_event(LOG_INFO, l->row.id, "%s of %s on %s, attempt %d", l->row.type, l->row.model, l->name, l->row.attempt);
    metrics_attempt();
    l->checkpointed = clock_seconds();
    l->checkpoint_number = l->row.checkpoint_number;
    l->rows_seen = -1;
    if (run_claimed(l, mem, &problem) != ST_OK) {
        if (atomic_load(&l->lanes->stop) && may_pass(problem.status))
            requeue(l); /* stopped while the disk was full: the last checkpoint stands */
        else
            finish(l, JOB_FAILED, NULL, &problem);
    }
    l->work = work_free(l->work);
    l->metrics = free_null(l->metrics);
}

/* --- the thread -------------------------------------------------------------------------------------------------------------------- */

static bool claim(struct lane *l, struct arena *mem)
{
    struct problem problem;
    enum status status;

    pthread_mutex_lock(&l->lanes->claiming);
    status = jobs_claim(db_of(l), l->name, mem, &l->row, &problem);
    if (status == ST_OK) {
        pthread_mutex_lock(&l->lanes->lock);
        l->job = l->row.id;
        atomic_store(&l->wanted, false);
        pthread_mutex_unlock(&l->lanes->lock);
    }
    pthread_mutex_unlock(&l->lanes->claiming);
    if (status != ST_OK && status != ST_NOT_FOUND)
        log_problem(LOG_ERROR, 0, "no job can be claimed", &problem);
    return status == ST_OK;
}

static void let_go(struct lane *l)
{
    pthread_mutex_lock(&l->lanes->lock);
    l->job = 0;
    pthread_cond_broadcast(&l->lanes->ended);
    pthread_mutex_unlock(&l->lanes->lock);
    show(l, NULL);
}

static void *lane_run(void *arg)
{
    struct lane *l = arg;

    thread_nice(19); /* predictions go first */
    thread_compute_mode();
    l->lanes->backend->enter(l->device);
    while (!atomic_load(&l->lanes->stop)) {
        OWNED(arena_free) struct arena *mem = arena_new();

        if (claim(l, mem)) {
            run_job(l, mem);
            let_go(l);
        } else {
            (void)wake_wait(&l->wake, IDLE_SECONDS);
        }
    }
    return NULL;
}

static enum status open_lane(struct lanes *all, int i, struct problem *problem)
{
    const struct settings *s = all->server->settings;
    struct lane *l = &all->lane[i];
    struct device_options options = {.threads = (int)(s->threads / s->lanes + (i < s->threads % s->lanes)),
                                     .simd = settings_simd(s)};

    l->sink = (struct sink){sink_poll, sink_progress, sink_epoch, sink_checkpoint, sink_file, sink_note};
    l->lanes = all;
    l->number = i;
    l->threads = options.threads;
    snprintf(l->name, sizeof l->name, "%s:%d", all->backend->name, i);
    return all->backend->open(0, &options, &l->device, problem);
}

enum status lanes_start(struct server *s, struct lanes **ret, struct problem *problem)
{
    struct lanes *all = must_alloc(sizeof *all);
    int n = (int)s->settings->lanes;
    enum status status = ST_OK;

    all->server = s;
    all->backend = backend_cpu();
    all->lane = must_alloc(sizeof *all->lane * (size_t)n);
    pthread_mutex_init(&all->claiming, NULL);
    pthread_mutex_init(&all->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&all->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (int i = 0; i < n && status == ST_OK; i++)
        status = open_lane(all, i, problem);
    for (int i = 0; i < n && status == ST_OK; i++) {
        char name[24];

        pthread_mutex_init(&all->lane[i].lock, NULL);
        wake_init(&all->lane[i].wake);
        snprintf(name, sizeof name, "lane-%d", i);
        all->n = i + 1;
        *ret = all; /* the thread may ask for it */
        thread_start(&all->lane[i].thread, name, lane_run, &all->lane[i]);
    }
    if (status == ST_OK)
        return ST_OK;
    for (int i = 0; i < n; i++) {
        if (all->lane[i].device)
            all->backend->close(all->lane[i].device);
    }
    pthread_cond_destroy(&all->ended);
    pthread_mutex_destroy(&all->claiming);
    pthread_mutex_destroy(&all->lock);
    free(all->lane);
    free(all);
    return status;
}

void lanes_stop(struct lanes *all)
{
    if (!all)
        return;
    atomic_store(&all->stop, true);
    lanes_notify(all);
    for (int i = 0; i < all->n; i++) {
        pthread_join(all->lane[i].thread, NULL);
        all->backend->close(all->lane[i].device);
    }
}

void lanes_free(struct lanes *all)
{
    if (!all)
        return;
    for (int i = 0; i < all->n; i++) {
        json_free(all->lane[i].shown);
        wake_done(&all->lane[i].wake);
        pthread_mutex_destroy(&all->lane[i].lock);
    }
    pthread_cond_destroy(&all->ended);
    pthread_mutex_destroy(&all->claiming);
    pthread_mutex_destroy(&all->lock);
    free(all->lane);
    free(all);
}

void lanes_notify(struct lanes *all)
{
    for (int i = 0; i < all->n; i++)
        wake_signal(&all->lane[i].wake);
}

static bool runs(const struct lanes *all, int64_t id)
{
    for (int i = 0; i < all->n; i++) {
        if (all->lane[i].job == id)
            return true;
    }
    return false;
}

void lanes_cancel(struct lanes *all, int64_t id, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&all->claiming); /* a claim of it may be under way */
    pthread_mutex_unlock(&all->claiming);
    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++) {
        if (all->lane[i].job == id)
            atomic_store(&all->lane[i].wanted, true);
    }
    while (runs(all, id)) {
        if (pthread_cond_timedwait(&all->ended, &all->lock, &until) != 0)
            break;
    }
    pthread_mutex_unlock(&all->lock);
}

struct json *lanes_progress(struct lanes *all, int64_t id)
{
    struct json *found = NULL;

    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++) {
        struct lane *l = &all->lane[i];

        if (l->job != id)
            continue;
        pthread_mutex_lock(&l->lock);
        if (l->shown)
            found = json_copy(l->shown);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&all->lock);
    return found;
}

int lanes_count(const struct lanes *all)
{
    return all->n;
}

int lanes_busy(struct lanes *all)
{
    int n = 0;

    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++)
        n += all->lane[i].job != 0;
    pthread_mutex_unlock(&all->lock);
    return n;
}

const char *lanes_device(const struct lanes *all, int i)
{
    return all->lane[i].name;
}

const char *lanes_describe(const struct lanes *all, int i)
{
    return all->backend->describe(all->lane[i].device);
}

int64_t lanes_job(struct lanes *all, int i)
{
    int64_t id;

    pthread_mutex_lock(&all->lock);
    id = all->lane[i].job;
    pthread_mutex_unlock(&all->lock);
    return id;
}
