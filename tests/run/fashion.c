/* See fashion.h. */
#include "tests/run/fashion.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "engine/base/arena.h"

struct fashion {
    struct source source;
    uint8_t *images, *labels;
};

static uint8_t *unzip(const char *path, size_t header, size_t bytes)
{
    gzFile f = gzopen(path, "rb");
    uint8_t *all;

    if (!f)
        return NULL;
    all = must_alloc(header + bytes);
    if (gzread(f, all, (unsigned)(header + bytes)) != (int)(header + bytes))
        all = free_null(all);
    gzclose(f);
    if (all)
        memmove(all, all + header, bytes);
    return all;
}

static enum status gather(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem)
{
    const struct fashion *f = (const struct fashion *)s;
    size_t bytes = array == 0 ? 784 : 1;
    const uint8_t *from = array == 0 ? f->images : f->labels;

    (void)problem;
    for (int64_t i = 0; i < n; i++)
        memcpy((uint8_t *)to + (size_t)i * bytes, from + (size_t)row[i] * bytes, bytes);
    return ST_OK;
}

static struct source *close_fashion(struct source *s)
{
    struct fashion *f = (struct fashion *)s;

    free_null(f->images);
    free_null(f->labels);
    return free_null(f);
}

struct source *fashion_source(bool test_set, int64_t rows)
{
    struct fashion *f = must_alloc(sizeof *f);
    const char *part = test_set ? "t10k" : "train-20000";
    char path[128];

    snprintf(path, sizeof path, "examples/fashion-mnist/%s-images-idx3-ubyte.gz", part);
    f->images = unzip(path, 16, (size_t)rows * 784);
    snprintf(path, sizeof path, "examples/fashion-mnist/%s-labels-idx1-ubyte.gz", part);
    f->labels = unzip(path, 8, (size_t)rows);
    f->source = (struct source){.array = {{"fashion/x", U8, SHAPE(28, 28)}, {"fashion/y", U8, SCALAR}},
                                .n_inputs = 1,
                                .n_targets = 1,
                                .rows = rows,
                                .gather = gather,
                                .close = close_fashion};
    if (!f->images || !f->labels)
        return close_fashion(&f->source);
    return &f->source;
}

char *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    char *s = NULL;
    size_t n = 0, got;

    if (!f)
        return NULL;
    do {
        s = must_realloc(s, n + 65537);
        got = fread(s + n, 1, 65536, f);
        n += got;
    } while (got);
    fclose(f);
    s[n] = 0;
    if (bytes)
        *bytes = n;
    return s;
}
