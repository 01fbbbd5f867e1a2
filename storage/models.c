/* Models and their versions as rows and files. See models.h. */
#include "storage/models.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "engine/model/weights.h"
#include "storage/ingest/ingest.h"
#include "storage/keras_h5.h"
#include "storage/rows.h"

#define VERSION_COLUMNS                                                                                                    \
    "SELECT v.id, v.model, version, m.name, path, architecture, compile, prepare, raw_shapes, metrics, job, v.created_ms " \
    "FROM model_versions v JOIN models m ON m.id = v.model "

static void read_version(struct sqlite3_stmt *q, struct arena *mem, struct version_row *v)
{
    *v = (struct version_row){
        .id = sqlite3_column_int64(q, 0),
        .model_id = sqlite3_column_int64(q, 1),
        .version = sqlite3_column_int64(q, 2),
        .model = sql_text(q, 3, mem),
        .path = sql_text(q, 4, mem),
        .architecture = sql_text(q, 5, mem),
        .compile = sql_text(q, 6, mem),
        .prepare = sql_text(q, 7, mem),
        .raw_shapes = sql_text(q, 8, mem),
        .metrics = sql_text(q, 9, mem),
        .job = sqlite3_column_int64(q, 10),
        .created_ms = sqlite3_column_int64(q, 11),
    };
}

/* --- publish ------------------------------------------------------------------------------------------------------------- */

struct publish {
    struct db *db;
    const struct version_new *v;
    int64_t version;
    char path[96];
    struct leftovers left;
};

static enum status publish(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct publish *p = arg;
    const struct version_new *v = p->v;
    CLEAN(text_done) struct text result = text_make(1024);
    int64_t model = 0;

    TRY(sql_run(s, problem, "INSERT OR IGNORE INTO models (name, created_ms) VALUES (?, ?)", "ti", v->model, clock_unix_ms()));
    TRY(sql_int(s, 0, &model, problem, "SELECT id FROM models WHERE name = ?", "t", v->model));
    TRY(sql_int(s, 1, &p->version, problem, "SELECT coalesce(max(version), 0) + 1 FROM model_versions WHERE model = ?", "i",
                model));
    snprintf(p->path, sizeof p->path, "models/%" PRId64 "/%" PRId64 "/model.h5", model, p->version);
    TRY(sql_run(s, problem,
                "INSERT INTO model_versions (model, version, path, architecture, compile, prepare, raw_shapes, metrics, job, "
                "created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), ?)",
                "iitttttt"
                "ii",
                model, p->version, p->path, v->architecture, v->compile, v->prepare, v->raw_shapes, v->metrics, v->job,
                clock_unix_ms()));
    if (v->job) {
        text_add(&result, "{\"model\":");
        text_add_json(&result, v->model);
        text_printf(&result, ",\"version\":%" PRId64 "}", p->version);
        TRY(job_end(s, v->job, JOB_DONE, result.s, NULL, v->news, &p->left, problem));
    }
    return db_place_synced(p->db, v->temp, p->path, problem);
}

static void publish_undo(void *arg)
{
    struct publish *p = arg;

    if (*p->path)
        db_remove(p->db, p->path);
}

enum status models_publish(struct db *db, const struct version_new *v, int64_t *version, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct publish p = {.db = db, .v = v, .left.mem = mem};

    if (!name_valid(v->model)) {
        (void)unlink(v->temp);
        return fail(problem, ST_INVALID, "/model/name",
                    "the name \"%.140s\" is not possible: letters, digits and ._- (not first), at most 128", v->model);
    }
    enum status status = db_sync(v->temp, v->model, problem);
    if (status == ST_OK)
        status = db_write_undo(db, publish, publish_undo, &p, problem);
    if (status == ST_OK) {
        leftovers_remove(&p.left, db);
        *version = p.version;
        return ST_OK;
    }
    (void)unlink(v->temp);
    return status;
}

/* --- read ---------------------------------------------------------------------------------------------------------------- */

