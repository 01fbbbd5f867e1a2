/* The database: one folder, one SQLite file, one writer.
 *
 * Folder: horn.lock (a second daemon is refused), horn.db (WAL, synchronous=FULL, foreign keys, user_version migrations from schema.sql),
 * datasets/<row id>/, models/<row id>/<n>/, jobs/<row id>/, tmp/. Folders are named by row ids, never by names. A row points
 * to a file that is complete: written under tmp/, fsync, rename, fsync of the folder.
 *
 * Writes are functions that run in the writer thread, many in one transaction (group commit): db_write returns when its
 * commit is on disk. One that fails is rolled back alone (savepoint). Reads use a connection per thread. */
#ifndef HORN_STORAGE_DB_H
#define HORN_STORAGE_DB_H

#include "engine/base/arena.h"
#include "engine/base/json.h"
#include "engine/base/scope.h"
#include "engine/base/status.h"
#include "engine/base/text.h"

struct sqlite3;
struct db;

/* Takes the lock, opens, migrates, sets running jobs back to queued (those with twenty claims without a new checkpoint to failed), sweeps
 * tmp/ and files without a row. ST_CONFLICT: another daemon has the folder. The folder is made when missing (mode 0700). */
enum status db_open(const char *folder, struct db **ret, struct problem *problem);
struct db *db_close(struct db *db);
DEFINE_OWNED(struct db, db_close)
const char *db_folder(const struct db *db);

typedef enum status (*db_task)(struct sqlite3 *s, void *arg, struct problem *problem);
enum status db_write(struct db *db, db_task task, void *arg, struct problem *problem); /* any thread; waits for the commit */
struct sqlite3 *db_reader(struct db *db);                                              /* the calling thread's own connection */

/* --- files ------------------------------------------------------------------------------------------------------------- */

/* An empty file "tmp/<unique>" that only this process will use; *path in `path` (absolute), fd open for writing. ST_DISK_FULL etc. */
enum status db_temp(struct db *db, char path[512], int *fd, struct problem *problem);
/* fsync of temp, rename to folder/`to` (parents are made), fsync of the parent. */
enum status db_place(struct db *db, const char *temp, const char *to, struct problem *problem);
/* Its two halves, for files that are placed inside a transaction: the sync comes before, in the caller's thread, since everybody who writes
 * waits for a transaction, and a large file takes long. `what` names the file in problems. */
enum status db_sync(const char *temp, const char *what, struct problem *problem);
enum status db_place_synced(struct db *db, const char *temp, const char *to, struct problem *problem);
void db_remove(struct db *db, const char *to); /* file or folder under the database's folder, with all in it */
/* errno as a problem: ENOSPC, EDQUOT -> ST_DISK_FULL, else ST_STORAGE. */
enum status fail_errno(struct problem *problem, int error, const char *where, const char *doing);

bool name_valid(const char *name);            /* [A-Za-z0-9][A-Za-z0-9._-]{0,127} */
void time_text(int64_t unix_ms, char to[32]); /* "2026-01-31T12:00:00.000Z" */

#endif
