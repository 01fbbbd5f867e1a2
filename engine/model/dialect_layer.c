/* One layer's class and configuration, rewritten by the rows of dialect_tables.c into what Keras 3 prints.
 *
 * Order: keys are renamed and converted, missing ones get the version's default, then values are made alike by what their key ends
 * in: *_initializer and *_regularizer become {"class_name", "config"}, activations their canonical name. Sources: keras 1.2.2
 * layers/core.py, convolutional.py, recurrent.py, normalization.py; keras 2.3.1 legacy/interfaces.py. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/layers/layer.h"
#include "engine/model/dialect_parts.h"
#include "engine/ops/ops.h"

static bool fits(const struct canon *c, unsigned dialects)
{
    return dialects & IN(c->dialect);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end);
}

static struct json *json_of(const char *text)
{
    struct problem problem;
    struct json *j = NULL;

    return json_parse(text, strlen(text), NULL, 0, &j, &problem) == ST_OK ? j : json_new_null();
}

/* ---- shapes and types ---------------------------------------------------------------------------------------------------- */

enum status canon_shape(struct canon *c, const struct json *j, const char *pointer, struct json **ret)
{
    OWNED(json_free) struct json *shape = json_new_array();
    int64_t count = 1, dim;
    int i = 0;

    json_push(shape, json_new_null());
    if (json_int(j, &dim)) {
        if (dim < 1)
            return fail(c->problem, ST_INVALID, pointer, "a dimension is at least 1, here it is %lld", (long long)dim);
        json_push(shape, json_new_int(dim));
        *ret = STEAL(shape);
        return ST_OK;
    }
    if (json_type(j) != JSON_ARRAY || !json_first(j))
        return fail(c->problem, ST_INVALID, pointer,
                    "a shape is an array like [null, 28, 28, 1] with the batch in front, here is %s",
                    json_type(j) == JSON_ARRAY ? "an empty array" : json_type_name(json_type(j)));
    for (const struct json *d = json_first(j); d; d = json_next(d), i++) {
        if (i == MAX_RANK)
            return fail(c->problem, ST_INVALID, pointer, "a shape has at most %d dimensions, here are %d", MAX_RANK,
                        json_count(j));
        if (json_type(d) == JSON_NULL) {
            if (i > 0)
                json_push(shape, json_new_null());
            continue;
        }
        const char *where = arena_print(c->mem, "%s/%d", pointer, i);
        if (!json_int(d, &dim))
            return fail(c->problem, ST_INVALID, where, "a dimension is a whole number or null, here is %s",
                        json_type_name(json_type(d)));
        if (dim < 1)
            return fail(c->problem, ST_INVALID, where,
                        "a dimension is at least 1, or null where it is not known, here it is %lld", (long long)dim);
        if (i == 0) { /* batches may have any size here */
            text_printf(c->warnings, "%s: the fixed batch size %lld is not kept\n", pointer, (long long)dim);
            continue;
        }
        if (__builtin_mul_overflow(count, dim, &count) || count > (int64_t)1 << 44)
            return fail(c->problem, ST_INVALID, where, "the dimensions multiply to more than 2^44 elements for one sample");
        json_push(shape, json_new_int(dim));
    }
    *ret = STEAL(shape);
    return ST_OK;
}

/* "float32", or the name of a policy object; NULL for anything else. */
static const char *policy_name(const struct json *j)
{
    return json_type(j) == JSON_OBJECT ? json_text(json_get(json_get(j, "config"), "name")) : json_text(j);
}

static bool is_mixed(const struct json *dtype)
{
    const char *name = policy_name(dtype);

    return name && !strcmp(name, "mixed_bfloat16");
}

