/* Canonical Keras JSON into struct model.
 *
 * Each model of the document becomes a scope: layers with their calls, resolved to indices. Scopes are then expanded from the outside
 * in: the calls of a nested model stand in line in the caller's list, once for each time that the model is called, while its layers
 * are leaves that exist once. Calls that lead to no output are left out. All walks over calls are loops with their own stack, since
 * a chain of ten thousand layers is a legal model; only the nesting of models, which dialect.c bounds, is recursion. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/dialect_parts.h"
#include "engine/model/keras_layer.h"
#include "engine/model/model.h"

#define MAX_CALLS 100000 /* a model called twice, inside a model called twice, ... doubles at every level */

struct scope;

struct source { /* a tensor inside a scope: output `tensor` of call `call` (index into scope.calls) */
    int call, tensor;
};

struct scope_call {
    int layer; /* index into scope.layers */
    int n;
    struct source *in;
    bool needed;
};

enum kind { KIND_INPUT, KIND_LEAF, KIND_MODEL };

struct scope_layer {
    enum kind kind;
    const char *name, *pointer;
    struct json *entry;
    struct scope *scope; /* of a model */
    int leaf;            /* index into model.layers, once known */
    int first_call, n_calls;
    bool needed;
};

struct scope {
    const char *name;
    bool trainable;
    struct scope_layer *layers;
    int n_layers;
    struct scope_call *calls;
    int n_calls;
    int *order; /* the needed calls, each behind those that it reads */
    int n_order;
    int *inputs; /* calls of InputLayers */
    int n_inputs;
    struct source *outputs;
    int n_outputs;
};

struct reader { /* one parse under way */
    struct arena *mem;
    struct text *warnings;
    struct problem *problem;
    struct names leaves;
    struct layer *layers; /* grows; copied into the model at the end */
    int *top;
    int n_layers, layer_room;
    struct model_call *calls;
    int n_calls, call_room;
};

/* ---- from JSON to scopes ------------------------------------------------------------------------------------------------- */

static enum status scope_read(struct reader *r, const struct json *model, struct scope **ret);

static const char *text_of(const struct json *entry, const char *key)
{
    return json_text(json_get(entry, key));
}

static enum status layers_read(struct reader *r, const struct json *list, struct scope *s, struct names *names)
{
    for (struct json *m = json_first(list); m; m = json_next(m)) {
        struct scope_layer *l = &s->layers[s->n_layers];
        const char *class = text_of(m, "class_name");
        *l = (struct scope_layer){.kind = KIND_LEAF,
                                  .name = arena_text(r->mem, text_of(m, "name")),
                                  .pointer = arena_text(r->mem, text_of(m, "horn_pointer")),
                                  .entry = m,
                                  .leaf = -1};
        if (!strcmp(class, "InputLayer"))
            l->kind = KIND_INPUT;
        if (!strcmp(class, "Sequential") || !strcmp(class, "Functional")) {
            l->kind = KIND_MODEL;
            TRY(scope_read(r, m, &l->scope));
        }
        names_put(names, l->name, s->n_layers++);
    }
    return ST_OK;
}

/* Room for the calls of every layer; each InputLayer is its own call. */
static void calls_make(struct reader *r, struct scope *s)
{
    for (int i = 0; i < s->n_layers; i++) {
        struct scope_layer *l = &s->layers[i];
        l->first_call = s->n_calls;
        l->n_calls = l->kind == KIND_INPUT ? 1 : json_count(json_get(l->entry, "inbound_nodes"));
        s->n_calls += l->n_calls;
    }
    s->calls = ARENA_ARRAY(r->mem, struct scope_call, s->n_calls ? s->n_calls : 1);
    for (int i = 0; i < s->n_layers; i++)
        for (int k = 0; k < s->layers[i].n_calls; k++)
            s->calls[s->layers[i].first_call + k].layer = i;
}

