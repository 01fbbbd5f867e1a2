/* JSON numbers from text and back, in bulk.
 *
 * A float array in a request is most of its bytes, so its digits go straight into 64 bits and one or two double operations with
 * exact powers of ten (Clinger 1990, "How to read floating point numbers accurately", has the idea for one operation). The
 * double so found is within 2 units of its last place of the decimal: up to 19 digits are kept exactly, rounding them to a
 * double and each operation cost half a unit, dropped digits less than a hundredth. Rounding it to float gives the float
 * nearest to the decimal unless a midpoint between two floats, a double whose low 29 bits are 2^28, lies between the two;
 * within 8 units of one, and outside the normal floats, strtof decides on the text itself. (float)strtod rounds twice, and
 * differs. */
#include "engine/base/number.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/shortest.h"

enum { MAX_LEVELS = 8, MOST_DIGITS = 19 /* 10^19 < 2^64 */, EXACT_TENS = 22 /* 10^22 is the last exact double */ };

struct decimal { /* mantissa * 10^exponent, and dropped digits behind it */
    uint64_t mantissa;
    long exponent;
    bool negative, dropped;
};

static const double tens[EXACT_TENS + 1];

/* --- one number ----------------------------------------------------------------------------------------------------------- */

static inline bool is_digit(const char *at, const char *end)
{
    return at < end && (unsigned char)(*at - '0') < 10;
}

/* The digits of a mantissa that may not fit 64 bits, [at, end) with at most one point: the first 19 behind leading zeros. */
static __attribute__((noinline)) void scan_long(const char *at, const char *end, struct decimal *d)
{
    bool behind = false; /* the point */
    int n = 0;

    d->mantissa = 0;
    d->exponent = 0;
    for (; at < end; at++) {
        if (*at == '.') {
            behind = true;
        } else if (n < MOST_DIGITS) {
            d->mantissa = d->mantissa * 10 + (uint64_t)(*at - '0');
            n += d->mantissa != 0;
            d->exponent -= behind;
        } else {
            d->exponent += !behind;
            d->dropped |= *at != '0';
        }
    }
}

/* Eight digits at once, if there are eight: their bytes as one number, halves of it joined by multiplication (D. Lemire, "Number
 * parsing at a gigabyte per second", 2021, section 5). */
static inline bool scan_eight(const char *at, const char *end, uint64_t *mantissa)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    const uint64_t low = 0x000000FF000000FFu;
    uint64_t v;

    if (end - at < 8)
        return false;
    memcpy(&v, at, sizeof v);
    if (((v & 0xF0F0F0F0F0F0F0F0u) | ((v + 0x0606060606060606u) & 0xF0F0F0F0F0F0F0F0u) >> 4) != 0x3333333333333333u)
        return false;
    v -= 0x3030303030303030u;
    v = v * 10 + (v >> 8);
    v = ((v & low) * (100 + (1000000ull << 32)) + (v >> 16 & low) * (1 + (10000ull << 32))) >> 32;
    *mantissa = *mantissa * 100000000 + v;
    return true;
#else
    (void)at, (void)end, (void)mantissa;
    return false;
#endif
}

/* -?(0|[1-9][0-9]*)(.[0-9]+)?([eE][+-]?[0-9]+)? at `at`; returns its end, NULL if there is none. */
static inline const char *scan(const char *at, const char *end, struct decimal *d)
{
    const char *start, *point = NULL;
    uint64_t mantissa = 0; /* wraps where scan_long has the last word */
    long exponent = 0;
    bool negative;

    *d = (struct decimal){.negative = at < end && *at == '-'};
    at += d->negative;
    start = at;
    if (!is_digit(at, end))
        return NULL;
    if (*at == '0')
        at++;
    else
        for (; is_digit(at, end); at++)
            mantissa = mantissa * 10 + (uint64_t)(*at - '0');
    if (at < end && *at == '.') {
        point = at++;
        if (!is_digit(at, end))
            return NULL;
        while (scan_eight(at, end, &mantissa))
            at += 8;
        for (; is_digit(at, end); at++)
            mantissa = mantissa * 10 + (uint64_t)(*at - '0');
        d->exponent = point + 1 - at;
    }
    d->mantissa = mantissa;
    if (at - start - (point != NULL) > MOST_DIGITS)
        scan_long(start, at, d);
    if (at < end && (*at | 32) == 'e') {
        at++;
        negative = at < end && *at == '-';
        at += at < end && (*at == '-' || *at == '+');
        if (!is_digit(at, end))
            return NULL;
        for (; is_digit(at, end); at++)
            exponent = exponent < 100000000 ? exponent * 10 + (*at - '0') : exponent; /* far beyond, but no overflow */
        d->exponent += negative ? -exponent : exponent;
    }
    return at;
}

