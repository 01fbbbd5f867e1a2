/* Datasets as rows and files. See datasets.h; uploads are read by ingest/. */
#include "storage/datasets.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "storage/hdf5.h"
#include "storage/ingest/ingest.h"
#include "storage/rows.h"

#define ARRAY_COLUMNS \
    "SELECT arrays.id, arrays.name, dtype, shape, bytes, file_offset, path, min, max, mean, columns FROM arrays "

/* "[60000,28,28]" */
static void shape_print(const struct shape *shape, char to[MAX_RANK * 22 + 4])
{
    int n = sprintf(to, "[");

    for (int i = 0; i < shape->rank; i++)
        n += sprintf(to + n, "%s%" PRId64, i ? "," : "", shape->dim[i]);
    sprintf(to + n, "]");
}

static void shape_scan(const char *text, struct shape *ret)
{
    *ret = SCALAR;
    for (const char *p = text + strspn(text, "["); *p >= '0' && *p <= '9' && ret->rank < MAX_RANK;) {
        char *end;

        ret->dim[ret->rank++] = strtoll(p, &end, 10);
        p = end + (*end == ',');
    }
}

static void read_array(struct sqlite3_stmt *q, struct arena *mem, struct array_row *a)
{
    *a = (struct array_row){
        .id = sqlite3_column_int64(q, 0),
        .name = sql_text(q, 1, mem),
        .bytes = sqlite3_column_int64(q, 4),
        .file_offset = sqlite3_column_int64(q, 5),
        .path = sql_text(q, 6, mem),
        .min = sql_double(q, 7),
        .max = sql_double(q, 8),
        .mean = sql_double(q, 9),
        .columns = sql_text(q, 10, mem),
    };
    (void)dtype_find((const char *)sqlite3_column_text(q, 2), &a->type);
    shape_scan((const char *)sqlite3_column_text(q, 3), &a->shape);
}

static enum status read_arrays(struct sqlite3 *s, struct arena *mem, struct dataset_row *d, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    int64_t n = 0;
    bool found = false;

    TRY(sql_int(s, 0, &n, problem, "SELECT count(*) FROM arrays WHERE dataset = ? AND current = 1", "i", d->id));
    d->n_arrays = 0;
    d->arrays = ARENA_ARRAY(mem, struct array_row, n + 1);
    TRY(sql_query(s, &q, problem, ARRAY_COLUMNS "WHERE dataset = ? AND current = 1 ORDER BY name LIMIT ?", "ii", d->id, n));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        read_array(q, mem, &d->arrays[d->n_arrays++]);
    }
}

static enum status find_dataset(struct sqlite3 *s, const char *name, struct arena *mem, struct dataset_row *d,
                                struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(s, &q, problem, "SELECT id, created_ms FROM datasets WHERE name = ?", "t", name));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return fail(problem, ST_NOT_FOUND, name, "there is no dataset \"%s\"", name);
    *d = (struct dataset_row){
        .id = sqlite3_column_int64(q, 0), .name = arena_text(mem, name), .created_ms = sqlite3_column_int64(q, 1)};
    return ST_OK;
}

/* --- new arrays ---------------------------------------------------------------------------------------------------------- */

struct put {
    struct db *db;
    const char *dataset, *array; /* array: the name of a lone one */
    const char *folder;          /* absolute, of the files of `answer` */
    struct ingest_answer answer;
    struct leftovers placed, left; /* by index of `answer`, to take back if the commit fails; to remove once it is on disk */
    struct arena *mem;
    struct dataset_row *ret;
};

static enum status put_array(struct sqlite3 *s, struct put *p, int64_t dataset, const struct ingest_array *a,
                             struct problem *problem)
{
    const char *name = p->array ? p->array : a->name;
    char shape[MAX_RANK * 22 + 4], path[96], from[1024];

