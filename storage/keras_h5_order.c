/* The order in which Keras lists a model's layers, and so its weights and optimizer slots.
 *
 * A Sequential keeps the order of its document. A functional model sorts by depth (the longest way from the layer to an output,
 * largest first), layers of one depth by when a walk from the outputs towards the inputs meets them first:
 * keras/src/ops/function.py, map_graph; Keras 1 and 2 have the same in engine/topology.py. Documents that Keras printed are in
 * that order already, others need not be, and Keras matches the weights of a file by order alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/names.h"
#include "storage/keras_h5_parts.h"

struct call_node { /* one call of a layer */
    int layer;
    int n, *in; /* nodes that it reads */
    int depth;
};

struct item {
    const char *name;
    const struct json *entry;
    int first, n_nodes;
    int depth, met; /* -1: not part of the graph */
};

struct graph_of_layers {
    struct arena *mem;
    struct item *items;
    struct call_node *nodes;
    int n_items, n_nodes;
    struct names names;
};

struct walk { /* from the outputs towards the inputs, with a stack of its own since chains may be long */
    struct frame {
        int node, next;
    } * stack;
    bool *seen;
    int *done, n_done; /* nodes, each behind all that it reads */
    int n_met;
};

struct leaf_order { /* leaves in Keras' order, and the top of each */
    struct arena *mem;
    const struct model *m;
    struct names leaves; /* path -> index in model.layers */
    int *leaf, n;
    int *top, n_tops; /* indices into model.tops, in order */
    bool *top_seen;
};

static const char *text_of(const struct json *j, const char *key)
{
    return json_text(json_get(j, key));
}

static bool is_class(const struct json *entry, const char *class)
{
    return json_is(json_get(entry, "class_name"), class);
}

static int count_tensors(const struct json *j)
{
    int n = 0;

    if (is_class(j, "__keras_tensor__"))
        return 1;
    for (const struct json *m = json_first(j); m; m = json_next(m))
        n += count_tensors(m);
    return n;
}

/* [layer, call, output] as a node. end: in input_layers and output_layers, where functional models count their calls from 1. */
static int node_of(const struct graph_of_layers *g, const struct json *history, bool end)
{
    const char *name = json_text(json_first(history));
    int i = name ? names_find(&g->names, name) : -1;
    int64_t call = 0;

    if (i < 0 || !json_int(json_at(history, 1), &call))
        return -1;
    call -= end && is_class(g->items[i].entry, "Functional");
    return call < 0 || call >= g->items[i].n_nodes ? -1 : g->items[i].first + (int)call;
}

static void read_tensors(const struct graph_of_layers *g, const struct json *j, struct call_node *node)
{
    if (is_class(j, "__keras_tensor__")) {
        int in = node_of(g, json_get(json_get(j, "config"), "keras_history"), false);
        if (in >= 0)
            node->in[node->n++] = in;
        return;
    }
    for (const struct json *m = json_first(j); m; m = json_next(m))
        read_tensors(g, m, node);
}

static struct graph_of_layers graph_read(const struct json *model, struct arena *mem)
{
    struct graph_of_layers g = {.mem = mem, .names = names_make(mem)};
    const struct json *list = json_get(json_get(model, "config"), "layers");

    g.items = ARENA_ARRAY(mem, struct item, json_count(list) + 1);
    for (const struct json *m = json_first(list); m; m = json_next(m)) {
        struct item *i = &g.items[g.n_items];
        *i = (struct item){.name = text_of(m, "name"), .entry = m, .first = g.n_nodes, .depth = -1, .met = -1};
        i->n_nodes = is_class(m, "InputLayer") ? 1 : json_count(json_get(m, "inbound_nodes"));
        g.n_nodes += i->n_nodes;
        names_put(&g.names, i->name, g.n_items++);
    }
    g.nodes = ARENA_ARRAY(mem, struct call_node, g.n_nodes + 1);
    for (int i = 0; i < g.n_items; i++) {
        const struct json *call =
            is_class(g.items[i].entry, "InputLayer") ? NULL : json_first(json_get(g.items[i].entry, "inbound_nodes"));
        for (int k = 0; k < g.items[i].n_nodes; k++, call = json_next(call)) {
            struct call_node *node = &g.nodes[g.items[i].first + k];
            *node = (struct call_node){.layer = i, .in = ARENA_ARRAY(mem, int, count_tensors(call) + 1)};
            read_tensors(&g, json_get(call, "args"), node);
            read_tensors(&g, json_get(call, "kwargs"), node);
        }
    }
    return g;
}

