/* Jobs: post, list, follow, cancel. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "server/job.h"
#include "server/lane.h"
#include "server/log.h"
#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/history.h"
#include "storage/jobs.h"

enum { CANCEL_SECONDS = 5, MAX_LIST = 1000 };

/* --- a job as JSON ------------------------------------------------------------------------------------------------------------ */

static struct json *parsed(const char *text)
{
    struct json *j = NULL;
    struct problem ignored;

    if (!text || json_parse(text, strlen(text), NULL, 0, &j, &ignored) != ST_OK)
        return NULL;
    return j;
}

static struct json *or_null(struct json *j)
{
    return j ? j : json_new_null();
}

static struct json *time_or_null(int64_t ms)
{
    char s[32];

    if (!ms)
        return json_new_null();
    time_text(ms, s);
    return json_new_text(s);
}

/* Evaluate has its metrics in the result; a job that runs has them in its lane, every other in its row. */
static struct json *metrics_of(const struct job_row *row, struct json *progress, const struct json *result)
{
    struct json *metrics = json_detach(progress, "metrics");

    if (strcmp(row->type, "evaluate") != 0 || !result)
        return or_null(metrics);
    json_free(metrics);
    metrics = json_copy(result);
    json_remove(metrics, "model");
    json_remove(metrics, "version");
    return metrics;
}

static struct json *job_json(struct request *r, const struct job_row *row)
{
    OWNED(json_free) struct json *progress = NULL;
    struct json *j = json_new_object(), *result = parsed(row->result), *shown, *metrics;

    if (row->state == JOB_RUNNING && r->server->lanes)
        progress = lanes_progress(r->server->lanes, row->id);
    if (!progress)
        progress = parsed(row->progress);
    metrics = progress || result ? metrics_of(row, progress, result) : json_new_null();
    shown = json_detach(progress, "progress");
    json_put(j, "id", json_new_int(row->id));
    json_put(j, "type", json_new_text(row->type));
    json_put(j, "state", json_new_text(job_state_name(row->state)));
    json_put(j, "model", json_new_text(row->model));
    json_put(j, "device", json_new_text(row->ran_on ? row->ran_on : row->device));
    json_put(j, "attempt", json_new_int(row->attempt));
    json_put(j, "queue_position", row->queue_position ? json_new_int(row->queue_position) : json_new_null());
    json_put(j, "progress", or_null(shown));
    json_put(j, "metrics", metrics);
    json_put(j, "result", or_null(result));
    json_put(j, "problem", or_null(parsed(row->problem)));
    json_put(j, "seed", json_new_int(row->seed));
    json_put(j, "priority", json_new_int(row->priority));
    json_put(j, "warnings", row->warnings ? or_null(parsed(row->warnings)) : json_new_array());
    json_put(j, "environment", json_new_text(row->environment));
    json_put(j, "reproducible", json_new_bool(row->reproducible));
    json_put(j, "created_at", time_or_null(row->created_ms));
    json_put(j, "started_at", time_or_null(row->started_ms));
    json_put(j, "finished_at", time_or_null(row->finished_ms));
    return j;
}

static enum status reply_job(struct request *r, struct reply *reply, int code, int64_t id, struct problem *problem)
{
    struct job_row row;

    TRY(jobs_get(r->server->db, id, r->mem, &row, problem));
    return reply_json(reply, code, job_json(r, &row));
}

/* --- post ------------------------------------------------------------------------------------------------------------------------- */

static enum status check_device(const struct request *r, const char *device, struct problem *problem)
{
    int64_t lanes = r->server->settings->lanes;
    char *end;
    long n;

    if (strcmp(device, "auto") == 0 || strcmp(device, "cpu") == 0)
        return ST_OK;
    if (strncmp(device, "cpu:", 4) != 0)
        return fail(problem, ST_UNSUPPORTED, "/device", "there is no device \"%s\" here; take auto, cpu, or cpu:0 to cpu:%lld",
                    device, (long long)lanes - 1);
    n = strtol(device + 4, &end, 10);
    if (!device[4] || *end || n < 0 || n >= lanes || device[4] == '+' || device[4] == ' ')
        return fail(problem, ST_INVALID, "/device", "there is no device \"%s\" here; the lanes are cpu:0 to cpu:%lld", device,
                    (long long)lanes - 1);
    return ST_OK;
}

/* Lines of the model's warnings as a JSON array. */
static struct json *warnings_json(const struct work *w)
{
    struct json *all = json_new_array();
    const char *s = w->model->warnings;

    while (s && *s) {
        size_t n = strcspn(s, "\n");

        if (n)
            json_push(all, json_new_text(arena_print(w->mem, "%.*s", (int)n, s)));
        s += n + (s[n] == '\n');
    }
    return all;
}

static enum status fits_memory(const struct request *r, const struct work *w, struct problem *problem)
{
    struct work_cost cost;

