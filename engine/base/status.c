/* The status list as numbers and words, and the one function that fills a problem.
 *
 * Both texts are first written beside the problem: a caller may pass problem->where or problem->detail as an argument to say
 * more about what went wrong, and would otherwise read what it overwrites. */
#include "engine/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define X(code, http, text) +1
enum { N_STATUSES = 0 STATUS_MAP(X) };
#undef X

struct row {
    int http;
    const char *name, *title;
};

static const struct row rows[N_STATUSES];

/* A text that was cut ends in front of the UTF-8 sequence it was cut in, so that it can go into a JSON answer as it is. */
static void trim_sequence(char *s)
{
    size_t n = strlen(s), start = n, want;
    unsigned char lead;

    while (start > 0 && n - start < 3 && ((unsigned char)s[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    lead = (unsigned char)s[start - 1];
    want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (n - (start - 1) < want)
        s[start - 1] = 0;
}

enum status fail(struct problem *problem, enum status status, const char *where, const char *format, ...)
{
    struct problem p = {.status = status};
    va_list args;

    if (!problem)
        return status;
    if (snprintf(p.where, sizeof p.where, "%s", where) >= (int)sizeof p.where)
        trim_sequence(p.where);
    va_start(args, format);
    if (vsnprintf(p.detail, sizeof p.detail, format, args) >= (int)sizeof p.detail)
        trim_sequence(p.detail);
    va_end(args);
    *problem = p;
    return status;
}

int status_http(enum status s)
{
    return (unsigned)s < N_STATUSES ? rows[s].http : 500;
}

const char *status_title(enum status s)
{
    return (unsigned)s < N_STATUSES ? rows[s].title : "an unknown status";
}

const char *status_name(enum status s)
{
    return (unsigned)s < N_STATUSES ? rows[s].name : "UNKNOWN";
}

static const struct row rows[N_STATUSES] = {
#define X(code, http, text) {http, #code, text},
    STATUS_MAP(X)
#undef X
};
