/* Datasets: upload, list, describe, delete. */
#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/datasets.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct json *describe(const struct dataset_row *d)
{
    struct json *j = json_new_object(), *arrays;
    char created[32];

    time_text(d->created_ms, created);
    json_put(j, "name", json_new_text(d->name));
    json_put(j, "created_at", json_new_text(created));
    arrays = json_put(j, "arrays", json_new_array());
    for (int i = 0; i < d->n_arrays; i++) {
        const struct array_row *a = &d->arrays[i];
        struct json *row = json_push(arrays, json_new_object()), *shape = json_new_array(), *columns = NULL;
        struct problem ignored;

        for (int k = 0; k < a->shape.rank; k++)
            json_push(shape, json_new_int(a->shape.dim[k]));
        json_put(row, "name", json_new_text(a->name));
        json_put(row, "shape", shape);
        json_put(row, "dtype", json_new_text(dtype_name(a->type)));
        json_put(row, "bytes", json_new_int(a->bytes));
        json_put(row, "min", isnan(a->min) ? json_new_null() : json_new_number(a->min));
        json_put(row, "max", isnan(a->max) ? json_new_null() : json_new_number(a->max));
        json_put(row, "mean", isnan(a->mean) ? json_new_null() : json_new_number(a->mean));
        if (a->columns && json_parse(a->columns, strlen(a->columns), NULL, 0, &columns, &ignored) == ST_OK)
            json_put(row, "columns", columns);
    }
    return j;
}

static enum status put(struct request *r, const char *array, struct reply *reply, struct problem *problem)
{
    static const char *const known[] = {"format", NULL};
    const struct settings *s = r->server->settings;
    const char *format = request_query(r, "format");
    struct ingest_limits limits = {.bytes = s->upload_limit, .seconds = (int)s->ingest_seconds, .memory = s->ingest_memory};
    struct dataset_row row;
    char upload[sizeof r->upload];

    TRY(request_query_only(r, known, problem));
    if (!r->upload[0])
        return fail(problem, ST_MALFORMED, "",
                    "the request has no body; send the file, as with curl --data-binary @FILE or -T FILE");
    memcpy(upload, r->upload, sizeof upload);
    r->upload[0] = 0; /* taken by datasets_put */
    TRY(datasets_put(r->server->db, r->param[0], array, upload, format ? format : "", r->content_type ? r->content_type : "",
                     &limits, r->mem, &row, problem));
    snprintf(reply->location, sizeof reply->location, "/api/v1/datasets/%s", row.name);
    return reply_json(reply, 201, describe(&row));
}

static enum status put_dataset(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    return put(r, NULL, reply, problem);
}

static enum status put_array(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    return put(r, r->param[1], reply, problem);
}

static enum status list(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct dataset_row *rows;
    struct json *j, *all;
    int n;

    (void)body;
    TRY(datasets_list(r->server->db, r->mem, &rows, &n, problem));
    j = json_new_object();
    all = json_put(j, "datasets", json_new_array());
    for (int i = 0; i < n; i++)
        json_push(all, describe(&rows[i]));
    return reply_json(reply, 200, j);
}

static enum status get(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    struct dataset_row row;

    (void)body;
    TRY(datasets_get(r->server->db, r->param[0], r->mem, &row, problem));
    return reply_json(reply, 200, describe(&row));
}

static enum status remove_dataset(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    TRY(datasets_delete(r->server->db, r->param[0], problem));
    reply->code = 204;
    return ST_OK;
}

const struct endpoint endpoint_dataset_put = {.method = "PUT",
                                              .path = "/api/v1/datasets/{name}",
                                              .operation = "putDataset",
                                              .flags = ENDPOINT_SLOW | ENDPOINT_UPLOAD,
                                              .handle = put_dataset};
const struct endpoint endpoint_array_put = {.method = "PUT",
                                            .path = "/api/v1/datasets/{name}/{array}",
                                            .operation = "putArray",
                                            .flags = ENDPOINT_SLOW | ENDPOINT_UPLOAD,
                                            .handle = put_array};
const struct endpoint endpoint_dataset_list = {
    .method = "GET", .path = "/api/v1/datasets", .operation = "listDatasets", .flags = ENDPOINT_SLOW, .handle = list};
const struct endpoint endpoint_dataset_get = {
    .method = "GET", .path = "/api/v1/datasets/{name}", .operation = "getDataset", .handle = get};
const struct endpoint endpoint_dataset_delete = {.method = "DELETE",
                                                 .path = "/api/v1/datasets/{name}",
                                                 .operation = "deleteDataset",
                                                 .flags = ENDPOINT_SLOW,
                                                 .handle = remove_dataset};
