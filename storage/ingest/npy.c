/* numpy's .npy, format versions 1, 2 and 3.
 *
 * Source: numpy/lib/format.py. Magic \x93NUMPY, major, minor, length of the header (2 bytes in version 1, 4 in 2 and 3; little-endian),
 * a Python dictionary with the keys descr, fortran_order, shape, then the data without padding. */
#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ingest/ingest.h"

#define MAX_HEADER (64 << 10) /* numbers need some 128 bytes; only structured types get long */

struct header {
    char descr[64];
    bool structured, fortran, has_descr, has_order, has_shape;
    struct shape shape;
};

struct scan { /* over the dictionary's text */
    const char *at;
    const char *where;
    struct problem *problem;
};

static enum status damaged(const struct scan *s, const char *what)
{
    return fail(s->problem, ST_INVALID, s->where, "the .npy header is damaged: %s expected at \"%.40s\"", what, s->at);
}

static bool accept(struct scan *s, const char *token)
{
    size_t n = strlen(token);

    s->at += strspn(s->at, " \t\r\n");
    if (strncmp(s->at, token, n) != 0)
        return false;
    s->at += n;
    return true;
}

static enum status scan_text(struct scan *s, char *to, size_t room)
{
    char quote = accept(s, "'") ? '\'' : accept(s, "\"") ? '"' : 0;
    const char *end = quote ? strchr(s->at, quote) : NULL;

    if (!end || (size_t)(end - s->at) >= room)
        return damaged(s, "a short text in quotes");
    memcpy(to, s->at, (size_t)(end - s->at));
    to[end - s->at] = 0;
    s->at = end + 1;
    return ST_OK;
}

static enum status scan_shape(struct scan *s, struct shape *shape)
{
    if (!accept(s, "("))
        return damaged(s, "a tuple");
    while (!accept(s, ")")) {
        char *end;

        if (!isdigit((unsigned char)*s->at))
            return damaged(s, "a number of elements");
        long long dim = strtoll(s->at, &end, 10); /* beyond the range: LLONG_MAX, which shape_checked refuses */
        if (shape->rank == MAX_RANK)
            return fail(s->problem, ST_INVALID, s->where, "the array has more than %d dimensions", MAX_RANK);
        shape->dim[shape->rank++] = dim;
        s->at = end;
        (void)accept(s, "L"); /* Python 2's long */
        if (!accept(s, ",") && *s->at != ')' && *s->at != ' ')
            return damaged(s, "a comma");
    }
    return ST_OK;
}

/* [('a', '<f4'), ...]: only its extent matters, since it is refused. */
static void skip_list(struct scan *s)
{
    s->at += strlen(s->at);
}

static enum status scan_header(struct scan *s, struct header *h)
{
    char key[32];

    if (!accept(s, "{"))
        return damaged(s, "a dictionary");
    while (!accept(s, "}")) {
        TRY(scan_text(s, key, sizeof key));
        if (!accept(s, ":"))
            return damaged(s, "a colon");
        if (strcmp(key, "descr") == 0) {
            h->has_descr = true;
            if (accept(s, "[")) {
                h->structured = true;
                skip_list(s);
                return ST_OK;
            }
            TRY(scan_text(s, h->descr, sizeof h->descr));
        } else if (strcmp(key, "fortran_order") == 0) {
            h->has_order = true;
            h->fortran = accept(s, "True");
            if (!h->fortran && !accept(s, "False"))
                return damaged(s, "True or False");
        } else if (strcmp(key, "shape") == 0) {
            if (h->has_shape)
                return damaged(s, "each key once");
            h->has_shape = true;
            TRY(scan_shape(s, &h->shape));
        } else {
            return fail(s->problem, ST_INVALID, s->where, "the .npy header has an unknown key \"%s\"", key);
        }
        (void)accept(s, ",");
    }
    return h->has_descr && h->has_order && h->has_shape ? ST_OK : damaged(s, "descr, fortran_order and shape");
}

/* "<f4" -> an element; what is no number is refused by the name that numpy gives it. */
static enum status scan_type(const struct header *h, const char *where, const struct element **ret, bool *foreign,
                             struct problem *problem)
{
    static const char *const names[][2] = {
        {"O", "Python objects"}, {"U", "text"},    {"S", "bytes"}, {"a", "bytes"},    {"M", "dates"},
        {"m", "time spans"},     {"c", "complex"}, {"V", "raw"},   {"f", "float128"},
    };
    const char *d = h->descr;
    char order = strchr("<>|=", d[0]) && d[0] ? *d++ : '=';
    const struct element *e = *d ? element_find(*d, (size_t)strtoul(d + 1, NULL, 10)) : NULL;

    if (h->structured)
        return fail(problem, ST_INVALID, where,
                    "the array is structured (it has named fields); save each field as its own array");
    if (e && d[1 + strspn(d + 1, "0123456789")] == 0) {
        *ret = e;
        *foreign = (order == '>') == (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) && order != '|' && order != '=';
        return ST_OK;
    }
    for (size_t i = 0; i < COUNT(names); i++)
        if (*d == names[i][0][0])
            return fail(problem, ST_INVALID, where,
                        "the array holds %s (numpy type %s); bool, integers and float16 to float64 are read", names[i][1],
                        h->descr);
    return fail(problem, ST_INVALID, where, "the numpy type \"%s\" is not known", h->descr);
}

enum status read_npy(struct input *in, struct output *o, const char *name, struct problem *problem)
{
    unsigned char start[12];
    char *text;
    size_t got = 0, length = 0;
    struct header h = {.shape = SCALAR};
    const struct element *e = NULL;
    bool foreign = false;

    TRY(input_fill(in, start, 10, &got, problem));
    if (got < 6 || memcmp(start, "\x93NUMPY", 6) != 0)
        return fail(problem, ST_INVALID, in->where, "is no .npy file: it does not begin with \\x93NUMPY");
    if (got < 10)
        return fail(problem, ST_INVALID, in->where, "the .npy file ends within its header, after %zu bytes", got);
    if (start[6] < 1 || start[6] > 3)
        return fail(problem, ST_INVALID, in->where, ".npy format version %d.%d; 1, 2 and 3 are read", start[6], start[7]);
    length = (size_t)start[8] | (size_t)start[9] << 8;
    if (start[6] > 1) {
        TRY(input_fill(in, start + 10, 2, &got, problem));
        if (got < 2)
            return fail(problem, ST_INVALID, in->where, "the .npy file ends within its header");
        length |= (size_t)start[10] << 16 | (size_t)start[11] << 24;
    }
    if (length > MAX_HEADER)
        return fail(problem, ST_INVALID, in->where, "the .npy header has %zu bytes, at most %d are read", length, MAX_HEADER);

    text = must_alloc(length + 1);
    enum status status = input_fill(in, text, length, &got, problem);
    if (status == ST_OK && got < length)
        status = fail(problem, ST_INVALID, in->where, "the .npy header should have %zu bytes, the file ends after %zu of them",
                      length, got);
    if (status == ST_OK)
        status = scan_header(&(struct scan){text, in->where, problem}, &h);
    free(text);
    TRY(status);
    TRY(scan_type(&h, in->where, &e, &foreign, problem));
    TRY(shape_checked(&h.shape, in->where, problem));
    return copy_elements(in, o, name, e, foreign, h.fortran, &h.shape, problem);
}
