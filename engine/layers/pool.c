/* Pooling over windows (MaxPooling2D, AveragePooling2D) and over the whole image (GlobalAveragePooling2D). */
#include "engine/layers/image.h"
#include "engine/ops/ops.h"

struct pooling {
    struct ints pool_size, strides; /* strides.n 0: as pool_size */
    int padding, data_format;
};
struct global_pooling {
    int data_format;
    bool keepdims;
};

static struct tuple pool_call(struct build *b, const struct layer *l, const struct tuple *in, enum pool_kind kind)
{
    const struct pooling *c = l->config;
    const struct ints *step = c->strides.n ? &c->strides : &c->pool_size;
    struct pool how = {.kind = kind,
                       .size = {c->pool_size.v[0], c->pool_size.v[1]},
                       .stride = {step->v[0], step->v[1]},
                       .padding = c->padding};
    value_id x = image_in(b, in->v[0], c->data_format);

    return one(b, image_out(b, emit_pool(b, x, how), c->data_format));
}

static struct tuple max_pool_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    return pool_call(b, l, in, POOL_MAX);
}

static struct tuple average_pool_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    return pool_call(b, l, in, POOL_AVERAGE);
}

static struct tuple global_average_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct global_pooling *c = l->config;
    value_id x = image_in(b, in->v[0], c->data_format);
    value_id y = build_failed(b) ? 0 : emit_reduce(b, x, REDUCE_MEAN, 1u << 1 | 1u << 2, c->keepdims);

    return one(b, c->keepdims ? image_out(b, y, c->data_format) : y);
}

static const struct field pooling_fields[] = {
    {"pool_size", FIELD_INTS, offsetof(struct pooling, pool_size), .preset = 2, .min = 1, .max = 1 << 15,
     .flags = FIELD_SCALAR_OK, .count = 2, .doc = "height and width of the window, in pixels"},
    {"strides", FIELD_INTS, offsetof(struct pooling, strides), .min = 1, .max = 1 << 15,
     .flags = FIELD_SCALAR_OK | FIELD_NULLABLE, .count = 2, .doc = "step between windows, in pixels; null: the window's size"},
    FIELD_PADDING(pooling),
    FIELD_DATA_FORMAT(pooling),
    {0},
};

static const struct field global_pooling_fields[] = {
    FIELD_DATA_FORMAT(global_pooling),
    {"keepdims", FIELD_BOOL, offsetof(struct global_pooling, keepdims), .doc = "whether height and width stay as axes of 1"},
    {0},
};

const struct layer_type layer_max_pooling2d = {"MaxPooling2D", sizeof(struct pooling), pooling_fields, max_pool_call};
const struct layer_type layer_average_pooling2d = {"AveragePooling2D", sizeof(struct pooling), pooling_fields,
                                                   average_pool_call};
const struct layer_type layer_global_average_pooling2d = {"GlobalAveragePooling2D", sizeof(struct global_pooling),
                                                          global_pooling_fields, global_average_call};