    TRY(work_cost(w, &cost, problem));
    if ((int64_t)cost.total > r->server->settings->memory_limit)
        return fail(problem, ST_INVALID, "/model",
                    "the job needs %zu bytes (%zu of them for activations at batch size %lld), "
                    "memory_limit is %lld",
                    cost.total, cost.activations, (long long)cost.batch, (long long)r->server->settings->memory_limit);
    return ST_OK;
}

static enum status dry_run(const struct request *r, const struct work *w, struct reply *reply, struct problem *problem)
{
    struct work_cost cost;
    struct json *j, *bytes, *flops;
    bool fits;

    TRY(work_cost(w, &cost, problem));
    fits = (int64_t)cost.total <= r->server->settings->memory_limit;
    j = json_new_object();
    json_put(j, "type", json_new_text(work_names[w->type]));
    json_put(j, "model", json_new_text(w->name));
    json_put(j, "parameters", json_new_int(weights_count(w->layout, false)));
    json_put(j, "trainable_parameters", json_new_int(weights_count(w->layout, true)));
    json_put(j, "layers", work_layers(w));
    json_put(j, "batch_size", json_new_int(cost.batch));
    json_put(j, "rows", json_new_int(w->train->rows));
    bytes = json_put(j, "bytes", json_new_object());
    json_put(bytes, "weights", json_new_int((int64_t)cost.weights));
    json_put(bytes, "gradients", json_new_int((int64_t)cost.gradients));
    json_put(bytes, "slots", json_new_int((int64_t)cost.slots));
    json_put(bytes, "activations", json_new_int((int64_t)cost.activations));
    json_put(bytes, "total", json_new_int((int64_t)cost.total));
    flops = json_put(j, "flops", json_new_object());
    json_put(flops, "step", json_new_number(cost.flops));
    json_put(flops, "sample", json_new_number(cost.flops / (double)cost.batch));
    json_put(j, "memory_limit", json_new_int(r->server->settings->memory_limit));
    json_put(j, "fits", json_new_bool(fits));
    if (!fits) {
        CLEAN(text_done) struct text note = text_make(300);

        text_printf(&note, "this machine cannot hold it: %zu bytes are needed, memory_limit is %lld", cost.total,
                    (long long)r->server->settings->memory_limit);
        json_put(j, "note", json_new_text(note.s));
    }
    json_put(j, "warnings", warnings_json(w));
    return reply_json(reply, 200, j);
}

static enum status draw_seed(int64_t *ret, struct problem *problem)
{
    uint64_t bits;

    if (getrandom(&bits, sizeof bits, 0) != sizeof bits)
        return fail(problem, ST_INTERNAL, "/seed", "no seed could be drawn: %s", strerror(errno));
    *ret = (int64_t)(bits >> 1);
    return ST_OK;
}

static enum status enqueue(struct request *r, const struct job_body *body, const struct work *w, int64_t *id,
                           struct problem *problem)
{
    OWNED(json_free) struct json *warnings = warnings_json(w);
    char *document = work_document(w, r->json), *warnings_text = json_print(warnings, 0);
    struct job_new j = {.type = work_names[w->type],
                        .model = w->name,
                        .request = document,
                        .device = body->device,
                        .warnings = warnings_text,
                        .seed = body->seed,
                        .priority = (int)body->priority,
                        .idempotency_key = r->idempotency_key,
                        .n_arrays = w->n_arrays,
                        .array_ids = w->array_ids,
                        .base_version = w->base.id};
    bool existing;
    enum status status = ST_OK;

    if (j.seed < 0)
        status = draw_seed(&j.seed, problem);
    if (status == ST_OK)
        status = jobs_enqueue(r->server->db, &j, r->server->settings->queue_limit, id, &existing, problem);
    free(document);
    free(warnings_text);
    return status;
}

static enum status reply_accepted(struct request *r, struct reply *reply, int64_t id, struct problem *problem)
{
    snprintf(reply->location, sizeof reply->location, "/api/v1/jobs/%lld", (long long)id);
    return reply_job(r, reply, 202, id, problem);
}

/* The job that an earlier post with the same Idempotency-Key made; 0: none. */
static enum status posted_before(const struct request *r, int64_t *id, struct problem *problem)
{
    size_t n = r->idempotency_key ? strlen(r->idempotency_key) : 0;

    *id = 0;
    if (!r->idempotency_key)
        return ST_OK;
    if (n < 1 || n > 255)
        return fail(problem, ST_INVALID, "Idempotency-Key", "the key has %zu bytes, it must have 1 to 255", n);
    return jobs_find_key(r->server->db, r->idempotency_key, id, problem);
}

static enum status post(struct request *r, const void *given, struct reply *reply, struct problem *problem)
{
    static const char *const known[] = {"dry_run", NULL};
    const struct job_body *body = given;
    OWNED(work_free) struct work *w = NULL;
    bool dry;
    int64_t id;

