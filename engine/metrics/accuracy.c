/* Accuracies: 1 where the prediction's class is the target's.
 *
 *   binary        mean over the last axis of (p > threshold) == y
 *   categorical   argmax y == argmax p;   sparse: y == argmax p
 *
 * Keras 1 and 2 round p where Keras 3 compares with the threshold 0.5: the same, since they round half to even. */
#include "engine/losses/common.h"
#include "engine/metrics/metric.h"

struct accuracy {
    const char *name;
    const struct json *dtype;
    double threshold;
};

static value_id equal(struct build *b, value_id x, value_id y)
{
    struct formula f = {0};
    term a = f_in(&f), c = f_in(&f);

    f_out(&f, f_eq(&f, a, c));
    return emit_formula(b, &f, (value_id[]){x, y});
}

static value_id binary_accuracy(struct build *b, const void *config, value_id y, value_id p)
{
    struct formula f = {0};
    term target = f_in(&f), output = f_in(&f);

    if (!pair_fits(b, &y, &p))
        return 0;
    f_out(&f, f_eq(&f, target, f_lt(&f, f_const(&f, ((const struct accuracy *)config)->threshold), output)));
    return emit_reduce_last(b, emit_formula(b, &f, (value_id[]){y, p}), REDUCE_MEAN);
}

static value_id categorical_accuracy(struct build *b, const void *config, value_id y, value_id p)
{
    (void)config;
    if (!pair_fits(b, &y, &p))
        return 0;
    return equal(b, emit_reduce_last(b, y, REDUCE_ARGMAX), emit_reduce_last(b, p, REDUCE_ARGMAX));
}

static value_id sparse_categorical_accuracy(struct build *b, const void *config, value_id y, value_id p)
{
    struct shape target = shape_of(b, y), output = shape_of(b, p);

    (void)config;
    if (build_failed(b))
        return 0;
    if (target.rank == output.rank && target.rank > 0 && target.dim[target.rank - 1] == 1) {
        target = shape_without(&target, target.rank - 1);
        y = emit_reshape(b, y, &target);
    }
    if (target.rank + 1 != output.rank)
        return build_fail(b, ST_INVALID, "the target has the shape %s, the output %s: class numbers have no last axis",
                          shape_text(&target).s, shape_text(&output).s);
    return equal(b, y, emit_reduce_last(b, p, REDUCE_ARGMAX));
}

#define FIELDS_METRIC                                                                                                        \
    {"name", FIELD_TEXT, offsetof(struct accuracy, name), .max = 255, .flags = FIELD_NULLABLE, .doc = "key in the history"}, \
    {                                                                                                                        \
        "dtype", FIELD_JSON, offsetof(struct accuracy, dtype), .flags = FIELD_NULLABLE, .doc = "read and not used"           \
    }

static const struct field accuracy_fields[] = {FIELDS_METRIC, {0}};
static const struct field binary_fields[] = {
    FIELDS_METRIC,
    {"threshold", FIELD_FLOAT, offsetof(struct accuracy, threshold), .preset = 0.5, .min = 0, .max = 1,
     .doc = "an output above it counts as 1"},
    {0},
};

const struct metric metric_binary_accuracy = {"BinaryAccuracy", sizeof(struct accuracy), binary_fields, binary_accuracy};
const struct metric metric_categorical_accuracy = {"CategoricalAccuracy", sizeof(struct accuracy), accuracy_fields,
                                                   categorical_accuracy};
const struct metric metric_sparse_categorical_accuracy = {"SparseCategoricalAccuracy", sizeof(struct accuracy), accuracy_fields,
                                                          sparse_categorical_accuracy};
