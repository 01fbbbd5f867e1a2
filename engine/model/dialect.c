/* Which Keras a document is from, and its structure in canonical form: entries, automatic names, Sequential models. */
#include "engine/model/dialect.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/field.h"
#include "engine/model/dialect_parts.h"

/* ---- marks of a version -------------------------------------------------------------------------------------------------- */

bool canon_is_model(const char *class)
{
    return class && (!strcmp(class, "Sequential") || !strcmp(class, "Functional") || !strcmp(class, "Model"));
}

/* true if any object of the tree has one of the keys. Depth is bounded by the parser, and here. */
static bool has_key(const struct json *j, const char *const *keys, int depth)
{
    if (depth > 200)
        return false;
    for (const struct json *m = json_first(j); m; m = json_next(m)) {
        if (json_type(j) == JSON_OBJECT)
            for (const char *const *key = keys; *key; key++)
                if (!strcmp(json_key(m), *key))
                    return true;
        if (has_key(m, keys, depth + 1))
            return true;
    }
    return false;
}

static bool has_text(const struct json *j, const char *key, const char *text, int depth)
{
    if (depth > 200)
        return false;
    if (json_is(json_get(j, key), text))
        return true;
    for (const struct json *m = json_first(j); m; m = json_next(m))
        if (json_first(m) && has_text(m, key, text, depth + 1))
            return true;
    return false;
}

static bool dense_has_output_dim(const struct json *j, int depth)
{
    static const char *const with[] = {"Dense", "LSTM", "GRU", "SimpleRNN", NULL};
    const char *class = json_text(json_get(j, "class_name"));

    for (int i = 0; class && with[i]; i++)
        if (!strcmp(class, with[i]) && json_get(json_get(j, "config"), "output_dim"))
            return true;
    for (const struct json *m = json_first(j); m && depth < 200; m = json_next(m))
        if (json_first(m) && dense_has_output_dim(m, depth + 1))
            return true;
    return false;
}

enum dialect dialect_of(const struct json *architecture)
{
    static const char *const keras_1_keys[] = {"nb_filter",     "border_mode",      "dim_ordering",
                                               "W_regularizer", "inner_init",       "input_dtype",
                                               "subsample",     "inner_activation", NULL};
    static const char *const old_keys[] = {"batch_input_shape", NULL}, *const new_keys[] = {"batch_shape", NULL};
    const char *version = json_text(json_get(architecture, "keras_version"));
    const char *class = json_text(json_get(architecture, "class_name"));
    const struct json *config = json_get(architecture, "config");
    const char *own = json_text(json_get(architecture, "horn_dialect"));
    bool functional = class && !strcmp(class, "Functional");

    for (int d = 0; own && d < N_DIALECTS; d++)
        if (!strcmp(own, dialect_name(d)))
            return d;
    if (version && !strncmp(version, "3.", 2))
        return DIALECT_KERAS_3;
    if (json_get(architecture, "module") || json_get(architecture, "registered_name"))
        return version && !strncmp(version, "2.", 2) ? DIALECT_TF_KERAS : DIALECT_KERAS_3;
    if (version && !strncmp(version, "1.", 2))
        return DIALECT_KERAS_1;
    if (version && !strncmp(version, "2.", 2)) {
        int minor = atoi(version + 2);
        if (functional || strstr(version, "-tf") || minor >= 4)
            return DIALECT_TF_KERAS;
        return minor == 3 ? DIALECT_KERAS_2_3 : DIALECT_KERAS_2;
    }

    if (has_key(config, keras_1_keys, 0) || dense_has_output_dim(architecture, 0))
        return DIALECT_KERAS_1;
    if (json_type(config) == JSON_ARRAY)
        return DIALECT_KERAS_2;
    if (has_key(config, old_keys, 0) && !has_key(config, new_keys, 0))
        return functional || has_text(config, "class_name", "InputLayer", 0) ? DIALECT_TF_KERAS : DIALECT_KERAS_2_3;
    return DIALECT_KERAS_3;
}

const char *dialect_name(enum dialect d)
{
    static const char *const names[] = {"Keras 1", "Keras 2", "Keras 2.3", "tf.keras", "Keras 3"};

    return names[d];
}