    shape_print(&a->shape, shape);
    TRY(sql_run(s, problem, "UPDATE arrays SET current = 0 WHERE dataset = ? AND name = ? AND current = 1", "it", dataset,
                name));
    TRY(sql_run(s, problem,
                "INSERT INTO arrays (dataset, name, current, dtype, shape, bytes, file_offset, path, min, max, mean, columns, "
                "created_ms) VALUES (?, ?, 1, ?, ?, ?, ?, '', ?, ?, ?, ?, ?)",
                "ittt"
                "ii"
                "dddti",
                dataset, name, dtype_name(a->type), shape, a->bytes, a->offset, a->min, a->max, a->mean, a->columns,
                clock_unix_ms()));
    int64_t id = sqlite3_last_insert_rowid(s);
    snprintf(path, sizeof path, "datasets/%" PRId64 "/%" PRId64 ".h5", dataset, id);
    TRY(sql_run(s, problem, "UPDATE arrays SET path = ? WHERE id = ?", "ti", path, id));
    leftovers_add(&p->placed, path);
    snprintf(from, sizeof from, "%s/%s", p->folder, a->file);
    return db_place_synced(p->db, from, path, problem); /* check_answer has synced it */
}

static enum status put(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct put *p = arg;

    TRY(sql_run(s, problem, "INSERT OR IGNORE INTO datasets (name, created_ms) VALUES (?, ?)", "ti", p->dataset,
                clock_unix_ms()));
    TRY(find_dataset(s, p->dataset, p->mem, p->ret, problem));
    for (int i = 0; i < p->answer.n; i++)
        TRY(put_array(s, p, p->ret->id, &p->answer.array[i], problem));
    TRY(arrays_drop_unused(s, &p->left, problem));
    return read_arrays(s, p->mem, p->ret, problem);
}

/* Back to where they came from, so that the caller may try again. */
static void put_undo(void *arg)
{
    struct put *p = arg;
    char from[1024], to[1024];

    for (int i = 0; i < p->placed.n; i++) {
        snprintf(from, sizeof from, "%s/%s", db_folder(p->db), p->placed.path[i]);
        snprintf(to, sizeof to, "%s/%s", p->folder, p->answer.array[i].file);
        (void)rename(from, to); /* missing if it was not placed yet */
    }
    p->placed.n = 0;
}

/* The child may have been taken over by what it read: its answer is held against the files. */
static enum status check_answer(const struct put *p, struct problem *problem)
{
    for (int i = 0; i < p->answer.n; i++) {
        const struct ingest_array *a = &p->answer.array[i];
        const char *name = p->array ? p->array : a->name;
        char path[1024];
        struct stat st;
        size_t bytes;

        if (!name_valid(name))
            return fail(problem, ST_INVALID, p->dataset,
                        "the array's name \"%.140s\" is not possible: letters, digits and ._- (not first), at most 128", name);
        TRY(shape_checked(&a->shape, name, problem));
        snprintf(path, sizeof path, "%s/%s", p->folder, a->file);
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            return fail_errno(problem, errno, name, "open the array that was read");
        int rc = fstat(fd, &st) < 0 || fsync(fd) < 0, error = errno;
        (void)close(fd);
        if (rc)
            return fail_errno(problem, error, name, "sync the array that was read");
        if (!size_mul((size_t)shape_count(&a->shape), dtype_bytes(a->type), &bytes) || (int64_t)bytes != a->bytes ||
            a->offset < 0 || a->offset > st.st_size || st.st_size - a->offset < a->bytes || !S_ISREG(st.st_mode))
            return fail(problem, ST_INTERNAL, name, "the array that was read does not fit its description");
    }
    return ST_OK;
}

static enum status put_rows(struct put *p, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();

    TRY(check_answer(p, problem));
    p->placed.mem = p->left.mem = mem;
    TRY(db_write_undo(p->db, put, put_undo, p, problem));
    leftovers_remove(&p->left, p->db);
    return ST_OK;
}

/* "text/csv; charset=utf-8" -> "csv". "": the type says nothing. ST_MEDIA: it says something that is not read here. */
static enum status format_of(const char *format, const char *content_type, const char *where, const char **ret,
                             struct problem *problem)
{
    static const char *const formats[] = {"npy", "npz", "idx", "csv"};
    static const char *const types[][2] = {
        {"application/x-npy", "npy"},
        {"application/npy", "npy"},
        {"application/x-npz", "npz"},
        {"application/npz", "npz"},
        {"application/zip", ""},
        {"application/x-zip-compressed", ""},
        {"text/csv", "csv"},
        {"application/csv", "csv"},
        {"text/plain", ""},
        {"application/x-idx", "idx"},
        {"application/octet-stream", ""},
        {"binary/octet-stream", ""},
        {"application/gzip", ""},
        {"application/x-gzip", ""},
        {"text/tab-separated-values", "csv"},
        {"application/vnd.ms-excel", "csv"},
        {"application/x-www-form-urlencoded", ""}, /* curl's own word for --data-binary */
    };

