/* Cross-entropies over the last axis, of probabilities or of logits.
 *
 *   categorical   -sum_k y_k ln p_k;   sparse: y is the number of the class
 *   binary        mean of -(y ln p + (1 - y) ln(1 - p)); of logits z: max(z, 0) - z y + ln(1 + e^-|z|)
 *   smoothing     categorical y (1 - s) + s / classes,   binary y (1 - s) + s / 2
 *
 * Probabilities that come straight from a softmax or sigmoid are not looked at: their logits are taken, which is exact
 * where Keras on TensorFlow does the same and Keras on JAX clips to [1e-7, 1 - 1e-7]. Other probabilities are divided by
 * their sum (not binary) and clipped, as Keras does (keras/src/backend/jax/nn.py). */
#include "engine/losses/common.h"

#define EPSILON 1e-7 /* Keras' backend.epsilon() */

struct binary {
    struct loss_options options;
    bool from_logits;
    double label_smoothing;
};
struct categorical {
    struct loss_options options;
    bool from_logits;
    double label_smoothing;
};
struct sparse_categorical {
    struct loss_options options;
    bool from_logits;
    const struct json *ignore_class;
};

static value_id smoothed(struct build *b, value_id y, double s, double classes)
{
    struct formula f = {0};

    if (s == 0)
        return y;
    f_out(&f, f_add(&f, f_mul(&f, f_in(&f), f_const(&f, 1 - s)), f_const(&f, s / classes)));
    return emit_formula(b, &f, &y);
}

/* ln of p, divided by its sum over the last axis and clipped */
static value_id log_of_probabilities(struct build *b, value_id p)
{
    struct formula f = {0};
    term x = f_in(&f), sum = f_in(&f);
    int last = shape_of(b, p).rank - 1;

    if (build_failed(b))
        return 0;
    f_out(&f, f_log(&f, f_clip(&f, f_div(&f, x, sum), EPSILON, 1 - EPSILON)));
    return emit_formula(b, &f, (value_id[]){p, emit_reduce(b, p, REDUCE_SUM, 1u << last, true)});
}

static value_id categorical_per_sample(struct build *b, const void *config, value_id y, value_id p)
{
    const struct categorical *c = config;
    value_id logits;

    if (!loss_options_fit(b, &c->options, p) || !pair_fits(b, &y, &p))
        return 0;
    y = smoothed(b, y, c->label_smoothing, (double)last_dim(b, p));
    logits = c->from_logits ? p : logits_of_softmax(b, p);
    if (logits)
        return emit_cross_entropy(b, logits, y, false);
    return emit_scale(b, emit_reduce_last(b, emit_mul(b, y, log_of_probabilities(b, p)), REDUCE_SUM), -1);
}

/* Class numbers as (batch, ...) or (batch, ..., 1); false after a problem. */
static bool classes_fit(struct build *b, value_id *y, value_id p)
{
    struct shape target = shape_of(b, *y), output = shape_of(b, p), want;

    if (build_failed(b) || output.rank < 1)
        return false;
    want = shape_without(&output, output.rank - 1);
    if (target.rank == output.rank && target.dim[target.rank - 1] == 1) {
        target = shape_without(&target, target.rank - 1);
        *y = emit_reshape(b, *y, &target);
    }
    for (int i = 0; i < target.rank && i < want.rank; i++) {
        if (target.dim[i] < 0)
            want.dim[i] = -1;
        if (want.dim[i] < 0)
            target.dim[i] = -1;
    }
    if (shape_equal(&target, &want))
        return true;
    target = shape_of(b, *y);
    build_fail(b, ST_INVALID,
               "the target has the shape %s, the output %s: sparse targets are class numbers without its last axis",
               shape_text(&target).s, shape_text(&output).s);
    return false;
}

static value_id sparse_per_sample(struct build *b, const void *config, value_id y, value_id p)
{
    const struct sparse_categorical *c = config;
    value_id logits;

    if (!loss_options_fit(b, &c->options, p) || !classes_fit(b, &y, p))
        return 0;
    if (json_type(c->ignore_class) > JSON_NULL)
        return build_fail(b, ST_UNSUPPORTED, "ignore_class of SparseCategoricalCrossentropy is not supported");
    logits = c->from_logits ? p : logits_of_softmax(b, p);
    if (logits)
        return emit_cross_entropy(b, logits, y, true);
    return emit_scale(b, emit_pick(b, log_of_probabilities(b, p), y), -1);
}

static term binary_term(struct formula *f, term y, term p)
{
    term unit = f_const(f, 1), clipped = f_clip(f, p, EPSILON, 1 - EPSILON);
    term yes = f_mul(f, y, f_log(f, clipped));
    term no = f_mul(f, f_sub(f, unit, y), f_log(f, f_sub(f, unit, clipped)));

    return f_neg(f, f_add(f, yes, no));
}

static term binary_logits_term(struct formula *f, term y, term z)
{
    return f_sub(f, f_softplus(f, z), f_mul(f, z, y));
}

static value_id binary_per_sample(struct build *b, const void *config, value_id y, value_id p)
{
    const struct binary *c = config;
    struct formula f = {0};
    term target = f_in(&f), output = f_in(&f);
    value_id logits;

    if (!loss_options_fit(b, &c->options, p) || !pair_fits(b, &y, &p))
        return 0;
    y = smoothed(b, y, c->label_smoothing, 2);
    logits = c->from_logits ? p : logits_of_sigmoid(b, p);
    f_out(&f, logits ? binary_logits_term(&f, target, output) : binary_term(&f, target, output));
    return emit_reduce_last(b, emit_formula(b, &f, (value_id[]){y, logits ? logits : p}), REDUCE_MEAN);
}

#define FIELD_FROM_LOGITS(type)                                                    \
    {                                                                              \
        "from_logits", FIELD_BOOL, offsetof(struct type, from_logits),             \
            .doc = "whether the model's output is taken before softmax or sigmoid" \
    }
#define FIELD_SMOOTHING(type)                                                                 \
    {                                                                                         \
        "label_smoothing", FIELD_FLOAT, offsetof(struct type, label_smoothing),               \
            .min = 0, .max = 1, .doc = "share of each target that is spread over all classes" \
    }

static const struct field binary_fields[] = {
    FIELDS_LOSS(binary), FIELD_LOSS_AXIS(binary), FIELD_FROM_LOGITS(binary), FIELD_SMOOTHING(binary), {0}};
static const struct field categorical_fields[] = {
    FIELDS_LOSS(categorical), FIELD_LOSS_AXIS(categorical), FIELD_FROM_LOGITS(categorical), FIELD_SMOOTHING(categorical), {0}};
static const struct field sparse_fields[] = {
    FIELDS_LOSS(sparse_categorical),
    FIELD_LOSS_AXIS(sparse_categorical),
    FIELD_FROM_LOGITS(sparse_categorical),
    {"ignore_class", FIELD_JSON, offsetof(struct sparse_categorical, ignore_class), .flags = FIELD_NULLABLE,
     .doc = "must be null"},
    {0},
};

const struct loss loss_binary_crossentropy = {"BinaryCrossentropy", sizeof(struct binary), binary_fields, false,
                                              binary_per_sample};
const struct loss loss_categorical_crossentropy = {"CategoricalCrossentropy", sizeof(struct categorical), categorical_fields,
                                                   false, categorical_per_sample};
const struct loss loss_sparse_categorical_crossentropy = {"SparseCategoricalCrossentropy", sizeof(struct sparse_categorical),
                                                          sparse_fields, true, sparse_per_sample};