enum status canon_dtype(struct canon *c, const struct json *j, const char *pointer, const char *preset, bool is_input,
                        const char **ret)
{
    enum dtype type;

    if (json_type(j) == JSON_NOTHING || json_type(j) == JSON_NULL) {
        *ret = preset;
        return ST_OK;
    }
    const char *name = policy_name(j);
    if (!name)
        return fail(c->problem, ST_INVALID, pointer, "a dtype is a name like \"float32\" or a DTypePolicy, here is %s",
                    json_type_name(json_type(j)));
    if (is_input && is_mixed(j)) { /* of the layer that reads it: data is float32 */
        *ret = "float32";
        return ST_OK;
    }
    bool known = dtype_find(name, &type);
    if (!is_input && strcmp(name, "float32") != 0 && !is_mixed(j))
        return fail(c->problem, ST_UNSUPPORTED, pointer,
                    "computing in dtype \"%s\" is not built yet, only float32 and mixed_bfloat16", name);
    if (is_input && (!known || type == F16 || type == BF16))
        return fail(c->problem, ST_UNSUPPORTED, pointer, "inputs of dtype \"%s\" are not built yet", name);
    *ret = arena_text(c->mem, name);
    return ST_OK;
}

static enum status dim_of(struct canon *c, const struct json *config, const char *key, const char *pointer, struct json *shape)
{
    int64_t dim;
    const struct json *j = json_get(config, key);

    if (json_type(j) == JSON_NOTHING || json_type(j) == JSON_NULL) {
        json_push(shape, json_new_null());
        return ST_OK;
    }
    if (!json_int(j, &dim) || dim < 1)
        return fail(c->problem, ST_INVALID, arena_print(c->mem, "%s/%s", pointer, key), "\"%s\" is a whole number from 1", key);
    json_push(shape, json_new_int(dim));
    return ST_OK;
}

enum status canon_input_hint(struct canon *c, const char *class_name, const struct json *config, const char *pointer,
                             struct json **shape, const char **dtype)
{
    static const char *const whole[] = {"batch_shape", "batch_input_shape"}, *const rows[] = {"input_shape", "shape"};
    bool embedding = !strcmp(class_name, "Embedding");
    const struct json *type = json_get(config, "input_dtype");
    const char *type_key = "input_dtype";

    *shape = NULL;
    if (!type && !fits(c, K3)) { /* before Keras 3 the first layer's dtype is the type of its input */
        type = json_get(config, "dtype");
        type_key = "dtype";
    }
    TRY(canon_dtype(c, type, arena_print(c->mem, "%s/%s", pointer, type_key), embedding && !fits(c, K3) ? "int32" : "float32",
                    true, dtype));
    for (size_t i = 0; i < COUNT(whole); i++) {
        const struct json *j = json_get(config, whole[i]);
        if (j && json_type(j) != JSON_NULL)
            return canon_shape(c, j, arena_print(c->mem, "%s/%s", pointer, whole[i]), shape);
    }
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct json *j = json_get(config, rows[i]);
        if (!j || json_type(j) == JSON_NULL)
            continue;
        if (json_type(j) != JSON_ARRAY)
            return canon_shape(c, j, arena_print(c->mem, "%s/%s", pointer, rows[i]), shape);
        OWNED(json_free) struct json *with_batch = json_new_array();
        json_push(with_batch, json_new_null());
        for (const struct json *d = json_first(j); d; d = json_next(d))
            json_push(with_batch, json_copy(d));
        return canon_shape(c, with_batch, arena_print(c->mem, "%s/%s", pointer, rows[i]), shape);
    }

    OWNED(json_free) struct json *made = json_new_array();
    json_push(made, json_new_null());
    if (embedding) {
        if (!json_get(config, "input_length"))
            return ST_OK;
        TRY(dim_of(c, config, "input_length", pointer, made));
    } else {
        if (!json_get(config, "input_dim") || json_type(json_get(config, "input_dim")) == JSON_NULL)
            return ST_OK;
        if (json_get(config, "input_length") || !strcmp(class_name, "LSTM"))
            TRY(dim_of(c, config, "input_length", pointer, made));
        TRY(dim_of(c, config, "input_dim", pointer, made));
    }
    *shape = STEAL(made);
    return ST_OK;
}

/* ---- initializers, regularizers, activations ----------------------------------------------------------------------------- */

/* {"name": X, ...rest} of Keras 1 as {"class_name": X, "config": rest}; anything else as it is. Owned by the caller. */
static struct json *modern_object(const struct json *j)
{
    if (json_type(j) != JSON_OBJECT || !json_text(json_get(j, "name")) || json_get(j, "class_name"))
        return json_copy(j);
    struct json *config = json_copy(j), *made = json_new_object();

