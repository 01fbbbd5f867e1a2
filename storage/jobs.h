/* Jobs as rows: enqueue, claim, progress, end. See schema.sql for the life cycle.
 *
 * All strings of a row are in the arena given. */
#ifndef HORN_STORAGE_JOBS_H
#define HORN_STORAGE_JOBS_H

#include "storage/db.h"

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_PAUSED, JOB_DONE, JOB_FAILED, JOB_CANCELLED };
const char *job_state_name(enum job_state s);
bool job_state_find(const char *name, enum job_state *ret);

struct job_row {
    int64_t id;
    const char *type; /* "fit", "evaluate", "predict" */
    enum job_state state;
    const char *model;   /* name */
    const char *request; /* the JSON as posted */
    const char *device;  /* as asked: "auto", "cpu", "cpu:0" */
    const char *ran_on;  /* "cpu:0"; NULL before the first claim */
    int64_t seed;
    int priority, attempt;
    int64_t queue_position; /* 1-based among the queued; 0 if not queued */
    const char *checkpoint; /* path under the folder, or NULL */
    int64_t checkpoint_number;
    const char *progress; /* JSON of the last committed progress, or NULL */
    const char *result;   /* JSON: {"model","version"} or evaluate's metrics, or NULL */
    const char *problem;  /* JSON problem document, or NULL */
    const char *warnings; /* JSON array of texts */
    const char
        *environment; /* what the last attempt ran on (device description); a resume under another says reproducible false */
    bool reproducible;
    int64_t created_ms, started_ms, finished_ms; /* 0: not yet */
};

struct job_new {
    const char *type, *model, *request, *device, *warnings;
    int64_t seed;
    int priority;
    const char *idempotency_key; /* or NULL */
    int n_arrays;
    const int64_t *array_ids; /* dataset arrays that the job holds (arrays.id), as they were when it was posted */
    int64_t base_version;     /* model_versions.id it goes on from; 0: none */
};

struct job_epoch { /* a row of history */
    int epoch, n;
    const char *const *names;
    const double *values;
};

/* What a running job tells beside its state: epochs since it was last stored, and its progress as JSON (NULL: as it was). Whoever changes
 * the job's row stores them with it, so that a short job costs no transaction of its own for each epoch. */
struct job_news {
    int n;
    const struct job_epoch *epoch;
    const char *progress;
};

/* One transaction; ST_TOO_MANY beyond queue_limit queued jobs. The same idempotency key gives the same job (*existing true). */
enum status jobs_enqueue(struct db *db, const struct job_new *j, int64_t queue_limit, int64_t *id, bool *existing,
                         struct problem *problem);
/* The job that was posted with this idempotency key; *id 0: none. A repeated post is answered by it before anything else is judged, since
 * what the document names may be gone by now. */
enum status jobs_find_key(struct db *db, const char *idempotency_key, int64_t *id, struct problem *problem);
/* Highest priority first, then oldest; for a lane of `device` ("cpu:0": takes auto, cpu, cpu:0). ST_NOT_FOUND if none. attempt + 1.
 * `environment` describes the lane and is noted: the row returned has the one noted before (NULL: none), and is not reproducible any more if
 * it goes on from a checkpoint that was made under another. */
enum status jobs_claim(struct db *db, const char *device, const char *environment, struct arena *mem, struct job_row *ret,
                       struct problem *problem);
enum status jobs_get(struct db *db, int64_t id, struct arena *mem, struct job_row *ret, struct problem *problem);
/* Newest first, below `before` (0: from the top); state -1 and model NULL: any. *more: there are further ones. The rows leave `request`
 * NULL: it may have megabytes. */
enum status jobs_list(struct db *db, int state, const char *model, int64_t before, int limit, struct arena *mem,
                      struct job_row **rows, int *n, bool *more, struct problem *problem);
/* queued -> cancelled at once; running: *running true, the lane is to be told; ended cancelled: nothing. done, failed: ST_CONFLICT. */
enum status jobs_cancel(struct db *db, int64_t id, bool *running, struct problem *problem);
/* running -> done, failed or cancelled. result, problem_json: JSON or NULL; news: or NULL. Checkpoint files are removed. */
enum status jobs_finish(struct db *db, int64_t id, enum job_state state, const char *result, const char *problem_json,
                        const struct job_news *news, struct problem *problem);
enum status jobs_requeue(struct db *db, int64_t id, struct problem *problem); /* running -> queued, on a stop */
/* The checkpoint's path and number, the epoch rows up to it (those at and beyond `epoch` are cut) and progress, in one transaction. */
enum status jobs_checkpoint(struct db *db, int64_t id, const char *path, int64_t number, int epoch, const struct job_news *news,
                            struct problem *problem);
/* Rows of history (each replaces one of the same number) and progress. */
enum status jobs_news(struct db *db, int64_t id, const struct job_news *news, struct problem *problem);
/* {"epoch":[0,1],"loss":[...],...}: keys in the order of the first row; a missing value is null. */
enum status jobs_history(struct db *db, int64_t id, struct text *json, struct problem *problem);
enum status jobs_arrays(struct db *db, int64_t id, struct arena *mem, int64_t **ids, int *n, struct problem *problem);
/* A file that ModelCheckpoint made: jobs/<id>/files/<n>, by name; a second of the name replaces the first. temp is taken, whatever the
 * outcome; path is absolute. */
enum status jobs_file_put(struct db *db, int64_t id, const char *name, const char *temp, struct problem *problem);
enum status jobs_file_get(struct db *db, int64_t id, const char *name, char path[512], struct problem *problem);
int64_t jobs_count(struct db *db, int state);

#endif
