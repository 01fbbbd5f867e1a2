/* See golden.h; the format is described in make_golden.py. */
#include "tests/golden/golden.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/scope.h"
#include "tests/test.h"

static uint32_t read_u32(const unsigned char *at)
{
    return at[0] | at[1] << 8 | at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The whole file with a zero behind it. */
static char *read_all(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    char *all = NULL;
    long size = -1;

    if (f && fseek(f, 0, SEEK_END) == 0)
        size = ftell(f);
    if (size >= 0 && fseek(f, 0, SEEK_SET) == 0) {
        all = calloc(1, (size_t)size + 1);
        if (fread(all, 1, (size_t)size, f) != (size_t)size)
            size = -1;
    }
    if (f)
        fclose(f);
    if (size < 8 || memcmp(all, "HORNGOLD", 8) != 0)
        fail_msg("%s is no golden file", path);
    *bytes = (size_t)size;
    return all;
}

void golden_read(const char *path, struct golden *g)
{
    size_t all, at = 8, copied = 0;
    char *file = read_all(path, &all);

    /* copied, so that each array is aligned and each text terminated: at most 80 bytes more per record */
    g->memory = calloc(1, all + 96 * COUNT(g->record));
    g->n = 0;
    while (at < all && g->n < (int)COUNT(g->record)) {
        struct golden_record *r = &g->record[g->n++];
        uint32_t length = read_u32((unsigned char *)file + at);
        size_t count = 1;

        *r = (struct golden_record){.name = g->memory + copied};
        memcpy(g->memory + copied, file + at + 4, length);
        copied += length + 1;
        at += 4 + length;
        r->kind = "tfi"[(int)file[at]];
        r->shape.rank = file[at + 1];
        at += 2;
        for (int i = 0; i < r->shape.rank; i++, at += 4) {
            r->shape.dim[i] = read_u32((unsigned char *)file + at);
            count *= (size_t)r->shape.dim[i];
        }
        r->bytes = count * (r->kind == 't' ? 1 : 4);
        copied = (copied + 15) & ~(size_t)15;
        r->data = g->memory + copied;
        memcpy(g->memory + copied, file + at, r->bytes);
        copied += r->bytes + 1;
        at += r->bytes;
    }
    free(file);
    if (at != all)
        fail_msg("%s is cut or has too many records", path);
}

void golden_done(struct golden *g)
{
    free(g->memory);
    g->memory = NULL;
    g->n = 0;
}

const struct golden_record *golden_find(const struct golden *g, const char *format, ...)
{
    char name[256];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof(name), format, args);
    va_end(args);
    for (int i = 0; i < g->n; i++) {
        if (strcmp(g->record[i].name, name) == 0)
            return &g->record[i];
    }
    return NULL;
}
