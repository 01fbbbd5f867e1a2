/* What all losses share: the way from per-sample values to a scalar, matching ranks, and finding the logits behind a softmax.
 *
 * The scalar's rule is the dialect's. Weights and masks are prefixes of the values' shape: (batch) or
 * (batch, time); ones are appended so that they broadcast. */
#include "engine/losses/loss.h"

#include <string.h>

#include "engine/losses/common.h"
#include "engine/model/dialect.h"

const char *const loss_reductions[] = {"sum_over_batch_size", "auto", "mean", "sum", "none", NULL};

static value_id rank_raised(struct build *b, value_id v, int rank)
{
    struct shape s = shape_of(b, v);

    if (!v || build_failed(b) || s.rank >= rank)
        return v;
    while (s.rank < rank)
        s.dim[s.rank++] = 1;
    return emit_reshape(b, v, &s);
}

/* x / y, and 0 where y is 0, as Keras' divide_no_nan. */
static value_id ratio(struct build *b, value_id x, value_id y)
{
    struct formula f = {0};
    term a = f_in(&f), d = f_in(&f), zero = f_const(&f, 0), empty = f_eq(&f, d, zero);

    f_out(&f, f_select(&f, empty, zero, f_div(&f, a, f_select(&f, empty, f_const(&f, 1), d))));
    return emit_formula(b, &f, (value_id[]){x, y});
}

static value_id mean_of_nonzero(struct build *b, value_id w)
{
    struct formula f = {0};

    f_out(&f, f_sub(&f, f_const(&f, 1), f_eq(&f, f_in(&f), f_const(&f, 0))));
    return emit_reduce_all(b, emit_formula(b, &f, &w), REDUCE_MEAN);
}

/* Keras 1 and 2 before 2.3: weighted_objective of keras/engine/training.py. */
static value_id scalar_keras_1(struct build *b, value_id s, value_id weights, value_id mask)
{
    if (mask)
        s = ratio(b, emit_mul(b, s, rank_raised(b, mask, shape_of(b, s).rank)), emit_reduce_all(b, mask, REDUCE_MEAN));
    if (weights && !build_failed(b)) {
        s = values_meet_weights(b, s, weights);
        s = ratio(b, emit_mul(b, s, weights), mean_of_nonzero(b, weights));
    }
    return emit_reduce_all(b, s, REDUCE_MEAN);
}

value_id values_meet_weights(struct build *b, value_id s, value_id weights)
{
    struct shape have = shape_of(b, s), want = shape_of(b, weights);
    unsigned axes = 0;

    for (int i = want.rank; i < have.rank; i++)
        axes |= 1u << i;
    return axes && !build_failed(b) ? emit_reduce(b, s, REDUCE_MEAN, axes, false) : s;
}

bool prefix_fits(struct build *b, value_id part, value_id s, const char *what)
{
    struct shape p = shape_of(b, part), v = shape_of(b, s);
    bool fits = p.rank <= v.rank;

    if (!part || build_failed(b))
        return !build_failed(b);
    for (int i = 0; fits && i < p.rank; i++)
        fits = p.dim[i] == v.dim[i] || p.dim[i] == 1 || p.dim[i] < 0 || v.dim[i] < 0;
    if (!fits)
        build_fail(b, ST_INVALID, "the %s of shape %s do not fit the values per sample, which have the shape %s", what,
                   shape_text(&p).s, shape_text(&v).s);
    return fits;
}

value_id loss_scalar(struct build *b, value_id s, value_id weights, value_id mask)
{
    int rank;
    value_id sum;
    bool rescale = mask && b->dialect >= DIALECT_TF_KERAS; /* a masked mean is over what is not masked */

    if (!prefix_fits(b, weights, s, "sample weights") || !prefix_fits(b, mask, s, "masks"))
        return 0;
    if (b->dialect < DIALECT_KERAS_2_3)
        return scalar_keras_1(b, s, weights, mask);
    rank = shape_of(b, s).rank;
    if (weights)
        s = emit_mul(b, s, rank_raised(b, weights, rank));
    if (mask)
        s = emit_mul(b, s, rank_raised(b, mask, rank));
    sum = emit_reduce_all(b, s, REDUCE_MEAN);
    return rescale ? ratio(b, sum, emit_reduce_all(b, mask, REDUCE_MEAN)) : sum;
}

static struct shape with_last(const struct shape *s, int64_t dim)
{
    struct shape r = *s;

    r.dim[r.rank++] = dim;
    return r;
}

