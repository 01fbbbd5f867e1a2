/* The folder, its lock, the writer thread and the readers' connections. See db.h.
 *
 * Group commit: callers queue a task and sleep; the writer takes what has gathered, runs it in one BEGIN IMMEDIATE ... COMMIT,
 * each task in a savepoint of its own, and wakes the callers when COMMIT has returned, which with synchronous=FULL means that
 * the log has been synced. One caller alone pays one sync; a hundred together pay one as well.
 *
 * A COMMIT that fails (a full disk) takes all of its tasks with it, and each caller hears why. A statement that fails so badly
 * that SQLite rolls the whole transaction back does the same to the tasks before it; those behind it begin a new transaction.
 *
 * Migrations: `steps[v]` leads from user_version v to v + 1, each in a transaction. Released steps never change. */
#include "storage/db.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "storage/rows.h"

#define MAX_BATCH 256 /* tasks in one transaction: keeps the log and the first caller's wait short */

struct pending { /* on the stack of its caller */
    db_task task;
    void (*undo)(void *arg); /* or NULL */
    void *arg;
    struct problem *problem;
    enum status status;
    bool over; /* guarded by db.lock */
    struct pending *next;
};

struct reader {
    struct db *db;
    struct sqlite3 *s;
    struct reader *next;
};

struct db {
    char folder[PATH_MAX];
    int lock_fd;
    struct sqlite3 *writer; /* used by the writer thread alone once it runs */
    pthread_t thread;
    bool started;
    pthread_key_t key; /* struct reader of the calling thread */

    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t work, done;
    struct pending *first, **last;
    bool stop;
    struct reader *readers;
};

static const char schema[] = {
#include "schema.inc"
};
static const char schema_2[] = {
#include "schema-2.inc"
};
static const char *const steps[] = {schema, schema_2};

static enum status make_folder(const char *path, mode_t mode, bool *made, struct problem *problem)
{
    if (mkdir(path, mode) == 0) {
        *made = true;
        return ST_OK;
    }
    *made = false;
    return errno == EEXIST ? ST_OK : fail_errno(problem, errno, path, "make the folder");
}

static enum status sync_folder(const char *path, struct problem *problem)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(problem, errno, path, "open the folder");
    int rc = fsync(fd), error = errno;
    (void)close(fd);
    return rc == 0 ? ST_OK : fail_errno(problem, error, path, "sync the folder");
}

/* The folders that lead to `path` (not its last part), each new one synced into its parent. */
static enum status make_parents(char *path, size_t from, struct problem *problem)
{
    for (char *p = path + from; (p = strchr(p, '/')); *p++ = '/') {
        bool made;

        if (p == path)
            continue;
        *p = 0;
        enum status status = make_folder(path, 0700, &made, problem);
        if (status == ST_OK && made) {
            char *slash = strrchr(path, '/');
            if (slash && slash != path) {
                *slash = 0;
                status = sync_folder(path, problem);
                *slash = '/';
            }
        }
        if (status != ST_OK) {
            *p = '/';
            return status;
        }
    }
    return ST_OK;
}

static enum status take_lock(struct db *db, struct problem *problem)
{
    char path[PATH_MAX + 16], pid[32] = "";

    snprintf(path, sizeof path, "%s/horn.lock", db->folder);
    db->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (db->lock_fd < 0)
        return fail_errno(problem, errno, path, "open the lock file");
    if (flock(db->lock_fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return fail_errno(problem, errno, path, "lock the folder");
        ssize_t n = pread(db->lock_fd, pid, sizeof pid - 1, 0);
        pid[n > 0 ? strspn(pid, "0123456789") : 0] = 0;
        return fail(problem, ST_CONFLICT, db->folder, "another hornd (pid %s) uses this folder", *pid ? pid : "unknown");
    }
    int n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(db->lock_fd, 0) < 0 || pwrite(db->lock_fd, pid, (size_t)n, 0) != n)
        return fail_errno(problem, errno, path, "write the lock file");
    return ST_OK;
}

static enum status connect(const struct db *db, int flags, struct sqlite3 **ret, struct problem *problem)
{
    char path[PATH_MAX + 16];
    struct sqlite3 *s = NULL;

