/* JSON documents: cJSON's nodes behind our own reader and printer.
 *
 * cJSON keeps the tree: making, linking, copying and freeing nodes. Its reader and printer are not used. The reader takes
 * lone surrogates, raw control characters and "\u0000", ends numbers at 63 characters, knows no NaN and sees no key twice; the
 * printer stops at 15 digits when the difference is below 2^-52 of the value, which loses the last bit.
 *
 * A document is looked at twice. survey() counts values and nesting, so that a hostile text is refused before the first node is
 * made; then the tree is built by recursion, whose depth is bounded by that count. A value is linked to its parent before it
 * is read: whatever fails, freeing the root frees everything.
 *
 * Numbers are doubles. An integer from 2^53 on also keeps its digits in valuestring, which cJSON copies and frees with the
 * node, whatever its type. */
#include "engine/base/json.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>

#include "engine/base/arena.h"
#include "engine/base/number.h"
#include "engine/base/text.h"

enum { DEPTH = 128, MOST_DEPTH = 1000 /* of the recursion, about 200 kB of stack */ };
static const size_t default_bytes = (size_t)16 << 20, default_nodes = 1000000;
static const double exact_integers = 0x1p53;

struct reader {
    const char *text, *at, *end;
    unsigned flags;
    struct problem *problem;
};

struct path { /* where the reader is, from the inside out */
    const struct path *up;
    const char *key; /* or NULL: element `index` of an array */
    int index;
};

static cJSON *node(const struct json *j)
{
    return (cJSON *)(uintptr_t)j;
}

static struct json *made(cJSON *c)
{
    return (struct json *)(c ? c : must_alloc(SIZE_MAX)); /* cJSON had no memory: ends the process */
}

/* --- problems ------------------------------------------------------------------------------------------------------------- */

static void add_pointer(struct text *t, const struct path *path)
{
    if (!path->up)
        return;
    add_pointer(t, path->up);
    text_add_char(t, '/');
    if (!path->key)
        text_printf(t, "%d", path->index);
    for (const char *c = path->key; c && *c; c++) { /* RFC 6901 */
        if (*c == '~' || *c == '/')
            text_add(t, *c == '~' ? "~0" : "~1");
        else
            text_add_char(t, *c);
    }
}

static enum status wrong(const struct reader *r, enum status status, const struct path *path, const char *at,
                         const char *format, ...) __attribute__((format(printf, 5, 6)));

/* at: the byte that does not fit, or NULL if the pointer says it all */
static enum status wrong(const struct reader *r, enum status status, const struct path *path, const char *at,
                         const char *format, ...)
{
    CLEAN(text_done) struct text pointer = text_make(255);
    char what[400];
    size_t line = 1, column = 1;
    va_list args;

    add_pointer(&pointer, path);
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (!at)
        return fail(r->problem, status, pointer.s, "%s", what);
    for (const char *c = r->text; c < at; c++) {
        if (*c == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)*c & 0xC0) != 0x80) {
            column++;
        }
    }
    return fail(r->problem, status, pointer.s, "line %zu, column %zu: %s", line, column, what);
}

struct found {
    char s[24];
};

/* What stands at `at`, for messages. */
static struct found found(const struct reader *r, const char *at)
{
    struct found f;
    int n = text_sequence(at, r->end);

    if (at >= r->end)
        snprintf(f.s, sizeof f.s, "the end of the text");
    else if (n == 0 || (unsigned char)*at < 0x20)
        snprintf(f.s, sizeof f.s, "the byte 0x%02x", (unsigned char)*at);
    else
        snprintf(f.s, sizeof f.s, "'%.*s'", n, at);
    return f;
}

/* --- before the tree ------------------------------------------------------------------------------------------------------ */

/* Refuses what is too long, too deep or has too many values. A comma outside of texts stands for one more value, and so does
 * a container that is not empty. */