/* Keras 3's squeeze_or_expand_to_same_rank: a vector of rank 1 is expanded, else the last axis of 1 is dropped. */
static void squeeze_longer(struct build *b, value_id *longer, value_id *shorter)
{
    struct shape l = shape_of(b, *longer), s = shape_of(b, *shorter);

    if (l.rank != s.rank + 1 || l.dim[l.rank - 1] != 1)
        return;
    if (s.rank == 1) {
        s = with_last(&s, 1);
        *shorter = emit_reshape(b, *shorter, &s);
    } else {
        l = shape_without(&l, l.rank - 1);
        *longer = emit_reshape(b, *longer, &l);
    }
}

void squeeze_pair(struct build *b, value_id *y, value_id *p)
{
    if (build_failed(b))
        return;
    if (shape_of(b, *y).rank > shape_of(b, *p).rank)
        squeeze_longer(b, y, p);
    else
        squeeze_longer(b, p, y);
}

bool pair_fits(struct build *b, value_id *y, value_id *p)
{
    struct shape target, output;

    squeeze_pair(b, y, p);
    if (build_failed(b))
        return false;
    target = shape_of(b, *y);
    output = shape_of(b, *p);
    if (target.rank == output.rank) {
        bool equal = true;

        for (int i = 0; i < target.rank; i++)
            equal &= target.dim[i] == output.dim[i] || target.dim[i] < 0 || output.dim[i] < 0;
        if (equal)
            return true;
    }
    build_fail(b, ST_INVALID, "the target has the shape %s, the output %s: they must be equal", shape_text(&target).s,
               shape_text(&output).s);
    return false;
}

static bool is_rounding(const struct build *b, const struct node *n)
{
    return strcmp(n->op->name, "cast") == 0 && value_of(b, n->in[0])->type != value_of(b, n->out[0])->type &&
           (value_of(b, n->in[0])->type == BF16 || value_of(b, n->out[0])->type == BF16);
}

/* The node that made v, looking through casts from and to bfloat16 and through reshapes that keep the last axis (or any, for
 * pointwise nodes); NULL for a leaf. */
static const struct node *maker(const struct build *b, value_id v, bool any_view)
{
    for (;;) {
        const struct value *x = value_of(b, v);
        const struct node *n;

        if (x->at != AT_TEMP || x->producer == 0)
            return NULL;
        n = &b->graph->nodes[x->producer];
        if (!(n->op->flags & OP_VIEW) && !is_rounding(b, n))
            return n->out[0] == v ? n : NULL;
        if (!any_view && last_dim(b, n->in[0]) != last_dim(b, v))
            return NULL;
        v = n->in[0];
    }
}

value_id logits_of_softmax(struct build *b, value_id p)
{
    const struct node *n = build_failed(b) ? NULL : maker(b, p, false);
    struct shape s;

    if (!n || strcmp(n->op->name, "softmax") != 0)
        return 0;
    s = shape_of(b, p);
    return shape_equal(&value_of(b, n->in[0])->shape, &s) ? n->in[0] : emit_reshape(b, n->in[0], &s);
}

value_id logits_of_sigmoid(struct build *b, value_id p)
{
    const struct node *n = build_failed(b) ? NULL : maker(b, p, true);
    const struct formula *f;
    struct shape s;
    value_id x;

    if (!n || strcmp(n->op->name, "pointwise") != 0)
        return 0;
    f = n->attr;
    if (f->n_out != 1 || f->terms[f->out[0]].code != TERM_SIGMOID || f->terms[f->terms[f->out[0]].a].code != TERM_IN)
        return 0;
    x = n->in[f->terms[f->terms[f->out[0]].a].a];
    s = shape_of(b, p);
    if (shape_count(&value_of(b, x)->shape) != shape_count(&s))
        return 0;
    return shape_equal(&value_of(b, x)->shape, &s) ? x : emit_reshape(b, x, &s);
}

bool loss_options_fit(struct build *b, const struct loss_options *o, value_id p)
{
    if (build_failed(b))
        return false;
    if (o->reduction >= REDUCTION_SUM)
        build_fail(b, ST_UNSUPPORTED, "the loss reduction \"%s\" is not supported; use sum_over_batch_size",
                   loss_reductions[o->reduction]);
    if (o->axis != -1 && o->axis != shape_of(b, p).rank - 1)
        build_fail(b, ST_UNSUPPORTED, "a loss over axis %lld is not supported; the classes must be on the last axis, -1",
                   (long long)o->axis);
    return !build_failed(b);
}
