/* The weights of a model: asked for by layers, laid out once, filled by their initializers.
 *
 * The first build appends each weight's leaf wherever the region ends, since nobody knows yet what is trainable in all.
 * weights_layout then moves the leaves: trainable ones to the front, each at a multiple of REGION_ALIGN, so that the
 * trainable part is one flat vector. Gradients and slots use the same offsets in their own regions. The padding between weights
 * is zero and stays zero, since no gradient is ever written there: a sum over the flat vector is a sum over the weights. */
#include "engine/model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"

static size_t aligned(size_t bytes)
{
    return (bytes + REGION_ALIGN - 1) & ~(size_t)(REGION_ALIGN - 1);
}

static size_t entry_bytes(const struct weight_entry *e)
{
    return (size_t)shape_count(&e->shape) * sizeof(float);
}

static uint64_t path_hash(const char *layer, const char *name)
{
    char path[1024];

    /* cut alike for both sides if longer; the names are compared too */
    snprintf(path, sizeof(path), "%s/%s", layer, name);
    return text_hash(path);
}

static void slot_put(struct weights *w, int entry)
{
    unsigned mask = (unsigned)w->n_slots - 1, i = (unsigned)w->entry[entry].hash & mask;

    while (w->slot[i])
        i = (i + 1) & mask;
    w->slot[i] = entry + 1;
}

/* The last entry gets findable: models of thousands of layers ask for each weight several times in a build. */
static void index_last(struct weights *w)
{
    if (2 * w->n <= w->n_slots) {
        slot_put(w, w->n - 1);
        return;
    }
    free(w->slot);
    w->n_slots = w->n_slots ? 2 * w->n_slots : 64;
    w->slot = must_alloc(sizeof *w->slot * (size_t)w->n_slots);
    for (int i = 0; i < w->n; i++)
        slot_put(w, i);
}

static struct weight_entry *entry_add(struct weights *w, const struct layer *l, const char *name)
{
    struct weight_entry *e;

    if (w->n == w->room) {
        w->room = w->room ? 2 * w->room : 32;
        w->entry = must_realloc(w->entry, (size_t)w->room * sizeof(*w->entry));
    }
    e = &w->entry[w->n++];
    *e = (struct weight_entry){.layer = arena_text(w->mem, l->name),
                               .name = arena_text(w->mem, name),
                               .path = arena_print(w->mem, "%s/%s", l->name, name),
                               .leaf = -1};
    e->hash = path_hash(l->name, name);
    index_last(w);
    if (w->layers && l >= w->layers && l < w->layers + w->n_layers)
        e->leaf = (int)(l - w->layers);
    return e;
}

/* The entry, made if this is the first build; NULL after a problem. */
static struct weight_entry *entry_get(struct build *b, const struct layer *l, const char *name, const struct shape *shape,
                                      const struct object *init, bool trainable)
{
    struct weight_entry *e;

    if (!b->weights) {
        build_fail(b, ST_INVALID, "the layer has weights, and only layers without weights may stand here");
        return NULL;
    }
    e = weights_find(b->weights, l->name, name);
    if (e && !shape_equal(&e->shape, shape)) {
        build_fail(b, ST_INVALID, "the weight \"%s\" has the shape %s, this call of the layer needs %s", name,
                   shape_text(&e->shape).s, shape_text(shape).s);
        return NULL;
    }
    if (e)
        return e;
    if (b->weights->laid_out) {
        build_fail(b, ST_INTERNAL, "the weight \"%s\" was not there when the weights were laid out", name);
        return NULL;
    }
    if (!shape_known(shape)) {
        build_fail(b, ST_INVALID, "the weight \"%s\" would have the shape %s: the model must say the size of the layer's input",
                   name, shape_text(shape).s);
        return NULL;
    }
    e = entry_add(b->weights, l, name);
    e->shape = *shape;
    e->init = init;
    e->trainable = trainable;
    return e;
}

static value_id weight_value(struct build *b, const struct layer *l, const char *name, struct shape shape,
                             const struct object *init, bool trainable)
{
    struct weight_entry *e;
    struct problem problem;

    if (build_failed(b))
        return 0;
    if (shape_checked(&shape, l->name, &problem) != ST_OK)
        return build_fail(b, problem.status, "the weight \"%s\": %s", name, problem.detail);
    e = entry_get(b, l, name, &shape, init, trainable);
    if (!e)
        return 0;
    if (!e->leaf_value) {
        e->leaf_value = b->weights->laid_out ? graph_leaf_at(b->graph, AT_WEIGHT, F32, &e->shape, e->offset)
                                             : graph_leaf(b->graph, AT_WEIGHT, F32, &e->shape);
        e->current = e->leaf_value;
    }
    return e->current;
}