/* ---- names --------------------------------------------------------------------------------------------------------------- */

static void collect_names(struct canon *c, const struct json *j, int depth)
{
    const char *name = json_text(json_get(j, "name"));

    if (name)
        names_put(&c->taken, name, 0);
    for (const struct json *m = json_first(j); m && depth < 200; m = json_next(m))
        if (json_first(m))
            collect_names(c, m, depth + 1);
}

/* The next automatic name after `base`: dense_1, dense_2 in Keras 1 and 2; dense, dense_1 in tf.keras and Keras 3. */
static const char *next_name(struct canon *c, const char *base)
{
    bool bare_first = c->dialect >= DIALECT_TF_KERAS;
    const char *name, *key = arena_text(c->mem, base);

    do {
        int n = names_find(&c->counts, key);
        n = n < 0 ? 0 : n;
        names_put(&c->counts, key, n + 1);
        name = bare_first && n == 0 ? key : arena_print(c->mem, "%s_%d", base, bare_first ? n : n + 1);
    } while (names_find(&c->taken, name) >= 0);
    names_put(&c->taken, name, 0);
    return name;
}

static const char *lower_case(struct canon *c, const char *class)
{
    char *s = arena_text(c->mem, class);

    for (char *p = s; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return s;
}

static const char *base_name(struct canon *c, const char *class)
{
    char snake[256];

    if (c->dialect == DIALECT_KERAS_1)
        return lower_case(c, class);
    snake_case(class, snake, sizeof snake);
    return arena_text(c->mem, snake);
}

enum status canon_entry_name(struct canon *c, const struct json *entry, const struct json *config, const char *class,
                             const char *pointer, const char **ret)
{
    const struct json *outside = json_get(entry, "name"), *inside = json_get(config, "name");
    const struct json *name = outside && json_type(outside) != JSON_NULL ? outside : inside;

    if (!name || json_type(name) == JSON_NULL) {
        const char *base = base_name(c, class);
        if (!strcmp(class, "InputLayer"))
            base = c->dialect == DIALECT_KERAS_3 ? "input_layer" : "input";
        *ret = next_name(c, base);
        return ST_OK;
    }
    pointer = arena_print(c->mem, name == outside ? "%s/name" : "%s/config/name", pointer);
    if (!json_text(name) || !*json_text(name))
        return fail(c->problem, ST_INVALID, pointer, "a layer's name is a text that is not empty, here is %s",
                    json_text(name) ? "an empty one" : json_type_name(json_type(name)));
    *ret = json_text(name);
    return ST_OK;
}

/* ---- entries ------------------------------------------------------------------------------------------------------------- */

enum status canon_class(const struct json *entry, const char *pointer, const char *what, const char **ret,
                        struct problem *problem)
{
    char where[256];

    if (json_type(entry) != JSON_OBJECT)
        return fail(problem, ST_INVALID, pointer, "%s is an object {\"class_name\", \"config\"}, here is %s", what,
                    json_type_name(json_type(entry)));
    snprintf(where, sizeof where, "%s/class_name", pointer);
    const struct json *class = json_get(entry, "class_name"), *registered = json_get(entry, "registered_name");
    if (!class && json_text(json_get(entry, "name")) && (json_get(entry, "layers") || json_get(entry, "node_config")))
        return fail(problem, ST_UNSUPPORTED, pointer,
                    "the JSON of Keras 0.3 is not read here: print it again with Keras 1 or later");
    if (!json_text(class) || !*json_text(class))
        return fail(problem, ST_INVALID, class ? where : pointer, "%s needs a \"class_name\" that is a text%s%s", what,
                    class ? ", here is " : "", class ? json_type_name(json_type(class)) : "");
    if (strlen(json_text(class)) > 100)
        return fail(problem, ST_INVALID, where, "a class name has at most 100 characters");
    const char *custom = json_text(registered), *module = json_text(json_get(entry, "module"));
    if ((custom && strchr(custom, '>')) || (module && strncmp(module, "keras", 5) != 0 && strncmp(module, "tf_keras", 8) != 0 &&
                                            strncmp(module, "tensorflow", 10) != 0))
        return fail(problem, ST_UNSUPPORTED, where,
                    "\"%s\" is a custom class (%s): its code is not in the JSON, so it cannot run here", json_text(class),
                    custom ? custom : module);
    *ret = json_text(class);
    return ST_OK;
}

static enum status canon_model(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret);

struct json *canon_new_entry(const char *module, const char *class, const char *registered, const char *name,
                             const char *pointer, struct json *config)
{
    struct json *e = json_new_object();

    json_put(e, "module", json_new_text(module));
    json_put(e, "class_name", json_new_text(class));
    json_put(e, "config", config);
    json_put(e, "registered_name", json_new_text(registered));
    json_put(e, "name", json_new_text(name));
    json_put(e, "horn_pointer", json_new_text(pointer));
    return e;
}

/* The members of `config` behind "name", which stands first. Takes config. */
static struct json *named_config(const char *name, struct json *config)
{
    struct json *made = json_new_object();

    json_put(made, "name", json_new_text(name));
    for (const struct json *m = json_first(config); m; m = json_next(m))
        if (strcmp(json_key(m), "name") != 0)
            json_put(made, json_key(m), json_copy(m));
    json_free(config);
    return made;
}

/* Layers whose code is not Keras' own or is not in the document. */
static enum status refuse_code(struct canon *c, const struct json *config, const char *class, const char *name,
                               const char *pointer)
{
    const char *function = json_text(json_get(config, "function"));

    if (!strcmp(class, "Lambda"))
        return fail(c->problem, ST_UNSUPPORTED, pointer,
                    "layer \"%s\" is a Lambda: it carries Python code, which is not run here; use a layer of Keras instead",
                    name);
    if (!strcmp(class, "TFOpLambda") || !strcmp(class, "SlicingOpLambda"))
        return fail(c->problem, ST_UNSUPPORTED, pointer,
                    "layer \"%s\" is a %s (%s): a TensorFlow function, which is not run here; use a layer of Keras instead",
                    name, class, function ? function : "?");
    return ST_OK;
}

/* One entry of a list of layers: a layer or a whole model. */
enum status canon_entry(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    const char *class, *name;

    TRY(canon_class(entry, pointer, "a layer", &class, c->problem));
    if (++c->n_layers > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, pointer, "the model has more than %d layers", MAX_LAYERS);
    if (canon_is_model(class))
        return canon_model(c, entry, pointer, depth + 1, ret);

    const struct json *given = json_get(entry, "config");
    const char *config_pointer = arena_print(c->mem, "%s/config", pointer);
    if ((!given && !c->config_optional) || (given && json_type(given) != JSON_OBJECT))
        return fail(c->problem, ST_INVALID, given ? config_pointer : pointer,
                    "layer of class \"%s\" needs a \"config\" object%s%s", class, given ? ", here is " : "",
                    given ? json_type_name(json_type(given)) : "");
    TRY(canon_entry_name(c, entry, given, class, pointer, &name));
    TRY(refuse_code(c, given, class, name, pointer));

    OWNED(json_free) struct json *config = given ? json_copy(given) : json_new_object();
    OWNED(json_free) struct json *keys = json_new_object();
    json_remove(config, "name");
    TRY(canon_layer(c, &class, config, name, config_pointer, keys));
    struct json *made = canon_new_entry("keras.layers", class, NULL, name, pointer, named_config(name, STEAL(config)));
    if (json_first(keys))
        json_put(made, "horn_keys", STEAL(keys));
    *ret = made;
    return ST_OK;
}

bool canon_entry_is(const struct json *entry, const char *class)
{
    return json_is(json_get(entry, "class_name"), class);
}

static struct json *input_entry(const char *name, const char *pointer, struct json *shape, const char *dtype)
{
    struct json *config = json_new_object();

    json_put(config, "name", json_new_text(name));
    json_put(config, "batch_shape", shape);
    json_put(config, "dtype", json_new_text(dtype));
    json_put(config, "sparse", json_new_bool(false));
    return canon_new_entry("keras.layers", "InputLayer", NULL, name, pointer, config);
}

/* ---- Sequential ---------------------------------------------------------------------------------------------------------- */

/* The first InputLayer of a canonical model, or NULL. */
static const struct json *first_input(const struct json *model)
{
    const struct json *layers = json_get(json_get(model, "config"), "layers");

    for (const struct json *m = json_first(layers); m; m = json_next(m))
        if (canon_entry_is(m, "InputLayer"))
            return m;
    return NULL;
}

/* The InputLayer that a Sequential without one gets, from what its first layer or the model itself says; NULL: nothing is known. */
static enum status sequential_input(struct canon *c, const struct json *entry, const char *pointer, const struct json *first,
                                    const struct json *first_made, const char *first_pointer, struct json **ret)
{
    const struct json *config = json_get(entry, "config");
    const char *class = json_text(json_get(first, "class_name")), *name = json_text(json_get(first_made, "name"));
    const char *dtype = "float32";
    OWNED(json_free) struct json *shape = NULL;

    *ret = NULL;
    if (canon_is_model(class)) {
        const struct json *inner = first_input(first_made), *inner_config = json_get(inner, "config");
        if (inner) {
            shape = json_copy(json_get(inner_config, "batch_shape"));
            dtype = json_text(json_get(inner_config, "dtype"));
            if (c->dialect == DIALECT_KERAS_1) {
                *ret = input_entry(json_text(json_get(inner, "name")), first_pointer, STEAL(shape), dtype);
                return ST_OK;
            }
        }
    } else {
        TRY(canon_input_hint(c, class, json_get(first, "config"), arena_print(c->mem, "%s/config", first_pointer), &shape,
                             &dtype));
    }
    const struct {
        const struct json *shape;
        const char *pointer;
    } built[] = {
        {json_get(config, "build_input_shape"), "config/build_input_shape"},
        {json_get(json_get(entry, "build_config"), "input_shape"), "build_config/input_shape"},
    };
    for (size_t i = 0; i < COUNT(built) && !shape; i++)
        if (json_type(built[i].shape) == JSON_ARRAY && json_first(built[i].shape))
            TRY(canon_shape(c, built[i].shape, arena_print(c->mem, "%s/%s", pointer, built[i].pointer), &shape));
    if (!shape)
        return ST_OK;
    if (c->dialect == DIALECT_KERAS_3)
        name = next_name(c, "input_layer");
    else if (c->dialect == DIALECT_KERAS_1)
        name = next_name(c, arena_print(c->mem, "%s_input", lower_case(c, class)));
    else
        name = arena_print(c->mem, "%s_input", name);
    *ret = input_entry(name, first_pointer, STEAL(shape), dtype);
    return ST_OK;
}

/* Keras 1 lets a Sequential begin with a Merge of whole models. That is a functional model: the branches' inputs, the branches, the
 * merge, and the rest in a row. */
static enum status canon_merge_first(struct canon *c, const struct json *list, const char *pointer, int depth, const char *name,
                                     const char *model_pointer, struct json **ret)
{
    const struct json *merge = json_first(list), *branches = json_get(json_get(merge, "config"), "layers");
    const char *branch_pointer = arena_print(c->mem, "%s/0/config/layers", pointer), *outs[CANON_MOST_BRANCHES], *last = NULL;
    OWNED(json_free) struct json *inputs = json_new_array();
    OWNED(json_free) struct json *layers = json_new_array();
    OWNED(json_free) struct json *input_layers = json_new_array();
    int n = 0;

    for (const struct json *m = json_first(branches); m; m = json_next(m), n++) {
        const char *where = arena_print(c->mem, "%s/%d", branch_pointer, n);
        struct json *branch;
        if (n == CANON_MOST_BRANCHES)
            return fail(c->problem, ST_INVALID, branch_pointer, "a Merge has at most %d branches", CANON_MOST_BRANCHES);
        TRY(canon_entry(c, m, where, depth, &branch));
        json_push(layers, branch);
        outs[n] = json_text(json_get(branch, "name"));
        if (!canon_is_model(json_text(json_get(m, "class_name"))))
            return fail(c->problem, ST_INVALID, where, "a branch of a Merge at the head of a Sequential is a model");
        const char *ins[CANON_MOST_BRANCHES];
        int n_in = 0;
        const struct json *inner = json_get(json_get(branch, "config"), "layers");
        for (const struct json *l = json_first(inner); l; l = json_next(l)) {
            if (!canon_entry_is(l, "InputLayer"))
                continue;
            if (n_in == CANON_MOST_BRANCHES)
                return fail(c->problem, ST_INVALID, where, "a branch has at most %d inputs", CANON_MOST_BRANCHES);
            const struct json *config = json_get(l, "config");
            const char *input = ins[n_in++] = json_text(json_get(l, "name"));
            struct json *made = json_push(inputs, input_entry(input, where, json_copy(json_get(config, "batch_shape")),
                                                              json_text(json_get(config, "dtype"))));
            json_put(made, "inbound_nodes", json_new_array());
            json_push(input_layers, canon_end(input, 0));
        }
        if (!n_in)
            return fail(c->problem, ST_INVALID, where,
                        "the input shape of this branch is not known: its first layer needs a "
                        "\"batch_input_shape\"");
        json_put(branch, "inbound_nodes", canon_node(ins, n_in));
    }
    if (!n)
        return fail(c->problem, ST_INVALID, branch_pointer, "a Merge needs branches");

    OWNED(json_free) struct json *bare = json_copy(merge);
    json_remove(json_get(bare, "config"), "layers");
    int i = 0;
    for (const struct json *m = json_first(list); m; m = json_next(m), i++) {
        struct json *made;
        TRY(canon_entry(c, i ? m : bare, arena_print(c->mem, "%s/%d", pointer, i), depth, &made));
        json_push(layers, made);
        json_put(made, "inbound_nodes", i ? canon_node(&last, 1) : canon_node(outs, n));
        last = json_text(json_get(made, "name"));
    }
    struct names names = names_make(c->mem);
    bool functional = false;
    for (const struct json *m = json_first(layers); m; m = json_next(m)) {
        if (names_put(&names, json_text(json_get(m, "name")), 0) >= 0)
            return fail(c->problem, ST_INVALID, json_text(json_get(m, "horn_pointer")), "two layers are called \"%s\"",
                        json_text(json_get(m, "name")));
        functional = canon_entry_is(m, "Functional");
    }
    for (const struct json *m = json_first(layers); m; m = json_next(m))
        json_push(inputs, json_copy(m));

    struct json *config = json_new_object(), *output_layers = json_new_array();
    json_push(output_layers, canon_end(last, functional));
    json_put(config, "name", json_new_text(name));
    json_put(config, "trainable", json_new_bool(true));
    json_put(config, "layers", STEAL(inputs));
    json_put(config, "input_layers", STEAL(input_layers));
    json_put(config, "output_layers", output_layers);
    *ret = canon_new_entry("keras.src.models.functional", "Functional", "Functional", name, model_pointer, config);
    return ST_OK;
}

static enum status canon_list(struct canon *c, const struct json *list, const char *pointer, int depth, struct json *layers)
{
    struct names names = names_make(c->mem);
    int i = 0;

    for (const struct json *m = json_first(list); m; m = json_next(m), i++) {
        const char *where = arena_print(c->mem, "%s/%d", pointer, i);
        struct json *made;
        TRY(canon_entry(c, m, where, depth, &made));
        json_push(layers, made);
        int former = names_put(&names, json_text(json_get(made, "name")), i);
        if (former >= 0)
            return fail(c->problem, ST_INVALID, where, "two layers are called \"%s\": this one and the one at %s/%d",
                        json_text(json_get(made, "name")), pointer, former);
        if (i > 0 && canon_entry_is(made, "InputLayer"))
            return fail(c->problem, ST_INVALID, where, "an InputLayer stands first in a Sequential, or not at all");
    }
    return ST_OK;
}

static enum status canon_sequential(struct canon *c, const struct json *entry, const char *pointer, int depth,
                                    struct json **ret)
{
    const struct json *config = json_get(entry, "config");
    const char *at = arena_print(c->mem, "%s/config", pointer), *name;
    const struct json *list = json_type(config) == JSON_ARRAY ? config : json_get(config, "layers");
    OWNED(json_free) struct json *layers = json_new_array();

    if (json_type(config) == JSON_OBJECT)
        at = list ? arena_print(c->mem, "%s/layers", at) : at;
    if (json_type(list) != JSON_ARRAY || !json_first(list))
        return fail(c->problem, ST_INVALID, config ? at : pointer,
                    "a Sequential needs its layers, an array that is not empty, in \"config\"%s%s", list ? ", here is " : "",
                    list ? json_type(list) == JSON_ARRAY ? "an empty one" : json_type_name(json_type(list)) : "");
    TRY(canon_entry_name(c, entry, json_type(config) == JSON_OBJECT ? config : NULL, "Sequential", pointer, &name));
    if (canon_entry_is(json_first(list), "Merge") && json_get(json_get(json_first(list), "config"), "layers"))
        return canon_merge_first(c, list, at, depth, name, pointer, ret);
    TRY(canon_list(c, list, at, depth, layers));

    if (!canon_entry_is(json_first(layers), "InputLayer")) {
        struct json *input = NULL;
        TRY(sequential_input(c, entry, pointer, json_first(list), json_first(layers), arena_print(c->mem, "%s/0", at), &input));
        if (input) {
            OWNED(json_free) struct json *rest = STEAL(layers);
            layers = json_new_array();
            json_push(layers, input);
            for (const struct json *m = json_first(rest); m; m = json_next(m))
                json_push(layers, json_copy(m));
        }
    } else if (!json_next(json_first(layers))) {
        return fail(c->problem, ST_INVALID, at, "a Sequential needs a layer behind its InputLayer");
    }
    struct json *made = json_new_object();
    const struct json *trainable = json_get(config, "trainable");
    json_put(made, "name", json_new_text(name));
    json_put(made, "trainable", json_new_bool(json_type(trainable) != JSON_BOOL || json_true(trainable)));
    json_put(made, "layers", STEAL(layers));
    *ret = canon_new_entry("keras", "Sequential", NULL, name, pointer, made);
    return ST_OK;
}

static enum status canon_model(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    if (depth > MAX_NESTING)
        return fail(c->problem, ST_INVALID, pointer, "models are nested more than %d deep", MAX_NESTING);
    if (canon_entry_is(entry, "Sequential"))
        return canon_sequential(c, entry, pointer, depth, ret);
    return canon_functional(c, entry, pointer, depth, ret);
}

static struct canon canon_make(const struct json *document, enum dialect d, struct arena *mem, struct text *warnings,
                               struct problem *problem)
{
    struct canon c = {.dialect = d,
                      .channels_first = d == DIALECT_KERAS_1 && has_text(document, "dim_ordering", "th", 0),
                      .mem = mem,
                      .taken = names_make(mem),
                      .counts = names_make(mem),
                      .warnings = warnings,
                      .problem = problem};

    collect_names(&c, document, 0);
    return c;
}

enum status dialect_canonical(const struct json *architecture, const char *pointer, enum dialect d, struct json **ret,
                              struct text *warnings, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    if (json_get(architecture, "horn_dialect")) /* canonical already: it is spelt as Keras 3 spells, whatever it means */
        d = DIALECT_KERAS_3;
    struct canon c = canon_make(architecture, d, mem, warnings, problem);
    const char *class;

    TRY(canon_class(architecture, pointer, "an architecture", &class, problem));
    if (!canon_is_model(class))
        return fail(problem, ST_UNSUPPORTED, pointer, "an architecture is a Sequential or a functional model, here is a \"%s\"",
                    class);
    return canon_model(&c, architecture, pointer, 0, ret);
}

enum status dialect_layers(const struct json *list, const char *pointer, enum dialect d, struct json **ret,
                           struct text *warnings, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    OWNED(json_free) struct json *layers = json_new_array();
    struct canon c = canon_make(list, d, mem, warnings, problem);

    c.config_optional = true;
    if (json_type(list) != JSON_ARRAY)
        return fail(problem, ST_INVALID, pointer, "wants an array of layers, here is %s", json_type_name(json_type(list)));
    TRY(canon_list(&c, list, pointer, 0, layers));
    *ret = STEAL(layers);
    return ST_OK;
}