static locale_t c_locale;

static void make_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

/* strtod or strtof of exactly these bytes, whatever the locale. */
static double slow(const char *at, const char *end, bool is_float)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    size_t n = (size_t)(end - at);
    char few[128], *copy = n < sizeof few ? few : must_alloc(n + 1);
    double x;

    pthread_once(&once, make_locale);
    memcpy(copy, at, n);
    copy[n] = 0;
    x = is_float ? (double)strtof_l(copy, NULL, c_locale) : strtod_l(copy, NULL, c_locale);
    if (copy != few)
        free(copy);
    return x;
}

static inline float to_float(const char *at, const char *end, const struct decimal *d)
{
    double x = (double)d->mantissa;
    long e = d->exponent;
    uint64_t bits, low;

    if (d->mantissa == 0)
        return d->negative ? -0.0f : 0.0f;
    if (e < -2 * EXACT_TENS || e > EXACT_TENS)
        return (float)slow(at, end, true);
    if (e < -EXACT_TENS) {
        x /= tens[EXACT_TENS];
        e += EXACT_TENS;
    }
    x = e < 0 ? x / tens[-e] : x * tens[e];
    memcpy(&bits, &x, sizeof bits);
    low = bits & ((1u << 29) - 1);
    if (low - ((1u << 28) - 8) <= 16 || x < 0x1p-125 || x > 0x1p127)
        return (float)slow(at, end, true);
    return (float)(d->negative ? -x : x);
}

bool number_float(const char **at, const char *end, float *ret)
{
    struct decimal d;
    const char *behind = scan(*at, end, &d);

    if (!behind)
        return false;
    *ret = to_float(*at, behind, &d);
    *at = behind;
    return true;
}

bool number_double(const char **at, const char *end, double *ret)
{
    struct decimal d;
    const char *behind = scan(*at, end, &d);

    if (!behind)
        return false;
    if (d.mantissa <= (uint64_t)1 << 53 && !d.dropped && d.exponent >= -EXACT_TENS && d.exponent <= EXACT_TENS) {
        double x = (double)d.mantissa;

        x = d.exponent < 0 ? x / tens[-d.exponent] : x * tens[d.exponent]; /* both exact: one rounding, the right one */
        *ret = d.negative ? -x : x;
    } else {
        *ret = slow(*at, behind, false);
    }
    *at = behind;
    return true;
}

/* --- arrays --------------------------------------------------------------------------------------------------------------- */

struct reader {
    const char *text, *at, *end, *where;
    float *to;
    size_t n, room;
    int level, rank;            /* arrays open here; rank -1 until the first number or empty array is seen */
    int64_t count[MAX_LEVELS];  /* values of the array open at each level */
    int64_t length[MAX_LEVELS]; /* of the first array closed there, else -1 */
    struct problem *problem;
};

