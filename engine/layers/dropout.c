/* Dropout: in training each element is kept with probability 1 - rate and divided by it. Srivastava et al. 2014. The
 * mask passes.
 *
 * noise_shape shares the decision along its axes of size 1; null there means the input's own size. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

struct dropout_layer {
    double rate;
    const struct json *noise_shape, *seed;
};

/* The noise's shape; false after a problem. */
static bool noise_shape(struct build *b, const struct json *j, const struct shape *x, struct shape *ret)
{
    int i = 0;

    *ret = *x;
    if (json_type(j) != JSON_ARRAY || json_count(j) != x->rank) {
        build_fail(b, ST_INVALID, "noise_shape must be a list of %d sizes, as the input is %s", x->rank, shape_text(x).s);
        return false;
    }
    for (const struct json *d = json_first(j); d; d = json_next(d), i++) {
        int64_t size;

        if (json_type(d) == JSON_NULL)
            continue;
        if (!json_int(d, &size) || (size != 1 && x->dim[i] >= 0 && size != x->dim[i])) {
            build_fail(b, ST_INVALID, "noise_shape[%d] must be 1, null or the input's size: the input is %s", i,
                       shape_text(x).s);
            return false;
        }
        ret->dim[i] = size;
    }
    return true;
}

static struct tuple dropout_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct dropout_layer *c = l->config;
    struct shape s = shape_of(b, in->v[0]), noise;
    value_id y;

    if (build_failed(b) || (json_type(c->noise_shape) > JSON_NULL && !noise_shape(b, c->noise_shape, &s, &noise)))
        return one(b, 0);
    y = emit_dropout(b, in->v[0], c->rate, json_type(c->noise_shape) > JSON_NULL ? &noise : NULL);
    return one_masked(b, y, in->mask[0]);
}

static const struct field dropout_fields[] = {
    {"rate", FIELD_FLOAT, offsetof(struct dropout_layer, rate), .min = 0, .max = 1, .flags = FIELD_REQUIRED,
     .doc = "share of the inputs set to zero while training"},
    {"noise_shape", FIELD_JSON, offsetof(struct dropout_layer, noise_shape), .flags = FIELD_NULLABLE,
     .doc = "shape of the random mask, 1 where it is shared; null: the input's"},
    {"seed", FIELD_JSON, offsetof(struct dropout_layer, seed), .flags = FIELD_NULLABLE,
     .doc = "read and not used: the job's seed decides"},
    {0},
};

const struct layer_type layer_dropout = {"Dropout", sizeof(struct dropout_layer), dropout_fields, dropout_call};
