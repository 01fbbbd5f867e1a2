/* The files that the child makes: each an .h5 of one contiguous array "/data". See ingest.h.
 *
 * HDF5 makes the file with the space reserved and closes it; the data are then streamed to their place by pwrite, so memory stays at
 * one block whatever the size. Disk space is asked for at the start: a full disk is found before the work. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/hdf5.h"
#include "storage/ingest/ingest.h"

enum status output_begin(struct output *o, const char *name, enum dtype type, const struct shape *shape, const char *where,
                         struct output_array *ret, struct problem *problem)
{
    OWNED(h5_free) struct h5 *f = NULL;
    int64_t bytes, offset;

    TRY(shape_checked(shape, where, problem));
    bytes = shape_count(shape) * (int64_t)dtype_bytes(type);
    if (bytes > o->limits->bytes - o->bytes)
        return fail(problem, ST_TOO_LARGE, where,
                    "an array of %s %s takes %" PRId64 " bytes, %" PRId64 " of the upload's limit of %" PRId64 " are left",
                    dtype_name(type), shape_text(shape).s, bytes, o->limits->bytes - o->bytes, o->limits->bytes);
    if (o->n == MAX_INGEST_ARRAYS)
        return fail(problem, ST_TOO_LARGE, where, "more than %d arrays in one upload", MAX_INGEST_ARRAYS);

    const char *file = arena_print(o->mem, "%d.h5", o->n);
    TRY(h5_create(file, where, &f, problem));
    TRY(h5_reserve(f, "/data", type, shape, &offset, problem));
    TRY(h5_close(STEAL(f), problem));
    int fd = open(file, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(problem, errno, where, "open the stored array");
    if (bytes > 0 && fallocate(fd, 0, offset, bytes) < 0 && (errno == ENOSPC || errno == EDQUOT)) {
        (void)close(fd);
        return fail(problem, ST_DISK_FULL, where, "no space left on the disk for an array of %" PRId64 " bytes", bytes);
    }
    o->bytes += bytes;
    struct ingest_array *row = &o->array[o->n++];
    *row = (struct ingest_array){
        .name = arena_text(o->mem, name), .file = file, .type = type, .shape = *shape, .bytes = bytes, .offset = offset};
    *ret = (struct output_array){
        .fd = fd, .at = offset, .end = offset + bytes, .row = row, .s = {.min = INFINITY, .max = -INFINITY}};
    return ST_OK;
}

enum status output_write(struct output_array *a, const void *data, size_t bytes, const char *where, struct problem *problem)
{
    const char *from = data;

    if ((int64_t)bytes > a->end - a->at)
        return fail(problem, ST_INTERNAL, where, "more data than the array has room for");
    while (bytes > 0) {
        ssize_t n = pwrite(a->fd, from, bytes, a->at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return fail_errno(problem, n < 0 ? errno : ENOSPC, where, "write the stored array");
        from += n;
        a->at += n;
        bytes -= (size_t)n;
    }
    return ST_OK;
}

enum status output_end(struct output_array *a, const char *where, struct problem *problem)
{
    if (a->at != a->end)
        return fail(problem, ST_INTERNAL, where, "less data than the array has room for");
    a->row->min = a->s.n ? a->s.min : NAN;
    a->row->max = a->s.n ? a->s.max : NAN;
    a->row->mean = a->s.n ? a->s.sum / (double)a->s.n : NAN;
    int fd = a->fd;
    a->fd = -1;
    return close(fd) == 0 ? ST_OK : fail_errno(problem, errno, where, "close the stored array");
}

void output_drop(struct output_array *a)
{
    if (a->fd >= 0)
        (void)close(a->fd);
    a->fd = -1;
}

/* Converts and hands on, block by block. `take` gets n stored elements. */
static enum status stream_elements(struct input *in, const struct element *e, bool foreign, int64_t count, struct statistics *s,
                                   enum status (*take)(void *arg, const void *data, int64_t n, struct problem *problem),
                                   void *arg, struct problem *problem)
{
    int64_t block = INGEST_BLOCK / 8;
    char *raw = must_alloc(INGEST_BLOCK), *stored = must_alloc(INGEST_BLOCK);
    enum status status = ST_OK;

    for (int64_t done = 0; status == ST_OK && done < count;) {
        int64_t n = count - done < block ? count - done : block;
        size_t got;

        status = input_fill(in, raw, (size_t)n * e->bytes, &got, problem);
        if (status == ST_OK && got < (size_t)n * e->bytes)
            status = input_short(in, count, e->bytes, done * (int64_t)e->bytes + (int64_t)got, problem);
        if (status == ST_OK)
            status = element_convert(e, foreign, raw, n, stored, s, in->where, problem);
        if (status == ST_OK)
            status = take(arg, stored, n, problem);
        done += n;
    }
    free(raw);
    free(stored);
    return status;
}