    snprintf(path, sizeof path, "%s/horn.db", db->folder);
    if (sqlite3_open_v2(path, &s, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        enum status status = s ? fail_sql(problem, s, "open the database") : ST_STORAGE;
        (void)sqlite3_close(s);
        return s ? status : fail(problem, ST_STORAGE, "horn.db", "no memory to open the database");
    }
    (void)sqlite3_extended_result_codes(s, 0);
    (void)sqlite3_busy_timeout(s, 10000);
    *ret = s;
    return ST_OK;
}

static enum status pragma(struct sqlite3 *s, const char *sql, struct problem *problem)
{
    if (sqlite3_exec(s, sql, NULL, NULL, NULL) != SQLITE_OK)
        return fail_sql(problem, s, sql);
    return ST_OK;
}

static enum status migrate(struct sqlite3 *s, struct problem *problem)
{
    int64_t version = 0;

    TRY(sql_int(s, 0, &version, problem, "PRAGMA user_version", ""));
    if (version > (int64_t)COUNT(steps))
        return fail(problem, ST_CONFLICT, "horn.db", "was written by a newer Horn (schema %lld, this one knows %d)",
                    (long long)version, (int)COUNT(steps));
    for (; version < (int64_t)COUNT(steps); version++) {
        char set[64];

        snprintf(set, sizeof set, "PRAGMA user_version = %lld", (long long)version + 1);
        TRY(pragma(s, "BEGIN IMMEDIATE", problem));
        enum status status = pragma(s, steps[version], problem);
        if (status == ST_OK)
            status = pragma(s, set, problem);
        if (status == ST_OK)
            status = pragma(s, "COMMIT", problem);
        if (status != ST_OK) {
            (void)sqlite3_exec(s, "ROLLBACK", NULL, NULL, NULL);
            return status;
        }
    }
    return ST_OK;
}

/* --- the writer thread --------------------------------------------------------------------------------------------------- */

/* The rows are gone: what the task did to files goes too, before another task is given the same numbers. */
static void undo(const struct pending *p)
{
    if (p->undo)
        p->undo(p->arg);
}

/* What was thought done is not: the transaction is gone. */
static void fail_batch(struct pending *from, const struct pending *to, const struct problem *why)
{
    for (struct pending *p = from; p != to; p = p->next)
        if (p->status == ST_OK) {
            p->status = why->status;
            if (p->problem)
                *p->problem = *why;
            undo(p);
        }
}

static enum status run_one(struct sqlite3 *s, struct pending *p, struct problem *own)
{
    TRY(pragma(s, "SAVEPOINT task", own));
    p->status = p->task(s, p->arg, own);
    if (sqlite3_get_autocommit(s)) {
        if (p->status != ST_OK)
            undo(p);
        return own->status == ST_OK ? fail(own, ST_STORAGE, "horn.db", "the transaction was rolled back") : own->status;
    }
    if (p->status != ST_OK) {
        (void)sqlite3_exec(s, "ROLLBACK TO task", NULL, NULL, NULL);
        undo(p);
    }
    return pragma(s, "RELEASE task", p->status == ST_OK ? own : &(struct problem){0});
}

/* Runs tasks from `from` in one transaction; returns the first one that is not in it (NULL: none). */
static struct pending *run_batch(struct sqlite3 *s, struct pending *from)
{
    struct problem why = {0};
    struct pending *p = from;

