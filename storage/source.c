/* Arrays of a job as a source of rows. See source.h and engine/run/batch.h.
 *
 * An array of at most KEEP_BYTES is read whole, when its first rows are asked for, and copied from then on. A larger one is mapped
 * (mapped.h): a shuffled row is then a copy out of the page cache instead of a system call, and an array beyond memory is the system's
 * to keep what fits. (Prefetching rows ahead of the copy gave nothing: the CPU has several copies under way by itself.) One that
 * memory can hold is read from end to end beside the first batches, some of it at each, so that no step waits for much of a slow disk.
 * An array that memory cannot hold has each batch's rows asked for first, all together: the disk then works on them at once instead of
 * one after the other; where batches follow each other in the file, what comes next is asked for with them. Where the system maps no
 * more, rows are read by pread, those that lie side by side in one call. */
#include "storage/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/number.h"
#include "storage/db.h"
#include "storage/mapped.h"

#define CONVERT_BLOCK (64 << 10) /* bytes read before they are converted */
#define KEEP_BYTES    (8 << 20)  /* of an array as given; a job's memory grows by that much for each at most */
#define ASK_BYTES     (1 << 20)  /* in one call: of a larger one the kernel reads as much as it likes (8 MiB of a GiB) */
#define AHEAD_BYTES   (8 << 20)  /* asked for at one batch beyond its rows; 40 us where all of it is in memory already */

/* As they lie in a mapped file, whose format promises nothing. */
typedef double unaligned_double __attribute__((aligned(1)));
typedef int64_t unaligned_int64 __attribute__((aligned(1)));

struct part {
    int fd;          /* -1: inline numbers, always in `values` */
    int64_t offset;  /* of row 0 in the file */
    enum dtype type; /* stored */
    char *values;    /* all rows as they are given, or NULL */
    size_t value_bytes;
    struct mapped map;
    bool scarce;    /* the mapped array is too large to stay in memory */
    int64_t asked;  /* bytes from its start, up to where it was asked for last */
    int64_t next;   /* the row behind the last batch of a scarce one */
    bool from_file; /* neither memory to keep it nor a map to be had */
    int64_t row_elements;
};

struct file_source {
    struct source s; /* first: what others see */
    struct arena *mem;
    uint64_t memory; /* bytes that arrays may hope to stay in */
    int n;
    struct part part[MAX_ARRAYS];
};

static enum status read_full(int fd, void *to, size_t bytes, int64_t at, const char *name, struct problem *problem)
{
    char *p = to;

    while (bytes > 0) {
        ssize_t n = pread(fd, p, bytes, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fail_errno(problem, errno, name, "read rows");
        if (n == 0)
            return fail(problem, ST_STORAGE, name, "the array's file ends too early");
        p += n;
        at += n;
        bytes -= (size_t)n;
    }
    return ST_OK;
}

static enum status narrow(const struct part *p, const char *name, const void *from, int64_t n, int64_t first, void *to,
                          struct problem *problem)
{
    if (p->type == F64) {
        const unaligned_double *x = from;
        float *y = to;

        for (int64_t i = 0; i < n; i++)
            y[i] = (float)x[i];
        return ST_OK;
    }
    const unaligned_int64 *x = from;
    int32_t *y = to;

    for (int64_t i = 0; i < n; i++) {
        if (x[i] != (int32_t)x[i])
            return fail(problem, ST_INVALID, name, "row %" PRId64 " holds %" PRId64 "; integers are used with 32 bits",
                        (first + i) / (p->row_elements ? p->row_elements : 1), x[i]);
        y[i] = (int32_t)x[i];
    }
    return ST_OK;
}

/* n rows that lie one behind the other, from row `first`, out of the file. */
static enum status read_run(struct file_source *f, int array, int64_t first, int64_t n, char *to, struct problem *problem)
{
    struct part *p = &f->part[array];
    const char *name = f->s.array[array].name;
    size_t stored = dtype_bytes(p->type), given = dtype_bytes(f->s.array[array].type);
    int64_t element = first * p->row_elements, left = n * p->row_elements;
    char block[CONVERT_BLOCK];

