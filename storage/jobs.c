/* Jobs as rows. See jobs.h, and schema.sql for the life cycle.
 *
 * Each function that changes something is one task of the writer, so each is one transaction. Files are placed before their row's
 * commit and removed after the commit that forgot them. */
#include "storage/jobs.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "storage/rows.h"

static const char *const state_names[] = {"queued", "running", "paused", "done", "failed", "cancelled"};

#define JOB_COLUMNS(request)                                                                                               \
    "SELECT id, type, state, model, " request ", device, ran_on, seed, priority, attempt, checkpoint, checkpoint_number, " \
    "progress, result, problem, warnings, environment, reproducible, created_ms, started_ms, finished_ms FROM jobs "

/* The queue in its order. Named, since without statistics SQLite takes jobs_by_state and sorts all that waits. */
#define QUEUED "FROM jobs INDEXED BY jobs_queue WHERE state = 'queued' "

static void read_row(struct sqlite3_stmt *q, struct arena *mem, struct job_row *j)
{
    enum job_state state = JOB_QUEUED;

    (void)job_state_find((const char *)sqlite3_column_text(q, 2), &state);
    *j = (struct job_row){
        .id = sqlite3_column_int64(q, 0),
        .type = sql_text(q, 1, mem),
        .state = state,
        .model = sql_text(q, 3, mem),
        .request = sql_text(q, 4, mem),
        .device = sql_text(q, 5, mem),
        .ran_on = sql_text(q, 6, mem),
        .seed = sqlite3_column_int64(q, 7),
        .priority = sqlite3_column_int(q, 8),
        .attempt = sqlite3_column_int(q, 9),
        .checkpoint = sql_text(q, 10, mem),
        .checkpoint_number = sqlite3_column_int64(q, 11),
        .progress = sql_text(q, 12, mem),
        .result = sql_text(q, 13, mem),
        .problem = sql_text(q, 14, mem),
        .warnings = sql_text(q, 15, mem),
        .environment = sql_text(q, 16, mem),
        .reproducible = sqlite3_column_int(q, 17) != 0,
        .created_ms = sqlite3_column_int64(q, 18),
        .started_ms = sqlite3_column_int64(q, 19),
        .finished_ms = sqlite3_column_int64(q, 20),
    };
}

static enum status no_job(struct problem *problem, int64_t id)
{
    return fail(problem, ST_NOT_FOUND, "", "there is no job %" PRId64, id);
}

/* Counted from the end of the queue that is likely the nearer one: a job that was just posted has nobody behind it. */
static enum status find_position(struct sqlite3 *s, struct job_row *j, struct problem *problem)
{
    return sql_int(s, 0, &j->queue_position, problem,
                   "WITH b(behind) AS MATERIALIZED (SELECT (SELECT count(*) FROM (SELECT 1 " QUEUED
                   "AND priority < ?1 LIMIT 1000)) "
                   "+ (SELECT count(*) FROM (SELECT 1 " QUEUED "AND priority = ?1 AND id > ?2 LIMIT 1000))) "
                   "SELECT CASE WHEN behind < 1000 THEN (SELECT n FROM job_counts WHERE state = 'queued') - behind "
                   "ELSE (SELECT count(*) " QUEUED "AND priority > ?1) + (SELECT count(*) " QUEUED
                   "AND priority = ?1 AND id <= ?2) END FROM b",
                   "ii", (int64_t)j->priority, j->id);
}

