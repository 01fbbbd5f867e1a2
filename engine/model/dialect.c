/* Which Keras a document is from, and its structure in canonical form: Sequential and functional models, nodes, names.
 *
 * Node numbers are the trap of the format. A nested model called k times is referred to as 1..k by Keras 1, 2 and tf.keras (number 0
 * is the call that the model made of itself), as 0..k-1 inside the nodes of Keras 3, and there again as 1..k in the output list if
 * it is functional. Canonical documents say what Keras 3 says. Rules: keras-config-formats 6. */
#include "engine/model/dialect.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/field.h"
#include "engine/model/dialect_parts.h"

struct ref { /* one tensor among the inputs of a call, or of the model's inputs and outputs */
    const char *layer, *pointer;
    int64_t node, tensor;
    const struct json *shape, *dtype; /* as Keras 3 prints them; may be NULL */
    bool state;                       /* given as initial_state */
};

struct refs {
    struct ref *v;
    int n, room;
};

struct node_list {
    struct refs *v;
    int n;
};

struct item { /* a layer of a functional model */
    struct json *entry; /* canonical, owned by the list being made */
    const char *name, *pointer;
    bool nested, functional; /* a model; one whose source form is functional */
    bool input;
    struct node_list nodes;
    int shift;      /* what references from nodes count too many */
    int shift_out;  /* the same for the model's inputs and outputs */
};

/* ---- marks of a version ------------------------------------------------------------------------------------------------------ */

static bool is_model_class(const char *class)
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
    static const char *const keras_1_keys[] = {"nb_filter",     "border_mode",   "dim_ordering", "W_regularizer",
                                               "inner_init",    "input_dtype",   "subsample",    "inner_activation", NULL};
    static const char *const old_keys[] = {"batch_input_shape", NULL}, *const new_keys[] = {"batch_shape", NULL};
    const char *version = json_text(json_get(architecture, "keras_version"));
    const char *class = json_text(json_get(architecture, "class_name"));
    const struct json *config = json_get(architecture, "config");
    bool functional = class && !strcmp(class, "Functional");

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

/* ---- names ------------------------------------------------------------------------------------------------------------------- */

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

/* The name that an entry gives itself (inside the configuration or, in functional lists, beside it), or an automatic one. */
static enum status entry_name(struct canon *c, const struct json *entry, const struct json *config, const char *class,
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

/* ---- entries ------------------------------------------------------------------------------------------------------------------ */

enum status canon_class(const struct json *entry, const char *pointer, const char *what, const char **ret, struct problem *problem)
{
    char where[256];

    if (json_type(entry) != JSON_OBJECT)
        return fail(problem, ST_INVALID, pointer, "%s is an object {\"class_name\", \"config\"}, here is %s", what,
                    json_type_name(json_type(entry)));
    snprintf(where, sizeof where, "%s/class_name", pointer);
    const struct json *class = json_get(entry, "class_name"), *registered = json_get(entry, "registered_name");
    if (!class && json_text(json_get(entry, "name")) && (json_get(entry, "layers") || json_get(entry, "node_config")))
        return fail(problem, ST_UNSUPPORTED, pointer, "the JSON of Keras 0.3 is not read here: print it again with Keras 1 or later");
    if (!json_text(class) || !*json_text(class))
        return fail(problem, ST_INVALID, class ? where : pointer, "%s needs a \"class_name\" that is a text%s%s", what,
                    class ? ", here is " : "", class ? json_type_name(json_type(class)) : "");
    if (strlen(json_text(class)) > 100)
        return fail(problem, ST_INVALID, where, "a class name has at most 100 characters");
    const char *custom = json_text(registered), *module = json_text(json_get(entry, "module"));
    if ((custom && strchr(custom, '>')) || (module && strncmp(module, "keras", 5) != 0 && strncmp(module, "tf_keras", 8) != 0 &&
                                            strncmp(module, "tensorflow", 10) != 0))
        return fail(problem, ST_UNSUPPORTED, where, "\"%s\" is a custom class (%s): its code is not in the JSON, so it cannot run here",
                    json_text(class), custom ? custom : module);
    *ret = json_text(class);
    return ST_OK;
}

static enum status canon_model(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret);

static struct json *new_entry(const char *module, const char *class, const char *registered, const char *name,
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
                    "layer \"%s\" is a Lambda: it carries Python code, which is not run here; use a layer of Keras instead", name);
    if (!strcmp(class, "TFOpLambda") || !strcmp(class, "SlicingOpLambda"))
        return fail(c->problem, ST_UNSUPPORTED, pointer,
                    "layer \"%s\" is a %s (%s): a TensorFlow function, which is not run here; use a layer of Keras instead", name,
                    class, function ? function : "?");
    return ST_OK;
}

