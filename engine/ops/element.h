/* What the reference kernels share: elements of any type as numbers, strides, and small words for shape rules. */
#ifndef HORN_OPS_ELEMENT_H
#define HORN_OPS_ELEMENT_H

#include <math.h>
#include <string.h>

#include "engine/graph/shape.h"

/* A problem of a shape rule; the builder puts the layer's name in front. */
#define no_fit(problem, ...) fail((problem), ST_INVALID, "", __VA_ARGS__)

static inline bool is_float(enum dtype t)
{
    return t == F32 || t == F16 || t == BF16 || t == F64;
}

/* Two dimensions that must be equal; one not known yet agrees with all. */
static inline bool dims_agree(int64_t a, int64_t b)
{
    return a == b || a == -1 || b == -1;
}
static inline int64_t dim_of_both(int64_t a, int64_t b)
{
    return a == -1 ? b : a;
}

static inline bool shapes_agree(const struct shape *a, const struct shape *b)
{
    bool agree = a->rank == b->rank;

    for (int i = 0; agree && i < a->rank; i++)
        agree = dims_agree(a->dim[i], b->dim[i]);
    return agree;
}

static inline float float_of_half(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    float x = exponent == 0    ? ldexpf((float)fraction, -24)
              : exponent == 31 ? (fraction ? NAN : INFINITY)
                               : ldexpf((float)(fraction + 1024), exponent - 25);

    return h & 0x8000 ? -x : x;
}

static inline uint16_t half_of_float(float x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    float a = fabsf(x);
    int exponent;

    if (isnan(x))
        return sign | 0x7e00;
    if (a >= 65520)
        return sign | 0x7c00;
    if (a < 0x1p-14f)
        return sign | (uint16_t)rintf(a * 0x1p24f);
    (void)frexpf(a, &exponent); /* a = m 2^exponent, m in [0.5, 1); a carry out of the fraction raises the exponent field */
    return (uint16_t)(sign + (((exponent + 14) << 10) + (int)rintf(ldexpf(a, 11 - exponent)) - 1024));
}

static inline float float_of_bfloat(uint16_t h)
{
    uint32_t bits = (uint32_t)h << 16;
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint16_t bfloat_of_float(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if (isnan(x))
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

struct kernel_call;

/* For references that read and write float32 alone: where bfloat16 is among the inputs or outputs, runs `reference` on converted
 * copies and returns true. */
bool reference_widened(const struct kernel_call *c, void (*reference)(const struct kernel_call *));

static inline double element(const void *p, enum dtype t, int64_t i)
{
    switch (t) {
    case F32:
        return ((const float *)p)[i];
    case F64:
        return ((const double *)p)[i];
    case I64:
        return (double)((const int64_t *)p)[i];
    case I32:
        return ((const int32_t *)p)[i];
    case U8:
        return ((const uint8_t *)p)[i];
    case BOOL:
        return ((const uint8_t *)p)[i] != 0;
    case F16:
        return float_of_half(((const uint16_t *)p)[i]);
    case BF16:
        return float_of_bfloat(((const uint16_t *)p)[i]);
    case N_DTYPES:
        break;
    }
    return NAN;
}

/* x cut to whole numbers within [low, high]; NaN is 0. */
static inline int64_t whole_within(double x, double low, double high)
{
    return isnan(x) ? 0 : x <= low ? (int64_t)low : x >= high ? (int64_t)high : (int64_t)x;
}

/* Whole types are cut towards zero and held within their range, NaN becomes 0; BOOL is x != 0. */
static inline void element_put(void *p, enum dtype t, int64_t i, double x)
{
    switch (t) {
    case F32:
        ((float *)p)[i] = (float)x;
        break;
    case F64:
        ((double *)p)[i] = x;
        break;
    case I64: /* 2^63 is a double, 2^63 - 1 is not */
        ((int64_t *)p)[i] = x >= 0x1p63 ? INT64_MAX : whole_within(x, -0x1p63, 0x1p63 - 1024);
        break;
    case I32:
        ((int32_t *)p)[i] = (int32_t)whole_within(x, INT32_MIN, INT32_MAX);
        break;
    case U8:
        ((uint8_t *)p)[i] = (uint8_t)whole_within(x, 0, UINT8_MAX);
        break;
    case BOOL:
        ((uint8_t *)p)[i] = x != 0;
        break;
    case F16:
        ((uint16_t *)p)[i] = half_of_float((float)x);
        break;
    case BF16:
        ((uint16_t *)p)[i] = bfloat_of_float((float)x);
        break;
    case N_DTYPES:
        break;
    }
}

/* An element used as an index below n, cut towards zero as a cast does; -1 if it is outside. */
static inline int64_t element_index(const void *p, enum dtype t, int64_t i, int64_t n)
{
    double x = element(p, t, i);

    return x > -1 && x < (double)n ? (int64_t)x : -1;
}

/* Elements between neighbours along each axis, row-major. */
static inline void strides_of(const struct shape *s, int64_t stride[MAX_RANK])
{
    int64_t n = 1;

    for (int i = s->rank - 1; i >= 0; i--) {
        stride[i] = n;
        n *= s->dim[i];
    }
}

/* The same for s broadcast to `to`: 0 along an axis that is stretched. */
static inline void strides_broadcast(const struct shape *s, const struct shape *to, int64_t stride[MAX_RANK])
{
    int64_t own[MAX_RANK];
    int missing = to->rank - s->rank;

    strides_of(s, own);
    for (int i = 0; i < to->rank; i++)
        stride[i] = i < missing || s->dim[i - missing] == 1 ? 0 : own[i - missing];
}

/* Position after `at` in row-major order of s. */
static inline void advance(const struct shape *s, int64_t at[MAX_RANK])
{
    for (int i = s->rank - 1; i >= 0; i--) {
        if (++at[i] < s->dim[i])
            return;
        at[i] = 0;
    }
}

static inline int64_t dot_strides(int rank, const int64_t *at, const int64_t *stride)
{
    int64_t sum = 0;

    for (int i = 0; i < rank; i++)
        sum += at[i] * stride[i];
    return sum;
}

/* Elements of s but for its last axis (rank 0: 1), and its last axis (rank 0: 1). */
static inline int64_t rows_of(const struct shape *s)
{
    int64_t n = 1;

    for (int i = 0; i + 1 < s->rank; i++)
        n *= s->dim[i];
    return n;
}

static inline int64_t width_of(const struct shape *s)
{
    return s->rank ? s->dim[s->rank - 1] : 1;
}

#endif
