/* InputLayer: the tensor itself. Its shape and type are read by the model's parser; here the keys are only known. */
#include "engine/layers/layer.h"

struct input_layer {
    const struct json *batch_shape, *shape, *ragged, *optional;
    bool sparse;
};

static struct tuple input_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct input_layer *c = l->config;

    if (c && (c->sparse || json_true(c->ragged)))
        build_fail(b, ST_UNSUPPORTED, "sparse and ragged inputs are not supported");
    return *in;
}

static const struct field input_fields[] = {
    {"batch_shape", FIELD_JSON, offsetof(struct input_layer, batch_shape), .flags = FIELD_NULLABLE,
     .doc = "shape with the batch axis, null where it is free"},
    {"shape", FIELD_JSON, offsetof(struct input_layer, shape), .flags = FIELD_NULLABLE, .doc = "shape without the batch axis"},
    {"sparse", FIELD_BOOL, offsetof(struct input_layer, sparse), .doc = "must be false"},
    {"ragged", FIELD_JSON, offsetof(struct input_layer, ragged), .flags = FIELD_NULLABLE, .doc = "must be false"},
    {"optional", FIELD_JSON, offsetof(struct input_layer, optional), .flags = FIELD_NULLABLE, .doc = "read and not used"},
    {0},
};

const struct layer_type layer_input = {"InputLayer", sizeof(struct input_layer), input_fields, input_call};
