/* The builder: one function emits all nodes, so that limits, shape rules and the first problem are handled in one place.
 *
 * Shape rules see copies of the values, since the graph's arrays may move while a gradient or a layer emits more nodes. */
#include "engine/graph/build.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *origin_of(const struct build *b, const struct op *op)
{
    if (b->origin && b->origin[0])
        return b->origin;
    return op ? op->name : "";
}

/* Copies of the inputs' values; an absent input is a zero value. Freed by the caller. */
static struct value *values_copy(const struct graph *g, const value_id *ids, int n)
{
    struct value *copy = must_alloc(sizeof(*copy) * (size_t)(n ? n : 1));

    for (int i = 0; i < n; i++)
        copy[i] = ids[i] ? g->values[ids[i]] : (struct value){0};
    return copy;
}

/* False notes the problem in b. */
static bool infer(struct build *b, const struct node *n, struct value *out)
{
    OWNED(free) struct value *in = values_copy(b->graph, n->in, n->n_in);
    struct problem problem = {.status = ST_OK};
    enum status s = n->op->infer ? n->op->infer(n, in, out, &problem) : ST_OK;

    for (int i = 0; s == ST_OK && i < n->n_out; i++)
        s = shape_checked(&out[i].shape, "", &problem);
    if (s == ST_OK)
        return true;
    b->problem = problem;
    b->problem.status = s;
    snprintf(b->problem.where, sizeof(b->problem.where), "%s", origin_of(b, n->op));
    return false;
}

static bool room_for_node(struct build *b, int n_in, int n_out)
{
    if (build_failed(b))
        return false;
    if (b->graph->n_nodes > b->graph->max_nodes) {
        build_fail(b, ST_TOO_LARGE, "the model needs more than %u operations", b->graph->max_nodes);
        return false;
    }
    if (n_in > UINT16_MAX || n_out > UINT16_MAX) {
        build_fail(b, ST_TOO_LARGE, "one operation would have %d inputs, at most %d are possible", n_in, UINT16_MAX);
        return false;
    }
    return true;
}

struct build build_make(struct graph *g)
{
    return (struct build){.graph = g, .problem.status = ST_OK, .origin = ""};
}

bool build_failed(const struct build *b)
{
    return b->problem.status != ST_OK;
}

value_id build_fail(struct build *b, enum status s, const char *format, ...)
{
    char detail[sizeof(b->problem.detail)];
    va_list args;

    if (build_failed(b))
        return 0;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    (void)fail(&b->problem, s, origin_of(b, NULL), "%s", detail);
    return 0;
}

static bool any_bfloat(const struct build *b, const value_id *in, int n_in)
{
    for (int i = 0; i < n_in; i++)
        if (in[i] && value_of(b, in[i])->type == BF16)
            return true;
    return false;
}

/* The inputs with bfloat16 widened; in the graph's arena. */
static const value_id *widened(struct build *b, const value_id *in, int n_in)
{
    value_id *wide = ARENA_ARRAY(b->graph->mem, value_id, n_in);

    for (int i = 0; i < n_in; i++)
        wide[i] = in[i] && value_of(b, in[i])->type == BF16 ? emit_cast(b, in[i], F32) : in[i];
    return wide;
}

value_id emit(struct build *b, const struct op *op, const void *attr, const value_id *in, int n_in, int n_out)
{
    if (!(op->flags & OP_BFLOAT) && any_bfloat(b, in, n_in))
        in = widened(b, in, n_in);

    struct graph *g = b->graph;
    struct node n = {.op = op, .attr = attr, .origin = b->origin, .in = in, .n_in = (uint16_t)n_in, .n_out = (uint16_t)n_out};
    value_id base = 0;

    assert(n_out > 0 && !(op->flags & OP_EFFECT) && (attr || !op->attr_size));
    if (!room_for_node(b, n_in, n_out))
        return 0;

    OWNED(free) value_id *ids = must_alloc(sizeof(*ids) * (size_t)n_out);
    OWNED(free) struct value *out = must_alloc(sizeof(*out) * (size_t)n_out);

    for (int i = 0; i < n_out; i++)
        ids[i] = g->n_values + (uint32_t)i;
    n.out = ids;
    if ((op->flags & OP_VIEW) && in[0]) {
        const struct value *v = &g->values[in[0]];

        base = v->view_of ? v->view_of : in[0];
        out[0] = (struct value){.at = v->at, .offset = v->offset, .view_of = base};
    }
    if (!infer(b, &n, out))
        return 0;
    for (int i = 0; i < n_out; i++)
        graph_value(g, &out[i]);
    graph_node(g, &n);
    return ids[0];
}

