/* Models: a name, and under it numbered immutable versions. */
#ifndef HORN_STORAGE_MODELS_H
#define HORN_STORAGE_MODELS_H

#include "engine/model/model.h"
#include "storage/db.h"

struct version_row {
    int64_t id, model_id, version;
    const char *model;
    const char *path;         /* of model.h5 under the folder */
    const char *architecture; /* the JSON as posted or imported, with its dialect's marks */
    const char *compile;      /* "compile" object as JSON, or NULL */
    const char *prepare;      /* JSON: {"<input>": [...]}, or NULL */
    const char *raw_shapes;   /* JSON: rows that prepare takes, {"<input>": [28, 28]}, or NULL */
    const char *metrics;      /* JSON object of the last epoch, or NULL */
    int64_t job;              /* that made it; 0: imported */
    int64_t created_ms;
};

struct job_news;

struct version_new {
    const char *model, *architecture, *compile, *prepare, *raw_shapes, *metrics;
    int64_t job;                 /* 0: an import */
    const struct job_news *news; /* of the job, or NULL */
    const char *temp;            /* finished model.h5 under tmp/; taken, whatever the outcome */
};

/* Places the file, then version row and, for a job, running -> done with its result, in one transaction. */
enum status models_publish(struct db *db, const struct version_new *v, int64_t *version, struct problem *problem);
enum status models_get(struct db *db, const char *name, int64_t version /* 0: the newest */, struct arena *mem,
                       struct version_row *ret, struct problem *problem);
enum status models_version(struct db *db, int64_t id, struct arena *mem, struct version_row *ret, struct problem *problem);
/* Newest version of each model (name NULL), or all versions of one. */
enum status models_list(struct db *db, const char *name, struct arena *mem, struct version_row **rows, int *n,
                        struct problem *problem);
enum status models_delete(struct db *db, const char *name, struct problem *problem);

/* An uploaded .h5 (temporary file, taken): checked by the jailed child, which rewrites it as a plain file; then parsed, built and
 * published. ST_INVALID: not Keras', weights that do not fit. */
struct ingest_limits;
enum status models_import(struct db *db, const char *name, const char *upload, const struct ingest_limits *limits,
                          int64_t *version, struct problem *problem);

#endif
