/* Which format an upload has, and its reader. See ingest.h. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/ingest/ingest.h"

/* The first bytes decide; whatever looks like text is CSV. NULL: nothing that is read here. */
static const char *format_of(const unsigned char *b, size_t n)
{
    if (n >= 6 && memcmp(b, "\x93NUMPY", 6) == 0)
        return "npy";
    if (n >= 4 && (memcmp(b, "PK\3\4", 4) == 0 || memcmp(b, "PK\5\6", 4) == 0))
        return "npz";
    if (n >= 4 && b[0] == 0 && b[1] == 0 && b[2] >= 8 && b[2] <= 14 && b[3] >= 1)
        return "idx";
    for (size_t i = 0; i < n; i++)
        if (b[i] < 0x20 && !isspace(b[i]))
            return NULL;
    return "csv";
}

static enum status unknown(const unsigned char *b, size_t n, const char *where, struct problem *problem)
{
    char hex[3 * 8 + 1] = "";

    for (size_t i = 0; i < n && i < 8; i++)
        sprintf(hex + 3 * i, "%02x ", b[i]);
    if (n >= 8 && memcmp(b, "\x89HDF\r\n\x1a\n", 8) == 0)
        return fail(problem, ST_MEDIA, where, "is an HDF5 file; datasets are read from .npy, .npz, IDX and CSV");
    return fail(problem, ST_MEDIA, where,
                "is neither .npy, .npz, IDX nor CSV (it begins with the bytes %s); say ?format= if it is", hex);
}

/* An archive is read from its end, so what gzip holds must lie in a file first. */
static enum status unpack(struct input *in, int to, int64_t limit, struct problem *problem)
{
    char *block = must_alloc(INGEST_BLOCK);
    enum status status = ST_OK;
    size_t n = 1;

    while (status == ST_OK && n > 0) {
        status = input_fill(in, block, INGEST_BLOCK, &n, problem);
        if (status == ST_OK && in->taken > limit)
            status = fail(problem, ST_TOO_LARGE, in->where,
                          "the gzip stream unpacks to more than the limit of %" PRId64 " bytes", limit);
        for (size_t done = 0; status == ST_OK && done < n;) {
            ssize_t wrote = write(to, block + done, n - done);

            if (wrote > 0)
                done += (size_t)wrote;
            else if (wrote == 0 || errno != EINTR)
                status = fail_errno(problem, wrote ? errno : ENOSPC, in->where, "unpack the upload");
        }
    }
    free(block);
    return status;
}

static enum status read_gzipped_npz(struct input *in, struct output *o, bool named, struct problem *problem)
{
    int plain = open("plain", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (plain < 0)
        return fail_errno(problem, errno, in->where, "make a file to unpack into");
    enum status status = unpack(in, plain, o->limits->bytes, problem);
    if (status == ST_OK)
        status = read_npz(plain, in->where, o, named, problem);
    (void)close(plain);
    return status;
}

enum status read_upload(int fd, const char *format, bool named, const char *where, struct output *o, struct problem *problem)
{
    unsigned char head[512];
    struct input in;
    size_t n = 0;

    TRY(input_open(fd, where, &in, problem));
    enum status status = input_fill(&in, head, sizeof head, &n, problem);
    if (status == ST_OK && n == 0)
        status = fail(problem, ST_INVALID, where, "the upload is empty");
    if (status == ST_OK)
        status = in.rewind(&in, problem);
    if (status == ST_OK && !*format) {
        format = format_of(head, n);
        status = format ? ST_OK : unknown(head, n, where, problem);
    }
    if (status != ST_OK) {
        input_close(&in);
        return status;
    }

    bool one = strcmp(format, "npy") == 0 || strcmp(format, "idx") == 0;
    if (one && named)
        status = fail(problem, ST_INVALID, where, "%s holds one array without a name; PUT it at %s/NAME",
                      *format == 'n' ? "a .npy file" : "an IDX file", where);
    else if (strcmp(format, "npy") == 0)
        status = read_npy(&in, o, NULL, problem);
    else if (strcmp(format, "idx") == 0)
        status = read_idx(&in, o, NULL, problem);
    else if (strcmp(format, "csv") == 0)
        status = read_csv(&in, o, named, problem);
    else if (in.size < 0)
        status = read_gzipped_npz(&in, o, named, problem);
    else
        status = read_npz(fd, where, o, named, problem);
    input_close(&in);
    return status;
}
