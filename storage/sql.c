/* See sql.h. Statements are prepared for each use: 20 us beside a commit of some 200. */
#include "storage/sql.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>

static enum status bind(struct sqlite3 *s, struct sqlite3_stmt *q, const char *types, va_list args, struct problem *problem)
{
    for (int i = 1; types && *types; types++, i++) {
        int rc = SQLITE_MISUSE;

        if (*types == 'i')
            rc = sqlite3_bind_int64(q, i, va_arg(args, int64_t));
        else if (*types == 't')
            rc = sqlite3_bind_text(q, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
        else if (*types == 'd')
            rc = sqlite3_bind_double(q, i, va_arg(args, double));
        if (rc != SQLITE_OK)
            return fail_sql(problem, s, "bind a value");
    }
    return ST_OK;
}

static enum status prepare(struct sqlite3 *s, struct sqlite3_stmt **ret, struct problem *problem, const char *sql,
                           const char *types, va_list args)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;

    if (!s)
        return fail(problem, ST_STORAGE, "horn.db", "the database cannot be opened for reading");
    if (sqlite3_prepare_v2(s, sql, -1, &q, NULL) != SQLITE_OK)
        return fail_sql(problem, s, "prepare a statement");
    TRY(bind(s, q, types, args, problem));
    *ret = STEAL(q);
    return ST_OK;
}

enum status fail_sql(struct problem *problem, struct sqlite3 *s, const char *doing)
{
    int code = sqlite3_errcode(s), error = sqlite3_system_errno(s);

    if (code == SQLITE_FULL || (code == SQLITE_IOERR && (error == ENOSPC || error == EDQUOT)))
        return fail(problem, ST_DISK_FULL, "horn.db", "no space left on the disk of the data directory; could not %s", doing);
    if (code == SQLITE_TOOBIG)
        return fail(problem, ST_TOO_LARGE, "horn.db", "a text is too large to be stored; could not %s", doing);
    return fail(problem, ST_STORAGE, "horn.db", "could not %s: %s", doing, sqlite3_errmsg(s));
}

enum status sql_query(struct sqlite3 *s, struct sqlite3_stmt **ret, struct problem *problem, const char *sql, const char *types,
                      ...)
{
    va_list args;

    va_start(args, types);
    enum status status = prepare(s, ret, problem, sql, types, args);
    va_end(args);
    return status;
}

enum status sql_next(struct sqlite3_stmt *q, bool *found, struct problem *problem)
{
    int rc = sqlite3_step(q);

    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        return fail_sql(problem, sqlite3_db_handle(q), "run a statement");
    *found = rc == SQLITE_ROW;
    return ST_OK;
}

enum status sql_run(struct sqlite3 *s, struct problem *problem, const char *sql, const char *types, ...)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool more = true;
    va_list args;

    va_start(args, types);
    enum status status = prepare(s, &q, problem, sql, types, args);
    va_end(args);
    while (status == ST_OK && more)
        status = sql_next(q, &more, problem);
    return status;
}

enum status sql_int(struct sqlite3 *s, int64_t none, int64_t *ret, struct problem *problem, const char *sql, const char *types,
                    ...)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;
    va_list args;

    va_start(args, types);
    enum status status = prepare(s, &q, problem, sql, types, args);
    va_end(args);
    TRY(status);
    TRY(sql_next(q, &found, problem));
    *ret = found ? sqlite3_column_int64(q, 0) : none;
    return ST_OK;
}

struct sqlite3_stmt *sql_done(struct sqlite3_stmt *q)
{
    (void)sqlite3_finalize(q);
    return NULL;
}

const char *sql_text(struct sqlite3_stmt *q, int column, struct arena *mem)
{
    return arena_text(mem, (const char *)sqlite3_column_text(q, column));
}

double sql_double(struct sqlite3_stmt *q, int column)
{
    return sqlite3_column_type(q, column) == SQLITE_NULL ? NAN : sqlite3_column_double(q, column);
}