/* One entry of a list of layers: a layer or a whole model. */
static enum status canon_entry(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    const char *class, *name;

    TRY(canon_class(entry, pointer, "a layer", &class, c->problem));
    if (++c->n_layers > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, pointer, "the model has more than %d layers", MAX_LAYERS);
    if (is_model_class(class))
        return canon_model(c, entry, pointer, depth + 1, ret);

    const struct json *given = json_get(entry, "config");
    const char *config_pointer = arena_print(c->mem, "%s/config", pointer);
    if ((!given && !c->config_optional) || (given && json_type(given) != JSON_OBJECT))
        return fail(c->problem, ST_INVALID, given ? config_pointer : pointer, "layer of class \"%s\" needs a \"config\" object%s%s",
                    class, given ? ", here is " : "", given ? json_type_name(json_type(given)) : "");
    TRY(entry_name(c, entry, given, class, pointer, &name));
    TRY(refuse_code(c, given, class, name, pointer));

    OWNED(json_free) struct json *config = given ? json_copy(given) : json_new_object();
    OWNED(json_free) struct json *keys = json_new_object();
    json_remove(config, "name");
    TRY(canon_layer(c, &class, config, name, config_pointer, keys));
    struct json *made = new_entry("keras.layers", class, NULL, name, pointer, named_config(name, STEAL(config)));
    if (json_first(keys))
        json_put(made, "horn_keys", STEAL(keys));
    *ret = made;
    return ST_OK;
}

static bool entry_is(const struct json *entry, const char *class)
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
    return new_entry("keras.layers", "InputLayer", NULL, name, pointer, config);
}

/* ---- references to tensors ----------------------------------------------------------------------------------------------------- */

static struct ref *refs_add(struct canon *c, struct refs *r)
{
    if (r->n == r->room) {
        int room = r->room ? 2 * r->room : 4;
        struct ref *v = ARENA_ARRAY(c->mem, struct ref, room);
        if (r->n)
            memcpy(v, r->v, sizeof *v * (size_t)r->n);
        r->v = v;
        r->room = room;
    }
    return &r->v[r->n++];
}

/* ["name", node, tensor] or ["name", node, tensor, {}] */
static bool is_ref(const struct json *j)
{
    int n = json_type(j) == JSON_ARRAY ? json_count(j) : 0;

    return (n == 3 || n == 4) && json_text(json_first(j)) && json_type(json_at(j, 1)) == JSON_NUMBER;
}

static enum status read_ref(struct canon *c, const struct json *j, const char *pointer, bool state, struct refs *to)
{
    int64_t node, tensor;
    const struct json *name = json_first(j);

    if (json_is(name, "_CONSTANT_VALUE"))
        return fail(c->problem, ST_UNSUPPORTED, pointer, "a constant among the inputs of a layer is not built yet");
    if (!json_int(json_at(j, 1), &node) || !json_int(json_at(j, 2), &tensor) || node < 0 || tensor < 0 || node > MAX_LAYERS ||
        tensor > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, pointer, "a tensor is [layer, call, output] with numbers from 0 to %d", MAX_LAYERS);
    *refs_add(c, to) = (struct ref){.layer = json_text(name), .pointer = pointer, .node = node, .tensor = tensor, .state = state};
    return ST_OK;
}

