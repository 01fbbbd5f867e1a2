/* The graph's arrays and regions.
 *
 * Values and nodes lie in two heap arrays that double, so that ids stay dense; everything that they point to is in the graph's
 * arena. The text of an origin is copied, since graphs of a served version outlive the parse tree that named the layer; nodes
 * of one layer follow each other and share one copy. */
#include "engine/graph/graph.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/graph/op.h"

#define DEFAULT_MAX_NODES 200000

static size_t align_up(size_t bytes)
{
    return (bytes + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
}

static void *room_for(void *array, uint32_t count, uint32_t *room, size_t size)
{
    if (count < *room)
        return array;
    *room = *room ? *room * 2 : 64;
    return must_realloc(array, *room * size);
}

static const char *origin_text(struct graph *g, const char *origin)
{
    const char *last = g->n_nodes > 1 ? g->nodes[g->n_nodes - 1].origin : NULL;

    if (!origin || (last && strcmp(last, origin) == 0))
        return origin ? last : NULL;
    return arena_text(g->mem, origin);
}

static const value_id *ids_copy(struct graph *g, const value_id *ids, uint16_t n)
{
    value_id *copy = ARENA_ARRAY(g->mem, value_id, n ? n : 1);

    if (n)
        memcpy(copy, ids, n * sizeof(*ids));
    return copy;
}

struct graph *graph_new(void)
{
    struct graph *g = must_alloc(sizeof(*g));

    g->mem = arena_new();
    g->max_nodes = DEFAULT_MAX_NODES;
    g->values = room_for(NULL, 0, &g->value_room, sizeof(*g->values));
    g->nodes = room_for(NULL, 0, &g->node_room, sizeof(*g->nodes));
    g->values[0] = (struct value){0};
    g->nodes[0] = (struct node){0};
    g->n_values = g->n_nodes = 1;
    return g;
}

struct graph *graph_free(struct graph *g)
{
    if (g) {
        arena_free(g->mem);
        free(g->values);
        free(g->nodes);
        free(g);
    }
    return NULL;
}

value_id graph_value(struct graph *g, const struct value *v)
{
    struct value copy = *v; /* v may point into the array that moves */

    g->values = room_for(g->values, g->n_values, &g->value_room, sizeof(*g->values));
    g->values[g->n_values] = copy;
    if (copy.view_of)
        g->values[copy.view_of].viewed = true;
    return g->n_values++;
}

value_id graph_leaf_at(struct graph *g, enum region at, enum dtype type, const struct shape *shape, size_t offset)
{
    struct value v = {.shape = *shape, .type = type, .at = at, .offset = offset};
    size_t end = align_up(offset + (shape_known(shape) ? value_bytes(&v) : 0));

    assert(at != AT_TEMP);
    if (end > g->bytes[at])
        g->bytes[at] = end;
    return graph_value(g, &v);
}

value_id graph_leaf(struct graph *g, enum region at, enum dtype type, const struct shape *shape)
{
    return graph_leaf_at(g, at, type, shape, g->bytes[at]);
}

bool graph_place(struct graph *g, value_id v, enum region at, size_t offset)
{
    struct value *p = &g->values[v];

    if (v == 0 || p->producer == 0 || p->view_of || p->at != AT_TEMP)
        return false;
    p->at = at;
    p->offset = offset;
    for (value_id i = v + 1; p->viewed && i < g->n_values; i++) {
        if (g->values[i].view_of == v) {
            g->values[i].at = at;
            g->values[i].offset = offset;
        }
    }
    if (align_up(offset + value_bytes(p)) > g->bytes[at])
        g->bytes[at] = align_up(offset + value_bytes(p));
    return true;
}

uint32_t graph_node(struct graph *g, const struct node *n)
{
    struct node copy = *n; /* n may point into the array that moves */
    size_t attr_size = n->op->attr_size;

    copy.origin = origin_text(g, n->origin);
    copy.in = ids_copy(g, n->in, n->n_in);
    copy.out = ids_copy(g, n->out, n->n_out);
    if (attr_size) {
        void *attr = arena_alloc(g->mem, attr_size);

        if (n->attr)
            memcpy(attr, n->attr, attr_size);
        copy.attr = attr;
    }
    g->nodes = room_for(g->nodes, g->n_nodes, &g->node_room, sizeof(*g->nodes));
    g->nodes[g->n_nodes] = copy;
    if (!(n->op->flags & OP_EFFECT)) {
        for (int i = 0; i < copy.n_out; i++)
            g->values[copy.out[i]].producer = g->n_nodes;
    }
    return g->n_nodes++;
}

size_t value_bytes(const struct value *v)
{
    int64_t n = shape_count(&v->shape);

    assert(n >= 0);
    return (size_t)n * dtype_bytes(v->type);
}
