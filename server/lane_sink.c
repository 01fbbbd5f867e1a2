/* What a running job tells: progress into the lane's snapshot, epochs, checkpoints and files into storage.
 *
 * Epochs wait in the lane and are stored together: every NEWS_SECONDS, and with whatever else changes the job's row (a checkpoint, its end).
 * A checkpoint needs the rows of the epochs before it, which its transaction has; rows behind it are worked out again after a crash. So
 * nothing is lost by waiting, and a job of 20 epochs that lasts some milliseconds pays for two transactions instead of 23.
 *
 * A full disk must not end a training: a checkpoint that cannot be written is tried again when the next is due, rows and files are tried
 * for some seconds. */
#include "server/lane_parts.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/log.h"
#include "server/metrics.h"
#include "storage/checkpoint.h"

static struct json *metrics_json(int n, const char *const *names, const double *values)
{
    struct json *j = json_new_object();

    for (int i = 0; i < n; i++) {
        if (!isnan(values[i])) /* not known yet: val_loss in the first epoch */
            json_put(j, names[i], json_new_number(values[i]));
    }
    return j;
}

/* {"progress", "metrics"} as it is shown and as it is stored with a checkpoint. */
static struct json *progress_json(const struct progress *p)
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

void lane_show(struct lane *l, struct json *takes)
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

/* --- epochs that wait ---------------------------------------------------------------------------------------------------------- */

static void add_news(struct lane *l, int epoch, int n, const char *const *names, const double *values)
{
    struct arena *mem = l->news_mem ? l->news_mem : (l->news_mem = arena_new());
    const char **own_names = ARENA_ARRAY(mem, const char *, n + 1);
    double *own_values = ARENA_ARRAY(mem, double, n + 1);

    for (int i = 0; i < n; i++) {
        own_names[i] = arena_text(mem, names[i]);
        own_values[i] = values[i];
    }
    l->news[l->n_news++] = (struct job_epoch){.epoch = epoch, .n = n, .names = own_names, .values = own_values};
}

struct job_news lane_news(struct lane *l, char **text)
{
    *text = shown_text(l);
    return (struct job_news){.n = l->n_news, .epoch = l->news, .progress = *text};
}

void lane_news_over(struct lane *l)
{
    l->news_mem = arena_free(l->news_mem);
    l->n_news = 0;
    l->news_stored = clock_seconds();
}

static enum status store_news(struct lane *l, struct problem *problem)
{
    char *text;
    struct job_news news = lane_news(l, &text);
    enum status status = jobs_news(lane_db(l), l->row.id, &news, problem);

    free(text);
    TRY(status);
    lane_news_over(l);
    return ST_OK;
}

static bool news_due(const struct lane *l)
{
    return l->n_news == NEWS_MAX || (l->n_news && clock_seconds() - l->news_stored >= NEWS_SECONDS);
}

bool lane_may_pass(enum status s)
{
    return s == ST_DISK_FULL || s == ST_STORAGE;
}

void lane_pause(const struct lane *l)
{
    for (int i = 0; i < 10 && !atomic_load(&l->lanes->stop); i++)
        usleep(50000);
}

/* --- the sink ---------------------------------------------------------------------------------------------------------------- */

static struct lane *lane_of(struct sink *s)
{
    return (struct lane *)s;
}

static unsigned sink_poll(struct sink *s)
{
    struct lane *l = lane_of(s);
    struct problem problem;
    unsigned asked = POLL_GO;

    lane_errand(l);
    if (atomic_load_explicit(&l->wanted, memory_order_relaxed))
        asked |= POLL_CANCEL;
    if (atomic_load_explicit(&l->lanes->stop, memory_order_relaxed))
        asked |= POLL_STOP;
    if (clock_seconds() - l->checkpointed >= l->lanes->server->settings->checkpoint_seconds)
        asked |= POLL_CHECKPOINT;
    else if (news_due(l) && store_news(l, &problem) != ST_OK)
        l->news_stored = clock_seconds(); /* the next epoch or the end says why, if it lasts */
    return asked;
}

static void sink_progress(struct sink *s, const struct progress *p)
{
    struct lane *l = lane_of(s);
    int64_t seen = ((int64_t)p->epoch * p->steps_per_epoch + p->step) * l->work->spec->batch_size;

    if (l->work->type == WORK_FIT && l->rows_seen >= 0 && seen > l->rows_seen)
        metrics_samples(seen - l->rows_seen);
    l->rows_seen = seen;
    lane_show(l, progress_json(p));
}

static enum status sink_epoch(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                              struct problem *problem)
{
    struct lane *l = lane_of(s);
    OWNED(json_free) struct json *metrics = metrics_json(n, names, values);
    CLEAN(text_done) struct text line = text_make(1000);
    enum status status = ST_OK;

    show_epoch(l, epoch, metrics);
    add_news(l, epoch, n, names, values);
    if (news_due(l))
        status = PATIENTLY(l, PATIENCE_SECONDS, store_news(l, problem));
    free(l->metrics);
    l->metrics = json_print(metrics, 0);
    for (int i = 0; i < n; i++)
        text_printf(&line, " %s %.6g", names[i], values[i]);
    log_event(LOG_INFO, l->row.id, "epoch %d/%lld:%s", epoch + 1, (long long)l->work->spec->epochs, line.s);
    return status;
}

static enum status save_checkpoint(struct lane *l, const struct snapshot *now, struct problem *problem)
{
    char path[128], *text;
    struct job_news news = lane_news(l, &text);
    double began = clock_seconds();
    enum status status = checkpoint_save(lane_db(l), l->row.id, l->checkpoint_number + 1, now, path, problem);

    if (status == ST_OK)
        status = jobs_checkpoint(lane_db(l), l->row.id, path, l->checkpoint_number + 1, now->epoch, &news, problem);
    free(text);
    if (status == ST_OK) {
        lane_news_over(l);
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
    if (!lane_may_pass(status))
        return status;
    log_problem(LOG_WARNING, l->row.id, "no checkpoint could be written, training goes on", problem);
    *problem = (struct problem){0};
    return ST_OK;
}

enum status lane_write_model(struct lane *l, const struct snapshot *now, bool weights_only, char path[512],
                             struct problem *problem)
{
    enum status status;
    int fd;

    TRY(db_temp(lane_db(l), path, &fd, problem));
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

    TRY(lane_write_model(l, now, weights_only, path, problem));
    status = jobs_file_put(lane_db(l), l->row.id, name, path, problem);
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

const struct sink lane_sink = {sink_poll, sink_progress, sink_epoch, sink_checkpoint, sink_file, sink_note};