static bool is_keras_tensor(const struct json *j)
{
    return json_type(j) == JSON_OBJECT && entry_is(j, "__keras_tensor__");
}

static enum status read_keras_tensor(struct canon *c, const struct json *j, const char *pointer, bool state, struct refs *to)
{
    const struct json *config = json_get(j, "config"), *history = json_get(config, "keras_history");

    pointer = arena_print(c->mem, "%s/config/keras_history", pointer);
    if (!is_ref(history))
        return fail(c->problem, ST_INVALID, pointer, "a tensor's keras_history is [layer, call, output], here is %s",
                    json_type_name(json_type(history)));
    TRY(read_ref(c, history, pointer, state, to));
    struct ref *r = &to->v[to->n - 1];
    r->shape = json_type(json_get(config, "shape")) == JSON_ARRAY ? json_get(config, "shape") : NULL;
    r->dtype = json_text(json_get(config, "dtype")) ? json_get(config, "dtype") : NULL;
    return ST_OK;
}

static enum status read_kwargs(struct canon *c, const struct json *kwargs, const char *pointer, struct refs *to);

/* Every tensor in `j`, in order: references, Keras 3's tensors, lists of them. */
static enum status read_tensors(struct canon *c, const struct json *j, const char *pointer, int depth, bool state, struct refs *to)
{
    if (depth > MAX_NESTING)
        return fail(c->problem, ST_INVALID, pointer, "the inputs of a call are nested more than %d deep", MAX_NESTING);
    if (is_keras_tensor(j))
        return read_keras_tensor(c, j, pointer, state, to);
    if (is_ref(j)) {
        TRY(read_ref(c, j, pointer, state, to));
        const struct json *kwargs = json_at(j, 3);
        return kwargs ? read_kwargs(c, kwargs, arena_print(c->mem, "%s/3", pointer), to) : ST_OK;
    }
    if (json_type(j) == JSON_NULL)
        return ST_OK;
    if (json_type(j) == JSON_OBJECT)
        return fail(c->problem, ST_UNSUPPORTED, pointer, "calling a layer with an object of tensors is not built yet");
    if (json_type(j) != JSON_ARRAY)
        return fail(c->problem, ST_UNSUPPORTED, pointer, "calling a layer with %s is not built yet, only with tensors",
                    json_type_name(json_type(j)));
    int i = 0;
    for (const struct json *m = json_first(j); m; m = json_next(m), i++)
        TRY(read_tensors(c, m, arena_print(c->mem, "%s/%d", pointer, i), depth + 1, state, to));
    return ST_OK;
}

static enum status read_kwargs(struct canon *c, const struct json *kwargs, const char *pointer, struct refs *to)
{
    if (json_type(kwargs) != JSON_OBJECT)
        return fail(c->problem, ST_INVALID, pointer, "the named arguments of a call are an object, here is %s",
                    json_type_name(json_type(kwargs)));
    for (const struct json *m = json_first(kwargs); m; m = json_next(m)) {
        const char *key = json_key(m), *where = arena_print(c->mem, "%s/%s", pointer, key);
        if (json_type(m) == JSON_NULL)
            continue;
        if (!strcmp(key, "initial_state"))
            TRY(read_tensors(c, m, where, 0, true, to));
        else if (!strcmp(key, "inputs") || !strcmp(key, "sequences"))
            TRY(read_tensors(c, m, where, 0, false, to));
        else
            return fail(c->problem, ST_UNSUPPORTED, where, "the call argument \"%s\" is not built yet", key);
    }
    return ST_OK;
}