    json_put(made, "class_name", json_new_text(json_text(json_get(j, "name"))));
    json_remove(config, "name");
    json_put(made, "config", config);
    return made;
}

/* An initializer or regularizer as null or {"class_name", "config"} under its canonical name. */
static enum status canon_object(struct canon *c, const struct object_row *rows, const struct catalogue *known,
                                const struct json *value, const char *pointer, struct json **ret)
{
    if (json_type(value) == JSON_NULL) {
        *ret = json_new_null();
        return ST_OK;
    }
    OWNED(json_free) struct json *j = modern_object(value);
    const char *name = json_text(j) ? json_text(j) : json_text(json_get(j, "class_name"));
    if (!name)
        return fail(c->problem, ST_INVALID, pointer, "wants a name or {\"class_name\", \"config\"}, here is %s",
                    json_type_name(json_type(value)));
    OWNED(json_free) struct json *config = json_detach(j, "config");
    if (config && json_type(config) != JSON_OBJECT)
        return fail(c->problem, ST_INVALID, arena_print(c->mem, "%s/config", pointer), "wants an object, here is %s",
                    json_type_name(json_type(config)));
    if (!config)
        config = json_new_object();

    const char *registered = json_text(json_get(j, "registered_name"));
    if (registered && strchr(registered, '>'))
        return fail(c->problem, ST_UNSUPPORTED, pointer, "\"%s\" is a custom class: its code is not in the JSON", registered);
    const struct object_row *row = rows;
    while (row->from && !(fits(c, row->dialects) && !strcasecmp(row->from, name)))
        row++;
    if (row->from) {
        name = row->to;
        if (row->config) {
            json_free(config);
            config = json_of(row->config);
        }
    }
    const struct class *class = catalogue_find(known, name);
    OWNED(json_free) struct json *made = json_new_object();
    json_put(made, "class_name", json_new_text(class ? class->keras : name));

    static const char *const gone[] = {"dtype", "input_axes", "output_axes", "name"};
    for (size_t i = 0; i < COUNT(gone); i++)
        json_remove(config, gone[i]);
    if (json_type(json_get(config, "seed")) == JSON_NULL || json_type(json_get(config, "seed")) == JSON_OBJECT)
        json_remove(config, "seed"); /* the job's seed decides */
    if (json_is(json_get(config, "distribution"), "normal"))
        json_put(config, "distribution", json_new_text("truncated_normal"));
    json_put(made, "config", STEAL(config));
    *ret = STEAL(made);
    return ST_OK;
}

static enum status canon_activation(struct canon *c, const struct json *value, const char *pointer, struct json **ret)
{
    const char *name = json_text(value);

    if (json_type(value) == JSON_NULL) {
        *ret = json_new_text("linear");
        return ST_OK;
    }
    if (json_type(value) == JSON_OBJECT) {
        const char *class_name = json_text(json_get(value, "class_name"));
        if (class_name && !strcmp(class_name, "function"))
            name = json_text(json_get(value, "config"));
        else if (class_name)
            return fail(c->problem, ST_UNSUPPORTED, pointer,
                        "a layer (%s) as an activation is not built yet: put it behind as a layer of its own", class_name);
    }
    if (!name)
        return fail(c->problem, ST_INVALID, pointer, "an activation is a name like \"relu\", here is %s",
                    json_type_name(json_type(value)));
    if (!fits(c, K3) && !strcasecmp(name, "hard_sigmoid")) {
        *ret = json_new_text("keras1_hard_sigmoid");
        return ST_OK;
    }
    int which = activation_find(name);
    *ret = json_new_text(which >= 0 ? activation_names[which] : name);
    return ST_OK;
}

static enum status canon_value(struct canon *c, const char *key, const struct json *value, const char *pointer,
                               struct json **ret)
{
    *ret = NULL;
    if (ends_with(key, "_initializer"))
        return canon_object(c, initializer_rows, &initializer_catalogue, value, pointer, ret);
    if (ends_with(key, "_regularizer"))
        return canon_object(c, regularizer_rows, &regularizer_catalogue, value, pointer, ret);
    if (ends_with(key, "_constraint") && json_type(value) != JSON_NULL)
        return fail(c->problem, ST_UNSUPPORTED, pointer, "constraints on weights are not built yet: set it to null");
    if (!strcmp(key, "activation") || !strcmp(key, "recurrent_activation"))
        return canon_activation(c, value, pointer, ret);
    return ST_OK;
}