    TRY(request_query_only(r, known, problem));
    TRY(request_query_bool(r, "dry_run", &dry, problem));
    TRY(posted_before(r, &id, problem));
    if (id && !dry)
        return reply_accepted(r, reply, id, problem);
    TRY(check_device(r, body->device, problem));
    TRY(work_open(r->server->db, body, &w, problem));
    if (dry)
        return dry_run(r, w, reply, problem);
    if (atomic_load(&r->server->stopping))
        return fail(problem, ST_BUSY, "", "the daemon is stopping");
    TRY(fits_memory(r, w, problem));
    TRY(enqueue(r, body, w, &id, problem));
    if (r->server->lanes)
        lanes_notify(r->server->lanes);
    log_event(LOG_INFO, id, "queued: %s of %s", work_names[w->type], w->name);
    return reply_accepted(r, reply, id, problem);
}

/* --- the others -------------------------------------------------------------------------------------------------------------------- */

static enum status list(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    static const char *const known[] = {"state", "model", "limit", "cursor", NULL};
    const char *state_text = request_query(r, "state"), *model = request_query(r, "model");
    enum job_state state = JOB_QUEUED;
    struct job_row *rows;
    struct json *j, *all;
    int64_t limit, cursor;
    bool more;
    int n;

    (void)body;
    TRY(request_query_only(r, known, problem));
    TRY(request_query_int(r, "limit", 100, 1, MAX_LIST, &limit, problem));
    TRY(request_query_int(r, "cursor", 0, 1, INT64_MAX, &cursor, problem));
    if (state_text && !job_state_find(state_text, &state))
        return fail(problem, ST_INVALID, "state", "is \"%.60s\", it must be queued, running, paused, done, failed or cancelled",
                    state_text);
    TRY(jobs_list(r->server->db, state_text ? (int)state : -1, model, cursor, (int)limit, r->mem, &rows, &n, &more, problem));
    j = json_new_object();
    all = json_put(j, "jobs", json_new_array());
    for (int i = 0; i < n; i++)
        json_push(all, job_json(r, &rows[i]));
    json_put(j, "cursor", more ? json_new_int(rows[n - 1].id) : json_new_null());
    return reply_json(reply, 200, j);
}

static enum status get(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    return reply_job(r, reply, 200, r->number[0], problem);
}

static enum status history(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    char path[512], name[64];
    enum status status;

    (void)body;
    if (!r->accept || !strstr(r->accept, "application/x-hdf5")) {
        reply->content_type = "application/json";
        return jobs_history(r->server->db, r->number[0], &reply->body, problem);
    }
    TRY(history_file(r->server->db, r->number[0], path, problem));
    snprintf(name, sizeof name, "job-%lld-history.h5", (long long)r->number[0]);
    status = reply_file(reply, path, "history.h5", name, problem);
    (void)unlink(path);
    return status;
}

/* A running job is over only when its lane has let it go: worth a short wait, so that the answer can say so. */
static enum status cancel(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    bool running;

    (void)body;
    TRY(jobs_cancel(r->server->db, r->number[0], &running, problem));
    if (running && r->server->lanes)
        lanes_cancel(r->server->lanes, r->number[0], CANCEL_SECONDS);
    return reply_job(r, reply, 200, r->number[0], problem);
}

static enum status file(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    char path[512];

    (void)body;
    TRY(jobs_file_get(r->server->db, r->number[0], r->param[1], path, problem));
    return reply_file(reply, path, r->param[1], r->param[1], problem);
}

const struct endpoint endpoint_job_post = {.method = "POST",
                                           .path = "/api/v1/jobs",
                                           .operation = "postJob",
                                           .flags = ENDPOINT_SLOW,
                                           .body = job_fields,
                                           .body_size = sizeof(struct job_body),
                                           .handle = post,
                                           .nan_below = "/model/architecture"};
const struct endpoint endpoint_job_list = {
    .method = "GET", .path = "/api/v1/jobs", .operation = "listJobs", .flags = ENDPOINT_SLOW, .handle = list};
const struct endpoint endpoint_job_get = {.method = "GET", .path = "/api/v1/jobs/{id}", .operation = "getJob", .handle = get};
const struct endpoint endpoint_job_history = {.method = "GET",
                                              .path = "/api/v1/jobs/{id}/history",
                                              .operation = "getJobHistory",
                                              .flags = ENDPOINT_SLOW,
                                              .handle = history};
const struct endpoint endpoint_job_cancel = {
    .method = "POST", .path = "/api/v1/jobs/{id}/cancel", .operation = "cancelJob", .flags = ENDPOINT_SLOW, .handle = cancel};
const struct endpoint endpoint_job_file = {.method = "GET",
                                           .path = "/api/v1/jobs/{id}/files/{file}",
                                           .operation = "getJobFile",
                                           .flags = ENDPOINT_SLOW,
                                           .handle = file};