/* inbound_nodes: one entry per call of the layer. */
static enum status read_nodes(struct canon *c, const struct json *nodes, const char *pointer, struct node_list *ret)
{
    if (json_type(nodes) == JSON_NOTHING || json_type(nodes) == JSON_NULL)
        return ST_OK;
    if (json_type(nodes) != JSON_ARRAY)
        return fail(c->problem, ST_INVALID, pointer, "inbound_nodes is an array with an entry for each call, here is %s",
                    json_type_name(json_type(nodes)));
    int n = json_count(nodes), i = 0;
    if (n > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, pointer, "a layer is called at most %d times, here %d", MAX_LAYERS, n);
    ret->v = ARENA_ARRAY(c->mem, struct refs, n ? n : 1);
    for (const struct json *m = json_first(nodes); m; m = json_next(m), i++) {
        const char *where = arena_print(c->mem, "%s/%d", pointer, i);
        if (json_type(m) == JSON_OBJECT && (json_get(m, "args") || json_get(m, "kwargs"))) {
            if (json_get(m, "args"))
                TRY(read_tensors(c, json_get(m, "args"), arena_print(c->mem, "%s/args", where), 0, false, &ret->v[i]));
            if (json_get(m, "kwargs"))
                TRY(read_kwargs(c, json_get(m, "kwargs"), arena_print(c->mem, "%s/kwargs", where), &ret->v[i]));
        } else {
            TRY(read_tensors(c, m, where, 0, false, &ret->v[i]));
        }
        if (!ret->v[i].n)
            return fail(c->problem, ST_INVALID, where, "this call has no input tensors");
    }
    ret->n = n;
    return ST_OK;
}

static int by_key(const void *a, const void *b)
{
    return strcmp(json_key(*(const struct json *const *)a), json_key(*(const struct json *const *)b));
}

/* input_layers and output_layers: one reference, a list of them, or an object (in the order of its sorted keys, as Keras flattens). */
static enum status read_ends(struct canon *c, const struct json *j, const char *pointer, int depth, struct refs *to)
{
    if (depth > MAX_NESTING)
        return fail(c->problem, ST_INVALID, pointer, "nested more than %d deep", MAX_NESTING);
    if (is_ref(j))
        return read_ref(c, j, pointer, false, to);
    if (json_type(j) == JSON_OBJECT) {
        int n = json_count(j), i = 0;
        const struct json **sorted = ARENA_ARRAY(c->mem, const struct json *, n ? n : 1);
        for (const struct json *m = json_first(j); m; m = json_next(m))
            sorted[i++] = m;
        qsort(sorted, (size_t)n, sizeof *sorted, by_key);
        for (i = 0; i < n; i++)
            TRY(read_ends(c, sorted[i], arena_print(c->mem, "%s/%s", pointer, json_key(sorted[i])), depth + 1, to));
        return ST_OK;
    }
    if (json_type(j) != JSON_ARRAY || json_text(json_first(j)))
        return fail(c->problem, ST_INVALID, pointer, "wants [layer, call, output] or a list of those, here is %s",
                    json_type_name(json_type(j)));
    int i = 0;
    for (const struct json *m = json_first(j); m; m = json_next(m), i++)
        TRY(read_ends(c, m, arena_print(c->mem, "%s/%d", pointer, i), depth + 1, to));
    return ST_OK;
}

/* ---- functional models ---------------------------------------------------------------------------------------------------------- */

static enum status find_item(struct canon *c, const struct names *names, struct item *items, const struct ref *r, struct item **ret)
{
    int i = names_find(names, r->layer);

    if (i < 0)
        return fail(c->problem, ST_INVALID, r->pointer, "there is no layer \"%s\" in this model", r->layer);
    *ret = &items[i];
    return ST_OK;
}

/* Works out what references to nested models count too many (see the head of this file). */
static enum status find_shifts(struct canon *c, const struct names *names, struct item *items, int n, const struct refs *ends)
{
    int64_t *least = ARENA_ARRAY(c->mem, int64_t, n ? n : 1), *most = ARENA_ARRAY(c->mem, int64_t, n ? n : 1);
    struct item *item = NULL;

