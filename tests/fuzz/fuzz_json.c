/* Any bytes as a JSON document, compared with cJSON.
 *
 * What we take, cJSON takes too, as a tree of the same types, keys, texts and numbers (we refuse much that it takes). What we
 * print reads back and prints the same; a copy prints the same. The first byte chooses the flags. cJSON ends a number at 63
 * characters, so documents with longer ones are not compared. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cjson/cJSON.h>

#include "engine/base/arena.h"
#include "engine/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok)
        abort();
}

static bool has_long_number(const char *s, size_t n)
{
    size_t run = 0;

    for (size_t i = 0; i < n && run < 60; i++)
        run = s[i] && strchr("0123456789+-.eE", s[i]) ? run + 1 : 0;
    return run >= 60;
}

static void same(const struct json *a, const cJSON *b)
{
    const struct json *child = json_first(a);

    switch (json_type(a)) {
    case JSON_NULL:
        must(cJSON_IsNull(b));
        break;
    case JSON_BOOL:
        must(json_true(a) ? cJSON_IsTrue(b) : cJSON_IsFalse(b));
        break;
    case JSON_NUMBER:
        must(cJSON_IsNumber(b) && json_number(a) == b->valuedouble);
        break;
    case JSON_TEXT:
        must(cJSON_IsString(b) && strcmp(json_text(a), b->valuestring) == 0);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        must(json_type(a) == JSON_ARRAY ? cJSON_IsArray(b) : cJSON_IsObject(b));
        for (const cJSON *other = b->child; other; other = other->next, child = json_next(child)) {
            must(child != NULL);
            if (json_type(a) == JSON_OBJECT)
                must(strcmp(json_key(child), other->string) == 0);
            same(child, other);
        }
        must(child == NULL);
        break;
    default:
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct json_limits limits = {.bytes = 1 << 16, .nodes = 2000, .depth = 40};
    struct problem problem = {0};
    OWNED(json_free) struct json *j = NULL, *back = NULL, *copy = NULL;
    OWNED(free) char *once = NULL, *twice = NULL, *copied = NULL;
    unsigned flags = size && data[0] & 1 ? JSON_NAN : 0;
    const char *s = (const char *)data + (size > 0);
    size_t n = size - (size > 0);
    int64_t whole;

    if (json_parse(s, n, &limits, flags, &j, &problem) != ST_OK) {
        must(problem.status != ST_OK && problem.detail[0] && !j);
        return 0;
    }
    (void)json_int(j, &whole);
    if (!flags && !has_long_number(s, n)) {
        cJSON *other = cJSON_ParseWithLength(s, n);

        must(other != NULL);
        same(j, other);
        cJSON_Delete(other);
    }
    once = json_print(j, flags);
    must(json_parse(once, strlen(once), NULL, flags, &back, &problem) == ST_OK);
    twice = json_print(back, flags);
    copy = json_copy(j);
    copied = json_print(copy, flags);
    must(strcmp(once, twice) == 0 && strcmp(once, copied) == 0);
    return 0;
}