static enum status survey(const struct reader *r, const struct json_limits *limits)
{
    size_t bytes = limits && limits->bytes ? limits->bytes : default_bytes, n = (size_t)(r->end - r->text);
    size_t most = limits && limits->nodes ? limits->nodes : default_nodes, nodes = 1;
    int deepest = limits && limits->depth > 0 ? limits->depth : DEPTH, depth = 0;
    const struct path root = {0};

    if (n > bytes)
        return wrong(r, ST_TOO_LARGE, &root, NULL, "the document has %zu bytes, at most %zu are read", n, bytes);
    if (deepest > MOST_DEPTH)
        deepest = MOST_DEPTH;
    for (const char *at = r->text; at < r->end; at++) {
        if (*at == '"') {
            for (at++; at < r->end && *at != '"'; at++)
                at += *at == '\\';
        } else if (*at == '[' || *at == '{') {
            const char *next = at + 1;

            if (++depth > deepest)
                return wrong(r, ST_TOO_LARGE, &root, at, "arrays and objects are nested deeper than %d levels", deepest);
            while (next < r->end && (*next == ' ' || *next == '\n' || *next == '\r' || *next == '\t'))
                next++;
            nodes += next < r->end && *next != ']' && *next != '}';
        } else if (*at == ']' || *at == '}') {
            depth--;
        } else if (*at == ',') {
            nodes++;
        }
        if (nodes > most)
            return wrong(r, ST_TOO_LARGE, &root, at, "the document has more than %zu values", most);
    }
    return ST_OK;
}

/* --- texts ---------------------------------------------------------------------------------------------------------------- */

/* The four hexadecimal digits at `at`, -1 if there are none. */
static int hex4(const char *at, const char *end)
{
    int code = 0;

    if (end - at < 4)
        return -1;
    for (int i = 0; i < 4; i++) {
        char c = at[i];
        int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;

        if (digit < 0)
            return -1;
        code = code * 16 + digit;
    }
    return code;
}

static char *put_utf8(char *to, int code)
{
    if (code < 0x80) {
        *to++ = (char)code;
    } else if (code < 0x800) {
        *to++ = (char)(0xC0 | code >> 6);
        *to++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *to++ = (char)(0xE0 | code >> 12);
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    } else {
        *to++ = (char)(0xF0 | code >> 18);
        *to++ = (char)(0x80 | (code >> 12 & 0x3F));
        *to++ = (char)(0x80 | (code >> 6 & 0x3F));
        *to++ = (char)(0x80 | (code & 0x3F));
    }
    return to;
}

/* What follows a backslash, into *to; r->at is moved behind it. */
static enum status read_escape(struct reader *r, const struct path *path, char **to)
{
    static const char pairs[] = "\"\"\\\\//b\bf\fn\nr\rt\t"; /* the letter, its byte */
    const char *start = r->at - 1;
    int code, low;

    for (size_t i = 0; r->at < r->end && i + 1 < sizeof pairs; i += 2) {
        if (*r->at == pairs[i]) {
            *(*to)++ = pairs[i + 1];
            r->at++;
            return ST_OK;
        }
    }
    if (r->at >= r->end || *r->at != 'u')
        return wrong(r, ST_MALFORMED, path, start, "there is no escape of a backslash and %s", found(r, r->at).s);
    code = hex4(r->at + 1, r->end);
    if (code < 0)
        return wrong(r, ST_MALFORMED, path, start, "\\u needs four hexadecimal digits");
    if (code == 0)
        return wrong(r, ST_MALFORMED, path, start, "\\u0000 is not taken in texts");
    r->at += 5;
    if (code >= 0xD800 && code <= 0xDFFF) {
        low = code < 0xDC00 && r->end - r->at >= 6 && r->at[0] == '\\' && r->at[1] == 'u' ? hex4(r->at + 2, r->end) : -1;
        if (low < 0xDC00 || low > 0xDFFF)
            return wrong(r, ST_MALFORMED, path, start, "\\u%04x is half of a surrogate pair", (unsigned)code);
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        r->at += 6;
    }
    *to = put_utf8(*to, code);
    return ST_OK;
}

