/* Models: list, describe, import, files, delete. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "server/registry.h"
#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/datasets.h"
#include "storage/history.h"
#include "storage/models.h"

static struct json *parsed(const char *text)
{
    struct json *j = NULL;
    struct problem ignored;

    if (!text || json_parse(text, strlen(text), NULL, JSON_NAN, &j, &ignored) != ST_OK)
        return json_new_null();
    return j;
}

static struct json *describe(const struct version_row *v, bool all)
{
    struct json *j = json_new_object();
    char created[32];

    time_text(v->created_ms, created);
    json_put(j, "model", json_new_text(v->model));
    json_put(j, "version", json_new_int(v->version));
    json_put(j, "created_at", json_new_text(created));
    json_put(j, "job", v->job ? json_new_int(v->job) : json_new_null());
    json_put(j, "metrics", parsed(v->metrics));
    if (all) {
        json_put(j, "architecture", parsed(v->architecture));
        json_put(j, "compile", parsed(v->compile));
        json_put(j, "preprocess", parsed(v->prepare));
    }
    return j;
}

static enum status list(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct version_row *rows;
    struct json *j, *all;
    int n;

    (void)body;
    TRY(models_list(r->server->db, NULL, r->mem, &rows, &n, problem));
    j = json_new_object();
    all = json_put(j, "models", json_new_array());
    for (int i = 0; i < n; i++)
        json_push(all, describe(&rows[i], false));
    return reply_json(reply, 200, j);
}

static enum status get(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct version_row *rows;
    struct json *j, *all;
    int n;

    (void)body;
    TRY(models_list(r->server->db, r->param[0], r->mem, &rows, &n, problem));
    if (n == 0)
        return fail(problem, ST_NOT_FOUND, r->param[0], "there is no model \"%.128s\"", r->param[0]);
    j = json_new_object();
    json_put(j, "model", json_new_text(r->param[0]));
    all = json_put(j, "versions", json_new_array());
    for (int i = 0; i < n; i++)
        json_push(all, describe(&rows[i], false));
    return reply_json(reply, 200, j);
}

static enum status get_version(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct version_row row;

    (void)body;
    TRY(models_get(r->server->db, r->param[0], r->number[1], r->mem, &row, problem));
    return reply_json(reply, 200, describe(&row, true));
}

static enum status import(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    const struct settings *s = r->server->settings;
    struct ingest_limits limits = {.bytes = s->upload_limit, .seconds = (int)s->ingest_seconds, .memory = s->ingest_memory};
    char upload[sizeof r->upload];
    struct json *j;
    int64_t version = 0;
    enum status status;

    (void)body;
    if (!r->upload[0])
        return fail(problem, ST_MALFORMED, "", "the request has no body; send a .h5 file that Keras' model.save() wrote");
    memcpy(upload, r->upload, sizeof upload);
    r->upload[0] = 0; /* taken by models_import */
    registry_swap_begin(r->server->registry, r->param[0]);
    status = models_import(r->server->db, r->param[0], upload, &limits, &version, problem);
    registry_swap_end(r->server->registry, r->param[0], version);
    TRY(status);
    snprintf(reply->location, sizeof reply->location, "/api/v1/models/%s/versions/%lld", r->param[0], (long long)version);
    j = json_new_object();
    json_put(j, "model", json_new_text(r->param[0]));
    json_put(j, "version", json_new_int(version));
    return reply_json(reply, 201, j);
}

static enum status remove_model(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    TRY(models_delete(r->server->db, r->param[0], problem));
    registry_forget(r->server->registry, r->param[0]);
    reply->code = 204;
    return ST_OK;
}

/* The history of the job that made the version. */
static enum status history_of(const struct request *r, const struct version_row *row, const char *name, struct reply *reply,
                              struct problem *problem)
{
    char path[512];
    enum status status;

    if (!row->job)
        return fail(problem, ST_NOT_FOUND, "history.h5", "the version was imported: it has no history");
    TRY(history_file(r->server->db, row->job, path, problem));
    status = reply_file(reply, path, "history.h5", name, problem);
    (void)unlink(path);
    return status;
}

static enum status file(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct version_row row;
    char path[1024], name[160];

    (void)body;
    TRY(models_get(r->server->db, r->param[0], r->number[1], r->mem, &row, problem));
    if (strcmp(r->param[2], "model.json") == 0) {
        text_add(&reply->body, row.architecture);
        reply->content_type = "application/json";
        return ST_OK;
    }
    if (strcmp(r->param[2], "history.h5") == 0) {
        snprintf(name, sizeof name, "%.120s-%lld-history.h5", r->param[0], (long long)row.version);
        return history_of(r, &row, name, reply, problem);
    }
    if (strcmp(r->param[2], "model.h5") != 0)
        return fail(problem, ST_NOT_FOUND, r->param[2], "a version has the files model.h5, model.json and history.h5");
    snprintf(path, sizeof path, "%s/%s", db_folder(r->server->db), row.path);
    snprintf(name, sizeof name, "%.128s-%lld.h5", r->param[0], (long long)row.version);
    return reply_file(reply, path, row.path, name, problem);
}

const struct endpoint endpoint_model_list = {
    .method = "GET", .path = "/api/v1/models", .operation = "listModels", .flags = ENDPOINT_SLOW, .handle = list};
const struct endpoint endpoint_model_get = {
    .method = "GET", .path = "/api/v1/models/{name}", .operation = "getModel", .flags = ENDPOINT_SLOW, .handle = get};
const struct endpoint endpoint_model_put = {.method = "PUT",
                                            .path = "/api/v1/models/{name}",
                                            .operation = "putModel",
                                            .flags = ENDPOINT_SLOW | ENDPOINT_UPLOAD,
                                            .handle = import};
const struct endpoint endpoint_model_delete = {.method = "DELETE",
                                               .path = "/api/v1/models/{name}",
                                               .operation = "deleteModel",
                                               .flags = ENDPOINT_SLOW,
                                               .handle = remove_model};
const struct endpoint endpoint_version_get = {
    .method = "GET", .path = "/api/v1/models/{name}/versions/{n}", .operation = "getVersion", .handle = get_version};
const struct endpoint endpoint_version_file = {.method = "GET",
                                               .path = "/api/v1/models/{name}/versions/{n}/files/{file}",
                                               .operation = "getVersionFile",
                                               .flags = ENDPOINT_SLOW,
                                               .handle = file};