struct taker {
    struct output_array *a;
    const char *where;
    size_t bytes;
    char *to; /* in memory instead */
};

static enum status take_file(void *arg, const void *data, int64_t n, struct problem *problem)
{
    struct taker *t = arg;

    return output_write(t->a, data, (size_t)n * t->bytes, t->where, problem);
}

static enum status take_memory(void *arg, const void *data, int64_t n, struct problem *problem)
{
    struct taker *t = arg;

    (void)problem;
    memcpy(t->to, data, (size_t)n * t->bytes);
    t->to += (size_t)n * t->bytes;
    return ST_OK;
}

/* From `from`, where the first index runs fastest, to the file, where the last does. */
static enum status turn_around(const char *from, const struct shape *shape, struct taker *t, struct problem *problem)
{
    int64_t stride[MAX_RANK], index[MAX_RANK] = {0}, at = 0, count = shape_count(shape);
    size_t bytes = t->bytes, room = INGEST_BLOCK / bytes, n = 0;
    char *block = must_alloc(INGEST_BLOCK);
    enum status status = ST_OK;

    for (int i = 0; i < shape->rank; i++)
        stride[i] = i ? stride[i - 1] * shape->dim[i - 1] : 1;
    for (int64_t done = 0; status == ST_OK && done < count; done++) {
        memcpy(block + n * bytes, from + (size_t)at * bytes, bytes);
        if (++n == room || done == count - 1) {
            status = output_write(t->a, block, n * bytes, t->where, problem);
            n = 0;
        }
        for (int i = shape->rank - 1; i >= 0; i--) {
            at += stride[i];
            if (++index[i] < shape->dim[i])
                break;
            at -= stride[i] * shape->dim[i];
            index[i] = 0;
        }
    }
    free(block);
    return status;
}

static bool needs_turning(const struct shape *shape)
{
    int above_one = 0;

    for (int i = 0; i < shape->rank; i++)
        above_one += shape->dim[i] > 1;
    return above_one > 1;
}

enum status copy_elements(struct input *in, struct output *o, const char *name, const struct element *e, bool foreign,
                          bool fortran, const struct shape *shape, struct problem *problem)
{
    CLEAN(output_drop) struct output_array a = {.fd = -1};
    struct taker t = {.a = &a, .where = in->where, .bytes = dtype_bytes(e->stored)};
    int64_t count = shape_count(shape), bytes = count * (int64_t)t.bytes;
    char extra;
    size_t more = 0;

    TRY(input_expect(in, count, e->bytes, problem));
    if (fortran && needs_turning(shape) && bytes > o->limits->memory / 2)
        return fail(problem, ST_TOO_LARGE, in->where,
                    "the array is in Fortran order and takes %" PRId64 " bytes; up to %" PRId64
                    " can be turned around, save it with numpy.ascontiguousarray()",
                    bytes, o->limits->memory / 2);
    TRY(output_begin(o, name, e->stored, shape, in->where, &a, problem));
    if (fortran && needs_turning(shape)) {
        char *all = malloc((size_t)bytes);

        if (!all)
            return fail(problem, ST_NO_MEMORY, in->where, "no memory for %" PRId64 " bytes to turn the array around", bytes);
        t.to = all;
        enum status status = stream_elements(in, e, foreign, count, &a.s, take_memory, &t, problem);
        if (status == ST_OK)
            status = turn_around(all, shape, &t, problem);
        free(all);
        TRY(status);
    } else {
        TRY(stream_elements(in, e, foreign, count, &a.s, take_file, &t, problem));
    }
    TRY(in->read(in, &extra, 1, &more, problem)); /* also makes an archive check its sum */
    if (more > 0)
        return fail(problem, ST_INVALID, in->where,
                    "the header says %" PRId64 " elements of %zu bytes, the file goes on behind them", count, e->bytes);
    return output_end(&a, in->where, problem);
}
