/* What the files of storage/ share about rows and their files; not for others.
 *
 * Files go after the commit that forgot their rows: a crash in between leaves files without rows, and db_open sweeps those. */
#ifndef HORN_STORAGE_ROWS_H
#define HORN_STORAGE_ROWS_H

#include "storage/datasets.h"
#include "storage/jobs.h"
#include "storage/sql.h"

#define UNFINISHED "('queued', 'running', 'paused')"

struct leftovers { /* paths under the folder to remove once the transaction is on disk */
    struct arena *mem;
    int n, room;
    const char **path;
};
void leftovers_add(struct leftovers *l, const char *path);
void leftovers_remove(struct leftovers *l, struct db *db);

/* db_write for a task that also places files: undo removes them when the transaction did not come to be. It runs in the writer, before
 * any other task, since the next one may be given the same row ids and so the same paths. */
enum status db_write_undo(struct db *db, db_task task, void (*undo_task)(void *arg), void *arg, struct problem *problem);

/* Forgets replaced arrays that no unfinished job holds. In the writer. */
enum status arrays_drop_unused(struct sqlite3 *s, struct leftovers *l, struct problem *problem);
/* running -> done, failed or cancelled, with all that ends with the job. In the writer. ST_CONFLICT if it is not running. news: or NULL. */
enum status job_end(struct sqlite3 *s, int64_t id, enum job_state state, const char *result, const char *problem_json,
                    const struct job_news *news, struct leftovers *l, struct problem *problem);
/* After db_open's migration: running jobs back to the queue, tmp/ and files without a row removed. Before any other thread. */
enum status db_recover(struct db *db, struct sqlite3 *s, struct problem *problem);

#endif
