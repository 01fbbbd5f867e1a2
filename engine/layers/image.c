/* See image.h. */
#include "engine/layers/image.h"

#include "engine/ops/ops.h"

const char *const data_formats[] = {"channels_last", "channels_first", NULL};
const char *const padding_names[] = {"valid", "same", NULL};

value_id image_in(struct build *b, value_id x, int format)
{
    struct shape s = shape_of(b, x);

    if (build_failed(b))
        return 0;
    if (s.rank != 4)
        return build_fail(b, ST_INVALID, "needs images (batch, %s), the input is %s",
                          format == CHANNELS_FIRST ? "channels, height, width" : "height, width, channels", shape_text(&s).s);
    return format == CHANNELS_FIRST ? emit_transpose(b, x, (int[]){0, 2, 3, 1}) : x;
}

value_id image_out(struct build *b, value_id y, int format)
{
    return format == CHANNELS_FIRST && !build_failed(b) ? emit_transpose(b, y, (int[]){0, 3, 1, 2}) : y;
}
