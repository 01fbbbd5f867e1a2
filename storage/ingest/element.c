/* Elements of foreign files as Horn stores them. See ingest.h.
 *
 *   bool bool; uint8 uint8; int8, int16, uint16, int32 int32; uint32, int64, uint64 int64; float16, float32 float32; float64 float64
 *
 * Every value survives, except an uint64 above 2^63 - 1, which is refused. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "storage/ingest/ingest.h"

static const struct element elements[]; /* at the end */

static float from_half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = (h >> 10) & 31, mantissa = h & 1023, bits;
    float f;

    if (exponent == 0) { /* zero, or below the smallest normal number: mantissa 2^-24 */
        f = (float)mantissa * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint16_t swap2(uint16_t x)
{
    return __builtin_bswap16(x);
}
static inline uint32_t swap4(uint32_t x)
{
    return __builtin_bswap32(x);
}
static inline uint64_t swap8(uint64_t x)
{
    return __builtin_bswap64(x);
}
static inline uint8_t swap1(uint8_t x)
{
    return x;
}

static inline void count(struct statistics *s, double x)
{
    if (x < s->min)
        s->min = x;
    if (x > s->max)
        s->max = x;
    s->sum += x;
    s->n++;
}

/* raw: unsigned integer of the width; from: its type; to: stored type. */
#define CONVERT(width, raw, from, to, value)                      \
    do {                                                          \
        to *o = out;                                              \
        for (int64_t i = 0; i < n; i++) {                         \
            raw r;                                                \
            from x;                                               \
            memcpy(&r, (const char *)in + i * (width), sizeof r); \
            if (foreign)                                          \
                r = swap##width(r);                               \
            memcpy(&x, &r, sizeof x);                             \
            o[i] = (value);                                       \
            if ((double)o[i] == (double)o[i])                     \
                count(s, (double)o[i]);                           \
        }                                                         \
    } while (0)

static enum status check_unsigned(const uint64_t *in, bool foreign, int64_t n, const char *where, struct problem *problem)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t x = foreign ? swap8(in[i]) : in[i];

        if (x > INT64_MAX)
            return fail(problem, ST_INVALID, where, "holds %" PRIu64 "; unsigned 64-bit numbers are kept up to 2^63 - 1", x);
    }
    return ST_OK;
}

enum status element_convert(const struct element *e, bool foreign, const void *in, int64_t n, void *out, struct statistics *s,
                            const char *where, struct problem *problem)
{
    switch (e->kind << 8 | (int)e->bytes) {
    case 'b' << 8 | 1:
        CONVERT(1, uint8_t, uint8_t, uint8_t, x != 0);
        break;
    case 'u' << 8 | 1:
        CONVERT(1, uint8_t, uint8_t, uint8_t, x);
        break;
    case 'i' << 8 | 1:
        CONVERT(1, uint8_t, int8_t, int32_t, x);
        break;
    case 'i' << 8 | 2:
        CONVERT(2, uint16_t, int16_t, int32_t, x);
        break;
    case 'u' << 8 | 2:
        CONVERT(2, uint16_t, uint16_t, int32_t, x);
        break;
    case 'i' << 8 | 4:
        CONVERT(4, uint32_t, int32_t, int32_t, x);
        break;
    case 'u' << 8 | 4:
        CONVERT(4, uint32_t, uint32_t, int64_t, x);
        break;
    case 'i' << 8 | 8:
        CONVERT(8, uint64_t, int64_t, int64_t, x);
        break;
    case 'u' << 8 | 8:
        TRY(check_unsigned(in, foreign, n, where, problem));
        CONVERT(8, uint64_t, uint64_t, int64_t, (int64_t)x);
        break;
    case 'f' << 8 | 2:
        CONVERT(2, uint16_t, uint16_t, float, from_half(x));
        break;
    case 'f' << 8 | 4:
        CONVERT(4, uint32_t, float, float, x);
        break;
    case 'f' << 8 | 8:
        CONVERT(8, uint64_t, double, double, x);
        break;
    }
    return ST_OK;
}

const struct element *element_find(char kind, size_t bytes)
{
    for (const struct element *e = elements; e->name; e++)
        if (e->kind == kind && e->bytes == bytes)
            return e;
    return NULL;
}

static const struct element elements[] = {
    {"bool", 'b', 1, BOOL},  {"uint8", 'u', 1, U8},    {"int8", 'i', 1, I32},    {"int16", 'i', 2, I32},
    {"uint16", 'u', 2, I32}, {"int32", 'i', 4, I32},   {"uint32", 'u', 4, I64},  {"int64", 'i', 8, I64},
    {"uint64", 'u', 8, I64}, {"float16", 'f', 2, F32}, {"float32", 'f', 4, F32}, {"float64", 'f', 8, F64},
    {NULL, 0, 0, N_DTYPES},
};
