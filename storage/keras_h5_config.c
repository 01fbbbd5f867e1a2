/* model_config and training_config: Horn's canonical JSON as Keras' .h5 reader wants it, and back.
 *
 * Written: layer entries without module, inner names that only Horn knows ("keras1_...") replaced by Keras 3's nearest.
 * Whatever that loses (another version's meaning of the same JSON, an optimizer's epsilon outside of the root, decay) stands
 * exactly in a second attribute that Keras does not look at and Horn prefers. Read: what Keras 1 to 3 write into the
 * attributes. Forms: keras-hdf5-formats 2.3 and 2.4. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/keras_h5_parts.h"

#define PRIVATE "keras1_"

static bool is_private(const char *s)
{
    return s && strncmp(s, PRIVATE, strlen(PRIVATE)) == 0;
}

/* Keys that begin with keras1_ go, values lose it. true if there were any. */
static bool remove_private(struct json *j)
{
    bool any = false;
    struct json *next;

    for (struct json *m = json_first(j); m; m = next) {
        const char *key = json_type(j) == JSON_OBJECT ? json_key(m) : NULL, *text = json_text(m);
        next = json_next(m);
        if (is_private(key)) {
            json_remove(j, key);
            any = true;
        } else if (key && is_private(text)) {
            struct json *bare = json_new_text(text + strlen(PRIVATE));
            json_put(j, key, bare); /* in the same place: `next` stays valid */
            any = true;
        } else {
            any = remove_private(m) || any;
        }
    }
    return any;
}

static bool is_model(const struct json *entry)
{
    return json_is(json_get(entry, "class_name"), "Sequential") || json_is(json_get(entry, "class_name"), "Functional");
}

/* [["out", 0, 0]] as ["out", 0, 0]: a model of one input or output takes and gives a tensor, not a list. */
static void lone_end(struct json *config, const char *key)
{
    const struct json *ends = json_get(config, key), *only = json_first(ends);

    if (json_count(ends) == 1 && json_type(only) == JSON_ARRAY)
        json_put(config, key, json_copy(only));
}

/* Keras gives a frozen Sequential no say in its layers' training when it reads one, so each of them says it. */
static void legacy_entry(struct json *entry, bool trainable)
{
    struct json *config = json_get(entry, "config");

    json_remove(entry, "module");
    json_remove(entry, "registered_name");
    json_remove(entry, "build_config");
    if (!is_model(entry)) {
        if (!trainable && !json_is(json_get(entry, "class_name"), "InputLayer"))
            json_put(config, "trainable", json_new_bool(false));
        return;
    }
    trainable = trainable && (!json_get(config, "trainable") || json_true(json_get(config, "trainable")));
    for (struct json *m = json_first(json_get(config, "layers")); m; m = json_next(m))
        legacy_entry(m, trainable);
    if (json_is(json_get(entry, "class_name"), "Functional")) {
        lone_end(config, "input_layers");
        lone_end(config, "output_layers");
    }
}

static bool name_taken(const struct json *layers, const char *name)
{
    for (const struct json *m = json_first(layers); m; m = json_next(m))
        if (json_is(json_get(m, "name"), name))
            return true;
    return false;
}

/* Keras cannot put weights into a Sequential whose input shape is unknown, so the one that it was trained with is written. */
static void say_input(struct json *model, const struct shape *input)
{
    struct json *config = json_get(model, "config"), *old = json_get(config, "layers"), *layers = json_new_array();
    struct json *entry = json_push(layers, json_new_object()), *own = json_new_object(), *shape = json_new_array();
    char name[40] = "input_layer";

    for (int i = 1; name_taken(old, name); i++)
        snprintf(name, sizeof name, "input_layer_%d", i);
    for (int i = 0; i < input->rank; i++)
        json_push(shape, i > 0 && input->dim[i] >= 0 ? json_new_int(input->dim[i]) : json_new_null());
    json_put(own, "name", json_new_text(name));
    json_put(own, "batch_shape", shape);
    json_put(own, "dtype", json_new_text("float32"));
    json_put(own, "sparse", json_new_bool(false));
    json_put(entry, "class_name", json_new_text("InputLayer"));
    json_put(entry, "config", own);
    json_put(entry, "name", json_new_text(name));
    for (const struct json *m = json_first(old); m; m = json_next(m))
        json_push(layers, json_copy(m));
    json_put(config, "layers", layers);
}

