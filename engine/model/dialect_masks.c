/* The operations that Keras 3 writes into a functional model for its masks.
 *
 * Embedding(mask_zero=True) followed by an LSTM is printed with a NotEqual(x,
 * 0) between them and "mask": <its output> among the LSTM's named arguments;
 * merged masks add LogicalOr, Any and others. Horn's layers make and pass masks
 * themselves, so the argument is not read, and an operation that nothing but
 * such arguments reads is not part of the model. */
#include <string.h>

#include "engine/layers/layer.h"
#include "engine/model/dialect_parts.h"

struct marker {
    const struct names *names;
    const struct json **entry; /* by place in the list */
    bool *needed;
    int *todo, n_todo;
};

/* .h5 files carry no modules; there an operation is no layer that is known, or a Concatenate whose configuration says no
 * "trainable", as that of every layer does. */
static bool is_operation(const struct json *entry)
{
    const char *module = json_text(json_get(entry, "module")), *name = json_text(json_get(entry, "class_name"));
    const struct json *config = json_get(entry, "config");

    if (module)
        return strncmp(module, "keras.src.ops.", 14) == 0;
    if (!name || json_type(config) != JSON_OBJECT || json_get(config, "trainable"))
        return false;
    return strcmp(name, "Concatenate") == 0 ||
           (strcmp(name, "InputLayer") != 0 && !canon_is_model(name) && !catalogue_find(&layer_catalogue, name));
}

static void need(struct marker *m, const char *layer)
{
    int i = layer ? names_find(m->names, layer) : -1;

    if (i < 0 || m->needed[i])
        return;
    m->needed[i] = true;
    m->todo[m->n_todo++] = i;
}

/* All tensors in j but those under "mask". */
static void need_tensors(struct marker *m, const struct json *j, int depth)
{
    if (depth > MAX_NESTING || json_type(j) < JSON_ARRAY)
        return;
    if (canon_entry_is(j, "__keras_tensor__")) {
        need(m, json_text(json_first(json_get(json_get(j, "config"), "keras_history"))));
        return;
    }
    for (const struct json *v = json_first(j); v; v = json_next(v)) {
        if (json_type(j) != JSON_OBJECT || strcmp(json_key(v), "mask") != 0)
            need_tensors(m, v, depth + 1);
    }
}

/* ["name", 0, 0], lists or an object of them */
static void need_ends(struct marker *m, const struct json *j, int depth)
{
    if (depth > MAX_NESTING || json_type(j) < JSON_ARRAY)
        return;
    if (json_type(j) == JSON_ARRAY && json_text(json_first(j))) {
        need(m, json_text(json_first(j)));
        return;
    }
    for (const struct json *v = json_first(j); v; v = json_next(v))
        need_ends(m, v, depth + 1);
}

bool *canon_mask_operations(struct canon *c, const struct json *list, const struct json *outputs)
{
    int n = json_count(list), i = 0;
    struct names names = names_make(c->mem);
    struct marker m = {.names = &names,
                       .entry = ARENA_ARRAY(c->mem, const struct json *, n ? n : 1),
                       .needed = ARENA_ARRAY(c->mem, bool, n ? n : 1),
                       .todo = ARENA_ARRAY(c->mem, int, n ? n : 1)};
    bool *drop = ARENA_ARRAY(c->mem, bool, n ? n : 1);

    for (const struct json *e = json_first(list); e; e = json_next(e), i++) {
        const char *name = json_text(json_get(e, "name"));

        m.entry[i] = e;
        if (name)
            names_put(&names, name, i);
    }
    for (i = 0; i < n; i++) {
        if (!is_operation(m.entry[i]) && !m.needed[i]) {
            m.needed[i] = true;
            m.todo[m.n_todo++] = i;
        }
    }
    need_ends(&m, outputs, 0);
    while (m.n_todo > 0)
        need_tensors(&m, json_get(m.entry[m.todo[--m.n_todo]], "inbound_nodes"), 0);
    for (i = 0; i < n; i++)
        drop[i] = c->dialect == DIALECT_KERAS_3 && !m.needed[i];
    return drop;
}
