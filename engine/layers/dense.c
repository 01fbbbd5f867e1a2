/* Dense: y = act(x W + b) on the last axis. x (batch, ..., in), W (in, units), b (units); the mask passes. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

struct dense {
    int64_t units;
    int activation;
    bool use_bias;
    const struct object *kernel_initializer, *bias_initializer;
    const struct object *kernel_regularizer, *bias_regularizer, *activity_regularizer;
    const struct json *kernel_constraint, *bias_constraint;
};

static struct tuple dense_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct dense *c = l->config;
    value_id x = in->v[0], w, bias = 0, y;
    struct shape s = shape_of(b, x);

    refuse_constraint(b, "kernel_constraint", c->kernel_constraint);
    refuse_constraint(b, "bias_constraint", c->bias_constraint);
    if (!build_failed(b) && s.rank < 2)
        build_fail(b, ST_INVALID, "needs an input (batch, ..., features), it is %s", shape_text(&s).s);
    w = weight(b, l, "kernel", SHAPE(last_dim(b, x), c->units),
               c->kernel_initializer ? c->kernel_initializer : INIT_GLOROT_UNIFORM);
    if (c->use_bias)
        bias = weight(b, l, "bias", SHAPE(c->units), c->bias_initializer ? c->bias_initializer : INIT_ZEROS);
    regularize(b, w, c->kernel_regularizer);
    if (bias)
        regularize(b, bias, c->bias_regularizer);
    y = emit_activation(b, bias ? emit_matmul_bias(b, x, w, bias, 0) : emit_matmul(b, x, w, 0), c->activation);
    regularize_activity(b, y, c->activity_regularizer);
    return one_masked(b, y, in->mask[0]);
}

static const struct field dense_fields[] = {
    {"units", FIELD_INT, offsetof(struct dense, units), .min = 1, .max = 1 << 24, .flags = FIELD_REQUIRED,
     .doc = "features of the output"},
    FIELD_ACTIVATION(dense, activation),
    {"use_bias", FIELD_BOOL, offsetof(struct dense, use_bias), .preset = 1, .doc = "whether a vector is added"},
    FIELD_INITIALIZER(dense, kernel_initializer, "GlorotUniform"),
    FIELD_INITIALIZER(dense, bias_initializer, "Zeros"),
    FIELD_REGULARIZER(dense, kernel_regularizer),
    FIELD_REGULARIZER(dense, bias_regularizer),
    FIELD_REGULARIZER(dense, activity_regularizer),
    FIELD_CONSTRAINT(dense, kernel_constraint),
    FIELD_CONSTRAINT(dense, bias_constraint),
    {0},
};

const struct layer_type layer_dense = {"Dense", sizeof(struct dense), dense_fields, dense_call};