    for (int i = 0; i < n; i++)
        least[i] = INT64_MAX;
    for (int i = 0; i < n; i++)
        for (int k = 0; k < items[i].nodes.n; k++)
            for (int t = 0; t < items[i].nodes.v[k].n; t++) {
                const struct ref *r = &items[i].nodes.v[k].v[t];
                TRY(find_item(c, names, items, r, &item));
                int64_t at = item - items;
                least[at] = r->node < least[at] ? r->node : least[at];
                most[at] = r->node > most[at] ? r->node : most[at];
            }
    for (int t = 0; c->dialect != DIALECT_KERAS_3 && t < ends->n; t++) {
        TRY(find_item(c, names, items, &ends->v[t], &item));
        int64_t at = item - items, node = ends->v[t].node;
        least[at] = node < least[at] ? node : least[at];
        most[at] = node > most[at] ? node : most[at];
    }
    for (int i = 0; i < n; i++) {
        if (!items[i].nested)
            continue;
        bool from_one = least[i] != INT64_MAX && least[i] >= 1;
        if (c->dialect != DIALECT_KERAS_3) {
            items[i].shift = items[i].shift_out = from_one;
        } else {
            items[i].shift = from_one && most[i] == items[i].nodes.n;
            items[i].shift_out = items[i].functional;
        }
    }
    return ST_OK;
}

/* Subtracts the shift and checks that the call is there. */
static enum status settle_ref(struct canon *c, const struct names *names, struct item *items, struct ref *r, bool end)
{
    struct item *item = NULL;

    TRY(find_item(c, names, items, r, &item));
    int shift = end ? item->shift_out : item->shift;
    int calls = item->input ? 1 : item->nodes.n;
    r->node -= r->node >= shift ? shift : 0;
    if (r->node >= calls)
        return fail(c->problem, ST_INVALID, r->pointer, "refers to call %lld of layer \"%s\", which has %d", (long long)r->node,
                    r->layer, calls);
    return ST_OK;
}

static struct json *ref_json(const struct ref *r, int64_t node)
{
    struct json *j = json_new_array();

    json_push(j, json_new_text(r->layer));
    json_push(j, json_new_int(node));
    json_push(j, json_new_int(r->tensor));
    return j;
}

static struct json *tensor_json(const struct ref *r)
{
    struct json *j = json_new_object(), *config = json_new_object(), *any = NULL;

    if (!r->shape) {
        any = json_new_array();
        json_push(any, json_new_null());
    }
    json_put(config, "shape", r->shape ? json_copy(r->shape) : any);
    json_put(config, "dtype", r->dtype ? json_copy(r->dtype) : json_new_text("float32"));
    json_put(config, "keras_history", ref_json(r, r->node));
    json_put(j, "class_name", json_new_text("__keras_tensor__"));
    json_put(j, "config", config);
    return j;
}

/* One call as Keras 3 prints it: one tensor by itself, several as a list, a recurrent layer's first states as initial_state. */
static struct json *node_json(const struct refs *r, bool recurrent)
{
    struct json *node = json_new_object(), *args = json_new_array(), *kwargs = json_new_object();
    struct json *list = json_new_array(), *states = json_new_array();

    for (int i = 0; i < r->n; i++)
        json_push(r->v[i].state || (recurrent && i > 0) ? states : list, tensor_json(&r->v[i]));
    if (json_count(list) == 1) {
        json_push(args, json_copy(json_first(list)));
        json_free(list);
    } else {
        json_push(args, list);
    }
    if (json_first(states))
        json_put(kwargs, "initial_state", states);
    else
        json_free(states);
    json_put(node, "args", args);
    json_put(node, "kwargs", kwargs);
    return node;
}

static struct json *ends_json(const struct names *names, const struct item *items, const struct refs *ends)
{
    struct json *list = json_new_array();

    for (int i = 0; i < ends->n; i++) {
        const struct item *item = &items[names_find(names, ends->v[i].layer)];
        json_push(list, ref_json(&ends->v[i], ends->v[i].node + entry_is(item->entry, "Functional")));
    }
    return list;
}

