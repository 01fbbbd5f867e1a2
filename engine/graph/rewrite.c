/* Rewrites of a finished graph, in place, each of which leaves every kept value as it was:
 *
 *     1  a node whose outputs nobody reads goes, unless it is an effect
 *     2  transpose by the identity goes; transpose of a transpose becomes one transpose, or none
 *     3  a formula read by one other formula of the same shape becomes part of it (also of an update)
 *     4  a fill, or a view of one, read by a formula becomes a constant there
 *     5  an expand read by a formula goes: formulas broadcast by themselves; an expand of a fill is a larger fill
 *     6  a cast between float32 and bfloat16 becomes a formula, for rule 3. Values inside of a formula are float32, so what was
 *        to be rounded between two of them no longer is, unless it is kept. A formula that gives its input back goes
 *     7  a mask of dropout that is drawn again only for the gradient of a ReLU goes: see rewrite_masks.c
 *
 * Value ids stay what they are, since callers hold them; only nodes are renumbered. A value that lost its node is left with
 * producer 0. Rules 2, 3 and 5 make a node read later what another node read earlier. That is the same value unless it lies in
 * a flat region (a weight, a slot, a gradient) and something in between writes that memory: see rewrite_may_move(). */
#include <assert.h>
#include <string.h>

#include "engine/graph/rewrite_parts.h"
#include "engine/ops/all.h"
#include "engine/ops/ops.h" /* the attributes of transpose, fill, expand and cast */

/* --- who reads, who writes -------------------------------------------------------------------------------------------- */

static bool is_formula(const struct node *n)
{
    return is_op(n, "pointwise") || is_op(n, "pointwise_update");
}

static bool reads_before(const struct node *n, int k)
{
    for (int i = 0; i < k; i++) {
        if (n->in[i] == n->in[k])
            return true;
    }
    return false;
}

static void count_reads(struct rewrite *r, const struct node *n, int by)
{
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] && !reads_before(n, k))
            r->readers[n->in[k]] += (uint32_t)by;
    }
}

static void memory_of(const struct graph *g, value_id v, struct write *w)
{
    const struct value *p = &g->values[v];

    w->at = p->at;
    w->begin = p->offset;
    w->end = shape_known(&p->shape) ? p->offset + value_bytes(p) : SIZE_MAX;
    w->value = v;
}

static void find_writes(struct rewrite *r)
{
    const struct graph *g = r->g;
    uint32_t room = 0;

    for (uint32_t i = 1; i < g->n_nodes; i++)
        room += g->nodes[i].n_out;
    r->writes = must_alloc(sizeof(*r->writes) * (room + 1u));
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_out && !(n->op->flags & OP_VIEW); k++) {
            if (g->values[n->out[k]].at == AT_TEMP)
                continue;
            memory_of(g, n->out[k], &r->writes[r->n_writes]);
            r->writes[r->n_writes++].node = i;
        }
    }
}