    if (p->type != F64 && p->type != I64)
        return read_full(p->fd, to, (size_t)left * stored, p->offset + element * (int64_t)stored, name, problem);
    while (left > 0) {
        int64_t some = left < CONVERT_BLOCK / 8 ? left : CONVERT_BLOCK / 8;

        TRY(read_full(p->fd, block, (size_t)some * stored, p->offset + element * (int64_t)stored, name, problem));
        TRY(narrow(p, name, block, some, element, to, problem));
        element += some;
        left -= some;
        to += (size_t)some * given;
    }
    return ST_OK;
}

/* A small array into memory. */
static enum status keep_rows(struct file_source *f, int array, size_t bytes, struct problem *problem)
{
    struct part *p = &f->part[array];
    struct problem ignored;
    void *values = NULL;

    if (try_alloc(bytes, f->s.array[array].name, &values, &ignored) != ST_OK)
        return ST_OK;
    enum status status = read_run(f, array, 0, f->s.rows, values, problem);
    if (status != ST_OK) {
        big_free(values, bytes);
        return status;
    }
    p->values = values;
    p->value_bytes = bytes;
    return ST_OK;
}

static int64_t stored_bytes(const struct file_source *f, const struct part *p)
{
    return f->s.rows * p->row_elements * (int64_t)dtype_bytes(p->type);
}

/* A large one into the address space. */
static bool map_rows(struct file_source *f, struct part *p)
{
    int64_t bytes = stored_bytes(f, p);

    if (!mapped_open(&p->map, p->fd, p->offset, (size_t)bytes))
        return false;
    p->scarce = (uint64_t)bytes > f->memory / 2;
    if (p->scarce) { /* else the first touch of one row reads 128 KiB around it */
        (void)posix_fadvise(p->fd, p->offset, bytes, POSIX_FADV_RANDOM);
        (void)madvise(p->map.base, p->map.length, MADV_RANDOM);
    }
    return true;
}

/* Once for each array: where its rows are to come from. */
static enum status find_rows(struct file_source *f, int array, size_t row_bytes, struct problem *problem)
{
    struct part *p = &f->part[array];
    size_t bytes = (size_t)f->s.rows * row_bytes;

    if (p->values || p->map.data || p->from_file || !bytes)
        return ST_OK;
    if (bytes <= KEEP_BYTES)
        TRY(keep_rows(f, array, bytes, problem));
    p->from_file = !p->values && !map_rows(f, p);
    return ST_OK;
}

static void copy_rows(const char *from, size_t row_bytes, const int64_t *row, int64_t n, char *to)
{
    for (int64_t i = 0; i < n; i++, to += row_bytes)
        memcpy(to, from + (size_t)row[i] * row_bytes, row_bytes);
}

struct copying { /* rows out of a map */
    const struct part *p;
    const char *name;
    const int64_t *row;
    int64_t n;
    size_t given; /* bytes of a row as it is delivered */
    char *to;
    enum status status;
    struct problem *problem;
};

static void copy_mapped(void *arg)
{
    struct copying *c = arg;
    const struct part *p = c->p;
    size_t stored = (size_t)p->row_elements * dtype_bytes(p->type);

    if (p->type != F64 && p->type != I64) {
        copy_rows(p->map.data, stored, c->row, c->n, c->to);
        return;
    }
    for (int64_t i = 0; i < c->n && c->status == ST_OK; i++)
        c->status = narrow(p, c->name, p->map.data + (size_t)c->row[i] * stored, p->row_elements, c->row[i] * p->row_elements,
                           c->to + (size_t)i * c->given, c->problem);
}

/* Has the disk begin with these bytes of an array. */
static void ask(const struct part *p, int64_t at, int64_t bytes)
{
    for (; bytes > 0; at += ASK_BYTES, bytes -= ASK_BYTES)
        (void)posix_fadvise(p->fd, p->offset + at, bytes < ASK_BYTES ? bytes : ASK_BYTES, POSIX_FADV_WILLNEED);
}

/* Some more of an array that is to be in memory as a whole. */
static void ask_on(const struct file_source *f, struct part *p)
{
    int64_t left = stored_bytes(f, p) - p->asked;

    if (left <= 0)
        return;
    ask(p, p->asked, left < AHEAD_BYTES ? left : AHEAD_BYTES);
    p->asked += AHEAD_BYTES;
}

/* All rows of a batch under way from the disk before the first is waited for, and in a row of batches some of what follows. */
static void ask_for_rows(const struct file_source *f, struct part *p, const int64_t *row, int64_t n)
{
    int64_t stored = p->row_elements * (int64_t)dtype_bytes(p->type), all = stored_bytes(f, p), run;

    for (int64_t i = 0; i < n; i += run) {
        for (run = 1; i + run < n && row[i + run] == row[i] + run;)
            run++;
        int64_t from = row[i] * stored, to = from + run * stored;

        if (run == n && row[0] == p->next) {
            if (p->asked >= to + AHEAD_BYTES / 2 || p->asked == all)
                break;
            from = p->asked > from ? p->asked : from;
            to = to + AHEAD_BYTES < all ? to + AHEAD_BYTES : all;
        }
        ask(p, from, to - from);
        p->asked = to;
    }
    p->next = n > 0 ? row[n - 1] + 1 : p->next;
}

static enum status gather_mapped(const struct file_source *f, struct copying *c)
{
    const struct part *p = c->p;
    struct stat now;