/* ---- conversions named by rows ------------------------------------------------------------------------------------------- */

/* Keras 1's cpu and mem modes start and regularize the recurrent matrices as the kernels; only gpu mode reads inner_init and
 * U_regularizer (keras 1.2.2 layers/recurrent.py, LSTM.build). Runs before the renaming. */
enum status convert_consume_less(struct conversion *v)
{
    if (json_is(v->value, "gpu"))
        return ST_OK;
    const struct json *init = json_get(v->config, "init"), *penalty = json_get(v->config, "W_regularizer");

    json_put(v->config, "inner_init", init ? json_copy(init) : json_new_text("glorot_uniform"));
    json_put(v->config, "U_regularizer", penalty ? json_copy(penalty) : json_new_null());
    return ST_OK;
}

enum status convert_kernel_rows(struct conversion *v)
{
    struct json *pair = v->ret = json_new_array();
    struct json *columns = json_detach(v->config, "nb_col");

    json_push(pair, json_copy(v->value));
    json_push(pair, columns ? columns : json_new_null());
    return ST_OK;
}

enum status convert_border_mode(struct conversion *v)
{
    if (json_is(v->value, "full"))
        return fail(v->c->problem, ST_UNSUPPORTED, v->pointer, "border_mode \"full\" (layer \"%s\") is not built yet",
                    v->layer);
    v->ret = json_copy(v->value);
    return ST_OK;
}

enum status convert_dim_ordering(struct conversion *v)
{
    bool first = v->value && json_is(v->value, "th");

    if (!v->value || json_is(v->value, "default") || json_type(v->value) == JSON_NULL)
        first = v->c->channels_first;
    else if (!first && !json_is(v->value, "tf"))
        return fail(v->c->problem, ST_INVALID, v->pointer, "dim_ordering is \"th\", \"tf\" or \"default\"");
    v->ret = json_new_text(first ? "channels_first" : "channels_last");
    return ST_OK;
}

enum status convert_data_format(struct conversion *v)
{
    v->ret = json_type(v->value) == JSON_NULL ? json_new_text("channels_last") : json_copy(v->value);
    return ST_OK;
}

enum status convert_forget_bias(struct conversion *v)
{
    if (!json_text(v->value))
        return fail(v->c->problem, ST_INVALID, v->pointer, "forget_bias_init is a name like \"one\", here is %s",
                    json_type_name(json_type(v->value)));
    v->ret = json_new_bool(json_is(v->value, "one") || json_is(v->value, "ones"));
    return ST_OK;
}

/* Keras 2 prints a slope that it keeps as an array: {"type": "ndarray", "value": 0.3}. */
enum status convert_slope(struct conversion *v)
{
    const struct json *inner = json_get(v->value, "value");

    v->ret = json_copy(inner ? inner : v->value);
    return ST_OK;
}

/* tf.keras prints the one axis of a normalisation as a list. */
enum status convert_axis(struct conversion *v)
{
    const struct json *first = json_first(v->value);

    v->ret = json_copy(json_type(v->value) == JSON_ARRAY && first && !json_next(first) ? first : v->value);
    return ST_OK;
}

/* An option that Keras 3 no longer knows: dropped where it is off. */
enum status convert_off(struct conversion *v)
{
    if (json_type(v->value) == JSON_NULL || (json_type(v->value) == JSON_BOOL && !json_true(v->value)))
        return ST_OK;
    return fail(v->c->problem, ST_UNSUPPORTED, v->pointer,
                "layer \"%s\": only false is built here, which is all that Keras 3 has", v->layer);
}

static struct json *pair_of(const struct json *a, const struct json *b)
{
    struct json *pair = json_new_array();

    json_push(pair, a ? json_copy(a) : json_new_int(0));
    json_push(pair, b ? json_copy(b) : json_new_int(0));
    return pair;
}