static void meet(struct graph_of_layers *g, struct walk *w, int node, int *depth)
{
    struct item *item = &g->items[g->nodes[node].layer];

    if (w->seen[node])
        return;
    w->seen[node] = true;
    if (item->met < 0)
        item->met = w->n_met++;
    w->stack[(*depth)++] = (struct frame){node, 0};
}

/* Numbers layers as they are met on the way from one output. */
static void walk_from(struct graph_of_layers *g, struct walk *w, int from)
{
    int depth = 0;

    meet(g, w, from, &depth);
    while (depth) {
        struct frame *top = &w->stack[depth - 1];
        const struct call_node *node = &g->nodes[top->node];
        if (top->next < node->n) {
            meet(g, w, node->in[top->next++], &depth);
        } else {
            w->done[w->n_done++] = top->node;
            depth--;
        }
    }
}

static void find_depths(struct graph_of_layers *g, const struct walk *w)
{
    for (int k = w->n_done - 1; k >= 0; k--) {
        struct call_node *node = &g->nodes[w->done[k]];
        struct item *item = &g->items[node->layer];
        int depth = node->depth > item->depth ? node->depth : item->depth;
        item->depth = node->depth = depth;
        for (int t = 0; t < node->n; t++) {
            struct call_node *in = &g->nodes[node->in[t]];
            in->depth = depth + 1 > in->depth ? depth + 1 : in->depth;
        }
    }
}

static int by_depth(const void *a, const void *b)
{
    const struct item *x = *(const struct item *const *)a, *y = *(const struct item *const *)b;

    if (x->depth != y->depth)
        return x->depth > y->depth ? -1 : 1;
    return x->met < y->met ? -1 : x->met > y->met;
}

/* Entries of a functional model's layers in Keras' order; those that lead to no output are left out. */
static int functional_order(const struct json *model, struct arena *mem, const struct json ***ret)
{
    struct graph_of_layers g = graph_read(model, mem);
    struct walk w = {ARENA_ARRAY(mem, struct frame, g.n_nodes + 1), ARENA_ARRAY(mem, bool, g.n_nodes + 1),
                     ARENA_ARRAY(mem, int, g.n_nodes + 1), 0, 0};
    int n = 0;
    const struct item **sorted = ARENA_ARRAY(mem, const struct item *, g.n_items + 1);
    const struct json *ends = json_get(json_get(model, "config"), "output_layers");

    for (const struct json *m = json_first(ends); m; m = json_next(m)) {
        int node = node_of(&g, m, true);
        if (node >= 0)
            walk_from(&g, &w, node);
    }
    find_depths(&g, &w);
    for (int i = 0; i < g.n_items; i++)
        if (g.items[i].met >= 0)
            sorted[n++] = &g.items[i];
    qsort(sorted, (size_t)n, sizeof *sorted, by_depth);
    *ret = ARENA_ARRAY(mem, const struct json *, n + 1);
    for (int i = 0; i < n; i++)
        (*ret)[i] = sorted[i]->entry;
    return n;
}

static int layer_entries(const struct json *model, struct arena *mem, const struct json ***ret)
{
    const struct json *list = json_get(json_get(model, "config"), "layers");
    int n = 0;

    if (is_class(model, "Functional"))
        return functional_order(model, mem, ret);
    *ret = ARENA_ARRAY(mem, const struct json *, json_count(list) + 1);
    for (const struct json *m = json_first(list); m; m = json_next(m))
        (*ret)[n++] = m;
    return n;
}

static void order_leaves(struct leaf_order *o, const struct json *model, const char *prefix)
{
    const struct json **entry;
    int n = layer_entries(model, o->mem, &entry);

    for (int i = 0; i < n; i++) {
        const char *name = text_of(entry[i], "name");
        const char *path = *prefix ? arena_print(o->mem, "%s/%s", prefix, name) : name;
        int leaf = is_class(entry[i], "InputLayer") ? -1 : names_find(&o->leaves, path);
        if (is_class(entry[i], "Sequential") || is_class(entry[i], "Functional")) {
            order_leaves(o, entry[i], path);
        } else if (leaf >= 0) {
            o->leaf[o->n++] = leaf;
            if (!o->top_seen[o->m->top[leaf]]) {
                o->top_seen[o->m->top[leaf]] = true;
                o->top[o->n_tops++] = o->m->top[leaf];
            }
        }
    }
}

static struct leaf_order leaf_order(const struct model *m, struct arena *mem)
{
    struct leaf_order o = {.mem = mem, .m = m, .leaves = names_make(mem)};