    bool read = mapped_read(&p->map, copy_mapped, c);
    /* Asked afterwards: behind its new end the last page of a cut file reads as zeros, without a fault. */
    if (fstat(p->fd, &now) != 0)
        return fail_errno(c->problem, errno, c->name, "read rows");
    if (now.st_size < p->offset + stored_bytes(f, p))
        return fail(c->problem, ST_STORAGE, c->name, "the array's file ends too early");
    if (!read)
        return fail(c->problem, ST_STORAGE, c->name, "the array's file cannot be read; the disk may have failed");
    return c->status;
}

static enum status gather_runs(struct file_source *f, int array, const int64_t *row, int64_t n, size_t row_bytes, char *to,
                               struct problem *problem)
{
    for (int64_t i = 0; i < n;) {
        int64_t run = 1;

        while (i + run < n && row[i + run] == row[i] + run)
            run++;
        TRY(read_run(f, array, row[i], run, to, problem));
        to += (size_t)run * row_bytes;
        i += run;
    }
    return ST_OK;
}

static enum status check_rows(const struct source *s, int array, const int64_t *row, int64_t n, struct problem *problem)
{
    for (int64_t i = 0; i < n; i++)
        if (row[i] < 0 || row[i] >= s->rows)
            return fail(problem, ST_INTERNAL, s->array[array].name, "row %" PRId64 " of %" PRId64 " was asked for", row[i],
                        s->rows);
    return ST_OK;
}

static size_t row_bytes_of(const struct source *s, int array, const struct part *p)
{
    return (size_t)p->row_elements * dtype_bytes(s->array[array].type);
}

static enum status expect(struct source *s, int array, const int64_t *row, int64_t n, struct problem *problem)
{
    struct file_source *f = (struct file_source *)s;
    struct part *p = &f->part[array];

    TRY(check_rows(s, array, row, n, problem));
    TRY(find_rows(f, array, row_bytes_of(s, array, p), problem));
    if (p->map.data && p->scarce)
        ask_for_rows(f, p, row, n);
    else if (p->map.data)
        ask_on(f, p);
    return ST_OK;
}

static enum status gather(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem)
{
    struct file_source *f = (struct file_source *)s;
    const struct part *p = &f->part[array];
    const char *name = s->array[array].name;
    size_t row_bytes = row_bytes_of(s, array, p);

    TRY(check_rows(s, array, row, n, problem));
    if (p->values) {
        copy_rows(p->values, row_bytes, row, n, to);
        return ST_OK;
    }
    if (!p->map.data)
        return gather_runs(f, array, row, n, row_bytes, to, problem);
    struct copying c = {.p = p, .name = name, .row = row, .n = n, .given = row_bytes, .to = to, .problem = problem};

    return gather_mapped(f, &c);
}

static struct source *close_source(struct source *s)
{
    struct file_source *f = (struct file_source *)s;

