/* Growing text. An empty text points to one shared terminator and holds no memory; `nothing` is therefore never written.
 *
 * Text that passes the limit is cut in front of a UTF-8 sequence, never inside one, and takes nothing more until it is cleared:
 * the pieces of a later call would otherwise stick to the middle of an earlier one.
 */
#include "engine/base/text.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/scope.h"
#include "engine/base/shortest.h"

enum { FIRST_ROOM = 64, NUMBER_ROOM = 40 };

static char nothing[1];

/* Room for n more bytes, as far as the limit allows; returns how many of them fit. */
static size_t reserve(struct text *t, size_t n)
{
    size_t fits = t->limit - t->length, room;

    if (n > fits)
        t->cut = true;
    else
        fits = n;
    if (t->length + fits < t->room)
        return fits;
    room = t->room * 2 > FIRST_ROOM ? t->room * 2 : FIRST_ROOM;
    if (room < t->length + fits + 1)
        room = t->length + fits + 1;
    if (room > t->limit + 1)
        room = t->limit + 1;
    t->s = must_realloc(t->room ? t->s : NULL, room);
    t->room = room;
    t->s[t->length] = 0;
    return fits;
}

/* Where to cut s[0..n) if only `fits` bytes of it fit. */
static size_t cut_before_sequence(const char *s, size_t fits)
{
    for (size_t back = 0; back < 4 && back <= fits; back++) {
        if (((unsigned char)s[fits - back] & 0xC0) != 0x80)
            return fits - back;
    }
    return fits; /* not UTF-8 at all */
}

struct text text_make(size_t limit)
{
    return (struct text){.s = nothing, .limit = limit < SIZE_MAX / 4 ? limit : SIZE_MAX / 4};
}

void text_done(struct text *t)
{
    if (t->room)
        free(t->s);
    *t = (struct text){.s = nothing, .limit = t->limit};
}

void text_clear(struct text *t)
{
    t->length = 0;
    t->cut = false;
    if (t->room)
        t->s[0] = 0;
}

void text_add_bytes(struct text *t, const char *s, size_t n)
{
    size_t fits;

    if (t->cut || n == 0)
        return;
    fits = reserve(t, n);
    if (fits < n)
        fits = cut_before_sequence(s, fits);
    if (fits == 0)
        return;
    memcpy(t->s + t->length, s, fits);
    t->length += fits;
    t->s[t->length] = 0;
}

void text_add(struct text *t, const char *s)
{
    text_add_bytes(t, s, strlen(s));
}

void text_add_char(struct text *t, char c)
{
    if (!t->cut && t->length + 1 < t->room) { /* the common case, without a call */
        t->s[t->length++] = c;
        t->s[t->length] = 0;
        return;
    }
    text_add_bytes(t, &c, 1);
}

void text_printf(struct text *t, const char *format, ...)
{
    va_list args, again;
    size_t fits;
    int n;

    if (t->cut)
        return;
    va_start(args, format);
    va_copy(again, args);
    n = vsnprintf(t->room ? t->s + t->length : NULL, t->room ? t->room - t->length : 0, format, args);
    va_end(args);
    if (n > 0 && t->length + (size_t)n >= t->room) { /* the first try only measured */
        fits = reserve(t, (size_t)n);
        if (fits)
            vsnprintf(t->s + t->length, fits + 1, format, again);
        if (fits < (size_t)n) { /* the byte that did not fit is unknown: look whether the end is a whole sequence */
            size_t back = 1;

            while (back < 4 && back < fits && ((unsigned char)t->s[t->length + fits - back] & 0xC0) == 0x80)
                back++;
            if (fits && ((unsigned char)t->s[t->length + fits - back] & 0xC0) == 0xC0) {
                unsigned char lead = (unsigned char)t->s[t->length + fits - back];
                size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;

                if (back < want)
                    fits -= back;
            }
        }
        n = (int)fits;
    }
    va_end(again);
    if (n > 0)
        t->length += (size_t)n;
    if (t->room)
        t->s[t->length] = 0;
}

/* Unicode 15, table 3-7: no overlong forms, no surrogates, nothing above U+10FFFF. */
int text_sequence(const char *s, const char *end)
{
    const unsigned char *p = (const unsigned char *)s;
    unsigned char low = 0x80, high = 0xBF;
    int n;

    if (s >= end || p[0] > 0xF4 || (p[0] >= 0x80 && p[0] < 0xC2))
        return 0;
    if (p[0] < 0x80)
        return 1;
    n = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
    if (end - s < n)
        return 0;
    if (p[0] == 0xE0)
        low = 0xA0;
    if (p[0] == 0xED)
        high = 0x9F;
    if (p[0] == 0xF0)
        low = 0x90;
    if (p[0] == 0xF4)
        high = 0x8F;
    if (p[1] < low || p[1] > high)
        return 0;
    for (int i = 2; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    }
    return n;
}

void text_add_json(struct text *t, const char *s)
{
    static const char escapes[][2] = {{'"', '"'},  {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'},
                                      {'\n', 'n'}, {'\r', 'r'},  {'\t', 't'}};
    const char *p = s, *plain = s, *end;

    if (!s) {
        text_add(t, "null");
        return;
    }
    end = s + strlen(s);
    text_add_char(t, '"');
    while (p < end) {
        int n = text_sequence(p, end);
        size_t i = 0;

        if (n > 1 || (n == 1 && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')) {
            p += n;
            continue;
        }
        text_add_bytes(t, plain, (size_t)(p - plain));
        while (i < COUNT(escapes) && escapes[i][0] != *p)
            i++;
        if (n == 0)
            text_add(t, "\xEF\xBF\xBD");
        else if (i < COUNT(escapes))
            text_add_bytes(t, (char[]){'\\', escapes[i][1]}, 2);
        else
            text_printf(t, "\\u%04x", *p);
        plain = ++p;
    }
    text_add_bytes(t, plain, (size_t)(p - plain));
    text_add_char(t, '"');
}

/* A whole number below 10^15 in plain digits. */
static void add_whole(struct text *t, double x)
{
    char digits[NUMBER_ROOM], *at = digits + sizeof digits;
    uint64_t n = (uint64_t)fabs(x);

    do
        *--at = (char)('0' + n % 10);
    while (n /= 10);
    if (signbit(x))
        *--at = '-';
    text_add_bytes(t, at, (size_t)(digits + sizeof digits - at));
}

/* What printf wrote, with a point whatever the locale. */
static void add_printed(struct text *t, char *s)
{
    char *comma = strchr(s, ',');

    if (comma)
        *comma = '.';
    text_add(t, s);
}

void text_add_number(struct text *t, double x)
{
    char s[NUMBER_ROOM];

    if (!isfinite(x)) {
        text_add(t, "null");
        return;
    }
    if (fabs(x) < 1e15 && x == floor(x)) {
        add_whole(t, x);
        return;
    }
    /* 15 digits find every form of up to 15, but for subnormal numbers, which carry fewer */
    for (int digits = fabs(x) < DBL_MIN ? 1 : 15; digits <= 17; digits++) {
        snprintf(s, sizeof s, "%.*g", digits, x);
        if (strtod(s, NULL) == x)
            break;
    }
    add_printed(t, s);
}

void text_add_float(struct text *t, float x)
{
    char s[SHORTEST_ROOM];

    if (isfinite(x))
        text_add_bytes(t, s, (size_t)shortest_print(x, s));
    else
        text_add(t, "null");
}

char *text_steal(struct text *t)
{
    char *s = t->room ? t->s : must_text("");

    *t = (struct text){.s = nothing, .limit = t->limit};
    return s;
}
