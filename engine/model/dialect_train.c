/* compile()'s optimizer and fit()'s callbacks in Keras 3's spelling, with the defaults of the version that the model is from.
 *
 * Sources: keras 1.2.2 optimizers.py and callbacks.py, keras 2.3.1 optimizers.py; keras-features 1.1, 1.2, 9. A document that is
 * canonical already comes out as it went in, since a version goes on with the compile() that it was saved with. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "engine/base/field.h"
#include "engine/model/dialect_parts.h"

static const struct key_row optimizer_keys[], callback_keys[];
static const struct default_row optimizer_defaults[], callback_defaults[];
static const char *const optimizer_names[], *const callback_names[];

/* The class whose name, or its snake_case form, this is; NULL if it is none of ours. */
static const char *known_class(const char *const *names, const char *name)
{
    char snake[128];

    for (; *names; names++) {
        snake_case(*names, snake, sizeof snake);
        if (!strcasecmp(*names, name) || !strcasecmp(snake, name))
            return *names;
    }
    return NULL;
}

static enum status canon_train(const struct json *given, const char *pointer, enum dialect d, const char *what,
                               const char *const *names, const struct key_row *keys, const struct default_row *defaults,
                               struct json **ret, struct problem *problem)
{
    OWNED(json_free) struct json *made = json_new_object();
    const char *name = json_text(given);
    char where[256];

    if (!name)
        TRY(canon_class(given, pointer, what, &name, problem));
    const struct json *config = json_get(given, "config");
    snprintf(where, sizeof where, "%s/config", pointer);
    if (config && json_type(config) != JSON_OBJECT && json_type(config) != JSON_NULL)
        return fail(problem, ST_INVALID, where, "must be an object, got %s", json_type_name(json_type(config)));
    for (const struct json *m = json_type(given) == JSON_OBJECT ? json_first(given) : NULL; m; m = json_next(m)) {
        static const char *const outer[] = {"class_name",      "config",       "module",
                                            "registered_name", "build_config", "shared_object_id"};
        size_t i = 0;
        while (i < COUNT(outer) && strcmp(outer[i], json_key(m)) != 0)
            i++;
        if (i == COUNT(outer)) {
            snprintf(where, sizeof where, "%s/%s", pointer, json_key(m));
            return fail(problem, ST_INVALID, where, "unknown key \"%.100s\"; %s is {\"class_name\", \"config\"}", json_key(m),
                        what);
        }
    }

    const char *class = known_class(names, name);
    struct json *to = json_put(made, "config", json_type(config) == JSON_OBJECT ? json_copy(config) : json_new_object());
    json_put(made, "class_name", json_new_text(class ? class : name));
    for (const struct key_row *row = keys; class && row->from; row++) {
        if (!(row->dialects & IN(d)) || (row->layer && strcmp(row->layer, class) != 0) || !json_get(to, row->from))
            continue;
        if (!row->to || (json_type(json_get(to, row->from)) == JSON_NULL && strcmp(row->from, row->to) == 0)) {
            json_remove(to, row->from);
        } else if (strcmp(row->from, row->to) != 0) {
            if (json_get(to, row->to)) {
                snprintf(where, sizeof where, "%s/config/%s", pointer, row->from);
                return fail(problem, ST_INVALID, where, "\"%s\" and \"%s\" mean the same: give one of them", row->from,
                            row->to);
            }
            json_rename(to, row->from, row->to);
        }
    }
    for (const struct default_row *row = defaults; class && row->layer; row++) {
        struct problem ignored;
        struct json *value;
        const char *text = row->json[d];
        if (strcmp(row->layer, class) != 0 || !text || json_get(to, row->key))
            continue;
        if (json_parse(text, strlen(text), NULL, 0, &value, &ignored) == ST_OK)
            json_put(to, row->key, value);
    }
    *ret = STEAL(made);
    return ST_OK;
}

enum status dialect_optimizer(const struct json *optimizer, const char *pointer, enum dialect d, struct json **ret,
                              struct problem *problem)
{
    return canon_train(optimizer, pointer, d, "an optimizer", optimizer_names, optimizer_keys, optimizer_defaults, ret,
                       problem);
}

enum status dialect_callback(const struct json *callback, const char *pointer, enum dialect d, struct json **ret,
                             struct problem *problem)
{
    return canon_train(callback, pointer, d, "a callback", callback_names, callback_keys, callback_defaults, ret, problem);
}