static uint32_t first_write_after(const struct rewrite *r, uint32_t node)
{
    uint32_t low = 0, high = r->n_writes;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;

        if (r->writes[middle].node > node)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

bool rewrite_may_move(const struct rewrite *r, value_id v, uint32_t from, uint32_t to)
{
    const struct graph *g = r->g;
    struct write m;

    if (v == 0 || g->values[v].at == AT_TEMP)
        return true;
    memory_of(g, v, &m);
    for (uint32_t i = first_write_after(r, from); i < r->n_writes && r->writes[i].node <= to; i++) {
        const struct write *w = &r->writes[i];

        if (w->at != m.at || w->end <= m.begin || m.end <= w->begin)
            continue;
        if (w->node != to || !is_formula(&g->nodes[to]) || w->begin != m.begin || w->end != m.end ||
            !shape_equal(&g->values[w->value].shape, &g->values[v].shape))
            return false;
    }
    return true;
}

/* --- 1: nodes without readers ----------------------------------------------------------------------------------------- */

static bool is_unread(const struct rewrite *r, const struct node *n)
{
    if (n->op->flags & OP_EFFECT)
        return false;
    for (int k = 0; k < n->n_out; k++) {
        const struct value *v = &r->g->values[n->out[k]];
        bool placed = v->at != AT_TEMP && !(n->op->flags & OP_VIEW);

        if (r->readers[n->out[k]] || v->keep || placed)
            return false;
    }
    return true;
}

void rewrite_drop(struct rewrite *r, uint32_t i)
{
    if (r->dead[i] || !is_unread(r, &r->g->nodes[i]))
        return;
    r->dead[i] = true;
    count_reads(r, &r->g->nodes[i], -1);
}

static void drop_all_unread(struct rewrite *r)
{
    for (uint32_t i = r->g->n_nodes - 1; i > 0; i--)
        rewrite_drop(r, i);
}

/* --- 2: transposes ---------------------------------------------------------------------------------------------------- */

void rewrite_inputs(struct rewrite *r, uint32_t i, const value_id *in, int n_in)
{
    struct node *n = &r->g->nodes[i];
    value_id *copy = ARENA_ARRAY(r->g->mem, value_id, n_in ? n_in : 1);

    if (n_in)
        memcpy(copy, in, sizeof(*copy) * (size_t)n_in);
    count_reads(r, n, -1);
    n->in = copy;
    n->n_in = (uint16_t)n_in;
    count_reads(r, n, 1);
}

/* Reads what stands in the place of replaced values; a view of one becomes a view of the other. */
static void follow_replaced(struct rewrite *r, uint32_t i)
{
    struct graph *g = r->g;
    const struct node *n = &g->nodes[i];
    bool changed = false;

    for (int k = 0; k < n->n_in; k++)
        changed = changed || r->instead[n->in[k]];
    if (changed) {
        OWNED(free) value_id *in = must_alloc(sizeof(*in) * n->n_in);

        for (int k = 0; k < n->n_in; k++)
            in[k] = r->instead[n->in[k]] ? r->instead[n->in[k]] : n->in[k];
        rewrite_inputs(r, i, in, n->n_in);
    }
    if ((n->op->flags & OP_VIEW) && n->in[0]) {
        const struct value *from = &g->values[n->in[0]];
        struct value *v = &g->values[n->out[0]];

        v->view_of = from->view_of ? from->view_of : n->in[0];
        g->values[v->view_of].viewed = true;
        v->at = from->at;
        v->offset = from->offset;
    }
}

static bool is_identity(const struct transpose *t)
{
    for (int i = 0; i < t->rank; i++) {
        if (t->axis[i] != i)
            return false;
    }
    return true;
}

/* Readers of y, made by node i, will read x. Not if y lies where an effect may change it, nor if x may change before y's last
 * reader, nor for a view of x in a flat region, whose readers are not followed here. */
static void replace_value(struct rewrite *r, uint32_t i, value_id y, value_id x)
{
    const struct graph *g = r->g;

    if (g->values[y].at != AT_TEMP)
        return;
    if (g->values[x].at != AT_TEMP) {
        for (value_id v = y + 1; g->values[y].viewed && v < g->n_values; v++) {
            if (g->values[v].view_of == y)
                return;
        }
        if (!rewrite_may_move(r, x, i, r->last_reader[y]))
            return;
    }
    r->instead[y] = x;
    if (r->last_reader[y] > r->last_reader[x])
        r->last_reader[x] = r->last_reader[y];
}

static void transpose_node(struct rewrite *r, uint32_t i)
{
    struct graph *g = r->g;
    struct node *n = &g->nodes[i];
    const struct transpose *outer = n->attr;
    uint32_t before = g->values[n->in[0]].producer;

    if (before && is_op(&g->nodes[before], "transpose") && g->values[n->in[0]].at == AT_TEMP) {
        const struct transpose *inner = g->nodes[before].attr;
        value_id x = g->nodes[before].in[0];

        if (rewrite_may_move(r, x, before, i)) {
            struct transpose *both = ARENA_NEW(g->mem, struct transpose);

            both->rank = outer->rank;
            for (int k = 0; k < outer->rank; k++)
                both->axis[k] = inner->axis[outer->axis[k]];
            n->attr = both;
            rewrite_inputs(r, i, &x, 1);
            if (r->last_reader[x] < i)
                r->last_reader[x] = i;
        }
    }
    if (is_identity(n->attr))
        replace_value(r, i, n->out[0], n->in[0]);
}

/* --- 3, 4, 5: formulas ------------------------------------------------------------------------------------------------ */

struct joined { /* a formula under construction with the values it reads */
    struct formula f;
    value_id in[MAX_FORMULA_IN];
};

static term joined_in(struct joined *j, value_id v)
{
    for (int i = 0; i < j->f.n_in; i++) {
        if (j->in[i] == v) {
            for (int t = 0; t < j->f.n_terms; t++) {
                if (j->f.terms[t].code == TERM_IN && j->f.terms[t].a == i)
                    return (term)t;
            }
        }
    }
    if (j->f.n_in < MAX_FORMULA_IN)
        j->in[j->f.n_in] = v;
    return f_in(&j->f);
}

/* The node that makes v; the fill when v is a view of one, since a fill is the same in every shape. */
static uint32_t maker_of(const struct graph *g, value_id v)
{
    uint32_t node = g->values[v].producer, base = node;

    while (base && (g->nodes[base].op->flags & OP_VIEW))
        base = g->values[g->nodes[base].in[0]].producer;
    return base && is_op(&g->nodes[base], "fill") ? base : node;
}

/* What input v of node i, made by node `from`, is as a formula of other values. false: it cannot be taken in. */
static bool inner_formula(const struct rewrite *r, uint32_t i, value_id v, uint32_t from, struct formula *inner)
{
    const struct graph *g = r->g;
    const struct node *n = &g->nodes[i], *p = &g->nodes[from];
    const struct value *y = &g->values[v];

    *inner = (struct formula){0};
    if (y->at != AT_TEMP) /* an effect may change it before it is read */
        return false;
    if (is_op(p, "fill")) {
        f_out(inner, f_const(inner, ((const struct fill *)p->attr)->value));
        return true;
    }
    if (is_op(p, "expand")) {
        f_out(inner, f_in(inner));
        return true;
    }
    if (!is_op(p, "pointwise") || p->n_out != 1 || r->readers[v] != 1 || y->keep)
        return false;
    if (!shape_known(&y->shape) || !shape_equal(&y->shape, &g->values[n->out[0]].shape))
        return false;
    if (y->type == BF16 && g->values[n->out[0]].keep) /* who reads it from outside sees that it is rounded */
        return false;
    *inner = *(const struct formula *)p->attr;
    return true;
}

/* Node i with its input v replaced by what v is made of; trimmed. false: no room, or the shape would not be the same. */
static bool join(const struct rewrite *r, uint32_t i, value_id v, uint32_t from, const struct formula *inner, struct joined *j)
{
    const struct graph *g = r->g;
    const struct node *n = &g->nodes[i], *p = &g->nodes[from];
    const struct formula *outer = n->attr;
    term terms[MAX_FORMULA_IN] = {0}, inside[MAX_FORMULA_IN] = {0}, outs[MAX_FORMULA_OUT], y = 0;
    int kept[MAX_FORMULA_IN];
    struct shape shape = SCALAR;

    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] != v)
            terms[k] = joined_in(j, n->in[k]);
    }
    for (int k = 0; k < inner->n_in; k++)
        inside[k] = joined_in(j, p->in[k]);
    formula_inline(&j->f, inner, inside, &y);
    for (int k = 0; k < n->n_in; k++) {
        if (n->in[k] == v)
            terms[k] = y;
    }
    formula_inline(&j->f, outer, terms, outs);
    j->f.type = outer->type;
    for (int k = 0; k < outer->n_out; k++)
        f_out(&j->f, outs[k]);
    if (j->f.full)
        return false;
    formula_trim(&j->f, kept);
    for (int k = 0; k < j->f.n_in; k++) {
        j->in[k] = j->in[kept[k]];
        if (!shape_broadcast(&shape, &g->values[j->in[k]].shape, &shape))
            return false;
    }
    return j->f.n_in == 0 || shape_equal(&shape, &g->values[n->out[0]].shape);
}