    *ret = "";
    if (format && *format) {
        for (size_t i = 0; i < COUNT(formats); i++)
            if (strcmp(format, formats[i]) == 0) {
                *ret = formats[i];
                return ST_OK;
            }
        return fail(problem, ST_INVALID, where, "format \"%.40s\" is not known; there are npy, npz, idx and csv", format);
    }
    if (!content_type || !*content_type)
        return ST_OK;
    size_t n = strcspn(content_type, "; \t");
    for (size_t i = 0; i < COUNT(types); i++)
        if (strlen(types[i][0]) == n && strncasecmp(content_type, types[i][0], n) == 0) {
            *ret = types[i][1];
            return ST_OK;
        }
    return fail(problem, ST_MEDIA, where,
                "datasets are not read from %.*s; send .npy, .npz, IDX or CSV (gzipped or not) as application/octet-stream",
                n < 80 ? (int)n : 80, content_type);
}

static enum status put_upload(struct put *p, const char *upload, const char *format, const char *content_type,
                              const char *where, const struct ingest_limits *limits, struct problem *problem)
{
    char path[1024];

    if (!name_valid(p->dataset) || (p->array && !name_valid(p->array)))
        return fail(problem, ST_INVALID, where, "names have letters, digits and ._- (not first), at most 128");
    TRY(format_of(format, content_type, where, &format, problem));
    snprintf(path, sizeof path, "%s/in", p->folder);
    if (rename(upload, path) < 0)
        return fail_errno(problem, errno, where, "take over the upload");
    TRY(ingest_run(p->folder, format, p->array, where, limits, p->mem, &p->answer, problem));
    return put_rows(p, problem);
}

/* --- public -------------------------------------------------------------------------------------------------------------- */

enum status arrays_drop_unused(struct sqlite3 *s, struct leftovers *l, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(s, &q, problem,
                  "DELETE FROM arrays WHERE current = 0 AND NOT EXISTS (SELECT 1 FROM job_arrays JOIN jobs ON jobs.id = job "
                  "WHERE array = arrays.id AND state IN " UNFINISHED ") RETURNING path",
                  ""));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        leftovers_add(l, (const char *)sqlite3_column_text(q, 0));
    }
}

enum status datasets_put(struct db *db, const char *dataset, const char *array, const char *upload, const char *format,
                         const char *content_type, const struct ingest_limits *limits, struct arena *mem,
                         struct dataset_row *ret, struct problem *problem)
{
    char folder[512], where[300];
    const char *tail;
    struct put p = {.db = db, .dataset = dataset, .array = array, .folder = folder, .mem = mem, .ret = ret};

    snprintf(where, sizeof where, "%.128s%s%.128s", dataset, array ? "/" : "", array ? array : "");
    snprintf(folder, sizeof folder, "%s/tmp/XXXXXX", db_folder(db));
    if (!mkdtemp(folder)) {
        int error = errno;

        (void)unlink(upload);
        return fail_errno(problem, error, where, "make a temporary folder");
    }
    enum status status = put_upload(&p, upload, format, content_type, where, limits, problem);
    (void)unlink(upload);
    tail = folder + strlen(db_folder(db)) + 1;
    db_remove(db, tail);
    return status;
}

enum status datasets_get(struct db *db, const char *name, struct arena *mem, struct dataset_row *ret, struct problem *problem)
{
    struct sqlite3 *s = db_reader(db);

    TRY(find_dataset(s, name, mem, ret, problem));
    return read_arrays(s, mem, ret, problem);
}

enum status datasets_list(struct db *db, struct arena *mem, struct dataset_row **rows, int *n, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct sqlite3 *s = db_reader(db);
    int64_t count = 0;
    bool found = false;

    TRY(sql_int(s, 0, &count, problem, "SELECT count(*) FROM datasets", ""));
    *rows = ARENA_ARRAY(mem, struct dataset_row, count + 1);
    *n = 0;
    TRY(sql_query(s, &q, problem, "SELECT id, name, created_ms FROM datasets ORDER BY name LIMIT ?", "i", count));
    for (;;) {
        TRY(sql_next(q, &found, problem));
        if (!found)
            return ST_OK;
        struct dataset_row *d = &(*rows)[(*n)++];
        d->id = sqlite3_column_int64(q, 0);
        d->name = sql_text(q, 1, mem);
        d->created_ms = sqlite3_column_int64(q, 2);
        TRY(read_arrays(s, mem, d, problem));
    }
}

