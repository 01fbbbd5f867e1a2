/* Functional models in canonical form: the calls of each layer, and the numbers by which they are referred to.
 *
 * Node numbers are the trap of the format. A nested model called k times is referred to as 1..k by Keras 1, 2 and tf.keras (number 0
 * is the call that the model made of itself), as 0..k-1 inside the nodes of Keras 3, and there again as 1..k in the output list if
 * it is functional. Canonical documents say what Keras 3 says. Rules: keras-config-formats 6. */
#include <stdlib.h>
#include <string.h>

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

struct item {           /* a layer of a functional model */
    struct json *entry; /* canonical, owned by the list being made */
    const char *name, *pointer;
    bool nested, functional; /* a model; one whose source form is functional */
    bool input;
    struct node_list nodes;
    int shift;     /* what references from nodes count too many */
    int shift_out; /* the same for the model's inputs and outputs */
};

/* ---- references to tensors ----------------------------------------------------------------------------------------------- */

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
    *refs_add(c, to) =
        (struct ref){.layer = json_text(name), .pointer = pointer, .node = node, .tensor = tensor, .state = state};
    return ST_OK;
}

static bool is_keras_tensor(const struct json *j)
{
    return json_type(j) == JSON_OBJECT && canon_entry_is(j, "__keras_tensor__");
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

static enum status read_kwargs(struct canon *c, const struct json *kwargs, const char *pointer, bool keras_3, struct refs *to);

/* A mask as Keras 3 prints it: a tensor, or a list with a tensor or null for each input of a nested model. */
static bool is_keras_mask(const struct json *j)
{
    bool masks = json_type(j) == JSON_ARRAY;

    for (const struct json *m = masks ? json_first(j) : NULL; m; m = json_next(m))
        masks = masks && (json_type(m) == JSON_NULL || is_keras_tensor(m));
    return masks || is_keras_tensor(j);
}

/* Every tensor in `j`, in order: references, Keras 3's tensors, lists of them. */
static enum status read_tensors(struct canon *c, const struct json *j, const char *pointer, int depth, bool state,
                                struct refs *to)
{
    if (depth > MAX_NESTING)
        return fail(c->problem, ST_INVALID, pointer, "the inputs of a call are nested more than %d deep", MAX_NESTING);
    if (is_keras_tensor(j))
        return read_keras_tensor(c, j, pointer, state, to);
    if (is_ref(j)) {
        TRY(read_ref(c, j, pointer, state, to));
        const struct json *kwargs = json_at(j, 3);
        return kwargs ? read_kwargs(c, kwargs, arena_print(c->mem, "%s/3", pointer), false, to) : ST_OK;
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

static enum status read_kwargs(struct canon *c, const struct json *kwargs, const char *pointer, bool keras_3, struct refs *to)
{
    if (json_type(kwargs) != JSON_OBJECT)
        return fail(c->problem, ST_INVALID, pointer, "the named arguments of a call are an object, here is %s",
                    json_type_name(json_type(kwargs)));
    for (const struct json *m = json_first(kwargs); m; m = json_next(m)) {
        const char *key = json_key(m), *where = pointer_key(c->mem, pointer, key);
        if (json_type(m) == JSON_NULL)
            continue;
        /* Keras 3: the model's own training flag wins over a printed one, and masks are made by the layers here */
        if (keras_3 && (!strcmp(key, "training") || (!strcmp(key, "mask") && is_keras_mask(m))))
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
                TRY(read_kwargs(c, json_get(m, "kwargs"), arena_print(c->mem, "%s/kwargs", where),
                                c->dialect == DIALECT_KERAS_3, &ret->v[i]));
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
            TRY(read_ends(c, sorted[i], pointer_key(c->mem, pointer, json_key(sorted[i])), depth + 1, to));
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

/* ---- functional models --------------------------------------------------------------------------------------------------- */

static enum status find_item(struct canon *c, const struct names *names, struct item *items, const struct ref *r,
                             struct item **ret)
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
        json_push(list, ref_json(&ends->v[i], ends->v[i].node + canon_entry_is(item->entry, "Functional")));
    }
    return list;
}

static enum status read_items(struct canon *c, const struct json *list, const bool *drop, const char *pointer, int depth,
                              struct names *names, struct item *items, int *n, struct json *layers)
{
    int place = 0;

    *n = 0;
    for (const struct json *m = json_first(list); m; m = json_next(m), place++) {
        if (drop[place])
            continue;
        int i = (*n)++;
        struct item *item = &items[i];
        const char *where = item->pointer = arena_print(c->mem, "%s/%d", pointer, place);
        TRY(canon_entry(c, m, where, depth, &item->entry));
        json_push(layers, item->entry);
        item->name = json_text(json_get(item->entry, "name"));
        item->input = canon_entry_is(item->entry, "InputLayer");
        item->nested = canon_is_model(json_text(json_get(m, "class_name")));
        item->functional = item->nested && !canon_entry_is(m, "Sequential");
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

enum status canon_functional(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret)
{
    const struct json *config = json_get(entry, "config"), *list = json_get(config, "layers");
    const char *at = arena_print(c->mem, "%s/config", pointer), *name;
    OWNED(json_free) struct json *layers = json_new_array();
    OWNED(json_free) struct json *made = json_new_object();
    struct names names = names_make(c->mem);
    struct refs in = {0}, out = {0}, ends = {0};

    if (json_type(config) != JSON_OBJECT)
        return fail(c->problem, ST_INVALID, config ? at : pointer,
                    "a functional model needs a \"config\" object with \"layers\"");
    TRY(canon_entry_name(c, entry, config, c->dialect >= DIALECT_TF_KERAS ? "Functional" : "Model", pointer, &name));
    if (json_type(list) != JSON_ARRAY || !json_first(list))
        return fail(c->problem, ST_INVALID, list ? arena_print(c->mem, "%s/layers", at) : at,
                    "model \"%s\" needs \"layers\", an array that is not empty", name);
    int n = json_count(list);
    if (n > MAX_LAYERS)
        return fail(c->problem, ST_INVALID, at, "the model has more than %d layers: %d", MAX_LAYERS, n);
    struct item *items = ARENA_ARRAY(c->mem, struct item, n);
    const bool *drop = canon_mask_operations(c, list, json_get(config, "output_layers"));
    TRY(read_items(c, list, drop, arena_print(c->mem, "%s/layers", at), depth, &names, items, &n, layers));

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
            json_push(nodes, node_json(&items[i].nodes.v[k], canon_entry_is(items[i].entry, "LSTM")));
    }
    json_put(made, "name", json_new_text(name));
    json_put(made, "trainable", json_new_bool(!json_get(config, "trainable") || json_true(json_get(config, "trainable"))));
    json_put(made, "layers", STEAL(layers));
    json_put(made, "input_layers", ends_json(&names, items, &in));
    json_put(made, "output_layers", ends_json(&names, items, &out));
    *ret = canon_new_entry("keras.src.models.functional", "Functional", "Functional", name, pointer, STEAL(made));
    return ST_OK;
}

struct json *canon_node(const char *const *layers, int n)
{
    struct ref v[CANON_MOST_BRANCHES] = {{0}};
    struct refs refs = {.v = v, .n = n};
    struct json *nodes = json_new_array();

    for (int i = 0; i < n; i++)
        v[i].layer = layers[i];
    json_push(nodes, node_json(&refs, false));
    return nodes;
}

struct json *canon_end(const char *layer, int64_t node)
{
    struct ref r = {.layer = layer};

    return ref_json(&r, node);
}
