/* See put.h. */
#include "tests/storage/put.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "storage/ingest/ingest.h"
#include "tests/test.h"

/* `--ingest`, as hornd's main does it, for ingest_program("/proc/self/exe"). Before main, since the tests' main knows nothing of it. */
__attribute__((constructor)) static void hidden_argument(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--ingest") == 0)
        exit(ingest_main(argc, argv));
}

/* A plain fork is quicker, but a lock of ASan's allocator that the writer's thread holds at that moment is never free in it. */
static const char *reader(void)
{
#if defined(__has_feature) /* clang */
#if __has_feature(address_sanitizer)
    return "/proc/self/exe";
#endif
#elif defined(__SANITIZE_ADDRESS__)
    return "/proc/self/exe";
#endif
    return NULL;
}

struct bench bench_make(void)
{
    struct bench b = {.s = scratch_make(), .limits = {.bytes = 1 << 28, .seconds = 20, .memory = 64 << 20}};

    b.db = scratch_db(&b.s);
    b.mem = arena_new();
    ingest_program(reader());
    return b;
}

void bench_done(struct bench *b)
{
    arena_free(b->mem);
    db_close(b->db);
    scratch_done(&b->s);
}

enum status put_bytes(struct bench *b, const char *array, const void *bytes, size_t n)
{
    char path[512];

    scratch_upload(b->db, bytes, n, path);
    b->problem = (struct problem){0};
    enum status status = datasets_put(b->db, "d", array, path, "", "", &b->limits, b->mem, &b->d, &b->problem);
    CHECK_INT(access(path, F_OK), -1);
    CHECK_INT(scratch_files(&b->s, "tmp"), 0); /* whatever the outcome */
    return status;
}

enum status put_text(struct bench *b, const char *array, const char *text)
{
    return put_bytes(b, array, text, strlen(text));
}

enum status put_file(struct bench *b, const char *array, const char *path)
{
    size_t room = 64 << 20;
    char *block = malloc(room);
    int fd = open(path, O_RDONLY);

    CHECK(fd >= 0);
    ssize_t n = read(fd, block, room);
    CHECK_INT(close(fd), 0);
    enum status status = put_bytes(b, array, block, (size_t)n);
    free(block);
    return status;
}

enum status put_gzip(struct bench *b, const char *array, const void *bytes, size_t n)
{
    z_stream z = {0};
    size_t room = n + n / 100 + 1000;
    unsigned char *to = malloc(room);

    CHECK_INT(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)bytes;
    z.avail_in = (uInt)n;
    z.next_out = to;
    z.avail_out = (uInt)room;
    CHECK_INT(deflate(&z, Z_FINISH), Z_STREAM_END);
    size_t length = room - z.avail_out;
    CHECK_INT(deflateEnd(&z), Z_OK);
    enum status status = put_bytes(b, array, to, length);
    free(to);
    return status;
}

void *npy(const char *descr, bool fortran, const char *shape, const void *body, size_t n, size_t *bytes)
{
    char *to = calloc(1, 10 + 300 + n);
    int length =
        sprintf(to + 10, "{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr, fortran ? "True" : "False", shape);

    while ((10 + length + 1) % 64)
        to[10 + length++] = ' ';
    to[10 + length++] = '\n';
    memcpy(to, "\x93NUMPY\1", 8);
    to[8] = (char)(length & 255);
    to[9] = (char)(length >> 8);
    if (n)
        memcpy(to + 10 + length, body, n);
    *bytes = 10 + (size_t)length + n;
    return to;
}

const void *data_of(struct bench *b, const char *name, struct array_row *row)
{
    for (int i = 0; i < b->d.n_arrays; i++)
        if (strcmp(b->d.arrays[i].name, name) == 0) {
            char path[512];
            void *data = arena_alloc(b->mem, (size_t)b->d.arrays[i].bytes + 1);

            *row = b->d.arrays[i];
            snprintf(path, sizeof path, "%s/%s", db_folder(b->db), row->path);
            int fd = open(path, O_RDONLY);
            CHECK(fd >= 0);
            CHECK_INT(pread(fd, data, (size_t)row->bytes, row->file_offset), row->bytes);
            CHECK_INT(close(fd), 0);
            return data;
        }
    CHECK_TEXT("no such array", name);
    return NULL;
}