/* [layer, call, output]: dialect.c has seen to it that all three are there. */
static struct source source_read(const struct scope *s, const struct names *names, const struct json *history, bool end)
{
    int64_t call = 0, tensor = 0;
    const struct scope_layer *l = &s->layers[names_find(names, json_text(json_first(history)))];

    json_int(json_at(history, 1), &call);
    json_int(json_at(history, 2), &tensor);
    if (end && !strcmp(text_of(l->entry, "class_name"), "Functional"))
        call--; /* among a model's ends, functional models count from 1 */
    return (struct source){.call = l->first_call + (int)call, .tensor = (int)tensor};
}

static int count_tensors(const struct json *j)
{
    int n = 0;

    if (json_type(j) == JSON_OBJECT)
        return 1;
    for (const struct json *m = json_first(j); m; m = json_next(m))
        n += count_tensors(m);
    return n;
}

static void tensors_read(const struct scope *s, const struct names *names, const struct json *j, struct scope_call *c)
{
    if (json_type(j) == JSON_OBJECT) {
        c->in[c->n++] = source_read(s, names, json_get(json_get(j, "config"), "keras_history"), false);
        return;
    }
    for (const struct json *m = json_first(j); m; m = json_next(m))
        tensors_read(s, names, m, c);
}

static void nodes_read(struct reader *r, struct scope *s, const struct names *names)
{
    for (int i = 0; i < s->n_layers; i++) {
        struct scope_call *c = &s->calls[s->layers[i].first_call];
        const struct json *nodes = json_get(s->layers[i].entry, "inbound_nodes");
        for (const struct json *m = s->layers[i].kind == KIND_INPUT ? NULL : json_first(nodes); m; m = json_next(m), c++) {
            const struct json *args = json_get(m, "args"), *states = json_get(json_get(m, "kwargs"), "initial_state");
            c->in = ARENA_ARRAY(r->mem, struct source, count_tensors(args) + count_tensors(states));
            tensors_read(s, names, args, c);
            tensors_read(s, names, states, c);
        }
    }
}

static void functional_read(struct reader *r, const struct json *config, struct scope *s, const struct names *names)
{
    const struct json *in = json_get(config, "input_layers"), *out = json_get(config, "output_layers");

    calls_make(r, s);
    nodes_read(r, s, names);
    s->inputs = ARENA_ARRAY(r->mem, int, json_count(in));
    for (const struct json *m = json_first(in); m; m = json_next(m))
        s->inputs[s->n_inputs++] = source_read(s, names, m, true).call;
    s->outputs = ARENA_ARRAY(r->mem, struct source, json_count(out));
    for (const struct json *m = json_first(out); m; m = json_next(m))
        s->outputs[s->n_outputs++] = source_read(s, names, m, true);
}

/* A row of layers: each is called once with what the one before gives. Without an InputLayer one without entry stands first. */
static void sequential_read(struct reader *r, struct scope *s)
{
    if (s->layers[0].kind != KIND_INPUT) {
        memmove(s->layers + 1, s->layers, sizeof *s->layers * (size_t)s->n_layers++);
        s->layers[0] = (struct scope_layer){.kind = KIND_INPUT, .name = "input_layer", .leaf = -1};
    }
    s->n_calls = s->n_layers;
    s->calls = ARENA_ARRAY(r->mem, struct scope_call, s->n_calls);
    for (int i = 0; i < s->n_layers; i++) {
        s->layers[i].first_call = i;
        s->layers[i].n_calls = 1;
        s->calls[i].layer = i;
        if (i > 0) {
            s->calls[i].in = ARENA_NEW(r->mem, struct source);
            s->calls[i].in[0] = (struct source){.call = i - 1};
            s->calls[i].n = 1;
        }
    }
    s->inputs = ARENA_NEW(r->mem, int);
    s->n_inputs = 1;
    s->outputs = ARENA_NEW(r->mem, struct source);
    s->outputs[0] = (struct source){.call = s->n_calls - 1};
    s->n_outputs = 1;
}

