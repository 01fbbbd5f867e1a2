/* A field table as JSON Schema, for the API description: what the reader (field.c) takes, with the same bounds and presets.
 *
 * Names of classes are examples, no enumeration: the reader takes aliases and other spellings too. */
#include "engine/base/field.h"

#include <math.h>

static const int most = (int)COUNT(((struct ints *)0)->v);

static bool bounded(const struct field *f)
{
    return !(f->min == f->max);
}

static void describe_type(const struct field *f, struct json *to)
{
    static const char *const types[][2] = {
        [FIELD_INT] = {"integer"},
        [FIELD_FLOAT] = {"number"},
        [FIELD_BOOL] = {"boolean"},
        [FIELD_TEXT] = {"string"},
        [FIELD_CHOICE] = {"string"},
        [FIELD_INTS] = {"array"},
        [FIELD_OBJECT] = {"string", "object"},
        [FIELD_LIST] = {"array", "object"},
        [FIELD_JSON] = {NULL},
    };
    const char *also = types[f->type][1];
    struct json *list;

    if (!types[f->type][0])
        return;
    if (f->type == FIELD_INTS && f->flags & FIELD_SCALAR_OK)
        also = "integer";
    if (!also && !(f->flags & FIELD_NULLABLE)) {
        json_put(to, "type", json_new_text(types[f->type][0]));
        return;
    }
    list = json_put(to, "type", json_new_array());
    json_push(list, json_new_text(types[f->type][0]));
    if (also)
        json_push(list, json_new_text(also));
    if (f->type == FIELD_LIST)
        json_push(list, json_new_text("string"));
    if (f->flags & FIELD_NULLABLE)
        json_push(list, json_new_text("null"));
}

static void describe_bounds(const struct field *f, struct json *to, const char *low, const char *high)
{
    if (bounded(f) && isfinite(f->min))
        json_put(to, low, json_new_number(f->min));
    if (bounded(f) && isfinite(f->max))
        json_put(to, high, json_new_number(f->max));
}

static void describe_preset(const struct field *f, struct json *to)
{
    if (f->flags & FIELD_REQUIRED)
        return;
    if (f->preset_text)
        json_put(to, "default", json_new_text(f->preset_text));
    else if (f->type == FIELD_BOOL)
        json_put(to, "default", json_new_bool(f->preset != 0));
    else if (f->type == FIELD_CHOICE && f->preset >= 0)
        json_put(to, "default", json_new_text(f->choices[(int)f->preset]));
    else if ((f->type == FIELD_INT && f->preset > (double)FIELD_NULL_INT) || (f->type == FIELD_FLOAT && isfinite(f->preset)) ||
             (f->type == FIELD_INTS && f->preset != 0 && f->flags & FIELD_SCALAR_OK))
        json_put(to, "default", json_new_number(f->preset));
    else if (f->flags & FIELD_NULLABLE)
        json_put(to, "default", json_new_null());
}

static void describe_names(const struct field *f, struct json *to)
{
    struct json *list;

    if (f->type == FIELD_CHOICE) {
        list = json_put(to, "enum", json_new_array());
        for (int i = 0; f->choices[i]; i++)
            json_push(list, json_new_text(f->choices[i]));
        if (f->flags & FIELD_NULLABLE)
            json_push(list, json_new_null());
    } else if ((f->type == FIELD_OBJECT || f->type == FIELD_LIST) && f->catalogue) {
        list = json_put(to, "examples", json_new_array());
        for (const struct class *const *row = f->catalogue->rows; *row; row++)
            json_push(list, json_new_text((*row)->keras));
    }
}

struct json *field_describe(const struct field *fields)
{
    struct json *all = json_new_object();

    for (const struct field *f = fields; f && f->key; f++) {
        struct json *one = json_put(all, f->key, json_new_object());

        describe_type(f, one);
        describe_names(f, one);
        if (f->type == FIELD_INT || f->type == FIELD_FLOAT)
            describe_bounds(f, one, "minimum", "maximum");
        if (f->type == FIELD_TEXT)
            describe_bounds(f, one, "minLength", "maxLength");
        if (f->type == FIELD_INTS) {
            struct json *items = json_put(one, "items", json_new_object());

            json_put(items, "type", json_new_text("integer"));
            describe_bounds(f, items, "minimum", "maximum");
            if (f->count)
                json_put(one, "minItems", json_new_int(f->count));
            json_put(one, "maxItems", json_new_int(f->count ? f->count : most));
        }
        describe_preset(f, one);
        if (f->doc)
            json_put(one, "description", json_new_text(f->doc));
    }
    return all;
}
