/* What depends on weights alone: nodes that need to run but once while the weights stay as they are.
 *
 * Such nodes come first, in the order they had, and their outputs lie in AT_CONST. Worth it where the same weights answer many calls:
 * weights rounded to bfloat16, what batch norm makes of its statistics. */
#include <string.h>

#include "engine/graph/build.h"

static bool is_constant(const struct graph *g, const struct node *n)
{
    bool any = false;

    for (int i = 0; i < n->n_in; i++) {
        enum region at = g->values[n->in[i]].at;

        any = any || n->in[i];
        if (n->in[i] && at != AT_WEIGHT && at != AT_CONST)
            return false;
    }
    for (int i = 0; i < n->n_out; i++)
        if (g->values[n->out[i]].keep)
            return false;
    return any && !(n->op->flags & (OP_EFFECT | OP_RANDOM));
}

/* A view lies where its base lies. */
static void place_output(struct graph *g, const struct node *n, value_id v)
{
    struct value *y = &g->values[v];

    if (n->op->flags & OP_VIEW) {
        y->at = g->values[y->view_of].at;
        y->offset = g->values[y->view_of].offset;
        return;
    }
    y->at = AT_CONST;
    y->offset = g->bytes[AT_CONST];
    g->bytes[AT_CONST] += (value_bytes(y) + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
}

void graph_constants(struct graph *g)
{
    OWNED(free) struct node *order = must_alloc(sizeof *order * g->n_nodes);
    OWNED(free) bool *first = must_alloc(sizeof *first * g->n_nodes);
    uint32_t n = 1;

    for (uint32_t i = 1; i < g->n_nodes; i++) {
        first[i] = is_constant(g, &g->nodes[i]);
        for (int k = 0; first[i] && k < g->nodes[i].n_out; k++)
            place_output(g, &g->nodes[i], g->nodes[i].out[k]);
    }
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 1; i < g->n_nodes; i++)
            if (first[i] == !pass)
                order[n++] = g->nodes[i];
        if (!pass)
            g->n_constant = n;
    }
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        g->nodes[i] = order[i];
        for (int k = 0; k < order[i].n_out && !(order[i].op->flags & OP_EFFECT); k++)
            g->values[order[i].out[k]].producer = i;
    }
}

static bool same_place(const struct value *a, const struct value *b)
{
    return a->at == b->at && a->offset == b->offset && a->type == b->type && shape_equal(&a->shape, &b->shape);
}

bool graph_constants_equal(const struct graph *a, const struct graph *b)
{
    if (a->n_constant != b->n_constant || a->bytes[AT_CONST] != b->bytes[AT_CONST])
        return false;
    for (uint32_t i = 1; i < a->n_constant; i++) {
        const struct node *x = &a->nodes[i], *y = &b->nodes[i];

        if (x->op != y->op || x->n_in != y->n_in || x->n_out != y->n_out ||
            (x->op->attr_size && memcmp(x->attr, y->attr, x->op->attr_size) != 0))
            return false;
        for (int k = 0; k < x->n_in; k++)
            if (!same_place(&a->values[x->in[k]], &b->values[y->in[k]]))
                return false;
        for (int k = 0; k < x->n_out; k++)
            if (!same_place(&a->values[x->out[k]], &b->values[y->out[k]]))
                return false;
    }
    return true;
}
