/* Add, Multiply, Concatenate: layers of several inputs.
 *
 * Elementwise: inputs of lower rank get axes of 1 behind the batch, then numpy's broadcasting (Keras 2 and later).
 * Masks:
 *   elementwise   Keras 3: none unless all inputs have one, then OR;   before: AND of those that are there
 *   Multiply      Keras 3: a masked element counts as 1, and the product is 0 where all inputs are masked
 *   Concatenate   a missing mask counts as ones; along the last axis Keras 3 takes OR, before AND; along another axis
 *                 the masks are concatenated like the inputs */
#include "engine/layers/layer.h"
#include "engine/model/dialect.h"
#include "engine/ops/ops.h"

struct concatenate {
    int64_t axis;
};

typedef term (*term_of_two)(struct formula *f, term a, term b);

static value_id pairwise(struct build *b, term_of_two op, value_id x, value_id y)
{
    struct formula f = {0};
    term s = f_in(&f), t = f_in(&f);

    f_out(&f, op(&f, s, t));
    return emit_formula(b, &f, (value_id[]){x, y});
}

/* mask ? x : otherwise, the mask having x's rank */
static value_id where(struct build *b, value_id mask, value_id x, double otherwise)
{
    struct formula f = {0};
    term m = f_in(&f), v = f_in(&f);

    f_out(&f, f_select(&f, m, v, f_const(&f, otherwise)));
    return emit_formula(b, &f, (value_id[]){mask, x});
}

static bool has_inputs(struct build *b, const struct tuple *in)
{
    if (in->n < 1)
        build_fail(b, ST_INVALID, "needs at least one input");
    return !build_failed(b);
}

static int largest_rank(const struct build *b, const struct tuple *in)
{
    int rank = 0;

    for (int i = 0; i < in->n; i++) {
        if (shape_of(b, in->v[i]).rank > rank)
            rank = shape_of(b, in->v[i]).rank;
    }
    return rank;
}

/* Axes of 1 behind the first one. */
static value_id raised(struct build *b, value_id x, int rank)
{
    struct shape s = shape_of(b, x), to = {.rank = rank, .dim = {s.dim[0]}};

    if (build_failed(b) || s.rank == rank || s.rank < 1)
        return x;
    for (int i = 1; i < rank; i++)
        to.dim[i] = i <= rank - s.rank ? 1 : s.dim[i - (rank - s.rank)];
    return emit_reshape(b, x, &to);
}

/* All masks that are there combined; with `every`, 0 unless each input has one. */
static value_id masks_joined(struct build *b, const struct tuple *in, term_of_two op, bool every)
{
    value_id mask = 0;

    for (int i = 0; i < in->n; i++) {
        if (!in->mask[i] && every)
            return 0;
        if (in->mask[i])
            mask = mask ? pairwise(b, op, mask, in->mask[i]) : in->mask[i];
    }
    return mask;
}

static value_id elementwise_mask(struct build *b, const struct tuple *in)
{
    return b->dialect == DIALECT_KERAS_3 ? masks_joined(b, in, f_max, true) : masks_joined(b, in, f_min, false);
}

static struct tuple elementwise(struct build *b, const struct tuple *in, term_of_two op, bool neutral_masks)
{
    value_id y = 0, mask;
    int rank;

    if (!has_inputs(b, in))
        return one(b, 0);
    rank = largest_rank(b, in);
    mask = elementwise_mask(b, in);
    for (int i = 0; i < in->n; i++) {
        value_id x = raised(b, in->v[i], rank);

        if (neutral_masks && in->mask[i])
            x = where(b, mask_like(b, in->mask[i], x), x, 1);
        y = y ? pairwise(b, op, y, x) : x;
    }
    if (neutral_masks && mask)
        y = where(b, mask_like(b, mask, y), y, 0);
    return one_masked(b, y, mask);
}

static struct tuple add_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    (void)l;
    return elementwise(b, in, f_add, false);
}

static struct tuple multiply_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    (void)l;
    return elementwise(b, in, f_mul, b->dialect == DIALECT_KERAS_3);
}

/* Input i's mask over the input's shape without its last axis; a missing one is ones. */
static value_id whole_mask(struct build *b, const struct tuple *in, int i)
{
    struct shape s = shape_of(b, in->v[i]), m = shape_of(b, in->mask[i]);
    value_id ones;

    if (build_failed(b))
        return 0;
    s = shape_without(&s, s.rank - 1);
    if (in->mask[i] && m.rank > s.rank)
        return build_fail(b, ST_UNSUPPORTED, "a mask with as many axes as its input, %s, is not supported here",
                          shape_text(&m).s);
    while (m.rank < s.rank)
        m.dim[m.rank++] = 1;
    ones = emit_fill(b, &s, 1);
    return in->mask[i] ? emit_mul(b, ones, emit_reshape(b, in->mask[i], &m)) : ones;
}

static value_id concatenate_mask(struct build *b, const struct tuple *in, int axis, bool last)
{
    value_id *masks = ARENA_ARRAY(b->graph->mem, value_id, in->n);
    bool any = false;

    for (int i = 0; i < in->n; i++)
        any |= in->mask[i] != 0;
    if (!any)
        return 0;
    if (last)
        return b->dialect == DIALECT_KERAS_3 ? masks_joined(b, in, f_max, true) : masks_joined(b, in, f_min, false);
    for (int i = 0; i < in->n; i++)
        masks[i] = whole_mask(b, in, i);
    return build_failed(b) ? 0 : emit_concat(b, in->n, masks, axis);
}

static struct tuple concatenate_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct concatenate *c = l->config;
    struct shape s;
    int axis;

    if (!has_inputs(b, in))
        return one(b, 0);
    s = shape_of(b, in->v[0]);
    axis = shape_axis(&s, (int)c->axis);
    if (axis < 1) {
        build_fail(b, ST_INVALID, "axis %lld must be an axis of the inputs %s other than the batch", (long long)c->axis,
                   shape_text(&s).s);
        return one(b, 0);
    }
    return one_masked(b, in->n == 1 ? in->v[0] : emit_concat(b, in->n, in->v, axis),
                      concatenate_mask(b, in, axis, axis == s.rank - 1));
}

static const struct field concatenate_fields[] = {
    {"axis", FIELD_INT, offsetof(struct concatenate, axis), .preset = -1, .min = -MAX_RANK, .max = MAX_RANK - 1,
     .doc = "axis along which the inputs are joined"},
    {0},
};

const struct layer_type layer_add = {"Add", 0, NULL, add_call};
const struct layer_type layer_multiply = {"Multiply", 0, NULL, multiply_call};
const struct layer_type layer_concatenate = {"Concatenate", sizeof(struct concatenate), concatenate_fields, concatenate_call};