/* The leaves go to their places. A view of a weight carries its own offset: it moves with the leaf that it looks at. */
static void move_leaves(struct graph *g, const struct weights *w)
{
    OWNED(free) size_t *by = must_alloc(sizeof(*by) * g->n_values); /* by leaf: how far, modulo 2^64 */

    for (int i = 0; i < w->n; i++) {
        value_id leaf = w->entry[i].leaf_value;

        if (leaf)
            by[leaf] = w->entry[i].offset - g->values[leaf].offset;
    }
    for (uint32_t v = 1; v < g->n_values; v++) {
        uint32_t root = v;

        while (g->values[root].view_of)
            root = g->values[root].view_of;
        g->values[v].offset += by[root];
    }
}

struct weights *weights_new(void)
{
    struct weights *w = must_alloc(sizeof(*w));

    w->mem = arena_new();
    return w;
}

struct weights *weights_free(struct weights *w)
{
    if (w) {
        free_null(w->entry);
        free_null(w->slot);
        arena_free(w->mem);
        free_null(w);
    }
    return NULL;
}

void weights_begin(struct weights *w)
{
    for (int i = 0; i < w->n; i++) {
        w->entry[i].leaf_value = w->entry[i].current = 0;
        w->entry[i].regularized = false;
    }
}

void weights_layout(struct weights *w, struct build *b)
{
    size_t at = 0;

    if (w->laid_out)
        return;
    for (int frozen = 0; frozen < 2; frozen++) {
        for (int i = 0; i < w->n; i++) {
            if (w->entry[i].trainable == frozen)
                continue;
            w->entry[i].offset = at;
            at += aligned(entry_bytes(&w->entry[i]));
        }
        if (!frozen)
            w->trainable_bytes = at;
    }
    w->bytes = at;
    w->laid_out = true;
    move_leaves(b->graph, w);
    if (b->graph->bytes[AT_WEIGHT] < at)
        b->graph->bytes[AT_WEIGHT] = at;
}

int64_t weights_count(const struct weights *w, bool trainable_only)
{
    int64_t n = 0;

    for (int i = 0; i < w->n; i++) {
        if (w->entry[i].trainable || !trainable_only)
            n += shape_count(&w->entry[i].shape);
    }
    return n;
}

struct weight_entry *weights_find(struct weights *w, const char *layer, const char *name)
{
    uint64_t hash = path_hash(layer, name);
    unsigned mask = (unsigned)w->n_slots - 1;

    for (unsigned i = (unsigned)hash & mask; w->n_slots && w->slot[i]; i = (i + 1) & mask) {
        struct weight_entry *e = &w->entry[w->slot[i] - 1];

        if (e->hash == hash && strcmp(e->name, name) == 0 && strcmp(e->layer, layer) == 0)
            return e;
    }
    return NULL;
}

enum status weights_init(const struct weights *w, uint64_t seed, void *to, struct problem *problem)
{
    memset(to, 0, w->bytes);
    for (int i = 0; i < w->n; i++) {
        const struct weight_entry *e = &w->entry[i];
        const struct initializer *type = (const struct initializer *)e->init->type;
        struct problem found;
        enum status s =
            type->fill(e->init->config, &e->shape, seed ^ text_hash(e->path), (float *)((char *)to + e->offset), &found);

        if (s != ST_OK)
            return fail(problem, s, e->path, "%s: %s", type->keras, found.detail);
    }
    return ST_OK;
}

value_id weight(struct build *b, const struct layer *l, const char *name, struct shape shape, const struct object *init)
{
    return weight_value(b, l, name, shape, init, l->trainable);
}

value_id weight_fixed(struct build *b, const struct layer *l, const char *name, struct shape shape, const struct object *init)
{
    return weight_value(b, l, name, shape, init, false);
}

void weight_assign(struct build *b, const struct layer *l, const char *name, value_id v)
{
    struct weight_entry *e;

    if (build_failed(b) || !v)
        return;
    e = weights_find(b->weights, l->name, name);
    if (!e || !e->leaf_value)
        build_fail(b, ST_INTERNAL, "the weight \"%s\" is assigned before it is used", name);
    else
        e->current = v;
}
