/* Dimensions and element types. A dimension of -1 is not known yet and passes every shape rule. */
#ifndef HORN_GRAPH_SHAPE_H
#define HORN_GRAPH_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"

#define MAX_RANK 8

enum dtype { F32, F16, BF16, F64, I64, I32, U8, BOOL, N_DTYPES };

size_t dtype_bytes(enum dtype t);
const char *dtype_name(enum dtype t); /* "float32", as numpy names it */
bool dtype_find(const char *name, enum dtype *ret);

struct shape {
    int rank;
    int64_t dim[MAX_RANK];
};

/* SHAPE(32, 10): at least one dimension. SCALAR has rank 0. */
#define SHAPE(...) ((struct shape){.rank = (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), .dim = {__VA_ARGS__}})
#define SCALAR     ((struct shape){.rank = 0})

bool shape_equal(const struct shape *a, const struct shape *b);
bool shape_known(const struct shape *s);
int64_t shape_count(const struct shape *s); /* elements; -1 if a dimension is unknown. Never overflows: see shape_checked */
/* ST_TOO_LARGE if elements * 8 bytes does not fit 2^47, ST_INVALID for a dimension < -1. */
enum status shape_checked(const struct shape *s, const char *where, struct problem *problem);
int shape_axis(const struct shape *s, int axis); /* -1 is the last; -1 back if out of range */
/* numpy's rule: aligned at the last axis, 1 stretches. false: they do not fit. */
bool shape_broadcast(const struct shape *a, const struct shape *b, struct shape *ret);
struct shape shape_without(const struct shape *s, int axis);
struct shape shape_with(const struct shape *s, int axis, int64_t dim); /* one dimension replaced */

/* "(32, 28, 28)", "()", unknown as "None"; by value, so it lives to the end of the full expression. */
struct shape_text {
    char s[MAX_RANK * 22 + 4];
};
struct shape_text shape_text(const struct shape *s);

#endif
