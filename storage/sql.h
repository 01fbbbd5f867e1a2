/* Statements in one line, for the files of storage/ that hold rows.
 *
 * `types` says how the arguments are bound: i int64_t, t text (NULL: null), d double (NaN: null).
 *
 *     TRY(sql_run(s, problem, "DELETE FROM models WHERE id = ?", "i", id));
 *     OWNED(sql_done) struct sqlite3_stmt *q = NULL;
 *     TRY(sql_query(s, &q, problem, "SELECT name FROM models WHERE id = ?", "i", id));
 *     TRY(sql_next(q, &found, problem)); */
#ifndef HORN_STORAGE_SQL_H
#define HORN_STORAGE_SQL_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#include "engine/base/arena.h"
#include "engine/base/scope.h"
#include "engine/base/status.h"

/* SQLITE_FULL, or a write that met ENOSPC: ST_DISK_FULL; else ST_STORAGE with SQLite's words. */
enum status fail_sql(struct problem *problem, struct sqlite3 *s, const char *doing);

/* s may be NULL (a reader that could not be opened): ST_STORAGE. */
enum status sql_query(struct sqlite3 *s, struct sqlite3_stmt **ret, struct problem *problem, const char *sql, const char *types,
                      ...);
enum status sql_next(struct sqlite3_stmt *q, bool *found, struct problem *problem);
enum status sql_run(struct sqlite3 *s, struct problem *problem, const char *sql, const char *types, ...);
/* The first column of the first row; `none` if there is no row. */
enum status sql_int(struct sqlite3 *s, int64_t none, int64_t *ret, struct problem *problem, const char *sql, const char *types,
                    ...);
struct sqlite3_stmt *sql_done(struct sqlite3_stmt *q);
DEFINE_OWNED(struct sqlite3_stmt, sql_done)

const char *sql_text(struct sqlite3_stmt *q, int column, struct arena *mem); /* NULL for null */
double sql_double(struct sqlite3_stmt *q, int column);                       /* NaN for null */

#endif
