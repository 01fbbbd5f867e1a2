/* numpy's .npy of version 1 to 3, in memory, as the body of a predict call and of its answer. */
#ifndef HORN_SERVER_NPY_H
#define HORN_SERVER_NPY_H

#include "engine/base/text.h"
#include "engine/graph/shape.h"

struct npy { /* what a header says; data points into the bytes that were read */
    enum dtype type;
    struct shape shape;
    const void *data;
    int64_t count;
};

/* ST_INVALID: not .npy, cut off, Fortran order, big-endian, or a type that is no number. */
enum status npy_read(const char *bytes, size_t n, struct npy *ret, struct problem *problem);
void npy_floats(const struct npy *a, float *to);                           /* all elements as float32 */
void npy_print(struct text *t, const float *v, const struct shape *shape); /* version 1, '<f4' */

#endif
