/* Rule 7 of rewrite.c: masks that the dropped output shows.
 *
 * A ReLU's dropped output is above 0 exactly where the ReLU is and the element was kept, so
 *
 *     select(0 < relu, dropout(dy), 0) = select(0 < dropped, dy scale, 0)
 *
 * and the gradient need not draw the mask again. */
#include <string.h>

#include "engine/graph/rewrite_parts.h"
#include "engine/ops/ops.h" /* the attribute of dropout */

static bool is_input(const struct formula *f, term t, int k)
{
    return f->terms[t].code == TERM_IN && f->terms[t].a == k;
}

static bool is_zero(const struct formula *f, term t)
{
    return f->terms[t].code == TERM_CONST && f->terms[t].constant == 0;
}

/* The input that term t compares, as 0 < input; -1: t is something else. */
static int above_zero(const struct formula *f, term t)
{
    const struct formula_term *less = &f->terms[t], *right = &f->terms[less->b];

    return less->code == TERM_LT && is_zero(f, less->a) && right->code == TERM_IN ? right->a : -1;
}

static bool reads_input(const struct formula *f, const struct formula_term *t, int k)
{
    const term of[3] = {t->a, t->b, t->c};
    bool reads = false;

    for (int i = 0; i < term_operands[t->code]; i++)
        reads = reads || is_input(f, of[i], k) || above_zero(f, of[i]) == k;
    return reads;
}

/* Inputs k and relu of f serve nothing but select(0 < relu, k, 0). */
static bool masks_by(const struct formula *f, int k, int relu)
{
    bool found = false;

    for (int t = 0; t < f->n_terms; t++) {
        const struct formula_term *s = &f->terms[t];

        if (s->code == TERM_SELECT && is_input(f, s->b, k) && above_zero(f, s->a) == relu && is_zero(f, s->c))
            found = true;
        else if (above_zero(f, (term)t) != relu && (reads_input(f, s, k) || reads_input(f, s, relu)))
            return false;
    }
    for (int o = 0; o < f->n_out; o++)
        if (is_input(f, f->out[o], k) || is_input(f, f->out[o], relu) || above_zero(f, f->out[o]) == relu)
            return false;
    return found;
}

static bool same_mask(const struct node *a, const struct node *b)
{
    const struct dropout *p = a->attr, *q = b->attr;

    return a->in[1] == b->in[1] && a->in[2] == b->in[2] && p->stream == q->stream && p->rate < 1;
}

/* The dropout of relu whose mask node `again` draws for node i; 0: there is none that may be read instead. */
static uint32_t shown_mask(const struct rewrite *r, uint32_t i, value_id relu, uint32_t again)
{
    const struct graph *g = r->g;
    uint32_t first = r->dropped_by[relu];
    value_id drawn = g->nodes[again].out[0], dy = g->nodes[again].in[0];

    if (!first || first >= again || r->dead[first] || g->nodes[first].in[0] != relu ||
        !same_mask(&g->nodes[first], &g->nodes[again]))
        return 0;
    const struct value *y = &g->values[g->nodes[first].out[0]], *d = &g->values[drawn];

    if (y->type != F32 || d->type != F32 || y->at != AT_TEMP || d->at != AT_TEMP || d->keep || d->viewed ||
        r->readers[drawn] != 1 || !shape_known(&d->shape) || !shape_equal(&d->shape, &y->shape) ||
        !rewrite_may_move(r, dy, again, i))
        return 0;
    return first;
}

/* Input k of node i, drawn by node `again`, becomes dy scale, and input relu what node `first` made of it. */
static void read_shown(struct rewrite *r, uint32_t i, int k, int relu, uint32_t again, uint32_t first)
{
    struct graph *g = r->g;
    const struct formula *old = g->nodes[i].attr;
    struct formula *f = ARENA_NEW(g->mem, struct formula);
    const struct dropout *how = g->nodes[again].attr;
    value_id in[MAX_FORMULA_IN];
    term terms[MAX_FORMULA_IN], outs[MAX_FORMULA_OUT];

    for (int q = 0; q < old->n_in; q++) {
        in[q] = g->nodes[i].in[q];
        terms[q] = f_in(f);
    }
    terms[k] = f_mul(f, terms[k], f_const(f, 1 / (1 - how->rate)));
    formula_inline(f, old, terms, outs);
    for (int o = 0; o < old->n_out; o++)
        f_out(f, outs[o]);
    if (f->full)
        return;
    in[k] = g->nodes[again].in[0];
    in[relu] = g->nodes[first].out[0];
    g->nodes[i].attr = f;
    rewrite_inputs(r, i, in, old->n_in);
    rewrite_drop(r, again);
}

void rewrite_masks(struct rewrite *r, uint32_t i)
{
    const struct node *n = &r->g->nodes[i];

    for (int k = 0; k < n->n_in; k++) {
        uint32_t again = r->g->values[n->in[k]].producer, first;

        if (!again || again >= i || !is_op(&r->g->nodes[again], "dropout"))
            continue;
        for (int relu = 0; relu < n->n_in; relu++)
            if (relu != k && masks_by(n->attr, k, relu) && (first = shown_mask(r, i, n->in[relu], again)) != 0) {
                read_shown(r, i, k, relu, again, first);
                break;
            }
    }
}