const char *dialect_written_key(const struct json *written, const char *canonical)
{
    const struct key_row *const tables[] = {optimizer_keys, callback_keys};
    const struct json *config = json_get(written, "config");

    for (size_t i = 0; i < COUNT(tables) && !json_get(config, canonical); i++)
        for (const struct key_row *row = tables[i]; row->from; row++)
            if (row->to && !strcmp(row->to, canonical) && json_get(config, row->from))
                return row->from;
    return canonical;
}

static const char *const optimizer_names[] = {"SGD",   "RMSprop", "Adagrad", "Adadelta", "Adam",
                                              "AdamW", "Adamax",  "Nadam",   NULL};
static const char *const callback_names[] = {"EarlyStopping", "ReduceLROnPlateau", "ModelCheckpoint", "TerminateOnNaN", NULL};

static const struct key_row optimizer_keys[] = {
    {K1 | K2 | TFK, NULL, "lr", .to = "learning_rate"},
    {K1 | K2, NULL, "clipnorm", .to = "global_clipnorm"}, /* one norm over all gradients before tf.keras */
    {K1 | K2 | TFK, NULL, "epsilon", .to = "epsilon"},    /* null: the default */
    {TFK, NULL, "jit_compile", .to = NULL},
    {TFK, NULL, "is_legacy_optimizer", .to = NULL},
    {TFK, NULL, "ema_overwrite_frequency", .to = NULL}, /* without use_ema it does nothing */
    {0},
};

/* Keras 1, 2 (2.1.3 on), 2.3, tf.keras (2.11 on), 3. keras1_epsilon: epsilon stands outside of the root. */
#define FIVE(k1, k2, k23, tfk, k3) \
    {                              \
        k1, k2, k23, tfk, k3       \
    }
static const struct default_row optimizer_defaults[] = {
    {"SGD", "learning_rate", FIVE("0.01", "0.01", "0.01", "0.01", "0.01")},
    {"RMSprop", "learning_rate", FIVE("0.001", "0.001", "0.001", "0.001", "0.001")},
    {"RMSprop", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {"RMSprop", "keras1_epsilon", FIVE("true", "true", "true", NULL, NULL)},
    {"Adagrad", "learning_rate", FIVE("0.01", "0.01", "0.01", "0.001", "0.001")},
    {"Adagrad", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {"Adagrad", "initial_accumulator_value", FIVE("0", "0", "0", "0.1", "0.1")},
    {"Adagrad", "keras1_epsilon", FIVE("true", "true", "true", NULL, NULL)},
    {"Adadelta", "learning_rate", FIVE("1.0", "1.0", "1.0", "0.001", "0.001")},
    {"Adadelta", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {"Adam", "learning_rate", FIVE("0.001", "0.001", "0.001", "0.001", "0.001")},
    {"Adam", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {"Adamax", "learning_rate", FIVE("0.002", "0.002", "0.002", "0.001", "0.001")},
    {"Adamax", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {"Nadam", "learning_rate", FIVE("0.002", "0.002", "0.002", "0.001", "0.001")},
    {"Nadam", "epsilon", FIVE("1e-8", "1e-7", "1e-7", "1e-7", "1e-7")},
    {0},
};

static const struct key_row callback_keys[] = {
    {EVERY, "ReduceLROnPlateau", "epsilon", .to = "min_delta"},
    {0},
};

static const struct default_row callback_defaults[] = {
    {"EarlyStopping", "monitor", FIVE("\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"")},
    {"EarlyStopping", "min_delta", FIVE("0", "0", "0", "0", "0")},
    {"EarlyStopping", "patience", FIVE("0", "0", "0", "0", "0")},
    {"ReduceLROnPlateau", "monitor", FIVE("\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"")},
    {"ReduceLROnPlateau", "min_delta", FIVE("0.0001", "0.0001", "0.0001", "0.0001", "0.0001")},
    {"ReduceLROnPlateau", "factor", FIVE("0.1", "0.1", "0.1", "0.1", "0.1")},
    {"ReduceLROnPlateau", "patience", FIVE("10", "10", "10", "10", "10")},
    {"ModelCheckpoint", "monitor", FIVE("\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"", "\"val_loss\"")},
    {0},
};