/* The text whose opening quote is at r->at. An escape is never shorter than what it stands for, so the raw length is enough. */
static enum status read_text(struct reader *r, const struct path *path, char **ret)
{
    const char *open = r->at++, *close = r->at;
    OWNED(free) char *s = NULL;
    char *to;

    while (close < r->end && *close != '"')
        close += 1 + (*close == '\\');
    if (close >= r->end)
        return wrong(r, ST_MALFORMED, path, open, "the text that begins here has no end");
    to = s = must_alloc((size_t)(close - open));
    while (r->at < close) {
        int n = text_sequence(r->at, close);

        if (*r->at == '\\') {
            r->at++;
            TRY(read_escape(r, path, &to));
        } else if (n == 0) {
            return wrong(r, ST_MALFORMED, path, r->at, "the byte 0x%02x is not UTF-8", (unsigned char)*r->at);
        } else if ((unsigned char)*r->at < 0x20) {
            return wrong(r, ST_MALFORMED, path, r->at, "the control character 0x%02x in a text must be escaped",
                         (unsigned char)*r->at);
        } else {
            while (n--)
                *to++ = *r->at++;
        }
    }
    *to = 0;
    r->at = close + 1;
    *ret = STEAL(s);
    return ST_OK;
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\r' || *r->at == '\t'))
        r->at++;
}

