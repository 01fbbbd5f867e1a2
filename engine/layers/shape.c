/* Layers that only move elements: Flatten, Reshape. Masks end here. */
#include "engine/layers/image.h"
#include "engine/ops/ops.h"

struct flatten {
    int data_format;
};
struct reshape_layer {
    struct ints target_shape;
};

/* Elements of one row, -1 if not known. */
static int64_t row_count(const struct shape *s)
{
    int64_t n = 1;

    for (int i = 1; i < s->rank; i++) {
        if (s->dim[i] < 0)
            return -1;
        n *= s->dim[i];
    }
    return n;
}

/* channels_first: the channels go last before flattening, so that the order of features is the same in both formats. */
static struct tuple flatten_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct flatten *c = l->config;
    value_id x = in->v[0];
    struct shape s = shape_of(b, x), flat;
    int axis[MAX_RANK] = {0};

    if (build_failed(b))
        return one(b, 0);
    if (c->data_format == CHANNELS_FIRST && s.rank > 2) {
        for (int i = 1; i < s.rank; i++)
            axis[i] = i + 1 < s.rank ? i + 1 : 1;
        x = emit_transpose(b, x, axis);
    }
    flat = SHAPE(s.rank ? s.dim[0] : 1, row_count(&s));
    return one(b, emit_reshape(b, x, &flat));
}

static struct tuple reshape_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct ints *target = &((const struct reshape_layer *)l->config)->target_shape;
    struct shape s = shape_of(b, in->v[0]), to = {.rank = 1 + target->n, .dim = {s.dim[0]}};
    int64_t n = row_count(&s), known = 1;
    int open = 0;

    if (build_failed(b))
        return one(b, 0);
    if (to.rank > MAX_RANK) {
        build_fail(b, ST_INVALID, "target_shape has %d axes, at most %d are possible", target->n, MAX_RANK - 1);
        return one(b, 0);
    }
    for (int i = 0; i < target->n; i++) {
        to.dim[1 + i] = target->v[i];
        if (target->v[i] < 0)
            open = open ? -1 : 1 + i;
        else if (__builtin_mul_overflow(known, target->v[i], &known))
            open = -1;
        if (open < 0) {
            build_fail(b, ST_INVALID, "target_shape may have one -1 and must not be larger than the input %s",
                       shape_text(&s).s);
            return one(b, 0);
        }
    }
    if (n >= 0 && open && known > 0 && n % known == 0)
        to.dim[open] = n / known;
    else if (n >= 0 && (open || known != n))
        build_fail(b, ST_INVALID, "the input %s has %lld elements per row, the target %s does not fit them", shape_text(&s).s,
                   (long long)n, shape_text(&to).s);
    return one(b, build_failed(b) ? 0 : emit_reshape(b, in->v[0], &to));
}

static const struct field flatten_fields[] = {FIELD_DATA_FORMAT(flatten), {0}};

static const struct field reshape_fields[] = {
    {"target_shape", FIELD_INTS, offsetof(struct reshape_layer, target_shape), .min = -1, .max = 1 << 30,
     .flags = FIELD_REQUIRED | FIELD_SCALAR_OK, .doc = "new shape without the batch axis; one -1 is worked out"},
    {0},
};

const struct layer_type layer_flatten = {"Flatten", sizeof(struct flatten), flatten_fields, flatten_call};
const struct layer_type layer_reshape = {"Reshape", sizeof(struct reshape_layer), reshape_fields, reshape_call};
