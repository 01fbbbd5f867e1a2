/* Shapes and element types: names, counts and numpy's broadcasting.
 *
 * Sizes come from users, so every count is bounded once by shape_checked(); shape_count() saturates and is exact below that
 * bound. The bound of 2^47 bytes is the part of the address space that a program has on x86-64. */
#include "engine/graph/shape.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAX_BYTES ((int64_t)1 << 47)

static const struct {
    const char *name;
    size_t bytes;
} dtypes[N_DTYPES] = {
    [F32] = {"float32", 4}, [F16] = {"float16", 2}, [BF16] = {"bfloat16", 2}, [F64] = {"float64", 8},
    [I64] = {"int64", 8},   [I32] = {"int32", 4},   [U8] = {"uint8", 1},      [BOOL] = {"bool", 1},
};

size_t dtype_bytes(enum dtype t)
{
    return dtypes[t].bytes;
}

const char *dtype_name(enum dtype t)
{
    return dtypes[t].name;
}

bool dtype_find(const char *name, enum dtype *ret)
{
    for (int t = 0; t < N_DTYPES; t++) {
        if (strcmp(dtypes[t].name, name) == 0) {
            *ret = (enum dtype)t;
            return true;
        }
    }
    return false;
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] != b->dim[i])
            return false;
    }
    return true;
}

bool shape_known(const struct shape *s)
{
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] < 0)
            return false;
    }
    return true;
}

int64_t shape_count(const struct shape *s)
{
    int64_t n = 1;

    if (!shape_known(s))
        return -1;
    for (int i = 0; i < s->rank; i++) {
        if (s->dim[i] == 0)
            return 0;
    }
    for (int i = 0; i < s->rank; i++) {
        if (__builtin_mul_overflow(n, s->dim[i], &n))
            return INT64_MAX;
    }
    return n;
}

enum status shape_checked(const struct shape *s, const char *where, struct problem *problem)
{
    int64_t n = 8;

    for (int i = 0; i < s->rank; i++) {
        int64_t d = s->dim[i];

        if (d < -1)
            return fail(problem, ST_INVALID, where, "dimension %d of the shape %s is negative", i, shape_text(s).s);
        if (d > 1 && (__builtin_mul_overflow(n, d, &n) || n > MAX_BYTES))
            return fail(problem, ST_TOO_LARGE, where, "a tensor of shape %s has more than 2^44 elements", shape_text(s).s);
    }
    return ST_OK;
}

int shape_axis(const struct shape *s, int axis)
{
    if (axis < 0)
        axis += s->rank;
    return axis < 0 || axis >= s->rank ? -1 : axis;
}

bool shape_broadcast(const struct shape *a, const struct shape *b, struct shape *ret)
{
    struct shape s = {.rank = a->rank > b->rank ? a->rank : b->rank};

    for (int i = 0; i < s.rank; i++) {
        int ia = i - (s.rank - a->rank), ib = i - (s.rank - b->rank);
        int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];

        if (da == db || db == 1)
            s.dim[i] = da;
        else if (da == 1)
            s.dim[i] = db;
        else if (da < 0 || db < 0)
            s.dim[i] = da < 0 ? db : da;
        else
            return false;
    }
    *ret = s;
    return true;
}

struct shape shape_without(const struct shape *s, int axis)
{
    struct shape r = {.rank = s->rank - 1};

    for (int i = 0; i < r.rank; i++)
        r.dim[i] = s->dim[i < axis ? i : i + 1];
    return r;
}

struct shape shape_with(const struct shape *s, int axis, int64_t dim)
{
    struct shape r = *s;

    r.dim[axis] = dim;
    return r;
}

struct shape_text shape_text(const struct shape *s)
{
    struct shape_text t = {"("};
    size_t n = 1;

    for (int i = 0; i < s->rank; i++) {
        if (i > 0)
            n += (size_t)snprintf(t.s + n, sizeof(t.s) - n, ", ");
        if (s->dim[i] == -1)
            n += (size_t)snprintf(t.s + n, sizeof(t.s) - n, "None");
        else
            n += (size_t)snprintf(t.s + n, sizeof(t.s) - n, "%" PRId64, s->dim[i]);
    }
    snprintf(t.s + n, sizeof(t.s) - n, s->rank == 1 ? ",)" : ")");
    return t;
}
