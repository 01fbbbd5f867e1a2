/* The daemon itself: health, readiness, metrics, the API's description, and what it runs on. */
#include <stdio.h>

#include "server/http.h"
#include "server/lane.h"
#include "server/metrics.h"
#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/jobs.h"

static const char openapi[];
static const size_t openapi_bytes;

/* Alive: an HTTP thread answers. */
static enum status health(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct json *j = json_new_object();

    (void)r, (void)body, (void)problem;
    json_put(j, "status", json_new_text("ok"));
    return reply_json(reply, 200, j);
}

/* Ready: lanes run, the database answers, and no stop is under way. */
static enum status ready(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct json *j;

    (void)body;
    if (!atomic_load(&r->server->ready) || atomic_load(&r->server->stopping))
        return fail(problem, ST_BUSY, "", "the daemon is %s", atomic_load(&r->server->stopping) ? "stopping" : "starting");
    if (jobs_count(r->server->db, JOB_QUEUED) < 0)
        return fail(problem, ST_STORAGE, "", "the database does not answer");
    j = json_new_object();
    json_put(j, "status", json_new_text("ready"));
    return reply_json(reply, 200, j);
}

static enum status metrics(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body, (void)problem;
    reply->content_type = "text/plain; version=0.0.4; charset=utf-8";
    metrics_print(r->server, &reply->body);
    return ST_OK;
}

static enum status description(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)r, (void)body, (void)problem;
    reply->content_type = "application/yaml";
    text_add_bytes(&reply->body, openapi, openapi_bytes);
    return ST_OK;
}

static struct json *describe_lanes(struct lanes *l)
{
    struct json *all = json_new_array();

    for (int i = 0; l && i < lanes_count(l); i++) {
        struct json *lane = json_push(all, json_new_object());
        int64_t job = lanes_job(l, i);

        json_put(lane, "device", json_new_text(lanes_device(l, i)));
        json_put(lane, "description", json_new_text(lanes_describe(l, i)));
        json_put(lane, "job", job ? json_new_int(job) : json_new_null());
    }
    return all;
}

static enum status system_get(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    const struct settings *s = r->server->settings;
    struct json *j = json_new_object(), *limits, *libraries;
    char started[32];

    (void)body, (void)problem;
    time_text(r->server->started_ms, started);
    json_put(j, "name", json_new_text("horn"));
    json_put(j, "version", json_new_text(HORN_VERSION));
    json_put(j, "started_at", json_new_text(started));
    json_put(j, "lanes", describe_lanes(r->server->lanes));
    libraries = json_put(j, "libraries", json_new_object());
    json_put(libraries, "libmicrohttpd", json_new_text(http_library()));
    limits = json_put(j, "limits", json_new_object());
    json_put(limits, "memory_limit", json_new_int(s->memory_limit));
    json_put(limits, "body_limit", json_new_int(s->body_limit));
    json_put(limits, "upload_limit", json_new_int(s->upload_limit));
    json_put(limits, "queue_limit", json_new_int(s->queue_limit));
    json_put(limits, "connection_limit", json_new_int(s->connection_limit));
    json_put(limits, "address_limit", json_new_int(s->address_limit));
    json_put(j, "memory_used", json_new_int((int64_t)memory_used()));
    json_put(j, "checkpoint_seconds", json_new_number(s->checkpoint_seconds));
    return reply_json(reply, 200, j);
}

const struct endpoint endpoint_health = {.method = "GET", .path = "/healthz", .operation = "getHealth", .handle = health};
const struct endpoint endpoint_ready = {.method = "GET", .path = "/readyz", .operation = "getReady", .handle = ready};
const struct endpoint endpoint_metrics = {
    .method = "GET", .path = "/metrics", .operation = "getMetrics", .flags = ENDPOINT_SLOW, .handle = metrics};
const struct endpoint endpoint_openapi = {
    .method = "GET", .path = "/openapi.yaml", .operation = "getDescription", .handle = description};
const struct endpoint endpoint_system = {
    .method = "GET", .path = "/api/v1/system", .operation = "getSystem", .handle = system_get};

static const char openapi[] = {
#include "openapi.inc"
};
static const size_t openapi_bytes = sizeof openapi - 1;