enum status models_get(struct db *db, const char *name, int64_t version, struct arena *mem, struct version_row *ret,
                       struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct sqlite3 *s = db_reader(db);
    int64_t newest = 0;
    bool found = false;

    TRY(sql_query(s, &q, problem,
                  VERSION_COLUMNS "WHERE m.name = ?1 AND (?2 = 0 OR version = ?2) ORDER BY version DESC LIMIT 1", "ti", name,
                  version));
    TRY(sql_next(q, &found, problem));
    if (!found) {
        TRY(sql_int(s, 0, &newest, problem,
                    "SELECT coalesce(max(version), 0) FROM model_versions v JOIN models m ON m.id = v.model WHERE m.name = ?",
                    "t", name));
        if (newest)
            return fail(problem, ST_NOT_FOUND, "", "model \"%.128s\" has no version %" PRId64 "; the newest is %" PRId64, name,
                        version, newest);
        return fail(problem, ST_NOT_FOUND, "", "there is no model \"%.128s\"", name);
    }
    read_version(q, mem, ret);
    return ST_OK;
}

enum status models_version(struct db *db, int64_t id, struct arena *mem, struct version_row *ret, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(db_reader(db), &q, problem, VERSION_COLUMNS "WHERE v.id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return fail(problem, ST_NOT_FOUND, "", "that version of a model is gone");
    read_version(q, mem, ret);
    return ST_OK;
}

enum status models_list(struct db *db, const char *name, struct arena *mem, struct version_row **rows, int *n,
                        struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct sqlite3 *s = db_reader(db);
    int64_t count = 0;
    bool found = false;

    TRY(sql_int(s, 0, &count, problem,
                "SELECT count(*) FROM model_versions v JOIN models m ON m.id = v.model WHERE ?1 IS NULL OR m.name = ?1", "t",
                name));
    if (name && !count)
        return fail(problem, ST_NOT_FOUND, "", "there is no model \"%.128s\"", name);
    *rows = ARENA_ARRAY(mem, struct version_row, count + 1);
    *n = 0;
    TRY(sql_query(s, &q, problem,
                  VERSION_COLUMNS
                  "WHERE m.name = ?1 OR (?1 IS NULL AND version = (SELECT max(version) FROM model_versions w WHERE "
                  "w.model = v.model)) ORDER BY m.name, version LIMIT ?2",
                  "ti", name, count));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        read_version(q, mem, &(*rows)[(*n)++]);
    }
}

/* --- delete -------------------------------------------------------------------------------------------------------------- */

struct removal {
    const char *name;
    struct leftovers left;
};

static enum status delete_model(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct removal *r = arg;
    char path[64];
    int64_t model = 0, job = 0;

    TRY(sql_int(s, 0, &model, problem, "SELECT id FROM models WHERE name = ?", "t", r->name));
    if (!model)
        return fail(problem, ST_NOT_FOUND, "", "there is no model \"%.128s\"", r->name);
    TRY(sql_int(s, 0, &job, problem,
                "SELECT id FROM jobs WHERE state IN " UNFINISHED
                " AND base_version IN (SELECT id FROM model_versions WHERE model = ?) "
                "ORDER BY id LIMIT 1",
                "i", model));
    if (job)
        return fail(problem, ST_CONFLICT, "", "job %" PRId64 " goes on from a version of it and is not over; cancel it or wait",
                    job);
    TRY(sql_run(s, problem, "DELETE FROM model_versions WHERE model = ?", "i", model));
    TRY(sql_run(s, problem, "DELETE FROM models WHERE id = ?", "i", model));
    snprintf(path, sizeof path, "models/%" PRId64, model);
    leftovers_add(&r->left, path);
    return ST_OK;
}

enum status models_delete(struct db *db, const char *name, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct removal r = {.name = name, .left.mem = mem};

    TRY(db_write(db, delete_model, &r, problem));
    leftovers_remove(&r.left, db);
    return ST_OK;
}

/* --- import -------------------------------------------------------------------------------------------------------------- */

struct import {
    struct db *db;
    const char *name;
    char folder[512]; /* absolute, under tmp/ */
    struct arena *mem;
    struct model *m;
    const char *architecture, *compile;
};

/* The version and backend that the file names beside its model_config go into the JSON, which then says by itself how it is meant. */
static enum status read_architecture(struct import *i, const struct keras_h5 *k, struct problem *problem)
{
    OWNED(json_free) struct json *j = NULL;
    struct problem inner = {0};