static enum status delete_dataset(struct sqlite3 *s, void *arg, struct problem *problem)
{
    struct put *p = arg;
    char path[64];
    int64_t job = 0;

    TRY(find_dataset(s, p->dataset, p->mem, p->ret, problem));
    TRY(sql_int(s, 0, &job, problem,
                "SELECT jobs.id FROM jobs JOIN job_arrays ON job = jobs.id JOIN arrays ON arrays.id = array "
                "WHERE dataset = ? AND state IN " UNFINISHED " ORDER BY jobs.id LIMIT 1",
                "i", p->ret->id));
    if (job)
        return fail(problem, ST_CONFLICT, p->dataset, "job %" PRId64 " uses it and is not over; cancel it or wait", job);
    TRY(sql_run(s, problem, "DELETE FROM arrays WHERE dataset = ?", "i", p->ret->id));
    TRY(sql_run(s, problem, "DELETE FROM datasets WHERE id = ?", "i", p->ret->id));
    snprintf(path, sizeof path, "datasets/%" PRId64, p->ret->id);
    leftovers_add(&p->left, path);
    return ST_OK;
}

enum status datasets_delete(struct db *db, const char *name, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct dataset_row row;
    struct put p = {.db = db, .dataset = name, .mem = mem, .ret = &row, .left.mem = mem};

    TRY(db_write(db, delete_dataset, &p, problem));
    leftovers_remove(&p.left, db);
    return ST_OK;
}

enum status datasets_array(struct db *db, int64_t id, struct arena *mem, struct array_row *ret, struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    bool found = false;

    TRY(sql_query(db_reader(db), &q, problem, ARRAY_COLUMNS "WHERE id = ?", "i", id));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return fail(problem, ST_NOT_FOUND, "", "there is no stored array %" PRId64 " any more", id);
    read_array(q, mem, ret);
    return ST_OK;
}

/* Names for a message: "x_test, x_train"; cut where it grows too long. */
static const char *names_of(struct sqlite3 *s, const char *sql, int64_t id, struct arena *mem)
{
    CLEAN(text_done) struct text t = text_make(200);
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct problem ignored;
    bool found = false;

    if (sql_query(s, &q, &ignored, sql, "i", id) != ST_OK)
        return "";
    while (sql_next(q, &found, &ignored) == ST_OK && found)
        text_printf(&t, "%s%s", t.length ? ", " : "", (const char *)sqlite3_column_text(q, 0));
    return t.length ? arena_print(mem, "%s%s", t.s, t.cut ? " ..." : "") : "none";
}

enum status datasets_resolve(struct db *db, const char *reference, const char *where, struct arena *mem, struct array_row *ret,
                             struct problem *problem)
{
    OWNED(sql_done) struct sqlite3_stmt *q = NULL;
    struct sqlite3 *s = db_reader(db);
    const char *slash = strchr(reference, '/');
    int64_t id = 0;
    bool found = false;

    if (!slash || slash == reference || !slash[1] || strchr(slash + 1, '/'))
        return fail(problem, ST_INVALID, where, "\"%.260s\" is not of the form dataset/array, for example mnist/x_train",
                    reference);
    const char *dataset = arena_print(mem, "%.*s", (int)(slash - reference), reference), *array = slash + 1;

    TRY(sql_int(s, 0, &id, problem, "SELECT id FROM datasets WHERE name = ?", "t", dataset));
    if (!id)
        return fail(problem, ST_NOT_FOUND, where, "there is no dataset \"%.128s\"; there are: %s", dataset,
                    names_of(s, "SELECT name FROM datasets WHERE ?1 = ?1 ORDER BY name", 0, mem));
    TRY(sql_query(s, &q, problem, ARRAY_COLUMNS "WHERE dataset = ? AND name = ? AND current = 1", "it", id, array));
    TRY(sql_next(q, &found, problem));
    if (!found)
        return fail(problem, ST_NOT_FOUND, where, "dataset \"%.128s\" has no array \"%.128s\"; it has: %s", dataset, array,
                    names_of(s, "SELECT name FROM arrays WHERE dataset = ? AND current = 1 ORDER BY name", id, mem));
    read_array(q, mem, ret);
    return ST_OK;
}

