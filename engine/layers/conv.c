/* Conv2D: cross-correlation of images with a kernel (height, width, in / groups, filters), plus bias, then the activation. */
#include "engine/layers/image.h"
#include "engine/ops/ops.h"

struct conv2d {
    int64_t filters, groups;
    struct ints kernel_size, strides, dilation_rate;
    int padding, data_format, activation;
    bool use_bias;
    const struct object *kernel_initializer, *bias_initializer;
    const struct object *kernel_regularizer, *bias_regularizer, *activity_regularizer;
    const struct json *kernel_constraint, *bias_constraint;
};

static void conv2d_check(struct build *b, const struct conv2d *c, int64_t channels)
{
    refuse_constraint(b, "kernel_constraint", c->kernel_constraint);
    refuse_constraint(b, "bias_constraint", c->bias_constraint);
    if ((channels >= 0 && channels % c->groups != 0) || c->filters % c->groups != 0)
        build_fail(b, ST_INVALID, "groups %lld must divide the input's %lld channels and the %lld filters",
                   (long long)c->groups, (long long)channels, (long long)c->filters);
    if ((c->strides.v[0] > 1 || c->strides.v[1] > 1) && (c->dilation_rate.v[0] > 1 || c->dilation_rate.v[1] > 1))
        build_fail(b, ST_INVALID, "strides above 1 and dilation_rate above 1 cannot be combined");
}

static struct tuple conv2d_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct conv2d *c = l->config;
    value_id x = image_in(b, in->v[0], c->data_format), w, bias = 0, y;
    int64_t channels = last_dim(b, x);
    struct conv how = {.stride = {c->strides.v[0], c->strides.v[1]},
                       .dilation = {c->dilation_rate.v[0], c->dilation_rate.v[1]},
                       .groups = c->groups,
                       .padding = c->padding};

    conv2d_check(b, c, channels);
    w = weight(b, l, "kernel",
               SHAPE(c->kernel_size.v[0], c->kernel_size.v[1], channels < 0 ? -1 : channels / c->groups, c->filters),
               c->kernel_initializer ? c->kernel_initializer : INIT_GLOROT_UNIFORM);
    if (c->use_bias)
        bias = weight(b, l, "bias", SHAPE(c->filters), c->bias_initializer ? c->bias_initializer : INIT_ZEROS);
    regularize(b, w, c->kernel_regularizer);
    if (bias)
        regularize(b, bias, c->bias_regularizer);
    y = image_out(b, emit_conv(b, x, w, bias, how), c->data_format);
    y = emit_activation(b, y, c->activation);
    regularize_activity(b, y, c->activity_regularizer);
    return one(b, y);
}

#define FIELD_PAIR(key, low, default_value, needed, text)                                                          \
    {                                                                                                              \
#key, FIELD_INTS, offsetof(struct conv2d, key), .preset = default_value, .min = low, .max = 1 << 15,       \
                                                        .flags = FIELD_SCALAR_OK | needed, .count = 2, .doc = text \
    }

static const struct field conv2d_fields[] = {
    {"filters", FIELD_INT, offsetof(struct conv2d, filters), .min = 1, .max = 1 << 20, .flags = FIELD_REQUIRED,
     .doc = "channels of the output"},
    FIELD_PAIR(kernel_size, 1, 0, FIELD_REQUIRED, "height and width of the kernel, in pixels"),
    FIELD_PAIR(strides, 1, 1, 0, "step between outputs, in pixels of the input"),
    FIELD_PAIR(dilation_rate, 1, 1, 0, "distance between the kernel's elements, in pixels"),
    {"groups", FIELD_INT, offsetof(struct conv2d, groups), .preset = 1, .min = 1, .max = 1 << 20,
     .doc = "channels are split into so many groups, each with its own filters"},
    FIELD_PADDING(conv2d),
    FIELD_DATA_FORMAT(conv2d),
    FIELD_ACTIVATION(conv2d, activation),
    {"use_bias", FIELD_BOOL, offsetof(struct conv2d, use_bias), .preset = 1, .doc = "whether a number per filter is added"},
    FIELD_INITIALIZER(conv2d, kernel_initializer, "GlorotUniform"),
    FIELD_INITIALIZER(conv2d, bias_initializer, "Zeros"),
    FIELD_REGULARIZER(conv2d, kernel_regularizer),
    FIELD_REGULARIZER(conv2d, bias_regularizer),
    FIELD_REGULARIZER(conv2d, activity_regularizer),
    FIELD_CONSTRAINT(conv2d, kernel_constraint),
    FIELD_CONSTRAINT(conv2d, bias_constraint),
    {0},
};

const struct layer_type layer_conv2d = {"Conv2D", sizeof(struct conv2d), conv2d_fields, conv2d_call};
