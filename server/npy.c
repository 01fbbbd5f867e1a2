/* The format: "\x93NUMPY", major, minor, the header's length (2 bytes in version 1, 4 later), and the header, a Python dict in text
 * such as {'descr': '<f4', 'fortran_order': False, 'shape': (2, 784), }. Source: numpy/lib/format.py. */
#include "server/npy.h"

#include <stdio.h>
#include <string.h>

#include "engine/base/scope.h"

static const struct {
    char descr[4];
    enum dtype type;
} types[] = {{"<f4", F32}, {"<f8", F64}, {"<f2", F16}, {"<i8", I64}, {"<i4", I32}, {"|u1", U8}, {"|b1", BOOL}};

static enum status not_npy(struct problem *problem, const char *what)
{
    return fail(problem, ST_INVALID, "", "the .npy body %s", what);
}

/* The text behind 'key': in the header, NULL if there is none. */
static const char *value_of_key(const char *header, const char *key)
{
    char quoted[32];
    const char *at;

    snprintf(quoted, sizeof quoted, "'%s':", key);
    at = strstr(header, quoted);
    if (!at)
        return NULL;
    at += strlen(quoted);
    return at + strspn(at, " ");
}

static bool read_shape(const char *s, struct shape *ret)
{
    *ret = (struct shape){0};
    if (!s || *s++ != '(')
        return false;
    for (;;) {
        int64_t x = 0;

        s += strspn(s, " ");
        if (*s == ')')
            return true;
        if (ret->rank == MAX_RANK || *s < '0' || *s > '9')
            return false;
        for (; *s >= '0' && *s <= '9'; s++) {
            if (x > (INT64_MAX - 9) / 10)
                return false;
            x = x * 10 + (*s - '0');
        }
        ret->dim[ret->rank++] = x;
        s += strspn(s, " ");
        if (*s == ',')
            s++;
        else if (*s != ')')
            return false;
    }
}

static enum status read_header(const char *header, struct npy *a, struct problem *problem)
{
    const char *descr = value_of_key(header, "descr"), *order = value_of_key(header, "fortran_order");
    size_t i = 0;

    if (!descr || !order || !read_shape(value_of_key(header, "shape"), &a->shape))
        return not_npy(problem, "has a header without descr, fortran_order and shape");
    if (strncmp(order, "False", 5) != 0)
        return not_npy(problem, "is in Fortran order; save numpy.ascontiguousarray(x)");
    while (i < COUNT(types) && !(descr[0] == '\'' && strncmp(descr + 1, types[i].descr, 3) == 0 && descr[4] == '\''))
        i++;
    if (i == COUNT(types))
        return fail(problem, ST_INVALID, "",
                    "the .npy body has elements of type %.12s; float32, float64, float16, int32, int64, "
                    "uint8 and bool (little-endian) are read",
                    descr);
    a->type = types[i].type;
    return ST_OK;
}

enum status npy_read(const char *bytes, size_t n, struct npy *ret, struct problem *problem)
{
    struct npy a = {0};
    size_t before, length;
    char header[1024];

    if (n < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
        return not_npy(problem, "does not begin as one");
    before = bytes[6] == 1 ? 10 : 12;
    length = (size_t)(uint8_t)bytes[8] | (size_t)(uint8_t)bytes[9] << 8;
    if (before == 12)
        length |= (size_t)(uint8_t)bytes[10] << 16 | (size_t)(uint8_t)bytes[11] << 24;
    if (bytes[6] < 1 || bytes[6] > 3 || length >= sizeof header || n - before < length)
        return not_npy(problem, "has a header that is too long, cut off, or of an unknown version");
    memcpy(header, bytes + before, length);
    header[length] = 0;
    TRY(read_header(header, &a, problem));
    TRY(shape_checked(&a.shape, "", problem));
    a.count = shape_count(&a.shape);
    a.data = bytes + before + length;
    if ((n - before - length) / dtype_bytes(a.type) < (size_t)a.count ||
        (n - before - length) != (size_t)a.count * dtype_bytes(a.type))
        return fail(problem, ST_INVALID, "", "the .npy body has %zu bytes of data, its shape %s needs %zu", n - before - length,
                    shape_text(&a.shape).s, (size_t)a.count * dtype_bytes(a.type));
    *ret = a;
    return ST_OK;
}

static float half(uint16_t h)
{
    uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, fraction = h & 1023, bits;
    float f;

    if (exponent == 0) {
        f = (float)fraction * 0x1p-24f;
        return sign ? -f : f;
    }
    bits = sign | (exponent == 31 ? 0x7F800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&f, &bits, sizeof f);
    return f;
}

void npy_floats(const struct npy *a, float *to)
{
    size_t size = dtype_bytes(a->type);
    const char *from = a->data;

    if (a->type == F32) {
        memcpy(to, from, (size_t)a->count * sizeof *to);
        return;
    }
    for (int64_t i = 0; i < a->count; i++, from += size) { /* memcpy: the body need not be aligned */
        double d;
        int64_t l;
        int32_t n;
        uint16_t h;

        switch (a->type) {
        case F64:
            memcpy(&d, from, sizeof d);
            to[i] = (float)d;
            break;
        case I64:
            memcpy(&l, from, sizeof l);
            to[i] = (float)l;
            break;
        case I32:
            memcpy(&n, from, sizeof n);
            to[i] = (float)n;
            break;
        case F16:
            memcpy(&h, from, sizeof h);
            to[i] = half(h);
            break;
        default:
            to[i] = (float)(uint8_t)*from;
        }
    }
}

void npy_print(struct text *t, const float *v, const struct shape *shape)
{
    CLEAN(text_done) struct text header = text_make(1000);
    size_t total;

    text_add(&header, "{'descr': '<f4', 'fortran_order': False, 'shape': (");
    for (int i = 0; i < shape->rank; i++)
        text_printf(&header, "%lld,%s", (long long)shape->dim[i], i + 1 < shape->rank ? " " : "");
    text_add(&header, "), }");
    total = (10 + header.length + 1 + 63) / 64 * 64; /* the data begins at a multiple of 64 */
    while (10 + header.length + 1 < total)
        text_add_char(&header, ' ');
    text_add_char(&header, '\n');
    text_add_bytes(t, "\x93NUMPY\x01\x00", 8);
    text_add_bytes(t, (char[]){(char)(header.length & 255), (char)(header.length >> 8)}, 2);
    text_add_bytes(t, header.s, header.length);
    text_add_bytes(t, (const char *)v, (size_t)shape_count(shape) * sizeof *v);
}