    if (!k->architecture)
        return fail(problem, ST_INVALID, i->name,
                    "the file has no model_config: weights alone are no model; save the whole model with model.save()");
    if (json_parse(k->architecture, strlen(k->architecture), NULL, JSON_NAN, &j, &inner) != ST_OK)
        return fail(problem, ST_INVALID, i->name, "the file's model_config is no JSON: %.300s", inner.detail);
    if (json_type(j) == JSON_OBJECT && !json_get(j, "keras_version") && *k->keras_version) {
        json_put(j, "keras_version", json_new_text(k->keras_version));
        if (!json_get(j, "backend") && *k->backend)
            json_put(j, "backend", json_new_text(k->backend));
    }
    char *text = json_print(j, JSON_NAN);
    i->architecture = arena_text(i->mem, text);
    free(text);
    return model_parse(j, "/model_config", &i->m, problem);
}

/* Builds the model, which lays its weights out, and reads the file's into them: what fits here can be served. */
static enum status check_weights(const struct import *i, struct h5 *f, struct problem *problem)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(weights_free) struct weights *w = weights_new();
    struct build b = build_make(g);
    value_id *inputs = ARENA_ARRAY(i->mem, value_id, i->m->n_inputs + 1);
    struct tuple in, out;
    void *values;

    b.weights = w;
    b.dialect = (int)i->m->dialect;
    weights_begin(w);
    for (int k = 0; k < i->m->n_inputs; k++) {
        struct shape shape = shape_with(&i->m->inputs[k].shape, 0, 1);

        inputs[k] = input(&b, i->m->inputs[k].type, &shape);
    }
    in = tuple_make(&b, i->m->n_inputs, inputs, NULL);
    TRY(model_build(i->m, &b, &in, &out, problem));
    weights_layout(w, &b);
    TRY(try_alloc(w->bytes + 1, "the model's weights", &values, problem));
    enum status status = keras_h5_read_weights(f, i->m, w, values, problem);
    big_free(values, w->bytes + 1);
    return status;
}

static enum status read_import(struct import *i, struct problem *problem)
{
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(json_free) struct json *compile = NULL;
    struct keras_h5 k = {0};
    char path[600];

    snprintf(path, sizeof path, "%s/0.h5", i->folder);
    TRY(h5_open(path, i->name, &f, problem));
    TRY(keras_h5_describe(f, i->mem, &k, problem));
    TRY(read_architecture(i, &k, problem));
    TRY(check_weights(i, f, problem));
    if (k.training) {
        TRY(keras_h5_compile(&k, &compile, problem));
        char *text = json_print(compile, JSON_NAN);
        i->compile = arena_text(i->mem, text);
        free(text);
    }
    return ST_OK;
}

static enum status import_upload(struct import *i, const char *upload, const struct ingest_limits *limits, int64_t *version,
                                 struct problem *problem)
{
    struct ingest_answer answer;
    char in[600], plain[600];

    if (!name_valid(i->name))
        return fail(problem, ST_INVALID, "",
                    "the name \"%.140s\" is not possible: letters, digits and ._- (not first), at most 128", i->name);
    snprintf(in, sizeof in, "%s/in", i->folder);
    snprintf(plain, sizeof plain, "%s/0.h5", i->folder);
    if (rename(upload, in) < 0)
        return fail_errno(problem, errno, i->name, "take over the upload");
    TRY(ingest_run(i->folder, "model", i->name, i->name, limits, i->mem, &answer, problem));
    TRY(read_import(i, problem));
    struct version_new v = {.model = i->name, .architecture = i->architecture, .compile = i->compile, .temp = plain};
    return models_publish(i->db, &v, version, problem);
}

enum status models_import(struct db *db, const char *name, const char *upload, const struct ingest_limits *limits,
                          int64_t *version, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct import i = {.db = db, .name = name, .mem = mem};

    snprintf(i.folder, sizeof i.folder, "%s/tmp/XXXXXX", db_folder(db));
    if (!mkdtemp(i.folder)) {
        int error = errno;

        (void)unlink(upload);
        return fail_errno(problem, error, name, "make a temporary folder");
    }
    enum status status = import_upload(&i, upload, limits, version, problem);
    model_free(i.m);
    (void)unlink(upload);
    db_remove(db, i.folder + strlen(db_folder(db)) + 1);
    return status;
}