/* Every spelling of ZeroPadding2D's padding as [[top, bottom], [left, right]]. */
enum status convert_padding_2d(struct conversion *v)
{
    const struct json *p = v->value, *first = json_first(p);
    int n = json_type(p) == JSON_ARRAY ? json_count(p) : 0;
    struct json *rows = NULL, *columns = NULL;

    if (json_type(p) == JSON_NUMBER) {
        rows = pair_of(p, p);
        columns = pair_of(p, p);
    } else if (json_type(p) == JSON_OBJECT) {
        rows = pair_of(json_get(p, "top_pad"), json_get(p, "bottom_pad"));
        columns = pair_of(json_get(p, "left_pad"), json_get(p, "right_pad"));
    } else if (n == 2 && json_type(first) == JSON_NUMBER) {
        rows = pair_of(first, first);
        columns = pair_of(json_next(first), json_next(first));
    } else if (n == 2 && json_type(first) == JSON_ARRAY && json_count(first) == 2 && json_count(json_next(first)) == 2) {
        rows = json_copy(first);
        columns = json_copy(json_next(first));
    } else if (n == 4) {
        rows = pair_of(first, json_next(first));
        columns = pair_of(json_at(p, 2), json_at(p, 3));
    } else {
        return fail(v->c->problem, ST_INVALID, v->pointer,
                    "padding is a number, two numbers, or [[top, bottom], [left, right]] (layer \"%s\")", v->layer);
    }
    v->ret = json_new_array();
    json_push(v->ret, rows);
    json_push(v->ret, columns);
    return ST_OK;
}

/* ---- the layer ----------------------------------------------------------------------------------------------------------- */

static enum status apply_keys(struct canon *c, const char *class_name, struct json *config, const char *layer,
                              const char *pointer, struct json *keys)
{
    for (const struct key_row *row = key_rows; row->from; row++) {
        if (!fits(c, row->dialects) || (row->layer && strcmp(row->layer, class_name) != 0))
            continue;
        OWNED(json_free) struct json *value = json_detach(config, row->from);
        if (!value && !row->always)
            continue;
        struct conversion v = {.c = c,
                               .config = config,
                               .value = value,
                               .layer = layer,
                               .pointer = arena_print(c->mem, "%s/%s", pointer, row->from)};
        if (row->convert)
            TRY(row->convert(&v));
        else if (row->to)
            v.ret = STEAL(value);
        if (!v.ret)
            continue;
        json_put(config, row->to, v.ret);
        if (strcmp(row->from, row->to) != 0)
            json_put(keys, row->to, json_new_text(row->from));
    }
    return ST_OK;
}

static void apply_defaults(struct canon *c, const char *class_name, struct json *config)
{
    for (const struct default_row *row = default_rows; row->layer; row++)
        if (!strcmp(row->layer, class_name) && row->json[c->dialect] && !json_get(config, row->key))
            json_put(config, row->key, json_of(row->json[c->dialect]));
}

/* The key that the user wrote for a canonical one. */
static const char *written_key(const struct json *keys, const char *key)
{
    const char *old = json_text(json_get(keys, key));

    return old ? old : key;
}

static enum status apply_values(struct canon *c, struct json *config, const char *pointer, const struct json *keys)
{
    OWNED(json_free) struct json *changed = json_new_object();

    for (const struct json *m = json_first(config); m; m = json_next(m)) {
        struct json *made = NULL;
        TRY(canon_value(c, json_key(m), m, pointer_key(c->mem, pointer, written_key(keys, json_key(m))), &made));
        if (made)
            json_put(changed, json_key(m), made);
    }
    for (const struct json *m = json_first(changed); m; m = json_next(m))
        json_put(config, json_key(m), json_copy(m));
    return ST_OK;
}

/* Keras 1's Merge is one class with a mode; later versions have a class for each, with less to say. */
static enum status merge_class(struct canon *c, struct json *config, const char *layer, const char *pointer, const char **ret)
{
    static const char *const keys[] = {"mode",        "mode_type",        "dot_axes",  "output_shape",
                                       "output_mask", "output_mask_type", "arguments", "output_shape_type"};
    const struct json *mode = json_get(config, "mode");
    const struct json *mode_type = json_get(config, "mode_type");

