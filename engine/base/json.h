/* JSON documents (the only includer of cJSON is json.c). Large arrays of numbers go through number.h.
 *
 * json_parse is strict RFC 8259 UTF-8 with limits on bytes, nodes and depth; a key twice in one object
 * and anything behind the document are errors that name the JSON pointer. NaN, Infinity and -Infinity
 * are read only with JSON_NAN, because Keras prints them in layer configurations. Integers up to 2^63-1
 * keep all their digits (json_int). Getters accept NULL and give NULL, 0 or "nothing". */
#ifndef HORN_BASE_JSON_H
#define HORN_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/scope.h"
#include "engine/base/status.h"

struct json;

enum json_type { JSON_NOTHING, JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_TEXT, JSON_ARRAY, JSON_OBJECT };
enum json_flag { JSON_NAN = 1 };

struct json_limits {
    size_t bytes; /* 0: 16 MiB */
    size_t nodes; /* 0: 10^6 */
    int depth;    /* 0: 128 */
};

enum status json_parse(const char *text, size_t bytes, const struct json_limits *limits, unsigned flags, struct json **ret,
                       struct problem *problem);
struct json *json_free(struct json *j); /* the whole tree; only for roots */
DEFINE_OWNED(struct json, json_free)
struct json *json_copy(const struct json *j);

enum json_type json_type(const struct json *j);                    /* JSON_NOTHING for NULL */
const char *json_type_name(enum json_type t);                      /* "a number", "an object" */
struct json *json_get(const struct json *object, const char *key); /* case-sensitive; NULL if absent */
struct json *json_at(const struct json *array, int i);             /* O(i): iterate with first/next */
struct json *json_first(const struct json *container);
struct json *json_next(const struct json *item);
const char *json_key(const struct json *member); /* key of an object's member */
int json_count(const struct json *container);
const char *json_text(const struct json *j);          /* NULL unless a text */
double json_number(const struct json *j);             /* NaN unless a number */
bool json_int(const struct json *j, int64_t *ret);    /* false unless a number without fraction that fits */
bool json_true(const struct json *j);                 /* the literal true */
bool json_is(const struct json *j, const char *text); /* a text equal to this one */

struct json *json_new_object(void);
struct json *json_new_array(void);
struct json *json_new_text(const char *s); /* NULL gives null */
struct json *json_new_number(double x);    /* not finite: printed as null unless JSON_NAN */
struct json *json_new_int(int64_t x);
struct json *json_new_bool(bool x);
struct json *json_new_null(void);
/* These take `value`. put replaces a member of the same key; both return value. */
struct json *json_put(struct json *object, const char *key, struct json *value);
struct json *json_push(struct json *array, struct json *value);
struct json *json_detach(struct json *object, const char *key); /* out of the object, to the caller; NULL if absent */
void json_remove(struct json *object, const char *key);
void json_rename(struct json *object, const char *from, const char *to); /* nothing if absent; replaces `to` */

char *json_print(const struct json *j, unsigned flags); /* compact, heap; caller frees. JSON_NAN prints NaN */

#endif