static enum status read_items(struct canon *c, const struct json *list, const char *pointer, int depth, struct names *names,
                              struct item *items, struct json *layers)
{
    int i = 0;

    for (const struct json *m = json_first(list); m; m = json_next(m), i++) {
        struct item *item = &items[i];
        const char *where = item->pointer = arena_print(c->mem, "%s/%d", pointer, i);
        TRY(canon_entry(c, m, where, depth, &item->entry));
        json_push(layers, item->entry);
        item->name = json_text(json_get(item->entry, "name"));
        item->input = entry_is(item->entry, "InputLayer");
        item->nested = is_model_class(json_text(json_get(m, "class_name")));
        item->functional = item->nested && !entry_is(m, "Sequential");
        int former = names_put(names, item->name, i);
        if (former >= 0)
            return fail(c->problem, ST_INVALID, where, "two layers are called \"%s\": this one and the one at %s", item->name,
                        items[former].pointer);
        TRY(read_nodes(c, json_get(m, "inbound_nodes"), arena_print(c->mem, "%s/inbound_nodes", where), &item->nodes));
        if (item->input && item->nodes.n)
            return fail(c->problem, ST_INVALID, where, "InputLayer \"%s\" has inbound nodes", item->name);
    }
    return ST_OK;
}

static enum status canon_functional(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    const struct json *config = json_get(entry, "config"), *list = json_get(config, "layers");
    const char *at = arena_print(c->mem, "%s/config", pointer), *name;
    OWNED(json_free) struct json *layers = json_new_array();
    OWNED(json_free) struct json *made = json_new_object();
    struct names names = names_make(c->mem);
    struct refs in = {0}, out = {0}, ends = {0};

    if (json_type(config) != JSON_OBJECT)
        return fail(c->problem, ST_INVALID, config ? at : pointer, "a functional model needs a \"config\" object with \"layers\"");
    TRY(entry_name(c, entry, config, c->dialect >= DIALECT_TF_KERAS ? "Functional" : "Model", pointer, &name));
    if (json_type(list) != JSON_ARRAY || !json_first(list))
        return fail(c->problem, ST_INVALID, list ? arena_print(c->mem, "%s/layers", at) : at,
                    "model \"%s\" needs \"layers\", an array that is not empty", name);
    int n = json_count(list);
    if (n > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, at, "the model has more than %d layers: %d", MAX_LAYERS, n);
    struct item *items = ARENA_ARRAY(c->mem, struct item, n);
    TRY(read_items(c, list, arena_print(c->mem, "%s/layers", at), depth, &names, items, layers));

    static const char *const sides[] = {"input_layers", "output_layers"};
    for (int side = 0; side < 2; side++) {
        struct refs *to = side ? &out : &in;
        const char *where = arena_print(c->mem, "%s/%s", at, sides[side]);
        if (!json_get(config, sides[side]))
            return fail(c->problem, ST_INVALID, at, "functional model \"%s\" needs \"%s\"", name, sides[side]);
        TRY(read_ends(c, json_get(config, sides[side]), where, 0, to));
        if (!to->n)
            return fail(c->problem, ST_INVALID, where, "functional model \"%s\" has no %s", name, side ? "outputs" : "inputs");
        for (int i = 0; i < to->n; i++)
            *refs_add(c, &ends) = to->v[i];
    }
    TRY(find_shifts(c, &names, items, n, &ends));
    for (int i = 0; i < n; i++)
        for (int k = 0; k < items[i].nodes.n; k++)
            for (int t = 0; t < items[i].nodes.v[k].n; t++)
                TRY(settle_ref(c, &names, items, &items[i].nodes.v[k].v[t], false));
    for (int i = 0; i < in.n; i++) {
        TRY(settle_ref(c, &names, items, &in.v[i], true));
        if (!items[names_find(&names, in.v[i].layer)].input)
            return fail(c->problem, ST_INVALID, in.v[i].pointer, "input \"%s\" is not an InputLayer", in.v[i].layer);
    }
    for (int i = 0; i < out.n; i++)
        TRY(settle_ref(c, &names, items, &out.v[i], true));

    for (int i = 0; i < n; i++) {
        struct json *nodes = json_put(items[i].entry, "inbound_nodes", json_new_array());
        for (int k = 0; k < items[i].nodes.n; k++)
            json_push(nodes, node_json(&items[i].nodes.v[k], entry_is(items[i].entry, "LSTM")));
    }
    json_put(made, "name", json_new_text(name));
    json_put(made, "trainable", json_new_bool(!json_get(config, "trainable") || json_true(json_get(config, "trainable"))));
    json_put(made, "layers", STEAL(layers));
    json_put(made, "input_layers", ends_json(&names, items, &in));
    json_put(made, "output_layers", ends_json(&names, items, &out));
    *ret = new_entry("keras.src.models.functional", "Functional", "Functional", name, pointer, STEAL(made));
    return ST_OK;
}

