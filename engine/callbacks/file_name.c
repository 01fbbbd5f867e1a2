/* See file_name.h. One reader serves both the check and the printing, so that nothing is printed that was not checked. */
#include "engine/callbacks/file_name.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH     40
#define MAX_PRECISION 20
#define MAX_NAME      200 /* bytes of a file name: below the 255 of file systems, with room for a temporary suffix */

struct piece { /* of a pattern: a character, or a value with its format */
    char character;
    char name[128]; /* "" for a character */
    bool zero, precise;
    int width, precision;
    char type; /* d e f g, or 0 */
};

static bool safe(char c)
{
    return isalnum((unsigned char)c) || c == '.' || c == '_' || c == '-';
}

static const char *base_name(const char *pattern)
{
    const char *slash = strrchr(pattern, '/');

    return slash ? slash + 1 : pattern;
}

static bool read_number(const char **at, int most, int *ret)
{
    int n = 0;

    while (isdigit((unsigned char)**at)) {
        n = 10 * n + *(*at)++ - '0';
        if (n > most)
            return false;
    }
    *ret = n;
    return true;
}

/* Behind the colon, up to the brace. NULL, or what is wrong. */
static const char *read_format(const char **at, struct piece *p)
{
    if (**at == '0') {
        p->zero = true;
        (*at)++;
    }
    if (!read_number(at, MAX_WIDTH, &p->width))
        return "a width is at most 40";
    if (**at == '.') {
        (*at)++;
        p->precise = true;
        if (!isdigit((unsigned char)**at) || !read_number(at, MAX_PRECISION, &p->precision))
            return "a precision is a number up to 20";
    }
    if (**at && strchr("defg", **at))
        p->type = *(*at)++;
    if (p->type == 'd' && p->precise)
        return "d takes no precision";
    return **at == '}' ? NULL : "a format is like 02d or .4f";
}

static const char *read_value(const char **at, struct piece *p)
{
    size_t n = 0;

    while (isalnum((unsigned char)**at) || **at == '_' || **at == '-' || **at == '.') {
        if (n + 1 >= sizeof(p->name))
            return "a name in braces is too long";
        p->name[n++] = *(*at)++;
    }
    if (n == 0)
        return "braces need a name, like {epoch} or {val_loss}";
    if (**at == ':') {
        (*at)++;
        const char *wrong = read_format(at, p);

        if (wrong)
            return wrong;
    }
    if (**at != '}')
        return "a brace is not closed";
    if (p->type == 'd' && strcmp(p->name, "epoch") != 0)
        return "d is for {epoch} alone; use f, e or g";
    (*at)++;
    return NULL;
}

/* The next piece, moving *at behind it. NULL, or what is wrong. */
static const char *read_piece(const char **at, struct piece *p)
{
    *p = (struct piece){0};
    if (**at == '{' && (*at)[1] != '{') {
        (*at)++;
        return read_value(at, p);
    }
    if (!safe(**at))
        return "a file name has letters, digits, and . _ - only";
    p->character = *(*at)++;
    return NULL;
}

enum status file_name_check(const char *pattern, const char *pointer, struct problem *problem)
{
    const char *at = base_name(pattern);
    struct piece p;

    if (!isalnum((unsigned char)*at) && *at != '{')
        return fail(problem, ST_INVALID, pointer, "\"%.100s\" must name a file that begins with a letter or digit", pattern);
    while (*at) {
        const char *wrong = read_piece(&at, &p);

        if (wrong)
            return fail(problem, ST_INVALID, pointer, "\"%.100s\": %s (at \"%.20s\")", pattern, wrong, at);
    }
    if (strlen(base_name(pattern)) > MAX_NAME)
        return fail(problem, ST_INVALID, pointer, "the file name has %zu characters, at most %d are possible",
                    strlen(base_name(pattern)), MAX_NAME);
    return ST_OK;
}

/* As Python prints a float without a format: the shortest digits that read back, with a point. */
static int print_shortest(char *to, size_t room, double x)
{
    char s[40];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(s, sizeof(s), "%.*g", digits, x);
        if (strtod(s, NULL) == x)
            break;
    }
    if (strchr(s, 'e') && x > -1e16 && x < 1e16 && (x >= 1 || x <= -1))
        snprintf(s, sizeof(s), "%.1f", x);
    return snprintf(to, room, "%s%s", s, strpbrk(s, ".en") ? "" : ".0");
}

static int print_value(const struct piece *p, double x, char *to, size_t room)
{
    int kind = p->type == 'e' ? 1 : p->type == 'f' ? 0 : 2;
    int precision = p->precise ? p->precision : 6;

    if (!p->type && !p->precise && !p->width)
        return print_shortest(to, room, x);
    switch (2 * kind + p->zero) { /* literal formats, so that the compiler checks them */
    case 0:
        return snprintf(to, room, "%*.*f", p->width, precision, x);
    case 1:
        return snprintf(to, room, "%0*.*f", p->width, precision, x);
    case 2:
        return snprintf(to, room, "%*.*e", p->width, precision, x);
    case 3:
        return snprintf(to, room, "%0*.*e", p->width, precision, x);
    case 4:
        return snprintf(to, room, "%*.*g", p->width, precision, x);
    default:
        return snprintf(to, room, "%0*.*g", p->width, precision, x);
    }
}

static int print_piece(const struct piece *p, int64_t epoch, const struct callback_logs *logs, char *to, size_t room)
{
    double x;

    if (!p->name[0])
        return snprintf(to, room, "%c", p->character);
    if (strcmp(p->name, "epoch") == 0 && (!p->type || p->type == 'd') && !p->precise)
        return p->zero ? snprintf(to, room, "%0*lld", p->width, (long long)epoch)
                       : snprintf(to, room, "%*lld", p->width, (long long)epoch);
    if (strcmp(p->name, "epoch") == 0)
        x = (double)epoch;
    else if (!logs_find(logs, p->name, &x))
        return -1;
    return print_value(p, x, to, room);
}

bool file_name_print(const char *pattern, int64_t epoch, const struct callback_logs *logs, char *to, size_t room)
{
    const char *at = base_name(pattern);
    char name[MAX_NAME + 1] = "";
    size_t n = 0;

    while (*at) {
        struct piece p;
        const char *wrong = read_piece(&at, &p);
        int more = wrong ? -1 : print_piece(&p, epoch, logs, name + n, sizeof(name) - n);

        if (more < 0) {
            snprintf(to, room, "\"%.60s\" names \"%.40s\", which this epoch does not have", pattern, p.name);
            return false;
        }
        n += (size_t)more;
        if (n >= sizeof(name)) {
            snprintf(to, room, "\"%.60s\" gives a name of more than %d characters", pattern, MAX_NAME);
            return false;
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (!safe(name[i]) || (i == 0 && name[i] == '.')) {
            snprintf(to, room, "\"%.60s\" gives \"%.60s\", which is no file name", pattern, name);
            return false;
        }
    }
    snprintf(to, room, "%s", name);
    return n > 0;
}