value_id build_out(const struct build *b, value_id first, int i)
{
    const struct node *n;

    if (first == 0)
        return 0;
    n = &b->graph->nodes[b->graph->values[first].producer];
    assert(i >= 0 && i < n->n_out);
    return n->out[i];
}

void emit_effect(struct build *b, const struct op *op, const void *attr, const value_id *in, int n_in, const value_id *out,
                 int n_out)
{
    if (!(op->flags & OP_BFLOAT) && any_bfloat(b, in, n_in))
        in = widened(b, in, n_in);

    struct node n = {
        .op = op, .attr = attr, .origin = b->origin, .in = in, .out = out, .n_in = (uint16_t)n_in, .n_out = (uint16_t)n_out};

    assert((op->flags & OP_EFFECT) && (attr || !op->attr_size));
    if (!room_for_node(b, n_in, n_out))
        return;

    OWNED(free) struct value *leaf = values_copy(b->graph, out, n_out);

    if (!infer(b, &n, leaf))
        return;
    for (int i = 0; i < n_out; i++) {
        const struct value *v = &b->graph->values[out[i]];

        assert(out[i] && v->producer == 0);
        if (!shape_equal(&v->shape, &leaf[i].shape) || v->type != leaf[i].type) {
            build_fail(b, ST_INVALID, "%s gives %s %s, the place it is written to holds %s %s", op->name,
                       dtype_name(leaf[i].type), shape_text(&leaf[i].shape).s, dtype_name(v->type), shape_text(&v->shape).s);
            return;
        }
    }
    graph_node(b->graph, &n);
}

value_id input(struct build *b, enum dtype type, const struct shape *shape)
{
    struct problem problem;

    if (build_failed(b))
        return 0;
    if (shape_checked(shape, origin_of(b, NULL), &problem) != ST_OK) {
        b->problem = problem;
        return 0;
    }
    return graph_leaf(b->graph, AT_INPUT, type, shape);
}

const struct value *value_of(const struct build *b, value_id v)
{
    return &b->graph->values[v];
}

struct shape shape_of(const struct build *b, value_id v)
{
    return b->graph->values[v].shape;
}

int64_t last_dim(const struct build *b, value_id v)
{
    const struct shape *s = &b->graph->values[v].shape;

    return s->rank ? s->dim[s->rank - 1] : 1;
}

void keep(struct build *b, value_id v)
{
    if (v)
        b->graph->values[v].keep = true;
}

struct tuple tuple_make(struct build *b, int n, const value_id *v, const value_id *mask)
{
    value_id *ids = ARENA_ARRAY(b->graph->mem, value_id, n ? 2 * n : 1);

    for (int i = 0; i < n; i++) {
        ids[i] = v[i];
        ids[n + i] = mask ? mask[i] : 0;
    }
    return (struct tuple){n, ids, ids + n};
}

struct tuple one_masked(struct build *b, value_id v, value_id mask)
{
    return tuple_make(b, 1, &v, &mask);
}

struct tuple one(struct build *b, value_id v)
{
    return tuple_make(b, 1, &v, NULL);
}

void penalty_add(struct build *b, value_id scalar)
{
    int n = b->n_penalties;

    if (scalar == 0)
        return;
    if ((n & (n - 1)) == 0) { /* full at 0 and at each power of two */
        value_id *more = ARENA_ARRAY(b->graph->mem, value_id, n ? 2 * n : 1);

        if (n)
            memcpy(more, b->penalties, (size_t)n * sizeof(*more));
        b->penalties = more;
    }
    b->penalties[b->n_penalties++] = scalar;
}