    if (pragma(s, "BEGIN IMMEDIATE", &why) != ST_OK) {
        fail_batch(from, NULL, &why);
        return NULL;
    }
    for (; p; p = p->next) {
        struct problem own = {0};
        enum status whole = run_one(s, p, &own);

        if (p->status != ST_OK && p->problem)
            *p->problem = own;
        if (whole != ST_OK) {
            fail_batch(from, p->next, &own);
            (void)sqlite3_exec(s, "ROLLBACK", NULL, NULL, NULL);
            return p->next;
        }
    }
    if (pragma(s, "COMMIT", &why) != ST_OK) {
        fail_batch(from, NULL, &why);
        (void)sqlite3_exec(s, "ROLLBACK", NULL, NULL, NULL);
    }
    return NULL;
}

static void *write_all(void *arg)
{
    struct db *db = arg;

    pthread_mutex_lock(&db->lock);
    for (;;) {
        while (!db->first && !db->stop)
            pthread_cond_wait(&db->work, &db->lock);
        if (!db->first)
            break;

        struct pending *batch = db->first, *end = batch;
        for (int i = 1; i < MAX_BATCH && end->next; i++)
            end = end->next;
        db->first = end->next;
        end->next = NULL;
        if (!db->first)
            db->last = &db->first;
        pthread_mutex_unlock(&db->lock);

        for (struct pending *p = batch; p;)
            p = run_batch(db->writer, p);

        pthread_mutex_lock(&db->lock);
        for (struct pending *p = batch, *next; p; p = next) {
            next = p->next; /* p is on a stack that may go once it is over and the lock is free */
            p->over = true;
        }
        pthread_cond_broadcast(&db->done);
    }
    pthread_mutex_unlock(&db->lock);
    return NULL;
}

/* --- readers ------------------------------------------------------------------------------------------------------------- */

static void reader_end(void *arg)
{
    struct reader *r = arg;
    struct db *db = r->db;

    pthread_mutex_lock(&db->lock);
    for (struct reader **at = &db->readers; *at; at = &(*at)->next)
        if (*at == r) {
            *at = r->next;
            break;
        }
    pthread_mutex_unlock(&db->lock);
    (void)sqlite3_close(r->s);
    free(r);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    (void)remove(path);
    return 0;
}

/* --- public -------------------------------------------------------------------------------------------------------------- */

enum status db_open(const char *folder, struct db **ret, struct problem *problem)
{
    OWNED(db_close) struct db *db = must_alloc(sizeof *db);
    char path[PATH_MAX + 16];
    bool made;

    db->lock_fd = -1;
    db->last = &db->first;
    pthread_mutex_init(&db->lock, NULL);
    pthread_cond_init(&db->work, NULL);
    pthread_cond_init(&db->done, NULL);
    if (pthread_key_create(&db->key, reader_end) != 0) {
        free(STEAL(db));
        return fail(problem, ST_STORAGE, folder, "too many databases are open in this process");
    }

    if (strlen(folder) > 400 || !*folder)
        return fail(problem, ST_INVALID, "data_dir", "the path must have 1 to 400 bytes, not %zu", strlen(folder));
    snprintf(path, sizeof path, "%s/", folder);
    TRY(make_parents(path, 0, problem));
    if (!realpath(folder, db->folder))
        return fail_errno(problem, errno, folder, "find the folder");
    if (strlen(db->folder) > 400)
        return fail(problem, ST_INVALID, "data_dir", "the real path has %zu bytes, at most 400 are possible",
                    strlen(db->folder));
    TRY(take_lock(db, problem));
    static const char *const parts[] = {"datasets", "models", "jobs", "tmp"};
    for (size_t i = 0; i < COUNT(parts); i++) {
        snprintf(path, sizeof path, "%s/%s", db->folder, parts[i]);
        TRY(make_folder(path, 0700, &made, problem));
    }

    mode_t mask = umask(077); /* horn.db and its log are for the daemon's user alone; no thread of ours runs yet */
    enum status status = connect(db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, &db->writer, problem);
    if (status == ST_OK)
        status = pragma(db->writer, "PRAGMA journal_mode = WAL", problem);
    (void)umask(mask);
    TRY(status);
    TRY(pragma(db->writer, "PRAGMA synchronous = FULL", problem));
    TRY(pragma(db->writer, "PRAGMA foreign_keys = ON", problem));
    TRY(pragma(db->writer, "PRAGMA temp_store = MEMORY", problem));
    TRY(migrate(db->writer, problem));
    TRY(db_recover(db, db->writer, problem));
    TRY(sync_folder(db->folder, problem));

    thread_start(&db->thread, "db-writer", write_all, db);
    db->started = true;
    *ret = STEAL(db);
    return ST_OK;
}

struct db *db_close(struct db *db)
{
    if (!db)
        return NULL;
    if (db->started) {
        pthread_mutex_lock(&db->lock);
        db->stop = true;
        pthread_cond_signal(&db->work);
        pthread_mutex_unlock(&db->lock);
        pthread_join(db->thread, NULL);
    }
    (void)pthread_key_delete(db->key);
    for (struct reader *r = db->readers, *next; r; r = next) {
        next = r->next;
        (void)sqlite3_close(r->s);
        free(r);
    }
    (void)sqlite3_close(db->writer);
    if (db->lock_fd >= 0)
        (void)close(db->lock_fd);
    pthread_cond_destroy(&db->work);
    pthread_cond_destroy(&db->done);
    pthread_mutex_destroy(&db->lock);
    free(db);
    return NULL;
}

const char *db_folder(const struct db *db)
{
    return db->folder;
}

enum status db_write(struct db *db, db_task task, void *arg, struct problem *problem)
{
    return db_write_undo(db, task, NULL, arg, problem);
}

enum status db_write_undo(struct db *db, db_task task, void (*undo_task)(void *arg), void *arg, struct problem *problem)
{
    struct pending p = {.task = task, .undo = undo_task, .arg = arg, .problem = problem};

