/* Rescaling: y = x scale + offset, either a number or one number per channel (last axis). The mask passes. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

#define MAX_CHANNELS 64 /* a list becomes so many fill nodes; images have at most four */

struct rescaling {
    const struct json *scale, *offset;
};

/* A vector of constants; 0 after a problem. */
static value_id constants(struct build *b, const char *key, const struct json *j)
{
    value_id one[MAX_CHANNELS];
    int n = 0;

    if (json_type(j) != JSON_ARRAY || json_count(j) < 1 || json_count(j) > MAX_CHANNELS)
        return build_fail(b, ST_INVALID, "%s must be a number or a list of 1 to %d numbers", key, MAX_CHANNELS);
    for (const struct json *v = json_first(j); v; v = json_next(v)) {
        if (json_type(v) != JSON_NUMBER)
            return build_fail(b, ST_INVALID, "%s[%d] must be a number, it is %s", key, n, json_type_name(json_type(v)));
        one[n++] = emit_fill(b, &SHAPE(1), (float)json_number(v));
    }
    return n == 1 ? one[0] : emit_concat(b, n, one, 0);
}

/* One term of the formula: a constant, or a new input with one value per channel. */
static term operand(struct build *b, struct formula *f, value_id *in, const char *key, const struct json *j, double preset)
{
    if (json_type(j) <= JSON_NULL || json_type(j) == JSON_NUMBER)
        return f_const(f, json_type(j) == JSON_NUMBER ? json_number(j) : preset);
    in[f->n_in] = constants(b, key, j);
    return f_in(f);
}

static struct tuple rescaling_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct rescaling *c = l->config;
    struct formula f = {0};
    value_id inputs[3] = {in->v[0]};
    term x = f_in(&f);
    term scale = operand(b, &f, inputs, "scale", c->scale, 1), offset = operand(b, &f, inputs, "offset", c->offset, 0);

    f_out(&f, f_add(&f, f_mul(&f, x, scale), offset));
    return one_masked(b, emit_formula(b, &f, inputs), in->mask[0]);
}

static const struct field rescaling_fields[] = {
    {"scale", FIELD_JSON, offsetof(struct rescaling, scale), .flags = FIELD_REQUIRED,
     .doc = "factor: a number, or a list with one per channel"},
    {"offset", FIELD_JSON, offsetof(struct rescaling, offset), .flags = FIELD_NULLABLE,
     .doc = "added after scaling: a number, or a list with one per channel"},
    {0},
};

const struct layer_type layer_rescaling = {"Rescaling", sizeof(struct rescaling), rescaling_fields, rescaling_call};