    pointer = arena_print(c->mem, "%s/mode", pointer);
    if (mode_type && !json_is(mode_type, "raw"))
        return fail(c->problem, ST_UNSUPPORTED, pointer, "layer \"%s\" merges by a Python function, which is not run here",
                    layer);
    if (mode && !json_text(mode))
        return fail(c->problem, ST_INVALID, pointer, "a merge mode is a name like \"sum\", here is %s",
                    json_type_name(json_type(mode)));
    for (const struct class_row *row = merge_rows; row->from; row++)
        if (!strcmp(row->from, mode ? json_text(mode) : "sum")) {
            for (size_t i = 0; i < COUNT(keys); i++)
                json_remove(config, keys[i]);
            if (strcmp(row->to, "Concatenate") != 0)
                json_remove(config, "concat_axis");
            *ret = row->to;
            return ST_OK;
        }
    return fail(c->problem, ST_INVALID, pointer, "there is no merge mode \"%s\"", json_text(mode));
}

static enum status input_layer(struct canon *c, struct json *config, const char *pointer)
{
    OWNED(json_free) struct json *shape = NULL;
    const char *dtype;

    TRY(canon_input_hint(c, "InputLayer", config, pointer, &shape, &dtype));
    if (fits(c, K3))
        TRY(canon_dtype(c, json_get(config, "dtype"), arena_print(c->mem, "%s/dtype", pointer), "float32", true, &dtype));
    if (!shape)
        return fail(c->problem, ST_INVALID, pointer, "an InputLayer needs a \"%s\"",
                    fits(c, K3) ? "batch_shape" : "batch_input_shape");
    static const char *const refused[] = {"sparse", "ragged", "optional"};
    for (size_t i = 0; i < COUNT(refused); i++)
        if (json_true(json_get(config, refused[i])))
            return fail(c->problem, ST_UNSUPPORTED, arena_print(c->mem, "%s/%s", pointer, refused[i]),
                        "%s inputs are not built yet", refused[i]);
    while (json_first(config))
        json_remove(config, json_key(json_first(config)));
    json_put(config, "batch_shape", STEAL(shape));
    json_put(config, "dtype", json_new_text(dtype));
    json_put(config, "sparse", json_new_bool(false));
    return ST_OK;
}

enum status canon_layer(struct canon *c, const char **class_name, struct json *config, const char *layer, const char *pointer,
                        struct json *keys)
{
    const char *class = *class_name;

    for (const struct class_row *row = class_rows; row->from; row++)
        if (fits(c, row->dialects) && !strcmp(row->from, class)) {
            class = row->to;
            break;
        }
    if (!strcmp(class, "Merge"))
        TRY(merge_class(c, config, layer, pointer, &class));
    *class_name = class;
    if (!strcmp(class, "InputLayer"))
        return input_layer(c, config, pointer);

    const struct json *trainable = json_get(config, "trainable");
    if (trainable && json_type(trainable) != JSON_BOOL)
        return fail(c->problem, ST_INVALID, arena_print(c->mem, "%s/trainable", pointer), "wants true or false, here is %s",
                    json_type_name(json_type(trainable)));
    const struct json *dtype = json_get(config, "dtype");
    bool names_input = !fits(c, K3) && json_get(config, "batch_input_shape");
    const char *type;
    TRY(canon_dtype(c, dtype, arena_print(c->mem, "%s/dtype", pointer), "float32",
                    names_input || (!fits(c, K3) && !strcmp(class, "Embedding")), &type));
    json_put(config, "dtype", json_new_text(is_mixed(dtype) ? "mixed_bfloat16" : "float32"));

    static const char *const hints[] = {"batch_input_shape", "batch_shape", "input_shape", "input_dtype", "input_length"};
    for (size_t i = 0; i < COUNT(hints); i++)
        json_remove(config, hints[i]);
    if (strcmp(class, "Embedding") != 0)
        json_remove(config, "input_dim");

    TRY(apply_keys(c, class, config, layer, pointer, keys));
    TRY(apply_values(c, config, pointer, keys));
    apply_defaults(c, class, config);
    return ST_OK;
}