static bool literal(struct reader *r, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static char *keep_digits(const char *from, const char *to)
{
    char *s = must_alloc((size_t)(to - from) + 1);

    return memcpy(s, from, (size_t)(to - from));
}

static enum status read_number(struct reader *r, const struct path *path, cJSON *item)
{
    const char *start = r->at;
    double x;

    if (!number_double(&r->at, r->end, &x))
        return wrong(r, ST_MALFORMED, path, start, "this is not a number of JSON");
    if (!isfinite(x))
        return wrong(r, ST_MALFORMED, path, start, "the number is beyond the range of a double (1.8e308)");
    item->type = cJSON_Number;
    item->valuedouble = x;
    if (fabs(x) >= exact_integers && !memchr(start, '.', (size_t)(r->at - start)) &&
        !memchr(start, 'e', (size_t)(r->at - start)) && !memchr(start, 'E', (size_t)(r->at - start)))
        item->valuestring = keep_digits(start, r->at);
    return ST_OK;
}

/* NaN, Infinity, -Infinity; *ret tells whether one was there. */
static enum status read_not_finite(struct reader *r, const struct path *path, cJSON *item, bool *ret)
{
    const char *start = r->at;
    double x = literal(r, "NaN") ? (double)NAN : literal(r, "Infinity") ? (double)INFINITY : 0;

    if (x == 0 && literal(r, "-Infinity"))
        x = -(double)INFINITY;
    *ret = r->at > start;
    if (!*ret)
        return ST_OK;
    if (!(r->flags & JSON_NAN))
        return wrong(r, ST_MALFORMED, path, start, "%.*s is not a number of JSON; send a finite number or null",
                     (int)(r->at - start), start);
    item->type = cJSON_Number;
    item->valuedouble = x;
    return ST_OK;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A key that an object has twice, or NULL. */
static const char *key_twice(const cJSON *object)
{
    size_t n = (size_t)cJSON_GetArraySize(object), i = 0;
    OWNED(free) const char **keys = NULL;
    const char *twice = NULL;

    if (n < 2)
        return NULL;
    keys = must_alloc(n * sizeof *keys);
    for (const cJSON *member = object->child; member; member = member->next)
        keys[i++] = member->string;
    qsort(keys, n, sizeof *keys, by_text);
    for (i = 1; i < n && !twice; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0)
            twice = keys[i];
    }
    return twice;
}

static enum status read_value(struct reader *r, const struct path *path, cJSON *item);

static cJSON *append(cJSON *container)
{
    cJSON *child = node(made(cJSON_CreateNull()));

    cJSON_AddItemToArray(container, child); /* O(1); leaves the key alone */
    return child;
}

static enum status read_member(struct reader *r, const struct path *path, cJSON *object)
{
    cJSON *child;

    if (r->at >= r->end || *r->at != '"')
        return wrong(r, ST_MALFORMED, path, r->at, "a key in double quotes is expected, not %s", found(r, r->at).s);
    child = append(object);
    TRY(read_text(r, path, &child->string));
    skip_blanks(r);
    if (r->at >= r->end || *r->at != ':')
        return wrong(r, ST_MALFORMED, path, r->at, "':' is expected behind the key, not %s", found(r, r->at).s);
    r->at++;
    return read_value(r, &(struct path){.up = path, .key = child->string}, child);
}

/* The rest of an array or object behind its opening bracket. */
static enum status read_container(struct reader *r, const struct path *path, cJSON *item, int type)
{
    char close = type == cJSON_Object ? '}' : ']';
    const char *twice;

    item->type = type;
    skip_blanks(r);
    if (r->at < r->end && *r->at == close) {
        r->at++;
        return ST_OK;
    }
    for (int i = 0;; i++) {
        if (type == cJSON_Object)
            TRY(read_member(r, path, item));
        else
            TRY(read_value(r, &(struct path){.up = path, .index = i}, append(item)));
        skip_blanks(r);
        if (r->at < r->end && *r->at == close)
            break;
        if (r->at >= r->end || *r->at != ',')
            return wrong(r, ST_MALFORMED, path, r->at, "',' or '%c' is expected, not %s", close, found(r, r->at).s);
        r->at++;
        skip_blanks(r);
        if (r->at < r->end && *r->at == close)
            return wrong(r, ST_MALFORMED, path, r->at, "nothing follows the ',' in front of '%c'", close);
    }
    r->at++;
    twice = type == cJSON_Object ? key_twice(item) : NULL;
    if (twice)
        return wrong(r, ST_MALFORMED, &(struct path){.up = path, .key = twice}, NULL, "the key is there twice");
    return ST_OK;
}

static enum status read_value(struct reader *r, const struct path *path, cJSON *item)
{
    bool not_finite;

    skip_blanks(r);
    if (r->at >= r->end)
        return wrong(r, ST_MALFORMED, path, r->at, "a value is expected, not the end of the text");
    switch (*r->at) {
    case '{':
        r->at++;
        return read_container(r, path, item, cJSON_Object);
    case '[':
        r->at++;
        return read_container(r, path, item, cJSON_Array);
    case '"':
        item->type = cJSON_String;
        return read_text(r, path, &item->valuestring);
    default:
        break;
    }
    if (literal(r, "null"))
        return ST_OK;
    if (literal(r, "true")) {
        item->type = cJSON_True;
        return ST_OK;
    }
    if (literal(r, "false")) {
        item->type = cJSON_False;
        return ST_OK;
    }
    TRY(read_not_finite(r, path, item, &not_finite));
    if (not_finite)
        return ST_OK;
    if (*r->at == '-' || (*r->at >= '0' && *r->at <= '9'))
        return read_number(r, path, item);
    return wrong(r, ST_MALFORMED, path, r->at, "a value is expected, not %s", found(r, r->at).s);
}

/* --- printing ------------------------------------------------------------------------------------------------------------- */

static void print_number(struct text *t, const cJSON *item, unsigned flags)
{
    double x = item->valuedouble;

    if (item->valuestring)
        text_add(t, item->valuestring);
    else if (isfinite(x) || !(flags & JSON_NAN))
        text_add_number(t, x);
    else
        text_add(t, isnan(x) ? "NaN" : x > 0 ? "Infinity" : "-Infinity");
}

static void print_value(struct text *t, const cJSON *item, unsigned flags)
{
    enum json_type type = json_type((const struct json *)item);

    switch (type) {
    case JSON_BOOL:
        text_add(t, cJSON_IsTrue(item) ? "true" : "false");
        break;
    case JSON_NUMBER:
        print_number(t, item, flags);
        break;
    case JSON_TEXT:
        text_add_json(t, item->valuestring);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        text_add_char(t, type == JSON_OBJECT ? '{' : '[');
        for (const cJSON *child = item->child; child; child = child->next) {
            if (child != item->child)
                text_add_char(t, ',');
            if (type == JSON_OBJECT) {
                text_add_json(t, child->string);
                text_add_char(t, ':');
            }
            print_value(t, child, flags);
        }
        text_add_char(t, type == JSON_OBJECT ? '}' : ']');
        break;
    default:
        text_add(t, "null");
    }
}

/* --- public --------------------------------------------------------------------------------------------------------------- */

enum status json_parse(const char *text, size_t bytes, const struct json_limits *limits, unsigned flags, struct json **ret,
                       struct problem *problem)
{
    struct reader r = {.text = text, .at = text, .end = text + bytes, .flags = flags, .problem = problem};
    const struct path root = {0};
    OWNED(json_free) struct json *j = NULL;

    TRY(survey(&r, limits));
    if (bytes >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return wrong(&r, ST_MALFORMED, &root, text, "the text begins with a byte order mark; send UTF-8 without one");
    j = made(cJSON_CreateNull());
    TRY(read_value(&r, &root, node(j)));
    skip_blanks(&r);
    if (r.at < r.end)
        return wrong(&r, ST_MALFORMED, &root, r.at, "the document ends before this place, but %s follows", found(&r, r.at).s);
    *ret = STEAL(j);
    return ST_OK;
}

struct json *json_free(struct json *j)
{
    cJSON_Delete(node(j));
    return NULL;
}

struct json *json_copy(const struct json *j)
{
    cJSON *copy;

    if (!j)
        return NULL;
    copy = node(made(cJSON_Duplicate(node(j), 1)));
    copy->string = free_null(copy->string); /* a root has no key */
    return (struct json *)copy;
}

enum json_type json_type(const struct json *j)
{
    switch (j ? node(j)->type & 0xFF : cJSON_Invalid) {
    case cJSON_NULL:
        return JSON_NULL;
    case cJSON_True:
    case cJSON_False:
        return JSON_BOOL;
    case cJSON_Number:
        return JSON_NUMBER;
    case cJSON_String:
        return JSON_TEXT;
    case cJSON_Array:
        return JSON_ARRAY;
    case cJSON_Object:
        return JSON_OBJECT;
    default:
        return JSON_NOTHING;
    }
}

const char *json_type_name(enum json_type t)
{
    static const char *const names[] = {
        [JSON_NOTHING] = "nothing", [JSON_NULL] = "null",      [JSON_BOOL] = "true or false", [JSON_NUMBER] = "a number",
        [JSON_TEXT] = "a text",     [JSON_ARRAY] = "an array", [JSON_OBJECT] = "an object",
    };

    return (size_t)t < COUNT(names) ? names[t] : "nothing";
}

struct json *json_get(const struct json *object, const char *key)
{
    if (json_type(object) != JSON_OBJECT || !key)
        return NULL;
    for (cJSON *member = node(object)->child; member; member = member->next) {
        if (strcmp(member->string, key) == 0)
            return (struct json *)member;
    }
    return NULL;
}

struct json *json_at(const struct json *array, int i)
{
    struct json *item = i < 0 ? NULL : json_first(array);

    while (item && i-- > 0)
        item = json_next(item);
    return item;
}

struct json *json_first(const struct json *container)
{
    return container ? (struct json *)node(container)->child : NULL;
}

struct json *json_next(const struct json *item)
{
    return item ? (struct json *)node(item)->next : NULL;
}

const char *json_key(const struct json *member)
{
    return member ? node(member)->string : NULL;
}

int json_count(const struct json *container)
{
    return container ? cJSON_GetArraySize(node(container)) : 0;
}

const char *json_text(const struct json *j)
{
    return json_type(j) == JSON_TEXT ? node(j)->valuestring : NULL;
}

double json_number(const struct json *j)
{
    return json_type(j) == JSON_NUMBER ? node(j)->valuedouble : (double)NAN;
}

bool json_int(const struct json *j, int64_t *ret)
{
    double x = json_number(j);
    int64_t n = 0;

    if (json_type(j) != JSON_NUMBER)
        return false;
    if (node(j)->valuestring) { /* digits with a sign, as the grammar has them */
        const char *s = node(j)->valuestring;
        bool negative = *s == '-';

        for (s += negative; *s; s++) {
            int digit = negative ? '0' - *s : *s - '0';

            if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, digit, &n))
                return false;
        }
        *ret = n;
        return true;
    }
    if (!(x >= -0x1p63 && x < 0x1p63) || x != floor(x))
        return false;
    *ret = (int64_t)x;
    return true;
}