static enum status wrong(const struct reader *r, enum status status, int levels, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The place as a JSON pointer of `levels` indices behind `where`, and as a byte. */
static enum status wrong(const struct reader *r, enum status status, int levels, const char *format, ...)
{
    CLEAN(text_done) struct text pointer = text_make(255);
    char what[400];
    va_list args;

    text_add(&pointer, r->where);
    for (int i = 0; i < levels; i++)
        text_printf(&pointer, "/%lld", (long long)r->count[i]);
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return fail(r->problem, status, pointer.s, "%s (byte %zu)", what, (size_t)(r->at - r->text));
}

static inline const char *behind_blanks(const char *at, const char *end)
{
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t'))
        at++;
    return at;
}

static inline void skip_blanks(struct reader *r)
{
    r->at = behind_blanks(r->at, r->end);
}

static bool begins(const struct reader *r, const char *word)
{
    size_t n = strlen(word);

    return (size_t)(r->end - r->at) >= n && memcmp(r->at, word, n) == 0;
}

static enum status no_number(const struct reader *r)
{
    static const char *const words[][2] = {
        {"NaN", "NaN is not a number of JSON; every value must be a finite number"},
        {"Infinity", "Infinity is not a number of JSON; every value must be a finite number"},
        {"-Infinity", "-Infinity is not a number of JSON; every value must be a finite number"},
        {"null", "a number is expected, not null"},
        {"true", "a number is expected, not true"},
        {"false", "a number is expected, not false"},
        {"\"", "a number is expected, not a text"},
        {"{", "a number is expected, not an object"},
    };

    if (r->at >= r->end)
        return wrong(r, ST_MALFORMED, r->level, "a number is expected, not the end of the text");
    for (size_t i = 0; i < COUNT(words); i++) {
        if (begins(r, words[i][0]))
            return wrong(r, ST_MALFORMED, r->level, "%s", words[i][1]);
    }
    if (*r->at == '-' || is_digit(r->at, r->end))
        return wrong(r, ST_MALFORMED, r->level, "this is not a number of JSON");
    return wrong(r, ST_MALFORMED, r->level, "a number is expected, not the byte 0x%02x", (unsigned char)*r->at);
}

/* The numbers behind one at `at`, each behind a comma, as long as nothing else comes: most of a text. What stops it is looked at
 * by others. */
static const char *read_more(struct reader *r, const char *at)
{
    const char *end = r->end;
    size_t first = r->n, n = first;

    while (n < r->room) {
        const char *number = behind_blanks(at, end), *behind;
        struct decimal d;
        float x;

        if (number == end || *number != ',')
            break;
        number = behind_blanks(number + 1, end);
        behind = scan(number, end, &d);
        x = behind ? to_float(number, behind, &d) : INFINITY;
        if (isinf(x))
            break;
        r->to[n++] = x;
        at = behind;
    }
    r->n = n;
    r->count[r->level - 1] += (int64_t)(n - first);
    return at;
}

static enum status read_number(struct reader *r)
{
    struct decimal d;
    const char *behind = scan(r->at, r->end, &d);
    float x;

    if (!behind)
        return no_number(r);
    if (r->rank < 0)
        r->rank = r->level;
    if (r->level != r->rank)
        return wrong(r, ST_INVALID, r->level, "a number stands where the values before it are arrays");
    if (r->n == r->room)
        return wrong(r, ST_TOO_LARGE, r->level, "there are more than %zu numbers", r->room);
    x = to_float(r->at, behind, &d);
    if (isinf(x))
        return wrong(r, ST_MALFORMED, r->level, "the number is beyond the range of float (3.4e38)");
    r->to[r->n++] = x;
    r->at = r->level ? read_more(r, behind) : behind;
    return ST_OK;
}

static enum status open_array(struct reader *r)
{
    if (r->rank >= 0 && r->level == r->rank)
        return wrong(r, ST_INVALID, r->level, "an array stands where the values before it are numbers");
    if (r->level == MAX_LEVELS)
        return wrong(r, ST_INVALID, r->level, "arrays are nested deeper than %d levels", MAX_LEVELS);
    r->count[r->level++] = 0;
    r->at++;
    return ST_OK;
}

static enum status close_array(struct reader *r)
{
    int level = r->level - 1;

    if (r->length[level] < 0)
        r->length[level] = r->count[level];
    if (r->length[level] != r->count[level])
        return wrong(r, ST_INVALID, level, "this row has %lld values, the rows before it have %lld", (long long)r->count[level],
                     (long long)r->length[level]);
    r->level = level;
    r->at++;
    return ST_OK;
}

/* Opens arrays up to the next number, which is read, or up to an array without values, which is closed. */
static enum status read_value(struct reader *r)
{
    for (;;) {
        skip_blanks(r);
        if (r->at >= r->end || *r->at != '[')
            return read_number(r);
        TRY(open_array(r));
        skip_blanks(r);
        if (r->at < r->end && *r->at == ']') {
            if (r->rank < 0)
                r->rank = r->level;
            if (r->level != r->rank)
                return wrong(r, ST_INVALID, r->level - 1,
                             "an array without values stands where the values before it are arrays "
                             "of arrays");
            return close_array(r);
        }
    }
}

enum status number_array(const char *text, size_t bytes, const char *where, float *to, size_t room, int *rank, int64_t dim[8],
                         size_t *used, struct problem *problem)
{
    struct reader r = {.text = text,
                       .at = text,
                       .end = text + bytes,
                       .where = where,
                       .to = to,
                       .room = room,
                       .rank = -1,
                       .length = {-1, -1, -1, -1, -1, -1, -1, -1},
                       .problem = problem};

    TRY(read_value(&r));
    while (r.level > 0) { /* a value was read: what follows it? */
        r.count[r.level - 1]++;
        skip_blanks(&r);
        if (r.at < r.end && *r.at == ',') {
            r.at++;
            TRY(read_value(&r));
        } else if (r.at < r.end && *r.at == ']') {
            TRY(close_array(&r));
        } else if (r.at >= r.end) {
            return wrong(&r, ST_MALFORMED, r.level, "',' or ']' is expected, not the end of the text");
        } else {
            return wrong(&r, ST_MALFORMED, r.level, "',' or ']' is expected, not the byte 0x%02x", (unsigned char)*r.at);
        }
    }
    *rank = r.rank;
    for (int i = 0; i < r.rank; i++)
        dim[i] = r.length[i];
    *used = (size_t)(r.at - text);
    return ST_OK;
}

/* Commas, and brackets, of a block: loops that become vector code. */
enum { COUNT_BLOCK = 32 };

static inline void count_block(const char *at, int *commas, int *brackets)
{
    int c = 0, b = 0;

    for (int i = 0; i < COUNT_BLOCK; i++) {
        c += at[i] == ',';
        b += (at[i] == '[') | (at[i] == ']');
    }
    *commas = c;
    *brackets = b;
}

/* Values are separated by commas: one more than those is enough. */
size_t number_count(const char *text, size_t bytes)
{
    const char *at = text, *end = text + bytes;
    size_t n = 1;
    int level = 0, commas, brackets;

    while (at < end) {
        if (level && end - at >= COUNT_BLOCK) {
            count_block(at, &commas, &brackets);
            if (!brackets) {
                n += (size_t)commas;
                at += COUNT_BLOCK;
                continue;
            }
        }
        for (const char *last = end - at > COUNT_BLOCK ? at + COUNT_BLOCK : end; at < last; at++) {
            n += *at == ',';
            level += *at == '[';
            if ((*at == ']' && --level <= 0) || (*at == ',' && level == 0)) /* the array or the lone number ends here */
                return n;
        }
    }
    return n;
}

/* The last axis, through a piece of stack. */
static const float *print_row(struct text *t, const float *v, int64_t n)
{
    char piece[1024];
    size_t length = 0;

    piece[length++] = '[';
    for (int64_t i = 0; i < n; i++) {
        if (length + SHORTEST_ROOM + 2 > sizeof piece) {
            text_add_bytes(t, piece, length);
            length = 0;
        }
        if (i)
            piece[length++] = ',';
        if (isfinite(v[i])) {
            length += (size_t)shortest_print(v[i], piece + length);
        } else {
            memcpy(piece + length, "null", 4);
            length += 4;
        }
    }
    piece[length++] = ']';
    text_add_bytes(t, piece, length);
    return v + n;
}

static const float *print_axis(struct text *t, const float *v, int rank, const int64_t *dim)
{
    if (rank == 1)
        return print_row(t, v, dim[0]);
    text_add_char(t, '[');
    for (int64_t i = 0; i < dim[0]; i++) {
        if (i)
            text_add_char(t, ',');
        v = print_axis(t, v, rank - 1, dim + 1);
    }
    text_add_char(t, ']');
    return v;
}

void number_print(struct text *t, const float *v, int rank, const int64_t *dim)
{
    if (rank)
        (void)print_axis(t, v, rank, dim);
    else
        text_add_float(t, *v);
}

static const double tens[EXACT_TENS + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                            1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
