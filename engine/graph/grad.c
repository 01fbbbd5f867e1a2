/* The reverse sweep: from a scalar back to the values asked for, each op emitting the nodes of its own gradient.
 *
 *     for node n from the loss's back to the first:
 *         dout = what is known for n's outputs;   din = n.op.grad(dout);   d[in] = d[in] + din
 *
 * A forward pass first marks the values that depend on `wrt`, so that nothing is emitted for data or labels. Since program
 * order is a topological order, all uses of a value have been seen when its node's turn comes. The nodes of a gradient carry
 * the name of the layer whose node they differentiate. */
#include "engine/graph/build.h"

#include <string.h>

struct sweep {
    struct build *b;
    uint32_t n_values;  /* those that were there before the sweep; later ones are gradients */
    bool *wanted;       /* by value: depends on one of wrt */
    value_id *gradient; /* by value: the sum so far, 0 for none */
};

static bool any(const bool *flags, int n)
{
    for (int i = 0; i < n; i++) {
        if (flags[i])
            return true;
    }
    return false;
}

static void mark_wanted(struct sweep *s, uint32_t n_nodes, const value_id *wrt, int n)
{
    const struct graph *g = s->b->graph;

    for (int i = 0; i < n; i++)
        s->wanted[wrt[i]] = wrt[i] != 0;
    for (uint32_t i = 1; i < n_nodes; i++) {
        const struct node *node = &g->nodes[i];
        bool depends = false;

        for (int k = 0; k < node->n_in; k++)
            depends = depends || s->wanted[node->in[k]];
        for (int k = 0; depends && k < node->n_out && !(node->op->flags & OP_EFFECT); k++)
            s->wanted[node->out[k]] = true;
    }
}

static bool shapes_agree(const struct shape *a, const struct shape *b)
{
    bool agree = a->rank == b->rank;

    for (int i = 0; agree && i < a->rank; i++)
        agree = a->dim[i] == b->dim[i] || a->dim[i] == -1 || b->dim[i] == -1;
    return agree;
}

static void add_gradient(struct sweep *s, const struct node *n, int input, value_id d)
{
    value_id to = n->in[input];
    const struct shape *want = &s->b->graph->values[to].shape, *got = &s->b->graph->values[d].shape;

    if (!shapes_agree(want, got))
        build_fail(s->b, ST_INTERNAL, "%s's gradient of input %d has shape %s, the input has %s", n->op->name, input,
                   shape_text(got).s, shape_text(want).s);
    else
        s->gradient[to] = s->gradient[to] ? emit_add(s->b, s->gradient[to], d) : d;
}

static void node_grad(struct sweep *s, const struct node *n)
{
    struct build *b = s->b;
    OWNED(free) value_id *dout = must_alloc(sizeof(*dout) * (n->n_out + 1u));
    OWNED(free) value_id *din = must_alloc(sizeof(*din) * (n->n_in + 1u));
    OWNED(free) bool *need = must_alloc(sizeof(*need) * (n->n_in + 1u));
    bool flows = false;

    for (int i = 0; i < n->n_out; i++) {
        dout[i] = s->gradient[n->out[i]];
        flows = flows || dout[i];
    }
    for (int i = 0; i < n->n_in; i++)
        need[i] = s->wanted[n->in[i]];
    if (!flows || !any(need, n->n_in))
        return;
    b->origin = n->origin;
    if (!n->op->grad) {
        build_fail(b, ST_UNSUPPORTED, "%s has no gradient, so nothing before it can be trained", n->op->name);
        return;
    }
    n->op->grad(b, n, dout, need, din);
    for (int i = 0; i < n->n_in && !build_failed(b); i++) {
        if (need[i] && din[i])
            add_gradient(s, n, i, din[i]);
    }
}

void graph_grad(struct build *b, value_id loss, const value_id *wrt, int n, value_id *dwrt)
{
    struct graph *g = b->graph;
    struct sweep s = {.b = b, .n_values = g->n_values};
    const char *origin = b->origin;
    uint32_t n_nodes = g->n_nodes;

    memset(dwrt, 0, sizeof(*dwrt) * (size_t)n);
    if (build_failed(b) || loss == 0)
        return;
    if (shape_known(&g->values[loss].shape) && shape_count(&g->values[loss].shape) != 1) {
        build_fail(b, ST_INVALID, "the loss is no scalar, its shape is %s", shape_text(&g->values[loss].shape).s);
        return;
    }

    OWNED(free) bool *wanted = must_alloc(sizeof(*wanted) * s.n_values);
    OWNED(free) value_id *gradient = must_alloc(sizeof(*gradient) * s.n_values);

    s.wanted = wanted;
    s.gradient = gradient;
    mark_wanted(&s, n_nodes, wrt, n);
    if (wanted[loss]) {
        struct shape shape = g->values[loss].shape;

        gradient[loss] = emit_fill(b, &shape, 1);
    }
    for (uint32_t i = g->values[loss].producer; i > 0 && !build_failed(b); i--) {
        struct node copy = g->nodes[i]; /* the array moves while gradients are emitted */

        node_grad(&s, &copy);
    }
    b->origin = origin;
    for (int i = 0; i < n && !build_failed(b); i++)
        dwrt[i] = gradient[wrt[i]];
}