bool json_true(const struct json *j)
{
    return j && cJSON_IsTrue(node(j));
}

bool json_is(const struct json *j, const char *text)
{
    const char *s = json_text(j);

    return s && text && strcmp(s, text) == 0;
}

struct json *json_new_object(void)
{
    return made(cJSON_CreateObject());
}

struct json *json_new_array(void)
{
    return made(cJSON_CreateArray());
}

struct json *json_new_text(const char *s)
{
    return made(s ? cJSON_CreateString(s) : cJSON_CreateNull());
}

struct json *json_new_number(double x)
{
    struct json *j = made(cJSON_CreateNumber(0));

    node(j)->valuedouble = x; /* not through cJSON, which makes an int of it too, NaN or not */
    return j;
}

struct json *json_new_int(int64_t x)
{
    struct json *j = json_new_number((double)x);
    char digits[24];

    if (fabs((double)x) >= exact_integers) {
        snprintf(digits, sizeof digits, "%lld", (long long)x);
        node(j)->valuestring = must_text(digits);
    }
    return j;
}

struct json *json_new_bool(bool x)
{
    return made(cJSON_CreateBool(x));
}

struct json *json_new_null(void)
{
    return made(cJSON_CreateNull());
}

struct json *json_put(struct json *object, const char *key, struct json *value)
{
    struct json *old = json_get(object, key);
    cJSON *item = node(value ? value : json_new_null());

