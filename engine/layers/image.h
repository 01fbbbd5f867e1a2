/* What the layers on images share: the axis order. Inside Horn images are (batch, height, width, channels); a layer with
 * data_format "channels_first" transposes in and out, and the rewriting of the graph cancels the pairs in between. */
#ifndef HORN_LAYERS_IMAGE_H
#define HORN_LAYERS_IMAGE_H

#include "engine/layers/layer.h"

enum data_format { CHANNELS_LAST, CHANNELS_FIRST };
extern const char *const data_formats[];
extern const char *const padding_names[]; /* by enum padding */

/* x as (batch, height, width, channels); ST_INVALID unless it has rank 4. format: enum data_format, -1 is channels last. */
value_id image_in(struct build *b, value_id x, int format);
value_id image_out(struct build *b, value_id y, int format); /* back again */

#define FIELD_DATA_FORMAT(type)                                                                   \
    {                                                                                             \
        "data_format", FIELD_CHOICE, offsetof(struct type, data_format),                          \
            .choices = data_formats, .preset = CHANNELS_LAST, .flags = FIELD_NULLABLE,            \
            .doc = "axis order of images: (height, width, channels) or (channels, height, width)" \
    }
#define FIELD_PADDING(type)                                                                      \
    {                                                                                            \
        "padding", FIELD_CHOICE, offsetof(struct type, padding),                                 \
            .choices = padding_names, .preset = PADDING_VALID,                                   \
            .doc = "\"same\" pads with zeros so that the output has ceil(input / stride) places" \
    }

#endif