    for (int i = 0; i < f->n; i++) {
        mapped_close(&f->part[i].map);
        if (f->part[i].fd >= 0)
            (void)close(f->part[i].fd);
        if (f->part[i].values)
            big_free(f->part[i].values, f->part[i].value_bytes);
    }
    arena_free(f->mem);
    free(f);
    return NULL;
}

/* What a model sees of a stored type. */
static enum dtype given_type(enum dtype stored)
{
    switch (stored) {
    case F64:
        return F32;
    case I64:
        return I32;
    case BOOL:
        return U8;
    default:
        return stored;
    }
}

static enum status open_file(struct db *db, const struct source_part *from, struct part *p, struct problem *problem)
{
    char path[1024];

    snprintf(path, sizeof path, "%s/%s", db_folder(db), from->stored->path);
    p->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (p->fd < 0)
        return fail_errno(problem, errno, from->name, "open the stored array");
    p->offset = from->stored->file_offset;
    p->type = from->stored->type;
    return ST_OK;
}

static enum status read_inline(const struct source_part *from, struct part *p, struct shape *shape, struct problem *problem)
{
    char *text = json_print(from->inline_numbers, 0);
    size_t bytes = strlen(text), room = number_count(text, bytes), used;
    void *values = NULL;

    p->type = F32;
    p->value_bytes = room * sizeof(float) + 1;
    enum status status = try_alloc(p->value_bytes, "an array inside the request", &values, problem);
    p->values = values;
    if (status == ST_OK)
        status = number_array(text, bytes, from->name, values, room, &shape->rank, shape->dim, &used, problem);
    free(text);
    return status;
}

static enum status open_part(struct db *db, const struct source_part *from, struct file_source *f, int64_t *rows,
                             struct problem *problem)
{
    struct part *p = &f->part[f->n];
    struct source_array *a = &f->s.array[f->n];
    struct shape shape = SCALAR;

    p->fd = -1;
    f->n++; /* from here on close_source looks after it */
    a->name = arena_text(f->mem, from->name);
    if (from->stored) {
        shape = from->stored->shape;
        TRY(open_file(db, from, p, problem));
    } else {
        TRY(read_inline(from, p, &shape, problem));
    }
    if (shape.rank == 0)
        return fail(problem, ST_INVALID, from->name,
                    "is a single number; an array with at least one axis, its rows, is needed");
    *rows = shape.dim[0];
    a->type = given_type(p->type);
    a->row = shape_without(&shape, 0);
    p->row_elements = shape_count(&a->row);
    return ST_OK;
}

static enum status check_lengths(const struct file_source *f, const int64_t *rows, struct problem *problem)
{
    CLEAN(text_done) struct text t = text_make(400);
    bool equal = true;

    for (int i = 0; i < f->n; i++) {
        equal = equal && rows[i] == rows[0];
        text_printf(&t, "%s%s has %" PRId64, i ? ", " : "", f->s.array[i].name, rows[i]);
    }
    if (!equal)
        return fail(problem, ST_INVALID, f->s.array[0].name, "the arrays must have the same number of rows: %s%s", t.s,
                    t.cut ? " ..." : "");
    if (f->n == 0 || rows[0] == 0)
        return fail(problem, ST_INVALID, f->n ? f->s.array[0].name : "", "there are no rows");
    return ST_OK;
}

enum status source_open(struct db *db, const struct source_part *parts, int n_x, int n_y, int n_w, uint64_t memory,
                        struct source **ret, struct problem *problem)
{
    OWNED(source_close) struct source *s = NULL;
    struct file_source *f;
    int64_t rows[MAX_ARRAYS] = {0};

    if (n_x + n_y + n_w > MAX_ARRAYS)
        return fail(problem, ST_TOO_LARGE, "", "%d arrays in one job, at most %d are possible", n_x + n_y + n_w, MAX_ARRAYS);
    f = must_alloc(sizeof *f);
    f->mem = arena_new();
    f->memory = memory;
    f->s.expect = expect;
    f->s.gather = gather;
    f->s.close = close_source;
    f->s.n_inputs = n_x;
    f->s.n_targets = n_y;
    f->s.n_weights = n_w;
    s = &f->s;
    for (int i = 0; i < n_x + n_y + n_w; i++)
        TRY(open_part(db, &parts[i], f, &rows[i], problem));
    TRY(check_lengths(f, rows, problem));
    f->s.rows = rows[0];
    *ret = STEAL(s);
    return ST_OK;
}