/* ---- the order of calls -------------------------------------------------------------------------------------------------- */

enum colour { WHITE, GREY, BLACK };

struct walk {
    unsigned char *colour; /* per call */
    struct {
        int call, next;
    } * stack;
    int depth;
};

/* Visits `call` and all that it reads, which go to `order` (if not NULL) before it. A call met while still grey closes a cycle. */
static enum status walk_from(struct reader *r, const struct scope *s, struct walk *w, int call, int *order, int *n_order)
{
    if (w->colour[call] != WHITE)
        return ST_OK;
    w->colour[call] = GREY;
    w->stack[0].call = call;
    w->stack[0].next = 0;
    w->depth = 1;
    while (w->depth) {
        int at = w->stack[w->depth - 1].call;
        const struct scope_call *c = &s->calls[at];
        if (w->stack[w->depth - 1].next == c->n) {
            w->colour[at] = BLACK;
            w->depth--;
            if (order)
                order[(*n_order)++] = at;
            continue;
        }
        int next = c->in[w->stack[w->depth - 1].next++].call;
        if (w->colour[next] == GREY) {
            const struct scope_layer *l = &s->layers[s->calls[next].layer];
            return fail(r->problem, ST_INVALID, l->pointer,
                        "layer \"%s\" is part of a cycle: what it reads depends on its own output", l->name);
        }
        if (w->colour[next] == WHITE) {
            w->colour[next] = GREY;
            w->stack[w->depth].call = next;
            w->stack[w->depth++].next = 0;
        }
    }
    return ST_OK;
}

/* Marks what leads to the outputs, and lists it in file order as far as what is read allows. */
static enum status order_calls(struct reader *r, struct scope *s)
{
    struct walk w = {.colour = ARENA_ARRAY(r->mem, unsigned char, s->n_calls)};

    w.stack = arena_alloc(r->mem, sizeof *w.stack * (size_t)s->n_calls);
    for (int i = 0; i < s->n_outputs; i++)
        TRY(walk_from(r, s, &w, s->outputs[i].call, NULL, NULL));
    for (int i = 0; i < s->n_calls; i++) {
        s->calls[i].needed = w.colour[i] == BLACK;
        s->layers[s->calls[i].layer].needed |= s->calls[i].needed;
    }
    memset(w.colour, WHITE, (size_t)s->n_calls);
    s->order = ARENA_ARRAY(r->mem, int, s->n_calls);
    for (int i = 0; i < s->n_calls; i++)
        if (s->calls[i].needed)
            TRY(walk_from(r, s, &w, i, s->order, &s->n_order));
    for (int i = 0; i < s->n_layers; i++)
        if (!s->layers[i].needed && s->layers[i].kind != KIND_INPUT)
            text_printf(r->warnings, "layer %s: leads to no output of model %s and is left out\n", s->layers[i].name, s->name);
    return ST_OK;
}

/* Every InputLayer that is read must be among the model's inputs, once. */
static enum status check_inputs(struct reader *r, const struct scope *s)
{
    bool *listed = ARENA_ARRAY(r->mem, bool, s->n_calls);

    for (int i = 0; i < s->n_inputs; i++) {
        const struct scope_layer *l = &s->layers[s->calls[s->inputs[i]].layer];
        if (listed[s->inputs[i]])
            return fail(r->problem, ST_INVALID, l->pointer, "input \"%s\" is listed twice in \"input_layers\"", l->name);
        listed[s->inputs[i]] = true;
    }
    for (int i = 0; i < s->n_order; i++) {
        const struct scope_layer *l = &s->layers[s->calls[s->order[i]].layer];
        if (l->kind == KIND_INPUT && !listed[s->order[i]])
            return fail(r->problem, ST_INVALID, l->pointer, "InputLayer \"%s\" is read but not listed in \"input_layers\"",
                        l->name);
    }
    return ST_OK;
}

