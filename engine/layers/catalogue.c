/* The list of layers, from the definition lines of this folder. */
#include "engine/layers/layer.h"

#define X(id) extern const struct layer_type id;
#include "layers.inc"
#undef X

static const struct class *const rows[] = {
#define X(id) (const struct class *)&id,
#include "layers.inc"
#undef X
    NULL,
};

static const char *const aliases[][2] = {
    {"MaxPool2D", "MaxPooling2D"},
    {"AvgPool2D", "AveragePooling2D"},
    {"GlobalAvgPool2D", "GlobalAveragePooling2D"},
    {"Convolution2D", "Conv2D"},
    {NULL, NULL},
};

const struct catalogue layer_catalogue = {"layer", rows, aliases};