void config_of_model(const struct model *m, const struct shape *input, char **nearest, char **exact)
{
    OWNED(json_free) struct json *copy = json_copy(m->canonical);
    bool any = remove_private(copy);

    legacy_entry(copy, true);
    json_remove(copy, "name");
    bool silent = m->sequential && m->n_inputs == 1 && m->inputs[0].shape.rank < 0 && input->rank > 0;
    if (silent)
        say_input(copy, input);
    *nearest = json_print(copy, JSON_NAN);
    *exact = NULL;
    if (!any && m->dialect == DIALECT_KERAS_3)
        return;
    OWNED(json_free) struct json *own = json_copy(m->canonical);
    if (silent)
        say_input(own, input);
    json_put(own, "horn_dialect", json_new_text(dialect_name(m->dialect)));
    *exact = json_print(own, JSON_NAN);
}

enum status config_of_compile(const char *compile, float rate, char **nearest, char **exact, struct problem *problem)
{
    static const char *const keys[] = {"loss", "loss_weights", "metrics", "weighted_metrics"};
    OWNED(json_free) struct json *own = NULL;
    OWNED(json_free) struct json *made = json_new_object();

    TRY(json_parse(compile, strlen(compile), NULL, JSON_NAN, &own, problem));
    struct json *given = json_get(json_get(own, "optimizer"), "config");
    /* The file's rate is the one in use, as Keras has it; the number as it was written, where that is the same. */
    if (json_type(given) == JSON_OBJECT && isfinite(rate) && !((float)json_number(json_get(given, "learning_rate")) == rate))
        json_put(given, "learning_rate", json_new_number(rate));
    for (size_t i = 0; i < COUNT(keys); i++) {
        const struct json *value = json_get(own, keys[i]);
        json_put(made, keys[i], value ? json_copy(value) : json_new_null());
    }
    struct json *optimizer = json_put(made, "optimizer_config", json_copy(json_get(own, "optimizer")));
    struct json *config = json_get(optimizer, "config");
    bool any = remove_private(optimizer);
    double decay = json_number(json_get(config, "decay"));
    any = any || decay > 0;
    json_remove(config, "decay");
    /* One kind of clipping at most in Keras 3. */
    if (json_type(json_get(config, "global_clipnorm")) == JSON_NUMBER &&
        json_type(json_get(config, "clipvalue")) == JSON_NUMBER) {
        json_put(config, "clipvalue", json_new_null());
        any = true;
    }
    *nearest = json_print(made, 0);
    *exact = any ? json_print(own, 0) : NULL;
    return ST_OK;
}

/* --- reading
 * ----------------------------------------------------------------------------------------------------------------- */

/* The architecture as text, with the version of the file put in where the JSON does not say it: it decides the dialect. */
static enum status versioned(const char *config, const char *version, struct arena *mem, const char **ret,
                             struct problem *problem)
{
    OWNED(json_free) struct json *j = NULL;

    if (json_parse(config, strlen(config), NULL, JSON_NAN, &j, problem) != ST_OK)
        return fail(problem, ST_INVALID, "model_config", "the attribute is no JSON: %.300s", problem->detail);
    if (json_type(j) != JSON_OBJECT)
        return fail(problem, ST_INVALID, "model_config", "the attribute must be an object, it is %s",
                    json_type_name(json_type(j)));
    *ret = config;
    if (!*version || json_get(j, "keras_version"))
        return ST_OK;
    json_put(j, "keras_version", json_new_text(version));
    OWNED(free) char *text = json_print(j, JSON_NAN);
    *ret = arena_text(mem, text);
    return ST_OK;
}

enum status keras_h5_describe(struct h5 *f, struct arena *mem, struct keras_h5 *ret, struct problem *problem)
{
    struct keras_h5 k = {.keras_version = h5_text(f, "/", "keras_version", mem), .backend = h5_text(f, "/", "backend", mem)};
    const char *exact = h5_text(f, "/", EXACT_MODEL, mem), *config = h5_text(f, "/", "model_config", mem);

    k.keras_version = k.keras_version ? k.keras_version : "";
    k.backend = k.backend ? k.backend : "";
    k.training = h5_text(f, "/", EXACT_COMPILE, mem);
    if (!k.training)
        k.training = h5_text(f, "/", "training_config", mem);
    if (exact)
        k.architecture = exact;
    else if (config)
        TRY(versioned(config, k.keras_version, mem, &k.architecture, problem));
    *ret = k;
    return ST_OK;
}

