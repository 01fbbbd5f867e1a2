/* What db_open puts in order before anybody looks: jobs that were running, and files that no row names.
 *
 * A crash can leave three things: a job in state running (its lane is gone), temporary files, and files whose row was never
 * committed or already deleted. Rows never name a missing file, because a file is placed before its row's commit and removed
 * after it. */
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/thread.h"
#include "storage/rows.h"

#define MAX_CLAIMS 20 /* a job that ends the daemon this often without getting anywhere is not tried again */

static const char lost_problem[] =
    "{\"type\":\"about:blank\",\"title\":\"a promise inside the program was broken\",\"status\":500,\"detail\":\"the daemon "
    "ended "
    "while this job was running, 20 times in a row without a new checkpoint; it is not tried again\"}";

/* Calls `keep` for each entry of folder/`sub`; those that it does not keep are removed. */
static enum status sweep_folder(struct db *db, const char *sub, struct sqlite3 *s,
                                enum status (*keep)(struct db *, struct sqlite3 *, const char *path, bool *ret,
                                                    struct problem *),
                                struct problem *problem)
{
    char path[1024];
    enum status status = ST_OK;

    snprintf(path, sizeof path, "%s/%s", db_folder(db), sub);
    DIR *d = opendir(path);
    if (!d)
        return ST_OK;
    for (struct dirent *e; status == ST_OK && (e = readdir(d));) {
        bool kept = false;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", sub, e->d_name);
        if (keep)
            status = keep(db, s, path, &kept, problem);
        if (status == ST_OK && !kept)
            db_remove(db, path);
    }
    (void)closedir(d);
    return status;
}

/* The number behind `prefix` in path, with nothing after it; 0 if there is none. */
static int64_t number_behind(const char *path, const char *prefix)
{
    size_t n = strlen(prefix);
    char *end;

    if (strncmp(path, prefix, n) != 0 || path[n] < '1' || path[n] > '9')
        return 0;
    long long id = strtoll(path + n, &end, 10);
    return *end ? 0 : id;
}

/* The number behind the k-th slash, whatever follows it: rows are found by their numbers, and the path is compared then. */
static int64_t number_at(const char *path, int k)
{
    for (; k > 0 && path; k--) {
        path = strchr(path, '/');
        path += path != NULL;
    }
    return path ? strtoll(path, NULL, 10) : 0;
}

static enum status keep_array(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    (void)db;
    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM arrays WHERE id = ? AND path = ?", "it", number_at(path, 2), path));
    *ret = n > 0;
    return ST_OK;
}

static enum status keep_dataset(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM arrays WHERE dataset = ?", "i", number_behind(path, "datasets/")));
    *ret = n > 0;
    return n > 0 ? sweep_folder(db, path, s, keep_array, problem) : ST_OK;
}

static enum status keep_version(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    (void)db;
    TRY(sql_int(s, 0, &n, problem,
                "SELECT count(*) FROM model_versions WHERE model = ? AND version = ? AND path = ? || '/model.h5'", "iit",
                number_at(path, 1), number_at(path, 2), path));
    *ret = n > 0;
    return ST_OK;
}

static enum status keep_model(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM model_versions WHERE model = ?", "i", number_behind(path, "models/")));
    *ret = n > 0;
    return n > 0 ? sweep_folder(db, path, s, keep_version, problem) : ST_OK;
}

static enum status keep_job_file(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    (void)db;
    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM job_files WHERE id = ? AND path = ?", "it", number_at(path, 3), path));
    *ret = n > 0;
    return ST_OK;
}

/* Of a job's folder checkpoints without a row go; logs and events are nobody's rows and stay. */
static enum status keep_job_entry(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    size_t n = strlen(path);
    int64_t found = 1;

    if (n > 6 && strcmp(path + n - 6, "/files") == 0)
        TRY(sweep_folder(db, path, s, keep_job_file, problem));
    if (n > 8 && strcmp(path + n - 8, ".ckpt.h5") == 0)
        TRY(sql_int(s, 0, &found, problem, "SELECT count(*) FROM jobs WHERE id = ? AND checkpoint = ?", "it",
                    number_at(path, 1), path));
    *ret = found > 0;
    return ST_OK;
}

static enum status keep_job(struct db *db, struct sqlite3 *s, const char *path, bool *ret, struct problem *problem)
{
    int64_t n = 0;

    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM jobs WHERE id = ?", "i", number_behind(path, "jobs/")));
    *ret = n > 0;
    return n > 0 ? sweep_folder(db, path, s, keep_job_entry, problem) : ST_OK;
}

static enum status requeue(struct sqlite3 *s, struct leftovers *l, struct problem *problem)
{
    TRY(sql_run(s, problem,
                "UPDATE jobs SET state = 'failed', problem = ?, finished_ms = ?, checkpoint = NULL "
                "WHERE state = 'running' AND claims_since_checkpoint >= ?",
                "tii", lost_problem, clock_unix_ms(), (int64_t)MAX_CLAIMS));
    TRY(sql_run(s, problem, "UPDATE jobs SET state = 'queued' WHERE state = 'running'", ""));
    TRY(arrays_drop_unused(s, l, problem));
    return sql_run(s, problem,
                   "DELETE FROM datasets WHERE NOT EXISTS (SELECT 1 FROM arrays WHERE arrays.dataset = datasets.id)", "");
}

void leftovers_add(struct leftovers *l, const char *path)
{
    if (!path)
        return;
    if (l->n == l->room) {
        const char **grown = ARENA_ARRAY(l->mem, const char *, l->room * 2 + 8);

        if (l->n)
            memcpy(grown, l->path, sizeof *grown * (size_t)l->n);
        l->path = grown;
        l->room = l->room * 2 + 8;
    }
    l->path[l->n++] = arena_text(l->mem, path);
}

void leftovers_remove(struct leftovers *l, struct db *db)
{
    for (int i = 0; i < l->n; i++)
        db_remove(db, l->path[i]);
    l->n = 0;
}

enum status db_recover(struct db *db, struct sqlite3 *s, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct leftovers l = {.mem = mem};

    /* First, so that a disk filled by abandoned uploads can take the rows. */
    TRY(sweep_folder(db, "tmp", s, NULL, problem));
    TRY(sql_run(s, problem, "BEGIN IMMEDIATE", ""));
    enum status status = requeue(s, &l, problem);
    if (status == ST_OK)
        status = sql_run(s, problem, "COMMIT", "");
    if (status != ST_OK) {
        (void)sqlite3_exec(s, "ROLLBACK", NULL, NULL, NULL);
        return status;
    }
    TRY(sweep_folder(db, "datasets", s, keep_dataset, problem));
    TRY(sweep_folder(db, "models", s, keep_model, problem));
    return sweep_folder(db, "jobs", s, keep_job, problem);
}
