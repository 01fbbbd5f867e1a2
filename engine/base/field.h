/* One table describes a struct to the JSON parser, the settings, the API description and the reader.
 *
 *     struct dropout { double rate; };
 *     static const struct field dropout_fields[] = {
 *         {"rate", FIELD_FLOAT, offsetof(struct dropout, rate), .min = 0, .max = 1, .flags = FIELD_REQUIRED,
 *          .doc = "share of the inputs set to zero while training"},
 *         {0},
 *     };
 *
 * An absent key gives the preset. What a member is in C, by type, and what null becomes where FIELD_NULLABLE allows it
 * (also the preset of TEXT and OBJECT without preset_text, of INTS, LIST and JSON):
 *     FIELD_INT     int64_t                 FIELD_NULL_INT
 *     FIELD_FLOAT   double                  NaN
 *     FIELD_BOOL    bool                    false
 *     FIELD_TEXT    const char *            NULL
 *     FIELD_CHOICE  int, index of choices   -1
 *     FIELD_INTS    struct ints             n = 0     (a preset other than 0 is spread as a scalar is)
 *     FIELD_OBJECT  const struct object *   NULL      a class of .catalogue: name, or {"class_name", "config"}
 *     FIELD_LIST    struct objects          n = 0     a list of those (a lone one counts as a list of one)
 *     FIELD_JSON    const struct json *     NULL      kept as it is, borrowed from the document
 * What comes from the document is copied into the arena, except FIELD_JSON. */
#ifndef HORN_BASE_FIELD_H
#define HORN_BASE_FIELD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/arena.h"
#include "engine/base/json.h"
#include "engine/base/status.h"
#include "engine/base/text.h"

enum field_type {
    FIELD_INT,
    FIELD_FLOAT,
    FIELD_BOOL,
    FIELD_TEXT,
    FIELD_CHOICE,
    FIELD_INTS,
    FIELD_OBJECT,
    FIELD_LIST,
    FIELD_JSON
};
enum field_flag { FIELD_REQUIRED = 1, FIELD_NULLABLE = 2, FIELD_SCALAR_OK = 4 /* INTS: 3 means [3, 3] */ };

#define FIELD_NULL_INT INT64_MIN

struct catalogue;

struct field {
    const char *key;
    enum field_type type;
    size_t offset;
    /* min = max: no bound. INT, FLOAT and each of INTS; TEXT: longest length in bytes is max; INTS: see count */
    double preset, min, max;
    const char *const *choices; /* CHOICE: ends with NULL; preset is an index */
    unsigned flags;
    int count; /* INTS: exact length (also what a scalar is spread to); 0: any up to 8 */
    const struct catalogue *catalogue;
    const char *preset_text; /* OBJECT: class taken when absent; TEXT: preset */
    const char *doc;         /* one sentence with the unit; ends up in the API description */
};

struct ints {
    int n;
    int64_t v[8];
};

/* Every catalogued struct (layer_type, optimizer, loss ...) begins with these three members, so that one
 * parser reads them all. */
#define CLASS_MEMBERS                                  \
    const char *keras; /* class_name in Keras' JSON */ \
    size_t config_size;                                \
    const struct field *fields; /* may be NULL: no configuration */

struct class
{
    CLASS_MEMBERS
};

struct object { /* an instance: class and parsed configuration */
    const struct class *type;
    const void *config;
};

struct objects {
    int n;
    const struct object *const *v;
};

struct catalogue {
    const char *kind;                /* "initializer", for messages */
    const struct class *const *rows; /* ends with NULL */
    const char *const (*aliases)[2]; /* {"mse", "MeanSquaredError"} ..., ends with {NULL, NULL}; may be NULL */
};

/* By class_name, by its snake_case form ("GlorotUniform", "glorot_uniform"), letter case ignored, or by alias. NULL: unknown. */
const struct class *catalogue_find(const struct catalogue *c, const char *name);

/* Keras' own snake_case: "Conv2D" conv2d, "LeakyReLU" leaky_re_lu, "LSTM" lstm, "BatchNormalization" batch_normalization. */
void snake_case(const char *class_name, char *to, size_t room);

enum field_mode {
    FIELD_STRICT = 0,  /* an unknown key is ST_INVALID with its pointer */
    FIELD_TOLERANT = 1 /* an unknown key is named in a line of `warnings`, newline behind */
};

/* Reads `object` into `into` (zeroed by the caller, size known to the table). Every member gets its value, preset or null form.
 * `pointer` is the JSON pointer of `object` in the caller's document; problems carry it with the key behind.
 * ST_INVALID: wrong type, out of bounds (both named), unknown or missing key, unknown class (ST_UNSUPPORTED: the name and the
 * catalogue's kind). warnings may be NULL in strict mode. */
enum status field_parse(const struct field *fields, const struct json *object, void *into, struct arena *mem,
                        const char *pointer, enum field_mode mode, struct text *warnings, struct problem *problem);

/* One object of a catalogue: a text (class or alias, all presets) or {"class_name": ..., "config": {...}}. */
enum status object_parse(const struct catalogue *c, const struct json *j, struct arena *mem, const char *pointer,
                         enum field_mode mode, struct text *warnings, const struct object **ret, struct problem *problem);

/* The object with all presets, for code (INIT_ZEROS); name must exist. */
const struct object *object_preset(const struct catalogue *c, const char *name, struct arena *mem);

/* The table as JSON Schema properties: {"rate": {"type": "number", "minimum": 0, "description": ...}}. */
struct json *field_describe(const struct field *fields);

#endif
