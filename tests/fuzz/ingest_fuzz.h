/* One input through one reader of storage/ingest, as the child would run it: in a folder of its own, within small limits. */
#ifndef HORN_TESTS_FUZZ_INGEST_FUZZ_H
#define HORN_TESTS_FUZZ_INGEST_FUZZ_H

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "storage/ingest/ingest.h"

static void fuzz_remove(void)
{
    char path[32];

    for (int i = 0; i < MAX_INGEST_ARRAYS; i++) {
        snprintf(path, sizeof path, "%d.h5", i);
        if (unlink(path) < 0)
            break;
    }
    (void)unlink("plain");
}

/* Every answer is possible but a crash; what was accepted must be complete. */
static int fuzz_ingest(const uint8_t *data, size_t size, const char *format, bool named)
{
    static const struct ingest_limits limits = {.bytes = 1 << 20, .seconds = 5, .memory = 1 << 20};
    static char folder[] = "/tmp/horn-fuzz-XXXXXX";
    static int here = -1, there = -1;
    struct problem problem = {.status = ST_OK};

    if (here < 0) {
        here = open(".", O_PATH | O_DIRECTORY);
        if (!mkdtemp(folder) || (there = open(folder, O_PATH | O_DIRECTORY)) < 0)
            abort();
    }
    if (fchdir(there) < 0) /* and back: the fuzzer's own paths may be relative */
        abort();
    int fd = memfd_create("upload", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    struct arena *mem = arena_new();
    struct output o = {.limits = &limits, .mem = mem, .array = ARENA_ARRAY(mem, struct ingest_array, MAX_INGEST_ARRAYS)};
    enum status status = read_upload(fd, format, named, "fuzz", &o, &problem);

    if (status != ST_OK && (problem.status != status || !*problem.detail))
        abort();
    for (int i = 0; status == ST_OK && i < o.n; i++)
        if (o.array[i].bytes != shape_count(&o.array[i].shape) * (int64_t)dtype_bytes(o.array[i].type) ||
            o.array[i].bytes > limits.bytes)
            abort();
    if (status == ST_OK && o.n == 0)
        abort();
    fuzz_remove();
    if (fchdir(here) < 0)
        abort();
    arena_free(mem);
    (void)close(fd);
    return 0;
}

#endif