    o.leaf = ARENA_ARRAY(mem, int, m->n_layers + 1);
    o.top = ARENA_ARRAY(mem, int, m->n_tops + 1);
    o.top_seen = ARENA_ARRAY(mem, bool, m->n_tops + 1);
    for (int i = 0; i < m->n_layers; i++)
        names_put(&o.leaves, m->layers[i].name, i);
    order_leaves(&o, m->canonical, "");
    for (int i = 0; i < m->n_tops; i++) /* a nested model without a layer of its own */
        if (!o.top_seen[i])
            o.top[o.n_tops++] = i;
    return o;
}

/* Entries of each leaf, as lists in the order in which the layer asked for them. */
struct by_leaf {
    int *first, *next;
};

static struct by_leaf index_leaves(const struct model *m, const struct weights *w, struct arena *mem)
{
    struct by_leaf b = {ARENA_ARRAY(mem, int, m->n_layers + 1), ARENA_ARRAY(mem, int, w->n + 1)};

    for (int i = 0; i < m->n_layers; i++)
        b.first[i] = -1;
    for (int i = w->n - 1; i >= 0; i--) {
        int leaf = w->entry[i].leaf;
        b.next[i] = leaf >= 0 ? b.first[leaf] : -1;
        if (leaf >= 0)
            b.first[leaf] = i;
    }
    return b;
}

void weight_groups(const struct model *m, const struct weights *layout, struct arena *mem, struct weight_group **ret, int *n)
{
    struct leaf_order o = leaf_order(m, mem);
    struct by_leaf of = index_leaves(m, layout, mem);
    struct weight_group *groups = ARENA_ARRAY(mem, struct weight_group, m->n_tops + 1);
    int *place = ARENA_ARRAY(mem, int, m->n_tops + 1);

    for (int i = 0; i < o.n_tops; i++) {
        place[o.top[i]] = i;
        groups[i].name = m->tops[o.top[i]];
    }
    for (int k = 0; k < o.n; k++)
        for (int i = of.first[o.leaf[k]]; i >= 0; i = of.next[i])
            groups[place[m->top[o.leaf[k]]]].n++;
    for (int i = 0; i < o.n_tops; i++) {
        groups[i].entry = ARENA_ARRAY(mem, const struct weight_entry *, groups[i].n + 1);
        groups[i].n = 0;
    }
    for (int frozen = 0; frozen < 2; frozen++)
        for (int k = 0; k < o.n; k++)
            for (int i = of.first[o.leaf[k]]; i >= 0; i = of.next[i])
                if (layout->entry[i].trainable != frozen) {
                    struct weight_group *g = &groups[place[m->top[o.leaf[k]]]];
                    g->entry[g->n++] = &layout->entry[i];
                }
    *ret = groups;
    *n = o.n_tops;
}

int weight_leaves(const struct model *m, const struct weight_group *g, struct arena *mem, struct weight_group **ret)
{
    struct weight_group *leaves = ARENA_ARRAY(mem, struct weight_group, g->n + 1);
    int *place = ARENA_ARRAY(mem, int, m->n_layers + 1), n = 0;

    for (int i = 0; i < g->n; i++) {
        int leaf = g->entry[i]->leaf;
        if (!place[leaf]) {
            const char *slash = strrchr(g->entry[i]->layer, '/');
            leaves[n].name = slash ? slash + 1 : g->entry[i]->layer;
            leaves[n].entry = ARENA_ARRAY(mem, const struct weight_entry *, g->n);
            place[leaf] = ++n;
        }
        struct weight_group *own = &leaves[place[leaf] - 1];
        own->entry[own->n++] = g->entry[i];
    }
    *ret = leaves;
    return n;
}

enum status each_slot(const struct optimizer_spec *o, const struct weights *layout, const struct weight_group *groups,
                      int n_groups, slot_visit visit, void *arg, struct problem *problem)
{
    /* Round 0: the interleaved slots, weight by weight. Rounds after it: one slot each of those that stand at the end. */
    for (int round = 0; round <= o->n_slots; round++) {
        bool late = round > 0;
        if (late && !o->type->slots[o->slot[round - 1]].at_the_end)
            continue;
        for (int g = 0; g < n_groups; g++) {
            for (int i = 0; i < groups[g].n; i++) {
                const struct weight_entry *e = groups[g].entry[i];
                for (int k = 0; e->trainable && k < o->n_slots; k++) {
                    const struct slot_type *slot = &o->type->slots[o->slot[k]];
                    if (late ? k == round - 1 : !slot->at_the_end)
                        TRY(visit(arg, slot, e, (size_t)k * layout->trainable_bytes + e->offset, problem));
                }
            }
        }
    }
    return ST_OK;
}
