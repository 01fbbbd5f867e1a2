/* From a canonical entry {"class_name", "config", ...} to a struct layer.
 *
 * A key of the configuration is one of three: a field of the layer; something that Keras has and that says nothing at the value it
 * has (the table at the end), which is dropped; or unknown, which is dropped with a warning. */
#include "engine/model/keras_layer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct neutral {       /* a key of Keras that a layer may not have, and the value at which it means nothing */
    const char *layer; /* NULL: every layer */
    const char *key;
    const char *json[3]; /* accepted values; "*": any */
};
static const struct neutral neutral_rows[];

static const char *const base_keys[] = {"name", "trainable", "dtype"}; /* every layer has them; none is a field */

static bool is_base_key(const char *key)
{
    for (size_t i = 0; i < COUNT(base_keys); i++)
        if (!strcmp(key, base_keys[i]))
            return true;
    return false;
}

static bool has_field(const struct field *fields, const char *key)
{
    for (; fields && fields->key; fields++)
        if (!strcmp(fields->key, key))
            return true;
    return false;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && !strcmp(s + n - m, end);
}

enum sense { SENSE_UNKNOWN, SENSE_NOTHING, SENSE_MISSING /* means something, and is not built */ };

static enum sense sense_of(const char *class, const char *key, const struct json *value)
{
    if (ends_with(key, "_constraint") || ends_with(key, "_regularizer"))
        return json_type(value) == JSON_NULL ? SENSE_NOTHING : SENSE_MISSING;
    for (const struct neutral *row = neutral_rows; row->key; row++) {
        if (strcmp(row->key, key) != 0 || (row->layer && strcmp(row->layer, class) != 0))
            continue;
        OWNED(free) char *text = json_print(value, JSON_NAN);
        for (size_t i = 0; i < COUNT(row->json) && row->json[i]; i++)
            if (!strcmp(row->json[i], "*") || !strcmp(row->json[i], text))
                return SENSE_NOTHING;
        return SENSE_MISSING;
    }
    return SENSE_UNKNOWN;
}

static const char *written_key(const struct json *keys, const char *key)
{
    const char *old = json_text(json_get(keys, key));

    return old ? old : key;
}

/* The problem of field_parse in the user's words: its own key at the end of the pointer, the layer in the detail. */
static void reword(struct problem *problem, const char *config_pointer, const struct json *keys, const char *layer)
{
    struct problem was = *problem;
    size_t n = strlen(config_pointer);
    char key[100], where[512];

    snprintf(where, sizeof where, "%s", was.where);
    if (!strncmp(was.where, config_pointer, n) && was.where[n] == '/') {
        const char *from = was.where + n + 1;
        snprintf(key, sizeof key, "%.*s", (int)strcspn(from, "/"), from);
        if (json_get(keys, key)) /* what stands behind the key had another form in the document */
            snprintf(where, sizeof where, "%s/%s", config_pointer, written_key(keys, key));
    }
    fail(problem, was.status, where, "layer \"%.100s\": %s", layer, was.detail);
}

/* Takes what is no field of the layer out of the configuration. */
static enum status sort_keys(const struct layer_type *type, struct json *config, const char *pointer, const struct json *keys,
                             const char *name, struct text *warnings, struct problem *problem)
{
    for (const struct json *m = json_first(config), *next; m; m = next) {
        const char *key = json_key(m), *written = written_key(keys, key);
        char where[512];

        next = json_next(m);
        if (is_base_key(key) || has_field(type->fields, key))
            continue;
        switch (sense_of(type->keras, key, m)) {
        case SENSE_MISSING: {
            OWNED(free) char *value = json_print(m, JSON_NAN);
            snprintf(where, sizeof where, "%s/%s", pointer, written);
            return fail(problem, ST_UNSUPPORTED, where, "layer \"%.100s\": \"%.60s\" with %.100s is not built yet for %s", name,
                        written, value, type->keras);
        }
        case SENSE_UNKNOWN:
            if (!warnings) {
                snprintf(where, sizeof where, "%s/%s", pointer, written);
                return fail(problem, ST_INVALID, where, "layer \"%.100s\": unknown key \"%.100s\"", name, written);
            }
            text_printf(warnings, "layer %s: unknown key \"%s\" ignored\n", name, written);
            break;
        case SENSE_NOTHING:
            break;
        }
        json_remove(config, key);
    }
    return ST_OK;
}