static enum status get(struct sqlite3 *s, int64_t id, struct arena *mem, struct job_row *ret, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(s, &q, problem, JOB_COLUMNS("request") "WHERE id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return no_job(problem, id);
    read_row(q, mem, ret);
    return ret->state == JOB_QUEUED ? find_position(s, ret, problem) : ST_OK;
}

/* ST_NOT_FOUND, or ST_CONFLICT with the state it has, unless the job is running. */
static enum status must_run(struct sqlite3 *s, int64_t id, const char *doing, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(s, &q, problem, "SELECT state FROM jobs WHERE id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return no_job(problem, id);
    const char *state = (const char *)sqlite3_column_text(q, 0);
    if (strcmp(state, "running") != 0)
        return fail(problem, ST_CONFLICT, "", "job %" PRId64 " is %s, only a running one can %s", id, state, doing);
    return ST_OK;
}

/* --- enqueue ------------------------------------------------------------------------------------------------------------- */

struct enqueue {
    const struct job_new *j;
    int64_t limit, id;
    bool existing;
};

static enum status enqueue(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct enqueue *e = arg;
    const struct job_new *j = e->j;
    int64_t n = 0;

    e->existing = false;
    if (j->idempotency_key) {
        TRY(sql_int(s, 0, &e->id, problem, "SELECT id FROM jobs WHERE idempotency_key = ?", "t", j->idempotency_key));
        if (e->id) {
            e->existing = true;
            return ST_OK;
        }
    }
    TRY(sql_int(s, 0, &n, problem, "SELECT n FROM job_counts WHERE state = 'queued'", ""));
    if (n >= e->limit)
        return fail(problem, ST_TOO_MANY, "", "%" PRId64 " jobs are queued, the limit is %" PRId64 "; try again later", n,
                    e->limit);
    if (j->base_version) {
        TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM model_versions WHERE id = ?", "i", j->base_version));
        if (!n)
            return fail(problem, ST_CONFLICT, "/model", "the version to go on from was deleted while the job was being posted");
    }
    TRY(sql_run(s, problem,
                "INSERT INTO jobs (type, state, model, request, device, seed, priority, warnings, idempotency_key, "
                "base_version, created_ms) VALUES (?, 'queued', ?, ?, ?, ?, ?, ?, ?, nullif(?, 0), ?)",
                "ttttiittii", j->type, j->model, j->request, j->device, j->seed, (int64_t)j->priority, j->warnings,
                j->idempotency_key, j->base_version, clock_unix_ms()));
    e->id = sqlite3_last_insert_rowid(s);
    for (int i = 0; i < j->n_arrays; i++) {
        TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM arrays WHERE id = ?", "i", j->array_ids[i]));
        if (!n)
            return fail(problem, ST_CONFLICT, "", "a dataset was replaced while the job was being posted; post it again");
        TRY(sql_run(s, problem, "INSERT OR IGNORE INTO job_arrays (job, array) VALUES (?, ?)", "ii", e->id, j->array_ids[i]));
    }
    return ST_OK;
}

enum status jobs_enqueue(struct db *db, const struct job_new *j, int64_t queue_limit, int64_t *id, bool *existing,
                         struct problem *problem)
{
    struct enqueue e = {.j = j, .limit = queue_limit};

    TRY(db_write(db, enqueue, &e, problem));
    *id = e.id;
    *existing = e.existing;
    return ST_OK;
}

enum status jobs_find_key(struct db *db, const char *idempotency_key, int64_t *id, struct problem *problem)
{
    return sql_int(db_reader(db), 0, id, problem, "SELECT id FROM jobs WHERE idempotency_key = ?", "t", idempotency_key);
}

/* --- claim --------------------------------------------------------------------------------------------------------------- */

struct claim {
    const char *device, *kind, *environment;
    struct arena *mem;
    struct job_row *ret;
};

static const char claimable[] = "SELECT id " QUEUED "AND device IN ('auto', ?, ?) ORDER BY priority DESC, id LIMIT 1";

static enum status claim(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct claim *c = arg;
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    const char *before;
    int64_t id = 0;
    bool found = false;

    TRY(sql_int(s, 0, &id, problem, claimable, "tt", c->kind, c->device));
    if (!id)
        return fail(problem, ST_NOT_FOUND, "", "no job waits for %s", c->device);
    TRY(sql_query(s, &q, problem, "SELECT environment FROM jobs WHERE id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    before = found ? sql_text(q, 0, c->mem) : NULL;
    TRY(sql_run(s, problem,
                "UPDATE jobs SET state = 'running', ran_on = ?1, attempt = attempt + 1, "
                "claims_since_checkpoint = claims_since_checkpoint + 1, started_ms = coalesce(started_ms, ?2), "
                "reproducible = reproducible AND (checkpoint IS NULL OR environment IS NULL OR environment IS ?3), "
                "environment = ?3 WHERE id = ?4",
                "titi", c->device, clock_unix_ms(), c->environment, id));
    TRY(get(s, id, c->mem, c->ret, problem));
    c->ret->environment = before;
    return ST_OK;
}

enum status jobs_claim(struct db *db, const char *device, const char *environment, struct arena *mem, struct job_row *ret,
                       struct problem *problem)
{
    struct claim c = {.device = device, .environment = environment, .mem = mem, .ret = ret};
    int64_t id = 0;

    c.kind = arena_print(mem, "%.*s", (int)strcspn(device, ":"), device);
    /* A look before the write: idle lanes ask often. */
    TRY(sql_int(db_reader(db), 0, &id, problem, claimable, "tt", c.kind, c.device));
    if (!id)
        return fail(problem, ST_NOT_FOUND, "", "no job waits for %s", device);
    return db_write(db, claim, &c, problem);
}

/* --- read ---------------------------------------------------------------------------------------------------------------- */

enum status jobs_get(struct db *db, int64_t id, struct arena *mem, struct job_row *ret, struct problem *problem)
{
    return get(db_reader(db), id, mem, ret, problem);
}

/* Positions of the queued ones among rows[i..n) (ids falling) that have the priority of rows[i]: that of the oldest is found, and the queue
 * is walked from there. One that was claimed meanwhile keeps 0. */
static enum status find_positions_like(struct sqlite3 *s, struct job_row *rows, int i, int n, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    int64_t priority = rows[i].priority, position, newest = rows[i].id;
    int last = i;

    for (int k = i; k < n; k++)
        if (rows[k].state == JOB_QUEUED && rows[k].priority == priority)
            last = k;
    TRY(find_position(s, &rows[last], problem));
    position = rows[last].queue_position - 1;
    rows[last].queue_position = 0;
    TRY(sql_query(s, &q, problem, "SELECT id " QUEUED "AND priority = ? AND id BETWEEN ? AND ? ORDER BY id", "iii", priority,
                  rows[last].id, newest));
    for (int k = last;;) {
        bool found;

        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        position++;
        while (k > i && rows[k].id < sqlite3_column_int64(q, 0))
            k--;
        if (rows[k].id == sqlite3_column_int64(q, 0))
            rows[k].queue_position = position;
    }
}

static enum status find_positions(struct sqlite3 *s, struct job_row *rows, int n, struct problem *problem)
{
    for (int i = 0; i < n; i++) {
        bool seen = rows[i].state != JOB_QUEUED || rows[i].queue_position > 0;

        for (int k = 0; k < i && !seen; k++) /* claimed since it was listed */
            seen = rows[k].state == JOB_QUEUED && rows[k].priority == rows[i].priority;
        if (!seen)
            TRY(find_positions_like(s, rows, i, n, problem));
    }
    return ST_OK;
}

enum status jobs_list(struct db *db, int state, const char *model, int64_t before, int limit, struct arena *mem,
                      struct job_row **rows, int *n, bool *more, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct job_row *list = ARENA_ARRAY(mem, struct job_row, limit > 0 ? limit : 1);
    const char *name = state >= 0 ? job_state_name((enum job_state)state) : NULL;
    /* An index each, in the order of ids: the list costs what it shows, not what there is. */
    const char *which = name && model ? "state = ?1 AND model = ?2" : name ? "state = ?1" : model ? "model = ?2" : "true";
    const char *sql = arena_print(mem, JOB_COLUMNS("NULL") "WHERE %s AND id < ?3 ORDER BY id DESC LIMIT ?4", which);
    int count = 0;
    bool found = false;

    TRY(sql_query(db_reader(db), &q, problem, sql, "ttii", name, model, before ? before : INT64_MAX, (int64_t)limit + 1));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found || count == limit)
            break;
        read_row(q, mem, &list[count++]);
    }
    TRY(find_positions(db_reader(db), list, count, problem));
    *rows = list;
    *n = count;
    *more = found;
    return ST_OK;
}

/* --- end ----------------------------------------------------------------------------------------------------------------- */

static enum status forget_checkpoint(struct sqlite3 *s, int64_t id, struct leftovers *l, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(s, &q, problem, "SELECT checkpoint FROM jobs WHERE id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    if (found)
        leftovers_add(l, (const char *)sqlite3_column_text(q, 0));
    return sql_run(s, problem, "UPDATE jobs SET checkpoint = NULL WHERE id = ?", "i", id);
}

static enum status put_epoch(struct sqlite3 *s, int64_t id, const struct job_epoch *e, struct problem *problem)
{
    TRY(sql_run(s, problem, "DELETE FROM job_epochs WHERE job = ? AND epoch = ?", "ii", id, (int64_t)e->epoch));
    for (int i = 0; i < e->n; i++)
        TRY(sql_run(s, problem, "INSERT INTO job_epochs (job, epoch, position, name, value) VALUES (?, ?, ?, ?, ?)", "iiitd",
                    id, (int64_t)e->epoch, (int64_t)i, e->names[i], isfinite(e->values[i]) ? e->values[i] : NAN));
    return ST_OK;
}

static enum status put_news(struct sqlite3 *s, int64_t id, const struct job_news *news, struct problem *problem)
{
    for (int i = 0; news && i < news->n; i++)
        TRY(put_epoch(s, id, &news->epoch[i], problem));
    if (!news || !news->progress)
        return ST_OK;
    return sql_run(s, problem, "UPDATE jobs SET progress = ? WHERE id = ?", "ti", news->progress, id);
}

enum status job_end(struct sqlite3 *s, int64_t id, enum job_state state, const char *result, const char *problem_json,
                    const struct job_news *news, struct leftovers *l, struct problem *problem)
{
    TRY(must_run(s, id, "end", problem));
    TRY(put_news(s, id, news, problem));
    TRY(forget_checkpoint(s, id, l, problem));
    TRY(sql_run(s, problem, "UPDATE jobs SET state = ?, result = ?, problem = ?, finished_ms = ? WHERE id = ?", "tttii",
                job_state_name(state), result, problem_json, clock_unix_ms(), id));
    return arrays_drop_unused(s, l, problem);
}

struct change { /* arguments of the small tasks below */
    int64_t id, number;
    enum job_state state;
    int epoch;
    const char *a, *b;
    const struct job_news *news;
    bool running;
    struct leftovers left;
};

static enum status cancel(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct change *c = arg;
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    enum job_state state;
    bool found = false;

    TRY(sql_query(s, &q, problem, "SELECT state FROM jobs WHERE id = ?", "i", c->id));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return no_job(problem, c->id);
    const char *name = (const char *)sqlite3_column_text(q, 0);
    if (!job_state_find(name, &state) || state == JOB_DONE || state == JOB_FAILED)
        return fail(problem, ST_CONFLICT, "", "job %" PRId64 " is %s and cannot be cancelled any more", c->id, name);
    c->running = state == JOB_RUNNING;
    if (state == JOB_RUNNING || state == JOB_CANCELLED)
        return ST_OK;
    TRY(forget_checkpoint(s, c->id, &c->left, problem));
    TRY(sql_run(s, problem, "UPDATE jobs SET state = 'cancelled', finished_ms = ? WHERE id = ?", "ii", clock_unix_ms(), c->id));
    return arrays_drop_unused(s, &c->left, problem);
}

enum status jobs_cancel(struct db *db, int64_t id, bool *running, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct change c = {.id = id, .left.mem = mem};

    TRY(db_write(db, cancel, &c, problem));
    leftovers_remove(&c.left, db);
    *running = c.running;
    return ST_OK;
}

static enum status finish(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct change *c = arg;

    return job_end(s, c->id, c->state, c->a, c->b, c->news, &c->left, problem);
}

enum status jobs_finish(struct db *db, int64_t id, enum job_state state, const char *result, const char *problem_json,
                        const struct job_news *news, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct change c = {.id = id, .state = state, .a = result, .b = problem_json, .news = news, .left.mem = mem};

    TRY(db_write(db, finish, &c, problem));
    leftovers_remove(&c.left, db);
    return ST_OK;
}

/* A stop is no crash: the claim that it ends does not count. */
static enum status requeue(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct change *c = arg;

    TRY(must_run(s, c->id, "go back to the queue", problem));
    return sql_run(s, problem,
                   "UPDATE jobs SET state = 'queued', claims_since_checkpoint = max(0, claims_since_checkpoint - 1) "
                   "WHERE id = ?",
                   "i", c->id);
}

enum status jobs_requeue(struct db *db, int64_t id, struct problem *problem)
{
    struct change c = {.id = id};

    return db_write(db, requeue, &c, problem);
}

/* --- progress ------------------------------------------------------------------------------------------------------------ */

static enum status checkpoint(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct change *c = arg;
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(must_run(s, c->id, "write a checkpoint", problem));
    TRY(sql_query(s, &q, problem, "SELECT checkpoint FROM jobs WHERE id = ? AND checkpoint IS NOT ?", "it", c->id, c->a));
    TRY(sql_next(q, &found, problem));
    if (found)
        leftovers_add(&c->left, (const char *)sqlite3_column_text(q, 0));
    TRY(sql_run(s, problem, "UPDATE jobs SET checkpoint = ?, checkpoint_number = ?, claims_since_checkpoint = 0 WHERE id = ?",
                "tii", c->a, c->number, c->id));
    TRY(put_news(s, c->id, c->news, problem));
    return sql_run(s, problem, "DELETE FROM job_epochs WHERE job = ? AND epoch >= ?", "ii", c->id, (int64_t)c->epoch);
}

enum status jobs_checkpoint(struct db *db, int64_t id, const char *path, int64_t number, int epoch, const struct job_news *news,
                            struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct change c = {.id = id, .a = path, .number = number, .epoch = epoch, .news = news, .left.mem = mem};

    TRY(db_write(db, checkpoint, &c, problem));
    leftovers_remove(&c.left, db);
    return ST_OK;
}

static enum status store_news(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct change *c = arg;

    TRY(must_run(s, c->id, "report an epoch", problem));
    return put_news(s, c->id, c->news, problem);
}

enum status jobs_news(struct db *db, int64_t id, const struct job_news *news, struct problem *problem)
{
    struct change c = {.id = id, .news = news};

    return db_write(db, store_news, &c, problem);
}

/* --- history ------------------------------------------------------------------------------------------------------------- */

/* Row-major table of values, one row per epoch; columns in the order in which names first appear. */
struct history {
    struct arena *mem;
    int n_epochs, n_names;
    const char **names; /* room for all rows of the query */
    int64_t *epochs;
    struct history_value {
        int epoch, name; /* indices */
        double value;
    } * values;
    int64_t n_values;
};

static int column_of(struct history *h, const char *name)
{
    for (int i = 0; i < h->n_names; i++)
        if (strcmp(h->names[i], name) == 0)
            return i;
    h->names[h->n_names] = arena_text(h->mem, name);
    return h->n_names++;
}

static enum status read_history(struct sqlite3 *s, int64_t id, struct history *h, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    int64_t rows = 0;
    bool found = false;

    TRY(sql_int(s, 0, &rows, problem, "SELECT count(*) FROM jobs WHERE id = ?", "i", id));
    if (!rows)
        return no_job(problem, id);
    /* One read transaction would be cleaner; a row that comes between the two statements is simply not shown. */
    TRY(sql_int(s, 0, &rows, problem, "SELECT count(*) FROM job_epochs WHERE job = ?", "i", id));
    h->names = ARENA_ARRAY(h->mem, const char *, rows + 1);
    h->epochs = ARENA_ARRAY(h->mem, int64_t, rows + 1);
    h->values = ARENA_ARRAY(h->mem, struct history_value, rows + 1);
    TRY(sql_query(s, &q, problem, "SELECT epoch, name, value FROM job_epochs WHERE job = ? ORDER BY epoch, position LIMIT ?",
                  "ii", id, rows));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        int64_t epoch_number = sqlite3_column_int64(q, 0);
        if (h->n_epochs == 0 || h->epochs[h->n_epochs - 1] != epoch_number)
            h->epochs[h->n_epochs++] = epoch_number;
        h->values[h->n_values++] =
            (struct history_value){h->n_epochs - 1, column_of(h, (const char *)sqlite3_column_text(q, 1)), sql_double(q, 2)};
    }
}

enum status jobs_history(struct db *db, int64_t id, struct text *json, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct history h = {.mem = mem};

    TRY(read_history(db_reader(db), id, &h, problem));
    double *table = ARENA_ARRAY(mem, double, (int64_t)h.n_epochs *h.n_names + 1);
    for (int64_t i = 0; i < (int64_t)h.n_epochs * h.n_names; i++)
        table[i] = NAN;
    for (int64_t i = 0; i < h.n_values; i++)
        table[(int64_t)h.values[i].name * h.n_epochs + h.values[i].epoch] = h.values[i].value;

    text_add(json, "{\"epoch\":[");
    for (int e = 0; e < h.n_epochs; e++)
        text_printf(json, "%s%" PRId64, e ? "," : "", h.epochs[e]);
    text_add(json, "]");
    for (int c = 0; c < h.n_names; c++) {
        text_add(json, ",");
        text_add_json(json, h.names[c]);
        text_add(json, ":[");
        for (int e = 0; e < h.n_epochs; e++) {
            if (e)
                text_add(json, ",");
            text_add_number(json, table[(int64_t)c * h.n_epochs + e]);
        }
        text_add(json, "]");
    }
    text_add(json, "}");
    if (json->cut)
        return fail(problem, ST_TOO_LARGE, "", "the history of job %" PRId64 " is longer than %zu bytes", id, json->limit);
    return ST_OK;
}

enum status jobs_arrays(struct db *db, int64_t id, struct arena *mem, int64_t **ids, int *n, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct sqlite3 *s = db_reader(db);
    int64_t count = 0;
    int filled = 0;
    bool found = false;

    TRY(sql_int(s, 0, &count, problem, "SELECT count(*) FROM job_arrays WHERE job = ?", "i", id));
    int64_t *list = ARENA_ARRAY(mem, int64_t, count + 1);
    TRY(sql_query(s, &q, problem, "SELECT array FROM job_arrays WHERE job = ? ORDER BY array LIMIT ?", "ii", id, count));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            break;
        list[filled++] = sqlite3_column_int64(q, 0);
    }
    *ids = list;
    *n = filled;
    return ST_OK;
}

/* --- files that callbacks asked for -------------------------------------------------------------------------------------- */

struct file_put {
    struct db *db;
    int64_t job;
    const char *name, *temp;
    char path[128];
    struct leftovers left;
};

static enum status file_put(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct file_put *f = arg;
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(must_run(s, f->job, "save a file", problem));
    TRY(sql_query(s, &q, problem, "SELECT path FROM job_files WHERE job = ? AND name = ?", "it", f->job, f->name));
    TRY(sql_next(q, &found, problem));
    if (found)
        leftovers_add(&f->left, (const char *)sqlite3_column_text(q, 0));
    TRY(sql_run(s, problem, "DELETE FROM job_files WHERE job = ? AND name = ?", "it", f->job, f->name));
    TRY(sql_run(s, problem, "INSERT INTO job_files (job, name, path) VALUES (?, ?, '')", "it", f->job, f->name));
    int64_t id = sqlite3_last_insert_rowid(s);
    snprintf(f->path, sizeof f->path, "jobs/%" PRId64 "/files/%" PRId64, f->job, id);
    TRY(sql_run(s, problem, "UPDATE job_files SET path = ? WHERE id = ?", "ti", f->path, id));
    return db_place_synced(f->db, f->temp, f->path, problem);
}

static void file_undo(void *arg)
{
    struct file_put *f = arg;

    if (*f->path)
        db_remove(f->db, f->path);
}

enum status jobs_file_put(struct db *db, int64_t id, const char *name, const char *temp, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct file_put f = {.db = db, .job = id, .name = name, .temp = temp, .left.mem = mem};

    enum status status = db_sync(temp, name, problem);
    if (status == ST_OK)
        status = db_write_undo(db, file_put, file_undo, &f, problem);
    if (status == ST_OK)
        leftovers_remove(&f.left, db);
    else
        (void)unlink(temp);
    return status;
}

enum status jobs_file_get(struct db *db, int64_t id, const char *name, char path[512], struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(db_reader(db), &q, problem, "SELECT path FROM job_files WHERE job = ? AND name = ?", "it", id, name));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return fail(problem, ST_NOT_FOUND, "", "job %" PRId64 " has no file \"%s\"", id, name);
    snprintf(path, 512, "%s/%s", db_folder(db), (const char *)sqlite3_column_text(q, 0));
    return ST_OK;
}

int64_t jobs_count(struct db *db, int state)
{
    struct problem ignored;
    int64_t n = 0;

    (void)sql_int(db_reader(db), 0, &n, &ignored, "SELECT coalesce(sum(n), 0) FROM job_counts WHERE ?1 IS NULL OR state = ?1",
                  "t", state >= 0 ? job_state_name((enum job_state)state) : NULL);
    return n;
}

const char *job_state_name(enum job_state s)
{
    return (size_t)s < COUNT(state_names) ? state_names[s] : "unknown";
}

bool job_state_find(const char *name, enum job_state *ret)
{
    for (size_t i = 0; name && i < COUNT(state_names); i++)
        if (strcmp(name, state_names[i]) == 0) {
            *ret = (enum job_state)i;
            return true;
        }
    return false;
}