/* ---- Sequential ----------------------------------------------------------------------------------------------------------------- */

/* The first InputLayer of a canonical model, or NULL. */
static const struct json *first_input(const struct json *model)
{
    const struct json *layers = json_get(json_get(model, "config"), "layers");

    for (const struct json *m = json_first(layers); m; m = json_next(m))
        if (entry_is(m, "InputLayer"))
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
    if (is_model_class(class)) {
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
        TRY(canon_input_hint(c, class, json_get(first, "config"), arena_print(c->mem, "%s/config", first_pointer), &shape, &dtype));
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

static struct json *history_node(const char *const *names, int n)
{
    struct refs refs = {.n = n};
    struct ref v[64];

    for (int i = 0; i < n; i++)
        v[i] = (struct ref){.layer = names[i]};
    refs.v = v;
    struct json *nodes = json_new_array();
    json_push(nodes, node_json(&refs, false));
    return nodes;
}

static struct json *end_of(const char *name, int64_t node)
{
    struct ref r = {.layer = name};

    return ref_json(&r, node);
}

/* Keras 1 lets a Sequential begin with a Merge of whole models. That is a functional model: the branches' inputs, the branches, the
 * merge, and the rest in a row. */
static enum status canon_merge_first(struct canon *c, const struct json *list, const char *pointer, int depth, const char *name,
                                     const char *model_pointer, struct json **ret)
{
    const struct json *merge = json_first(list), *branches = json_get(json_get(merge, "config"), "layers");
    const char *branch_pointer = arena_print(c->mem, "%s/0/config/layers", pointer), *outs[64], *last = NULL;
    OWNED(json_free) struct json *inputs = json_new_array();
    OWNED(json_free) struct json *layers = json_new_array();
    OWNED(json_free) struct json *input_layers = json_new_array();
    int n = 0;

    for (const struct json *m = json_first(branches); m; m = json_next(m), n++) {
        const char *where = arena_print(c->mem, "%s/%d", branch_pointer, n);
        struct json *branch;
        if (n == 64)
            return fail(c->problem, ST_INVALID, branch_pointer, "a Merge has at most 64 branches");
        TRY(canon_entry(c, m, where, depth, &branch));
        json_push(layers, branch);
        outs[n] = json_text(json_get(branch, "name"));
        if (!is_model_class(json_text(json_get(m, "class_name"))))
            return fail(c->problem, ST_INVALID, where, "a branch of a Merge at the head of a Sequential is a model");
        const char *ins[64];
        int n_in = 0;
        const struct json *inner = json_get(json_get(branch, "config"), "layers");
        for (const struct json *l = json_first(inner); l; l = json_next(l)) {
            if (!entry_is(l, "InputLayer"))
                continue;
            if (n_in == 64)
                return fail(c->problem, ST_INVALID, where, "a branch has at most 64 inputs");
            const struct json *config = json_get(l, "config");
            const char *input = ins[n_in++] = json_text(json_get(l, "name"));
            struct json *made = json_push(
                inputs, input_entry(input, where, json_copy(json_get(config, "batch_shape")), json_text(json_get(config, "dtype"))));
            json_put(made, "inbound_nodes", json_new_array());
            json_push(input_layers, end_of(input, 0));
        }
        if (!n_in)
            return fail(c->problem, ST_INVALID, where, "the input shape of this branch is not known: its first layer needs a "
                                                       "\"batch_input_shape\"");
        json_put(branch, "inbound_nodes", history_node(ins, n_in));
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
        json_put(made, "inbound_nodes", i ? history_node(&last, 1) : history_node(outs, n));
        last = json_text(json_get(made, "name"));
    }
    struct names names = names_make(c->mem);
    bool functional = false;
    for (const struct json *m = json_first(layers); m; m = json_next(m)) {
        if (names_put(&names, json_text(json_get(m, "name")), 0) >= 0)
            return fail(c->problem, ST_INVALID, json_text(json_get(m, "horn_pointer")), "two layers are called \"%s\"",
                        json_text(json_get(m, "name")));
        functional = entry_is(m, "Functional");
    }
    for (const struct json *m = json_first(layers); m; m = json_next(m))
        json_push(inputs, json_copy(m));

    struct json *config = json_new_object(), *output_layers = json_new_array();
    json_push(output_layers, end_of(last, functional));
    json_put(config, "name", json_new_text(name));
    json_put(config, "trainable", json_new_bool(true));
    json_put(config, "layers", STEAL(inputs));
    json_put(config, "input_layers", STEAL(input_layers));
    json_put(config, "output_layers", output_layers);
    *ret = new_entry("keras.src.models.functional", "Functional", "Functional", name, model_pointer, config);
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
        if (i > 0 && entry_is(made, "InputLayer"))
            return fail(c->problem, ST_INVALID, where, "an InputLayer stands first in a Sequential, or not at all");
    }
    return ST_OK;
}

static enum status canon_sequential(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    const struct json *config = json_get(entry, "config");
    const char *at = arena_print(c->mem, "%s/config", pointer), *name;
    const struct json *list = json_type(config) == JSON_ARRAY ? config : json_get(config, "layers");
    OWNED(json_free) struct json *layers = json_new_array();

    if (json_type(config) == JSON_OBJECT)
        at = list ? arena_print(c->mem, "%s/layers", at) : at;
    if (json_type(list) != JSON_ARRAY || !json_first(list))
        return fail(c->problem, ST_INVALID, config ? at : pointer,
                    "a Sequential needs its layers, an array that is not empty, in \"config\"%s%s",
                    list ? ", here is " : "", list ? json_type(list) == JSON_ARRAY ? "an empty one" : json_type_name(json_type(list)) : "");
    TRY(entry_name(c, entry, json_type(config) == JSON_OBJECT ? config : NULL, "Sequential", pointer, &name));
    if (entry_is(json_first(list), "Merge") && json_get(json_get(json_first(list), "config"), "layers"))
        return canon_merge_first(c, list, at, depth, name, pointer, ret);
    TRY(canon_list(c, list, at, depth, layers));

    if (!entry_is(json_first(layers), "InputLayer")) {
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
    *ret = new_entry("keras", "Sequential", NULL, name, pointer, made);
    return ST_OK;
}

static enum status canon_model(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    if (depth > MAX_NESTING)
        return fail(c->problem, ST_INVALID, pointer, "models are nested more than %d deep", MAX_NESTING);
    if (entry_is(entry, "Sequential"))
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
    struct canon c = canon_make(architecture, d, mem, warnings, problem);
    const char *class;

    TRY(canon_class(architecture, pointer, "an architecture", &class, problem));
    if (!is_model_class(class))
        return fail(problem, ST_UNSUPPORTED, pointer, "an architecture is a Sequential or a functional model, here is a \"%s\"", class);
    return canon_model(&c, architecture, pointer, 0, ret);
}

enum status dialect_layers(const struct json *list, const char *pointer, enum dialect d, struct json **ret, struct text *warnings,
                           struct problem *problem)
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