static void cast_node(struct rewrite *r, uint32_t i)
{
    struct node *n = &r->g->nodes[i];
    enum dtype from = r->g->values[n->in[0]].type, to = r->g->values[n->out[0]].type;

    if ((from != BF16 || to != F32) && (from != F32 || to != BF16))
        return;
    struct formula *f = ARENA_NEW(r->g->mem, struct formula);

    f_out(f, f_in(f));
    f->type = (uint8_t)to;
    n->op = &op_pointwise;
    n->attr = f;
}

/* A formula that says no more than its input, in the same type and shape. */
static bool says_nothing(const struct graph *g, const struct node *n)
{
    const struct formula *f = n->attr;
    const struct value *x, *y = &g->values[n->out[0]];

    if (!is_op(n, "pointwise") || f->n_out != 1 || f->n_in != 1 || f->terms[f->out[0]].code != TERM_IN)
        return false;
    x = &g->values[n->in[0]];
    return x->type == y->type && shape_equal(&x->shape, &y->shape) && !y->keep;
}

/* A formula without inputs is a fill. */
static void make_fill(struct rewrite *r, uint32_t i, const struct op *fill, float value)
{
    struct graph *g = r->g;
    struct fill *attr = ARENA_NEW(g->mem, struct fill);

    attr->shape = g->values[g->nodes[i].out[0]].shape;
    attr->value = value;
    g->nodes[i].op = fill;
    g->nodes[i].attr = attr;
}