    assert(json_type(object) == JSON_OBJECT);
    free(item->string);
    item->string = must_text(key);
    if (old)
        cJSON_ReplaceItemViaPointer(node(object), node(old), item);
    else
        cJSON_AddItemToArray(node(object), item);
    return (struct json *)item;
}

struct json *json_push(struct json *array, struct json *value)
{
    cJSON *item = node(value ? value : json_new_null());

    assert(json_type(array) == JSON_ARRAY);
    item->string = free_null(item->string);
    cJSON_AddItemToArray(node(array), item);
    return (struct json *)item;
}

struct json *json_detach(struct json *object, const char *key)
{
    struct json *member = json_get(object, key);

    if (!member)
        return NULL;
    cJSON_DetachItemViaPointer(node(object), node(member));
    node(member)->string = free_null(node(member)->string);
    return member;
}

void json_remove(struct json *object, const char *key)
{
    json_free(json_detach(object, key));
}

void json_rename(struct json *object, const char *from, const char *to)
{
    struct json *member = json_get(object, from);

    if (!member || strcmp(from, to) == 0)
        return;
    json_remove(object, to);
    free(node(member)->string);
    node(member)->string = must_text(to);
}

char *json_print(const struct json *j, unsigned flags)
{
    CLEAN(text_done) struct text t = text_make(SIZE_MAX);

    print_value(&t, node(j), flags);
    return text_steal(&t);
}
