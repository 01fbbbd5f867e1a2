/* Reads a file of make_golden.py: named arrays and texts. */
#ifndef HORN_TESTS_GOLDEN_GOLDEN_H
#define HORN_TESTS_GOLDEN_GOLDEN_H

#include "engine/graph/shape.h"

struct golden_record {
    const char *name; /* "w/dense/kernel" */
    char kind;        /* 't' text (terminated), 'f' float32, 'i' int32 */
    struct shape shape;
    size_t bytes;
    const void *data;
};

struct golden {
    char *memory;
    int n;
    struct golden_record record[512];
};

/* Ends the test with the reason if the file cannot be read. */
void golden_read(const char *path, struct golden *g);
void golden_done(struct golden *g);
const struct golden_record *golden_find(const struct golden *g, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
