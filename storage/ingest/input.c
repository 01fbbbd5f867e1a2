/* Bytes of an upload: the file itself, or what gzip holds (RFC 1952), of one member or of several in a row. See ingest.h.
 *
 * Deflate cannot shrink better than 1032 to 1 (zlib's own bound: https://zlib.net/zlib_tech.html), so a short file that claims a
 * large array inside is refused before anything is read. */
#include "storage/ingest/ingest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define DEFLATE_RATIO 1032

struct file_state {
    int fd;
    bool gzip, over; /* over: the last gzip member has ended */
    int64_t at;      /* next byte of the file */
    z_stream z;
    unsigned char buffer[64 << 10];
};

static enum status read_at(const struct input *in, int fd, void *to, size_t bytes, int64_t at, size_t *got,
                           struct problem *problem)
{
    ssize_t n;

    do
        n = pread(fd, to, bytes, at);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fail_errno(problem, errno, in->where, "read the upload");
    *got = (size_t)n;
    return ST_OK;
}

static enum status read_plain(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem)
{
    struct file_state *f = in->state;

    TRY(read_at(in, f->fd, to, bytes, f->at, got, problem));
    f->at += (int64_t)*got;
    in->taken += (int64_t)*got;
    return ST_OK;
}

/* More compressed bytes into the buffer, once it is empty. */
static enum status refill(struct input *in, struct problem *problem)
{
    struct file_state *f = in->state;
    size_t n = 0;

    if (f->z.avail_in > 0)
        return ST_OK;
    TRY(read_at(in, f->fd, f->buffer, sizeof f->buffer, f->at, &n, problem));
    f->at += (int64_t)n;
    f->z.next_in = f->buffer;
    f->z.avail_in = (uInt)n;
    return ST_OK;
}

static enum status read_gzip(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem)
{
    struct file_state *f = in->state;

    *got = 0;
    if (bytes > 1 << 30)
        bytes = 1 << 30;
    while (!f->over && *got == 0 && bytes > 0) {
        TRY(refill(in, problem));
        if (f->z.avail_in == 0)
            return fail(problem, ST_INVALID, in->where,
                        "the gzip stream ends too early, after %" PRId64 " bytes of its content: the upload is not complete",
                        in->taken);
        f->z.next_out = to;
        f->z.avail_out = (uInt)bytes;
        int rc = inflate(&f->z, Z_NO_FLUSH);
        *got = bytes - f->z.avail_out;
        in->taken += (int64_t)*got;
        if (rc == Z_STREAM_END) {
            TRY(refill(in, problem));
            f->over = f->z.avail_in == 0;
            if (!f->over && inflateReset(&f->z) != Z_OK)
                rc = Z_STREAM_ERROR;
        }
        if (rc == Z_MEM_ERROR)
            return fail(problem, ST_NO_MEMORY, in->where, "no memory to unpack the gzip stream");
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
            return fail(problem, ST_INVALID, in->where, "the gzip stream is damaged near byte %" PRId64 " of its content: %s",
                        in->taken, f->z.msg ? f->z.msg : "no reason given");
    }
    return ST_OK;
}

static enum status rewind_file(struct input *in, struct problem *problem)
{
    struct file_state *f = in->state;

    f->at = in->taken = 0;
    f->over = false;
    if (f->gzip) {
        f->z.avail_in = 0;
        if (inflateReset(&f->z) != Z_OK)
            return fail(problem, ST_NO_MEMORY, in->where, "no memory to unpack the gzip stream");
    }
    return ST_OK;
}

enum status input_open(int fd, const char *where, struct input *ret, struct problem *problem)
{
    struct file_state *f = must_alloc(sizeof *f);
    struct stat st;
    unsigned char magic[2];

    f->fd = fd;
    *ret = (struct input){.where = where, .read = read_plain, .rewind = rewind_file, .state = f};
    if (fstat(fd, &st) < 0) {
        int error = errno;

        input_close(ret);
        return fail_errno(problem, error, where, "look at the upload");
    }
    ret->size = ret->size_limit = st.st_size;
    if (pread(fd, magic, 2, 0) == 2 && magic[0] == 0x1f && magic[1] == 0x8b) {
        if (inflateInit2(&f->z, 15 + 16) != Z_OK) { /* 16: the gzip wrapper */
            input_close(ret);
            return fail(problem, ST_NO_MEMORY, where, "no memory to unpack the gzip stream");
        }
        f->gzip = true;
        ret->read = read_gzip;
        ret->size = -1;
        ret->size_limit = (int64_t)st.st_size * DEFLATE_RATIO;
    }
    return ST_OK;
}

void input_close(struct input *in)
{
    struct file_state *f = in->state;

    if (!f)
        return;
    if (f->gzip)
        (void)inflateEnd(&f->z);
    free(f);
    in->state = NULL;
}

enum status input_fill(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem)
{
    size_t n = 1;

    for (*got = 0; *got < bytes && n > 0; *got += n)
        TRY(in->read(in, (char *)to + *got, bytes - *got, &n, problem));
    return ST_OK;
}

enum status input_short(const struct input *in, int64_t elements, size_t element_bytes, int64_t got, struct problem *problem)
{
    return fail(problem, ST_INVALID, in->where,
                "the header says %" PRId64 " elements of %zu bytes, the file holds %" PRId64 " bytes", elements, element_bytes,
                got);
}

enum status input_expect(const struct input *in, int64_t elements, size_t element_bytes, struct problem *problem)
{
    int64_t need = elements * (int64_t)element_bytes; /* shape_checked: below 2^47 */

    if (in->size >= 0 && in->size - in->taken != need)
        return input_short(in, elements, element_bytes, in->size - in->taken, problem);
    if (in->size < 0 && need > in->size_limit)
        return fail(problem, ST_INVALID, in->where,
                    "the header says %" PRId64 " elements of %zu bytes, the compressed file can hold at most %" PRId64 " bytes",
                    elements, element_bytes, in->size_limit);
    return ST_OK;
}