/* Takes the maker of one input into node i; true if it did. */
static bool take_in(struct rewrite *r, uint32_t i, value_id v)
{
    struct graph *g = r->g;
    uint32_t from = maker_of(g, v);
    struct joined j = {.f.n_in = 0};
    struct formula inner;

    if (from == 0 || from >= i || !inner_formula(r, i, v, from, &inner))
        return false;
    for (int k = 0; k < g->nodes[from].n_in; k++) {
        if (!rewrite_may_move(r, g->nodes[from].in[k], from, i))
            return false;
    }
    if (!join(r, i, v, from, &inner, &j))
        return false;
    if (j.f.n_in == 0) {
        const struct formula_term *t = &j.f.terms[j.f.out[0]];

        if (!is_op(&g->nodes[from], "fill") || j.f.n_out != 1 || g->values[g->nodes[i].out[0]].type != F32 ||
            t->code != TERM_CONST || (g->nodes[i].op->flags & OP_EFFECT))
            return false;
        make_fill(r, i, g->nodes[from].op, t->constant);
    } else {
        struct formula *f = ARENA_NEW(g->mem, struct formula);

        *f = j.f;
        g->nodes[i].attr = f;
    }
    rewrite_inputs(r, i, j.in, j.f.n_in);
    rewrite_drop(r, from);
    return true;
}

static void fuse_into(struct rewrite *r, uint32_t i)
{
    for (int k = 0; k < r->g->nodes[i].n_in && is_formula(&r->g->nodes[i]);) {
        if (take_in(r, i, r->g->nodes[i].in[k]))
            k = 0; /* the inputs are others now */
        else
            k++;
    }
}

static void expand_node(struct rewrite *r, uint32_t i)
{
    struct graph *g = r->g;
    value_id x = g->nodes[i].in[0];
    uint32_t from = maker_of(g, x);

    if (g->values[x].at != AT_TEMP || from == 0 || !is_op(&g->nodes[from], "fill"))
        return;
    make_fill(r, i, g->nodes[from].op, ((const struct fill *)g->nodes[from].attr)->value);
    rewrite_inputs(r, i, NULL, 0);
}

/* --- all of it -------------------------------------------------------------------------------------------------------- */

static void renumber(struct rewrite *r)
{
    struct graph *g = r->g;
    uint32_t n = 1;

    for (uint32_t i = 1; i < g->n_nodes; i++) {
        const struct node *node = &g->nodes[i];

        for (int k = 0; k < node->n_out && !(node->op->flags & OP_EFFECT); k++)
            g->values[node->out[k]].producer = r->dead[i] ? 0 : n;
        if (!r->dead[i])
            g->nodes[n++] = *node;
    }
    g->n_nodes = n;
}

void graph_rewrite(struct graph *g)
{
    struct rewrite r = {.g = g};
    OWNED(free) bool *dead = must_alloc(sizeof(*dead) * g->n_nodes);
    OWNED(free) uint32_t *readers = must_alloc(sizeof(*readers) * g->n_values);
    OWNED(free) uint32_t *last_reader = must_alloc(sizeof(*last_reader) * g->n_values);
    OWNED(free) value_id *instead = must_alloc(sizeof(*instead) * g->n_values);
    OWNED(free) uint32_t *dropped_by = must_alloc(sizeof(*dropped_by) * g->n_values);

    r.dead = dead;
    r.readers = readers;
    r.last_reader = last_reader;
    r.instead = instead;
    r.dropped_by = dropped_by;
    find_writes(&r);
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        count_reads(&r, &g->nodes[i], 1);
        for (int k = 0; k < g->nodes[i].n_in; k++)
            last_reader[g->nodes[i].in[k]] = i;
    }
    drop_all_unread(&r);
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        if (dead[i])
            continue;
        follow_replaced(&r, i);
        if (is_op(&g->nodes[i], "transpose"))
            transpose_node(&r, i);
    }
    drop_all_unread(&r);
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        if (dead[i])
            continue;
        follow_replaced(&r, i);
        if (is_op(&g->nodes[i], "cast"))
            cast_node(&r, i);
        if (is_op(&g->nodes[i], "dropout") && !dropped_by[g->nodes[i].in[0]])
            dropped_by[g->nodes[i].in[0]] = i;
        if (is_op(&g->nodes[i], "pointwise"))
            rewrite_masks(&r, i);
        if (is_formula(&g->nodes[i])) {
            fuse_into(&r, i);
            if (says_nothing(g, &g->nodes[i]))
                replace_value(&r, i, g->nodes[i].out[0], g->nodes[i].in[0]);
        } else if (is_op(&g->nodes[i], "expand")) {
            expand_node(&r, i);
        }
    }
    drop_all_unread(&r);
    renumber(&r);
    free_null(r.writes);
}