static enum status scope_read(struct reader *r, const struct json *model, struct scope **ret)
{
    const struct json *config = json_get(model, "config"), *list = json_get(config, "layers");
    struct scope *s = ARENA_NEW(r->mem, struct scope);
    struct names names = names_make(r->mem);
    int n = json_count(list);

    s->name = arena_text(r->mem, text_of(model, "name"));
    s->trainable = json_true(json_get(config, "trainable"));
    s->layers = ARENA_ARRAY(r->mem, struct scope_layer, n + 1);
    TRY(layers_read(r, list, s, &names));
    if (!strcmp(text_of(model, "class_name"), "Sequential"))
        sequential_read(r, s);
    else
        functional_read(r, config, s, &names);
    TRY(order_calls(r, s));
    TRY(check_inputs(r, s));
    *ret = s;
    return ST_OK;
}

/* ---- leaves -------------------------------------------------------------------------------------------------------------- */

static enum status leaf_add(struct reader *r, struct scope_layer *l, const char *prefix, int top, bool trainable)
{
    const char *name = *prefix ? arena_print(r->mem, "%s/%s", prefix, l->name) : l->name;
    struct layer made;

    TRY(layer_read(l->entry, name, r->mem, r->warnings, &made, r->problem));
    made.trainable = made.trainable && trainable;
    if (names_put(&r->leaves, made.name, r->n_layers) >= 0)
        return fail(r->problem, ST_INVALID, l->pointer, "two layers have the path \"%s\"", made.name);
    if (r->n_layers == r->layer_room) {
        r->layer_room = r->layer_room ? 2 * r->layer_room : 32;
        r->layers = must_realloc(r->layers, sizeof *r->layers * (size_t)r->layer_room);
        r->top = must_realloc(r->top, sizeof *r->top * (size_t)r->layer_room);
    }
    l->leaf = r->n_layers;
    r->layers[r->n_layers] = made;
    r->top[r->n_layers++] = top;
    return ST_OK;
}

/* Leaves of the needed layers of `s`, in file order. top: -1 in the outermost scope, where each entry is its own top. */
static enum status leaves_add(struct reader *r, struct scope *s, const char *prefix, int top, bool trainable)
{
    int next_top = 0;

    for (int i = 0; i < s->n_layers; i++) {
        struct scope_layer *l = &s->layers[i];
        if (l->kind == KIND_INPUT || !l->needed)
            continue;
        int own = top >= 0 ? top : next_top++;
        if (l->kind == KIND_LEAF)
            TRY(leaf_add(r, l, prefix, own, trainable));
        else
            TRY(leaves_add(r, l->scope, *prefix ? arena_print(r->mem, "%s/%s", prefix, l->name) : l->name, own,
                           trainable && l->scope->trainable));
    }
    return ST_OK;
}

/* The private members of entries that are no leaves (leaves lose theirs when they are read). */
static void clean(struct json *model)
{
    json_remove(model, "horn_pointer");
    json_remove(model, "horn_keys");
    for (struct json *m = json_first(json_get(json_get(model, "config"), "layers")); m; m = json_next(m))
        clean(m);
}

/* A layer takes one tensor, unless it is one of these; a second one would be read by nobody. */
static enum status check_inputs_of(struct reader *r, const struct scope_layer *l, int n)
{
    static const char *const several[] = {"Add", "Multiply", "Concatenate", "LSTM"};
    const char *class = r->layers[l->leaf].type->keras;

    for (size_t i = 0; i < COUNT(several); i++)
        if (!strcmp(class, several[i]))
            return ST_OK;
    if (n > 1)
        return fail(r->problem, ST_INVALID, l->pointer, "layer \"%s\" (%s) takes one input, a call gives it %d", l->name, class,
                    n);
    return ST_OK;
}

/* ---- expansion into calls ------------------------------------------------------------------------------------------------ */