enum status layer_read(struct json *entry, const char *name, struct arena *mem, struct text *warnings, struct layer *ret,
                       struct problem *problem)
{
    OWNED(json_free) struct json *mark = json_detach(entry, "horn_pointer");
    OWNED(json_free) struct json *keys = json_detach(entry, "horn_keys");
    const char *class = json_text(json_get(entry, "class_name")), *pointer = json_text(mark);
    struct json *config = json_get(entry, "config"), *base[COUNT(base_keys)];
    const char *at = arena_print(mem, "%s/config", pointer);
    const struct layer_type *type = (const struct layer_type *)catalogue_find(&layer_catalogue, class);

    if (!type)
        return fail(problem, ST_UNSUPPORTED, arena_print(mem, "%s/class_name", pointer), "layer \"%s\" (%s) is not built yet",
                    class, name);
    json_put(entry, "class_name", json_new_text(type->keras));
    TRY(sort_keys(type, config, at, keys, name, warnings, problem));

    bool trainable = !json_get(config, "trainable") || json_true(json_get(config, "trainable"));
    void *into = arena_alloc(mem, type->config_size ? type->config_size : 1);
    for (size_t i = 0; i < COUNT(base_keys); i++)
        base[i] = json_detach(config, base_keys[i]);
    enum status s = type->fields ? field_parse(type->fields, config, into, mem, at, warnings ? FIELD_TOLERANT : FIELD_STRICT,
                                               warnings, problem)
                                 : ST_OK;
    for (size_t i = 0; i < COUNT(base_keys); i++)
        if (base[i])
            json_put(config, base_keys[i], base[i]);
    if (s != ST_OK) {
        reword(problem, at, keys, name);
        return s;
    }
    const char *policy = json_text(json_get(config, "dtype"));
    enum dtype compute = policy && !strcmp(policy, "mixed_bfloat16") ? BF16 : F32;

    *ret = (struct layer){.type = type, .name = name, .config = into, .trainable = trainable, .compute = compute};
    return ST_OK;
}

static const struct neutral neutral_rows[] = {
    {NULL, "autocast", {"*"}},
    {NULL, "seed", {"*"}}, /* the job's seed decides */
    {NULL, "noise_shape", {"null"}},
    {NULL, "data_format", {"null", "\"channels_last\""}},
    {NULL, "implementation", {"*"}}, /* ways to compute the same */
    {NULL, "unroll", {"*"}},
    {NULL, "use_cudnn", {"*"}},
    {NULL, "fused", {"*"}},
    {NULL, "lora_rank", {"null"}},
    {NULL, "lora_alpha", {"*"}}, /* without lora_rank it scales nothing */
    {NULL, "quantization_config", {"null"}},
    {NULL, "quantization_mode", {"null"}},
    {NULL, "batch_size", {"*"}},
    {NULL, "weights", {"null"}},
    {NULL, "groups", {"1"}},
    {NULL, "keepdims", {"false"}},
    {NULL, "supports_masking", {"*"}},
    {"BatchNormalization", "mode", {"0"}},
    {"BatchNormalization", "synchronized", {"false"}},
    {"BatchNormalization", "renorm", {"false"}},
    {"BatchNormalization", "renorm_clipping", {"null"}},
    {"BatchNormalization", "renorm_momentum", {"*"}},
    {"BatchNormalization", "virtual_batch_size", {"null"}},
    {"BatchNormalization", "adjustment", {"null"}},
    {"Embedding", "dropout", {"0"}},
    {"Embedding", "sparse", {"false"}},
    {"LSTM", "stateful", {"false"}},
    {"LSTM", "return_state", {"false"}},
    {"LSTM", "time_major", {"false"}},
    {"LSTM", "zero_output_for_mask", {"false"}},
    {"LSTM", "go_backwards", {"false"}},
    {"LSTM", "dropout", {"0"}},
    {"LSTM", "recurrent_dropout", {"0"}},
    {0},
};