/* --- results of bulk prediction ------------------------------------------------------------------------------------------ */

struct array_writer {
    struct db *db;
    struct arena *mem;
    char folder[512]; /* its own under tmp/, removed at the end */
    int fd;
    int64_t at;
    struct ingest_array row;
    struct statistics s;
};

enum status array_writer_new(struct db *db, const struct shape *shape, struct array_writer **ret, struct problem *problem)
{
    OWNED(array_writer_free) struct array_writer *w = must_alloc(sizeof *w);
    OWNED(h5_free) struct h5 *f = NULL;
    char path[1024];

    w->db = db;
    w->mem = arena_new();
    w->fd = -1;
    w->s = (struct statistics){.min = INFINITY, .max = -INFINITY};
    TRY(shape_checked(shape, "the prediction", problem));
    snprintf(w->folder, sizeof w->folder, "%s/tmp/XXXXXX", db_folder(db));
    if (!mkdtemp(w->folder)) {
        w->folder[0] = 0;
        return fail_errno(problem, errno, "the prediction", "make a temporary folder");
    }
    snprintf(path, sizeof path, "%s/0.h5", w->folder);
    w->row = (struct ingest_array){
        .file = "0.h5", .type = F32, .shape = *shape, .bytes = shape_count(shape) * (int64_t)sizeof(float)};
    TRY(h5_create(path, "the prediction", &f, problem));
    TRY(h5_reserve(f, "/data", F32, shape, &w->row.offset, problem));
    TRY(h5_close(STEAL(f), problem));
    w->fd = open(path, O_WRONLY | O_CLOEXEC);
    if (w->fd < 0)
        return fail_errno(problem, errno, "the prediction", "open the file");
    *ret = STEAL(w);
    return ST_OK;
}

enum status array_writer_add(struct array_writer *w, const float *rows, int64_t n, struct problem *problem)
{
    struct shape one = w->row.shape;
    const char *from = (const char *)rows;

    one.dim[0] = n;
    int64_t elements = shape_count(&one), left = elements * (int64_t)sizeof(float);
    if (w->at + left > w->row.bytes)
        return fail(problem, ST_INTERNAL, "the prediction", "more rows than the %" PRId64 " announced", w->row.shape.dim[0]);
    for (int64_t i = 0; i < elements; i++)
        if (!isnan(rows[i])) {
            w->s.min = fmin(w->s.min, rows[i]);
            w->s.max = fmax(w->s.max, rows[i]);
            w->s.sum += rows[i];
            w->s.n++;
        }
    while (left > 0) {
        ssize_t done = pwrite(w->fd, from, (size_t)left, w->row.offset + w->at);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return fail_errno(problem, done < 0 ? errno : ENOSPC, "the prediction", "write rows");
        from += done;
        w->at += done;
        left -= done;
    }
    return ST_OK;
}

enum status array_writer_finish(struct array_writer *w, const char *dataset, const char *array, struct problem *problem)
{
    struct dataset_row row;
    struct put p = {.db = w->db,
                    .dataset = dataset,
                    .array = array,
                    .folder = w->folder,
                    .answer = {.n = 1, .array = &w->row},
                    .mem = w->mem,
                    .ret = &row};

    if (!name_valid(dataset))
        return fail(problem, ST_INVALID, "", "the dataset's name \"%.140s\" is not possible", dataset);
    if (w->at != w->row.bytes)
        return fail(problem, ST_INTERNAL, "the prediction", "%" PRId64 " bytes were announced, %" PRId64 " written",
                    w->row.bytes, w->at);
    w->row.min = w->s.n ? w->s.min : NAN;
    w->row.max = w->s.n ? w->s.max : NAN;
    w->row.mean = w->s.n ? w->s.sum / (double)w->s.n : NAN;
    return put_rows(&p, problem);
}

struct array_writer *array_writer_free(struct array_writer *w)
{
    if (!w)
        return NULL;
    if (w->fd >= 0)
        (void)close(w->fd);
    if (*w->folder)
        db_remove(w->db, w->folder + strlen(db_folder(w->db)) + 1);
    arena_free(w->mem);
    free(w);
    return NULL;
}