static enum status call_add(struct reader *r, const struct scope_layer *l, const struct model_tensor *in, int n)
{
    if (r->n_calls == MAX_CALLS)
        return fail(r->problem, ST_INVALID, l->pointer,
                    "with all nested models called the model has more than %d calls of layers", MAX_CALLS);
    if (r->n_calls == r->call_room) {
        r->call_room = r->call_room ? 2 * r->call_room : 64;
        r->calls = must_realloc(r->calls, sizeof *r->calls * (size_t)r->call_room);
    }
    r->calls[r->n_calls++] = (struct model_call){.layer = l->leaf, .n_in = n, .in = in};
    return ST_OK;
}

struct made { /* what a call gave: a leaf's call, whose outputs are known at the build, or the tensors of a model or an input */
    int call;
    const struct model_tensor *v;
    int n;
};

static enum status tensor_of(struct reader *r, const struct scope *s, const struct made *made, struct source from,
                             struct model_tensor *ret)
{
    const struct made *m = &made[from.call];
    const struct scope_layer *l = &s->layers[s->calls[from.call].layer];

    if (!m->v) {
        *ret = (struct model_tensor){.call = m->call, .index = from.tensor};
        return ST_OK;
    }
    if (from.tensor >= m->n)
        return fail(r->problem, ST_INVALID, l->pointer, "output %d of \"%s\" is wanted, which has %d", from.tensor, l->name,
                    m->n);
    *ret = m->v[from.tensor];
    return ST_OK;
}

static enum status scope_expand(struct reader *r, const struct scope *s, const struct model_tensor *in,
                                struct model_tensor *out)
{
    struct made *made = ARENA_ARRAY(r->mem, struct made, s->n_calls);

    for (int i = 0; i < s->n_inputs; i++)
        made[s->inputs[i]] = (struct made){.v = &in[i], .n = 1};
    for (int i = 0; i < s->n_order; i++) {
        const struct scope_call *c = &s->calls[s->order[i]];
        const struct scope_layer *l = &s->layers[c->layer];
        if (l->kind == KIND_INPUT)
            continue;
        struct model_tensor *args = ARENA_ARRAY(r->mem, struct model_tensor, c->n ? c->n : 1);
        for (int t = 0; t < c->n; t++)
            TRY(tensor_of(r, s, made, c->in[t], &args[t]));
        if (l->kind == KIND_LEAF) {
            made[s->order[i]].call = r->n_calls;
            TRY(check_inputs_of(r, l, c->n));
            TRY(call_add(r, l, args, c->n));
            continue;
        }
        if (c->n != l->scope->n_inputs)
            return fail(r->problem, ST_INVALID, l->pointer, "model \"%s\" has %d inputs, a call gives it %d", l->name,
                        l->scope->n_inputs, c->n);
        struct model_tensor *outs = ARENA_ARRAY(r->mem, struct model_tensor, l->scope->n_outputs);
        TRY(scope_expand(r, l->scope, args, outs));
        made[s->order[i]] = (struct made){.v = outs, .n = l->scope->n_outputs};
    }
    for (int i = 0; i < s->n_outputs; i++)
        TRY(tensor_of(r, s, made, s->outputs[i], &out[i]));
    return ST_OK;
}

/* ---- the model ----------------------------------------------------------------------------------------------------------- */

static struct shape shape_read(const struct json *j)
{
    struct shape s = {.rank = 0};

    for (const struct json *d = json_first(j); d && s.rank < MAX_RANK; d = json_next(d)) {
        int64_t dim = -1;
        json_int(d, &dim);
        s.dim[s.rank++] = dim;
    }
    return s;
}

static void inputs_fill(struct model *m, const struct scope *s)
{
    m->n_inputs = s->n_inputs;
    m->inputs = ARENA_ARRAY(m->mem, struct model_input, s->n_inputs);
    for (int i = 0; i < s->n_inputs; i++) {
        const struct scope_layer *l = &s->layers[s->calls[s->inputs[i]].layer];
        const struct json *config = json_get(l->entry, "config");
        m->inputs[i] = (struct model_input){.name = l->name, .shape = {.rank = -1}, .type = F32};
        if (l->entry) {
            m->inputs[i].shape = shape_read(json_get(config, "batch_shape"));
            dtype_find(text_of(config, "dtype"), &m->inputs[i].type);
        }
    }
}