/* {"class_name", "config"} of a loss or metric without what says nothing about it. */
static struct json *plain_object(const struct json *j)
{
    struct json *made = json_new_object(), *config = json_copy(json_get(j, "config"));

    json_remove(config, "fn");
    json_remove(config, "dtype");
    if (json_is(json_get(config, "reduction"), "auto"))
        json_remove(config, "reduction");
    json_put(made, "class_name", json_copy(json_get(j, "class_name")));
    json_put(made, "config", config ? config : json_new_object());
    return made;
}

/* A function that Keras wrapped: a metric by its name, a loss by its function. */
static struct json *unwrapped(const struct json *j)
{
    const struct json *config = json_get(j, "config"), *fn = json_get(config, "fn"), *name = json_get(config, "name");

    if (json_is(json_get(j, "class_name"), "function")) /* tf.keras: {"class_name": "function", "config": "mse"} */
        return json_copy(config);
    if (json_is(name, "accuracy") || json_is(name, "acc") || !json_text(fn))
        return json_copy(name ? name : json_get(j, "class_name"));
    return json_copy(fn);
}

/* Losses or metrics: names, objects, and lists and objects of those. */
static struct json *plain(const struct json *j)
{
    const char *class = json_text(json_get(j, "class_name"));
    struct json *made;

    if (class && (!strcmp(class, "MeanMetricWrapper") || !strcmp(class, "LossFunctionWrapper") || !strcmp(class, "function")))
        return unwrapped(j);
    if (class)
        return plain_object(j);
    if (json_type(j) == JSON_ARRAY) {
        made = json_new_array();
        for (const struct json *m = json_first(j); m; m = json_next(m))
            json_push(made, plain(m));
        return made;
    }
    if (json_type(j) == JSON_OBJECT) {
        made = json_new_object();
        for (const struct json *m = json_first(j); m; m = json_next(m))
            json_put(made, json_key(m), plain(m));
        return made;
    }
    return json_copy(j);
}

static bool is_something(const struct json *j)
{
    return json_type(j) != JSON_NOTHING && json_type(j) != JSON_NULL;
}

enum status keras_h5_compile(const struct keras_h5 *k, struct json **ret, struct problem *problem)
{
    static const char *const keys[] = {"loss", "metrics", "weighted_metrics"}, *const copied[] = {"loss_weights",
                                                                                                  "sample_weight_mode"};
    OWNED(json_free) struct json *j = NULL;
    OWNED(json_free) struct json *made = json_new_object();

    if (!k->training)
        return fail(problem, ST_INVALID, "training_config", "the file has none: its model was not compiled");
    if (json_parse(k->training, strlen(k->training), NULL, JSON_NAN, &j, problem) != ST_OK)
        return fail(problem, ST_INVALID, "training_config", "the attribute is no JSON: %.300s", problem->detail);
    if (json_type(j) != JSON_OBJECT)
        return fail(problem, ST_INVALID, "training_config", "the attribute must be an object, it is %s",
                    json_type_name(json_type(j)));
    if (json_get(j, "optimizer")) { /* Horn's own */
        *ret = STEAL(j);
        return ST_OK;
    }
    const struct json *optimizer = json_get(j, "optimizer_config");
    if (json_type(optimizer) != JSON_OBJECT || !json_text(json_get(optimizer, "class_name")))
        return fail(problem, ST_INVALID, "training_config", "\"optimizer_config\" is %s, not {\"class_name\", \"config\"}",
                    json_type_name(json_type(optimizer)));
    struct json *own = json_put(made, "optimizer", json_new_object());
    json_put(own, "class_name", json_copy(json_get(optimizer, "class_name")));
    json_put(own, "config",
             is_something(json_get(optimizer, "config")) ? json_copy(json_get(optimizer, "config")) : json_new_object());
    for (size_t i = 0; i < COUNT(keys); i++)
        if (is_something(json_get(j, keys[i])))
            json_put(made, keys[i], plain(json_get(j, keys[i])));
    for (size_t i = 0; i < COUNT(copied); i++)
        if (is_something(json_get(j, copied[i])))
            json_put(made, copied[i], json_copy(json_get(j, copied[i])));
    *ret = STEAL(made);
    return ST_OK;
}