    pthread_mutex_lock(&db->lock);
    if (db->stop) {
        pthread_mutex_unlock(&db->lock);
        return fail(problem, ST_BUSY, "horn.db", "the daemon is stopping");
    }
    *db->last = &p;
    /* cppcheck-suppress autoVariables ; the writer lets go of p before it is over, and this frame waits for that */
    db->last = &p.next;
    pthread_cond_signal(&db->work);
    while (!p.over)
        pthread_cond_wait(&db->done, &db->lock);
    pthread_mutex_unlock(&db->lock);
    return p.status;
}

struct sqlite3 *db_reader(struct db *db)
{
    struct reader *r = pthread_getspecific(db->key);
    struct problem ignored;
    struct sqlite3 *s;

    if (r)
        return r->s;
    if (connect(db, SQLITE_OPEN_READWRITE, &s, &ignored) != ST_OK)
        return NULL;
    if (pragma(s, "PRAGMA query_only = ON", &ignored) != ST_OK) {
        (void)sqlite3_close(s);
        return NULL;
    }
    r = must_alloc(sizeof *r);
    r->db = db;
    r->s = s;
    if (pthread_setspecific(db->key, r) != 0) {
        (void)sqlite3_close(s);
        free(r);
        return NULL;
    }
    pthread_mutex_lock(&db->lock);
    r->next = db->readers;
    db->readers = r;
    pthread_mutex_unlock(&db->lock);
    return s;
}

enum status db_temp(struct db *db, char path[512], int *fd, struct problem *problem)
{
    snprintf(path, 512, "%.400s/tmp/XXXXXX", db->folder);
    int made = mkostemp(path, O_CLOEXEC);
    if (made < 0)
        return fail_errno(problem, errno, "tmp", "make a temporary file");
    *fd = made;
    return ST_OK;
}

enum status db_sync(const char *temp, const char *what, struct problem *problem)
{
    int fd = open(temp, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fail_errno(problem, errno, what, "open the finished file");
    int rc = fsync(fd), error = errno;
    (void)close(fd);
    return rc < 0 ? fail_errno(problem, error, what, "sync the file") : ST_OK;
}

enum status db_place(struct db *db, const char *temp, const char *to, struct problem *problem)
{
    TRY(db_sync(temp, to, problem));
    return db_place_synced(db, temp, to, problem);
}

enum status db_place_synced(struct db *db, const char *temp, const char *to, struct problem *problem)
{
    char path[PATH_MAX + 256];

    snprintf(path, sizeof path, "%s/%s", db->folder, to);
    TRY(make_parents(path, strlen(db->folder) + 1, problem));
    if (rename(temp, path) < 0)
        return fail_errno(problem, errno, to, "put the file in its place");
    *strrchr(path, '/') = 0;
    return sync_folder(path, problem);
}

void db_remove(struct db *db, const char *to)
{
    char path[PATH_MAX + 256];

    snprintf(path, sizeof path, "%s/%s", db->folder, to);
    if (unlink(path) < 0 && (errno == EISDIR || errno == EPERM))
        (void)nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

enum status fail_errno(struct problem *problem, int error, const char *where, const char *doing)
{
    char text[128];
    const char *words = strerror_r(error, text, sizeof text);

    if (error == ENOSPC || error == EDQUOT)
        return fail(problem, ST_DISK_FULL, where, "could not %s: %s", doing, words);
    return fail(problem, ST_STORAGE, where, "could not %s: %s", doing, words);
}

bool name_valid(const char *name)
{
    static const char alnum[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t n = name ? strlen(name) : 0;

    return n >= 1 && n <= 128 && strspn(name, alnum) == n && !strchr("._-", name[0]);
}

void time_text(int64_t unix_ms, char to[32])
{
    int64_t ms = unix_ms % 1000;
    time_t s = (time_t)(unix_ms / 1000);
    struct tm tm;

    if (ms < 0)
        ms += 1000, s--;
    (void)gmtime_r(&s, &tm);
    size_t n = strftime(to, 24, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(to + n, 32 - n, ".%03dZ", (int)ms);
}