/* The layer that makes each output; a name that comes again gets _1, _2 behind it. */
static void output_names_fill(struct model *m, const struct scope *s)
{
    struct names seen = names_make(m->mem);

    m->output_names = ARENA_ARRAY(m->mem, const char *, s->n_outputs);
    for (int i = 0; i < s->n_outputs; i++) {
        const char *base = s->layers[s->calls[s->outputs[i].call].layer].name, *name = base;
        for (int n = 1; names_find(&seen, name) >= 0; n++)
            name = arena_print(m->mem, "%s_%d", base, n);
        names_put(&seen, name, i);
        m->output_names[i] = name;
    }
}

static void tops_fill(struct model *m, const struct scope *s)
{
    m->tops = ARENA_ARRAY(m->mem, const char *, s->n_layers);
    for (int i = 0; i < s->n_layers; i++)
        if (s->layers[i].kind != KIND_INPUT && s->layers[i].needed)
            m->tops[m->n_tops++] = s->layers[i].name;
}

static enum status model_fill(struct model *m, struct reader *r, struct scope *s)
{
    struct model_tensor *in;

    TRY(leaves_add(r, s, "", -1, s->trainable));
    m->name = s->name;
    inputs_fill(m, s);
    output_names_fill(m, s);
    tops_fill(m, s);
    in = ARENA_ARRAY(m->mem, struct model_tensor, s->n_inputs);
    for (int i = 0; i < s->n_inputs; i++)
        in[i] = (struct model_tensor){.call = -1, .index = i};
    m->n_outputs = s->n_outputs;
    m->outputs = ARENA_ARRAY(m->mem, struct model_tensor, s->n_outputs);
    TRY(scope_expand(r, s, in, m->outputs));
    if (!r->n_layers)
        return fail(r->problem, ST_INVALID, "", "the model \"%s\" has no layer between its inputs and outputs", m->name);

    m->n_layers = r->n_layers;
    m->layers = ARENA_ARRAY(m->mem, struct layer, r->n_layers);
    m->top = ARENA_ARRAY(m->mem, int, r->n_layers);
    memcpy(m->layers, r->layers, sizeof *m->layers * (size_t)r->n_layers);
    memcpy(m->top, r->top, sizeof *m->top * (size_t)r->n_layers);
    m->n_calls = r->n_calls;
    m->calls = ARENA_ARRAY(m->mem, struct model_call, r->n_calls ? r->n_calls : 1);
    memcpy(m->calls, r->calls, sizeof *m->calls * (size_t)r->n_calls);
    return ST_OK;
}

enum status model_parse(const struct json *architecture, const char *pointer, struct model **ret, struct problem *problem)
{
    OWNED(model_free) struct model *m = must_alloc(sizeof *m);
    CLEAN(text_done) struct text warnings = text_make(16 << 10);
    struct reader r = {.warnings = &warnings, .problem = problem};
    struct scope *scope;

    r.mem = m->mem = arena_new();
    r.leaves = names_make(m->mem);
    m->dialect = dialect_of(architecture);
    m->n_nodes_limit = 200000;
    TRY(dialect_canonical(architecture, pointer, m->dialect, &m->canonical, &warnings, problem));
    m->sequential = !strcmp(text_of(m->canonical, "class_name"), "Sequential");
    TRY(scope_read(&r, m->canonical, &scope));
    enum status s = model_fill(m, &r, scope);
    free(r.layers);
    free(r.top);
    free(r.calls);
    if (s != ST_OK && problem->where[0] == 0)
        snprintf(problem->where, sizeof problem->where, "%s", pointer);
    TRY(s);
    clean(m->canonical);
    m->warnings = arena_text(m->mem, warnings.s);
    *ret = STEAL(m);
    return ST_OK;
}
