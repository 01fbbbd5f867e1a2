/* Layers that are activations: Activation, Softmax, ReLU, LeakyReLU. All pass their mask. */
#include <math.h>
#include <string.h>

#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

struct activation {
    int activation;
    const struct object *activity_regularizer;
};
struct softmax {
    const struct json *axis;
};
struct relu {
    double max_value, negative_slope, threshold;
};
struct leaky_relu {
    double negative_slope;
};

static struct tuple activation_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct activation *c = l->config;
    value_id y = emit_activation(b, in->v[0], c->activation);

    regularize_activity(b, y, c->activity_regularizer);
    return one_masked(b, y, in->mask[0]);
}

/* mask ? x : otherwise */
static value_id where(struct build *b, value_id mask, value_id x, double otherwise)
{
    struct formula f = {0};
    term m = f_in(&f), v = f_in(&f);

    f_out(&f, f_select(&f, m, v, f_const(&f, otherwise)));
    return emit_formula(b, &f, (value_id[]){mask, x});
}

/* The mask stands at the last axes of x, as Keras 3 has it; false after a problem. */
static bool softmax_mask_fits(struct build *b, value_id mask, value_id x)
{
    struct shape m = shape_of(b, mask), s = shape_of(b, x), both;

    if (build_failed(b))
        return false;
    if (shape_broadcast(&m, &s, &both) && shape_equal(&both, &s))
        return true;
    build_fail(b, ST_INVALID, "the mask %s does not fit the input %s: it must fit its last axes", shape_text(&m).s,
               shape_text(&s).s);
    return false;
}

static int softmax_axis(struct build *b, const struct json *axis, const struct shape *s)
{
    int64_t number = -1;
    int found;

    if (json_type(axis) == JSON_ARRAY) {
        if (json_count(axis) != 1) {
            build_fail(b, ST_UNSUPPORTED, "softmax over several axes is not supported; axis must be one number");
            return -1;
        }
        axis = json_first(axis);
    }
    if (json_type(axis) > JSON_NULL && !json_int(axis, &number)) {
        build_fail(b, ST_INVALID, "axis must be a whole number, it is %s", json_type_name(json_type(axis)));
        return -1;
    }
    found = number >= -MAX_RANK && number < MAX_RANK ? shape_axis(s, (int)number) : -1;
    if (found < 0)
        build_fail(b, ST_INVALID, "axis %lld is outside of the input %s", (long long)number, shape_text(s).s);
    return found;
}

static struct tuple softmax_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct softmax *c = l->config;
    value_id x = in->v[0], mask = in->mask[0];
    struct shape s = shape_of(b, x);
    int swap[MAX_RANK], axis;

    if (build_failed(b))
        return one(b, 0);
    axis = softmax_axis(b, c->axis, &s);
    if (mask && softmax_mask_fits(b, mask, x))
        x = where(b, mask, x, -1e9);
    for (int i = 0; i < s.rank; i++)
        swap[i] = i;
    if (axis >= 0 && axis != s.rank - 1) {
        swap[axis] = s.rank - 1;
        swap[s.rank - 1] = axis;
        x = emit_transpose(b, emit_softmax(b, emit_transpose(b, x, swap)), swap);
    } else {
        x = emit_softmax(b, x);
    }
    return one_masked(b, mask ? where(b, mask, x, 0) : x, mask);
}

static struct tuple relu_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct relu *c = l->config;

    return one_masked(b, emit_relu(b, in->v[0], c->negative_slope, c->max_value, c->threshold), in->mask[0]);
}

static struct tuple leaky_relu_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct leaky_relu *c = l->config;

    return one_masked(b, emit_relu(b, in->v[0], c->negative_slope, NAN, 0), in->mask[0]);
}

static const struct field activation_fields[] = {
    {"activation", FIELD_CHOICE, offsetof(struct activation, activation), .choices = activation_names,
     .flags = FIELD_REQUIRED | FIELD_NULLABLE, .doc = "name of the function"},
    FIELD_REGULARIZER(activation, activity_regularizer),
    {0},
};

static const struct field softmax_fields[] = {
    {"axis", FIELD_JSON, offsetof(struct softmax, axis), .flags = FIELD_NULLABLE, .doc = "axis that sums to 1; -1 is the last"},
    {0},
};

static const struct field relu_fields[] = {
    {"max_value", FIELD_FLOAT, offsetof(struct relu, max_value), .preset = NAN, .min = 0, .max = 1e30, .flags = FIELD_NULLABLE,
     .doc = "largest output; null: no bound"},
    {"negative_slope", FIELD_FLOAT, offsetof(struct relu, negative_slope), .min = 0, .max = 1e30,
     .doc = "slope below the threshold"},
    {"threshold", FIELD_FLOAT, offsetof(struct relu, threshold), .min = 0, .max = 1e30,
     .doc = "inputs below it count as negative"},
    {0},
};

static const struct field leaky_relu_fields[] = {
    {"negative_slope", FIELD_FLOAT, offsetof(struct leaky_relu, negative_slope), .preset = 0.3, .min = -1e30, .max = 1e30,
     .doc = "slope below zero"},
    {0},
};

const struct layer_type layer_activation = {"Activation", sizeof(struct activation), activation_fields, activation_call};
const struct layer_type layer_softmax = {"Softmax", sizeof(struct softmax), softmax_fields, softmax_call};
const struct layer_type layer_relu = {"ReLU", sizeof(struct relu), relu_fields, relu_call};
const struct layer_type layer_leaky_relu = {"LeakyReLU", sizeof(struct leaky_relu), leaky_relu_fields, leaky_relu_call};
