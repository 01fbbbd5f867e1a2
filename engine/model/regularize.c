/* Penalties on weights and outputs: l1 sum |w| + l2 sum w^2, without a half (Keras 3, keras/src/regularizers/regularizers.py).
 *
 * They are scalars added to the loss, so their gradients come with everything else's. A weight that several calls of a layer
 * share is penalised once; an output once per call. */
#include <math.h>

#include "engine/base/philox.h"
#include "engine/model/dialect.h"
#include "engine/model/weights.h"
#include "engine/ops/ops.h"

struct regularizer {
    CLASS_MEMBERS
    value_id (*penalty)(struct build *b, const void *config, value_id x); /* scalar */
};

struct l1 {
    double l1;
};
struct l2 {
    double l2;
};
struct l1_l2 {
    double l1, l2;
};

static value_id sum_abs(struct build *b, value_id x)
{
    struct formula f = {0};

    f_out(&f, f_abs(&f, f_in(&f)));
    return emit_reduce_all(b, emit_formula(b, &f, &x), REDUCE_SUM);
}

static value_id penalty(struct build *b, value_id x, double l1, double l2)
{
    value_id first = l1 != 0 ? emit_scale(b, sum_abs(b, x), l1) : 0;
    value_id second = l2 != 0 ? emit_scale(b, emit_reduce_all(b, x, REDUCE_SUM_SQUARES), l2) : 0;

    return first && second ? emit_add(b, first, second) : first ? first : second;
}

static value_id l1_penalty(struct build *b, const void *config, value_id x)
{
    return penalty(b, x, ((const struct l1 *)config)->l1, 0);
}

static value_id l2_penalty(struct build *b, const void *config, value_id x)
{
    return penalty(b, x, 0, ((const struct l2 *)config)->l2);
}

static value_id l1_l2_penalty(struct build *b, const void *config, value_id x)
{
    return penalty(b, x, ((const struct l1_l2 *)config)->l1, ((const struct l1_l2 *)config)->l2);
}

void regularize(struct build *b, value_id w, const struct object *regularizer)
{
    if (!regularizer || build_failed(b))
        return;
    for (int i = 0; i < b->weights->n; i++) {
        struct weight_entry *e = &b->weights->entry[i];

        if (e->leaf_value != w && e->current != w)
            continue;
        if (e->regularized)
            return;
        e->regularized = true;
        break;
    }
    penalty_add(b, ((const struct regularizer *)regularizer->type)->penalty(b, regularizer->config, w));
}

void regularize_activity(struct build *b, value_id y, const struct object *regularizer)
{
    int64_t batch;
    value_id sum;

    if (!regularizer || build_failed(b))
        return;
    sum = ((const struct regularizer *)regularizer->type)->penalty(b, regularizer->config, y);
    batch = shape_of(b, y).rank ? shape_of(b, y).dim[0] : 1;
    /* Keras 1 and 2 sum over the batch, tf.keras and Keras 3 take the mean over it */
    if (sum && b->dialect >= DIALECT_TF_KERAS && batch > 1)
        sum = emit_scale(b, sum, 1 / (double)batch);
    penalty_add(b, sum);
}

#define FIELD_FACTOR(type, member, value)                                                            \
    {                                                                                                \
#member, FIELD_FLOAT, offsetof(struct type, member), .preset = value, .min = 0, .max = 1e30, \
                                                             .doc = #member " factor of the penalty" \
    }

static const struct field l1_fields[] = {FIELD_FACTOR(l1, l1, 0.01), {0}};
static const struct field l2_fields[] = {FIELD_FACTOR(l2, l2, 0.01), {0}};
static const struct field l1_l2_fields[] = {FIELD_FACTOR(l1_l2, l1, 0), FIELD_FACTOR(l1_l2, l2, 0), {0}};

static const struct regularizer l1_type = {"L1", sizeof(struct l1), l1_fields, l1_penalty};
static const struct regularizer l2_type = {"L2", sizeof(struct l2), l2_fields, l2_penalty};
static const struct regularizer l1_l2_type = {"L1L2", sizeof(struct l1_l2), l1_l2_fields, l1_l2_penalty};

static const struct class *const regularizer_rows[] = {(const struct class *)&l1_type, (const struct class *)&l2_type,
                                                       (const struct class *)&l1_l2_type, NULL};
static const char *const regularizer_aliases[][2] = {{"l1_l2", "L1L2"}, {"L1L2Regularizer", "L1L2"}, {NULL, NULL}};

const struct catalogue regularizer_catalogue = {"regularizer", regularizer_rows, regularizer_aliases};
