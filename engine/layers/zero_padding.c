/* ZeroPadding2D: zeros around images. padding: n, [height, width], or [[top, bottom], [left, right]], in pixels. */
#include "engine/layers/image.h"
#include "engine/ops/ops.h"

#define MAX_PADDING (1 << 15)

struct zero_padding {
    const struct json *padding;
    int data_format;
};

static bool pixels(const struct json *j, int64_t *ret)
{
    return json_int(j, ret) && *ret >= 0 && *ret <= MAX_PADDING;
}

/* One side of the list: a number for both ends, or a pair. */
static bool side(const struct json *j, int64_t *before, int64_t *after)
{
    if (pixels(j, before)) {
        *after = *before;
        return true;
    }
    return json_type(j) == JSON_ARRAY && json_count(j) == 2 && pixels(json_at(j, 0), before) && pixels(json_at(j, 1), after);
}

static bool padding_read(const struct json *j, struct pad *how)
{
    if (json_type(j) == JSON_ARRAY)
        return json_count(j) == 2 && side(json_at(j, 0), &how->before[1], &how->after[1]) &&
               side(json_at(j, 1), &how->before[2], &how->after[2]);
    if (json_type(j) <= JSON_NULL) {
        how->before[1] = how->after[1] = how->before[2] = how->after[2] = 1;
        return true;
    }
    if (!side(j, &how->before[1], &how->after[1]))
        return false;
    how->before[2] = how->after[2] = how->before[1];
    return true;
}

static struct tuple zero_padding_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct zero_padding *c = l->config;
    value_id x = image_in(b, in->v[0], c->data_format);
    struct pad how = {0};

    if (!padding_read(c->padding, &how))
        build_fail(b, ST_INVALID,
                   "padding must be a number of pixels from 0 to %d, [height, width] or [[top, bottom], [left, right]]",
                   MAX_PADDING);
    return one(b, build_failed(b) ? 0 : image_out(b, emit_pad(b, x, how), c->data_format));
}

static const struct field zero_padding_fields[] = {
    {"padding", FIELD_JSON, offsetof(struct zero_padding, padding), .flags = FIELD_NULLABLE,
     .doc = "pixels of zeros: one number, [height, width], or [[top, bottom], [left, right]]"},
    FIELD_DATA_FORMAT(zero_padding),
    {0},
};

const struct layer_type layer_zero_padding2d = {"ZeroPadding2D", sizeof(struct zero_padding), zero_padding_fields,
                                                zero_padding_call};
