/* What several layers need: refusals by name, and masks brought to a value's rank. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

void refuse_constraint(struct build *b, const char *key, const struct json *value)
{
    if (json_type(value) > JSON_NULL)
        build_fail(b, ST_UNSUPPORTED, "%s: constraints on weights are not supported; set it to null", key);
}

value_id mask_like(struct build *b, value_id mask, value_id x)
{
    struct shape s = shape_of(b, mask);
    int rank = shape_of(b, x).rank;

    if (!mask || build_failed(b) || s.rank >= rank)
        return mask;
    while (s.rank < rank)
        s.dim[s.rank++] = 1;
    return emit_reshape(b, mask, &s);
}
