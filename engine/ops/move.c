/* Ops that only move elements: views, transposes, joining and cutting, padding, copies, casts.
 *
 * All of them take any type and copy bytes; gradients are ops of the same file run backwards. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static void same_as_input(const struct value *in, struct value *out)
{
    out->shape = in->shape;
    out->type = in->type;
}

/* --- reshape ----------------------------------------------------------------------------------------------------------- */

static enum status reshape_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct reshape *how = n->attr;

    TRY(shape_checked(&how->shape, "", problem));
    if (shape_known(&how->shape) && shape_known(&in->shape) && shape_count(&how->shape) != shape_count(&in->shape))
        return no_fit(problem, "%s cannot be reshaped to %s: %lld elements against %lld", shape_text(&in->shape).s,
                      shape_text(&how->shape).s, (long long)shape_count(&in->shape), (long long)shape_count(&how->shape));
    out->shape = how->shape;
    out->type = in->type;
    return ST_OK;
}

static void reshape_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    struct shape shape = shape_of(b, n->in[0]);

    (void)need;
    din[0] = emit_reshape(b, dout[0], &shape);
}

value_id emit_reshape(struct build *b, value_id x, const struct shape *shape)
{
    struct reshape how = {*shape};
    struct shape from = shape_of(b, x);
    int64_t rest = 1;
    int unknown = -1, n_unknown = 0;

    if (!x)
        return 0;
    if (shape_equal(&from, shape))
        return x;
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] == -1) {
            unknown = i;
            n_unknown++;
        } else {
            rest *= shape->dim[i];
        }
    if (n_unknown && shape_known(&from)) {
        int64_t count = shape_count(&from);

        if (n_unknown > 1)
            return build_fail(b, ST_INVALID, "the shape %s leaves more than one dimension open", shape_text(shape).s);
        if (rest <= 0 || count % rest != 0)
            return build_fail(b, ST_INVALID, "%s cannot be reshaped to %s: %lld elements are no multiple of %lld",
                              shape_text(&from).s, shape_text(shape).s, (long long)count, (long long)rest);
        how.shape.dim[unknown] = count / rest;
        if (shape_equal(&from, &how.shape))
            return x;
    }
    return emit(b, &op_reshape, &how, &x, 1, 1);
}

/* --- transpose --------------------------------------------------------------------------------------------------------- */

static enum status transpose_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct transpose *how = n->attr;
    unsigned seen = 0;

    for (int i = 0; i < how->rank; i++)
        if (how->axis[i] >= 0 && how->axis[i] < how->rank)
            seen |= 1u << how->axis[i];
    if (how->rank != in->shape.rank || seen != (1u << how->rank) - 1)
        return no_fit(problem, "a transpose needs each axis of %s once", shape_text(&in->shape).s);
    out->shape.rank = how->rank;
    for (int i = 0; i < how->rank; i++)
        out->shape.dim[i] = in->shape.dim[how->axis[i]];
    out->type = in->type;
    return ST_OK;
}

static void transpose_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct transpose *how = n->attr;
    int back[MAX_RANK] = {0};

    (void)need;
    for (int i = 0; i < how->rank; i++)
        back[how->axis[i]] = i;
    din[0] = emit_transpose(b, dout[0], back);
}

static void transpose_reference(const struct kernel_call *c)
{
    const struct transpose *how = c->node->attr;
    const struct value *x = IN_VALUE(c, 0), *y = OUT_VALUE(c, 0);
    size_t size = dtype_bytes(x->type);
    int64_t own[MAX_RANK], stride[MAX_RANK] = {0}, at[MAX_RANK] = {0}, n = shape_count(&y->shape);

    strides_of(&x->shape, own);
    for (int i = 0; i < how->rank; i++)
        stride[i] = own[how->axis[i]];
    for (int64_t i = 0; i < n; i++, advance(&y->shape, at))
        memcpy((char *)c->out[0] + (size_t)i * size, (const char *)c->in[0] + (size_t)dot_strides(how->rank, at, stride) * size,
               size);
}

value_id emit_transpose(struct build *b, value_id x, const int *axis)
{
    struct transpose how = {.rank = shape_of(b, x).rank};
    bool same = true;

    if (!x)
        return 0;
    for (int i = 0; i < how.rank; i++) {
        how.axis[i] = axis[i];
        same &= axis[i] == i;
    }
    return same ? x : emit(b, &op_transpose, &how, &x, 1, 1);
}

/* Gradients that cut or pad by sizes must know them. False notes the problem. */
static bool axis_known(struct build *b, const char *op, const struct shape *s, int axis)
{
    if (s->dim[axis] == -1)
        build_fail(b, ST_UNSUPPORTED, "the gradient of %s needs the size of axis %d, the input is %s", op, axis,
                   shape_text(s).s);
    return s->dim[axis] != -1;
}

/* --- concat and slice: rows of (outer, axis, inner) -------------------------------------------------------------------- */

static int64_t product(const struct shape *s, int begin, int end)
{
    int64_t n = 1;

    for (int i = begin; i < end; i++)
        n *= s->dim[i];
    return n;
}

static enum status concat_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct concat *how = n->attr;
    struct shape shape = in[0].shape;

    if (how->axis < 0 || how->axis >= shape.rank)
        return no_fit(problem, "there is no axis %d in %s to join along", how->axis, shape_text(&shape).s);
    for (int k = 1; k < n->n_in; k++) {
        const struct shape *s = &in[k].shape;
        bool fits = s->rank == shape.rank;

        for (int i = 0; fits && i < shape.rank; i++)
            if (i != how->axis) {
                fits = dims_agree(s->dim[i], shape.dim[i]);
                shape.dim[i] = dim_of_both(shape.dim[i], s->dim[i]);
            }
        if (!fits)
            return no_fit(problem, "%s and %s cannot be joined along axis %d: the other axes must be equal",
                          shape_text(&in[0].shape).s, shape_text(s).s, how->axis);
        if (in[k].type != in[0].type)
            return no_fit(problem, "%s and %s cannot be joined: cast one of them", dtype_name(in[0].type),
                          dtype_name(in[k].type));
        shape.dim[how->axis] =
            shape.dim[how->axis] == -1 || s->dim[how->axis] == -1 ? -1 : shape.dim[how->axis] + s->dim[how->axis];
    }
    out->shape = shape;
    out->type = in[0].type;
    return ST_OK;
}

static void concat_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct concat *how = n->attr;
    int64_t begin = 0;

    for (int k = 0; k < n->n_in; k++) {
        struct shape shape = shape_of(b, n->in[k]);
        int64_t size = shape.dim[how->axis];

        if (!axis_known(b, "concat", &shape, how->axis))
            return;
        if (need[k])
            din[k] = emit_slice(b, dout[0], how->axis, begin, begin + size);
        begin += size;
    }
}

static void concat_reference(const struct kernel_call *c)
{
    const struct concat *how = c->node->attr;
    const struct shape *to = &OUT_VALUE(c, 0)->shape;
    size_t size = dtype_bytes(OUT_VALUE(c, 0)->type);
    size_t row = (size_t)product(to, how->axis, to->rank) * size, begin = 0;
    int64_t outer = product(to, 0, how->axis);

    for (int k = 0; k < c->node->n_in; k++) {
        size_t part = (size_t)product(&IN_VALUE(c, k)->shape, how->axis, to->rank) * size;

        for (size_t i = 0; i < (size_t)outer; i++)
            memcpy((char *)c->out[0] + i * row + begin, (const char *)c->in[k] + i * part, part);
        begin += part;
    }
}

value_id emit_concat(struct build *b, int n, const value_id *x, int axis)
{
    struct shape first = shape_of(b, n ? x[0] : 0);
    int which = shape_axis(&first, axis);

    for (int i = 0; i < n; i++)
        if (!x[i])
            return 0;
    if (n < 1 || n > UINT16_MAX)
        return build_fail(b, ST_INVALID, "%d values cannot be joined", n);
    if (which < 0)
        return build_fail(b, ST_INVALID, "there is no axis %d in %s to join along", axis, shape_text(&first).s);
    return n == 1 ? x[0] : emit(b, &op_concat, &(struct concat){which}, x, n, 1);
}

static enum status slice_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct slice *how = n->attr;

    if (how->axis < 0 || how->axis >= in->shape.rank)
        return no_fit(problem, "there is no axis %d in %s to cut", how->axis, shape_text(&in->shape).s);
    if (how->begin < 0 || how->end <= how->begin || (in->shape.dim[how->axis] != -1 && how->end > in->shape.dim[how->axis]))
        return no_fit(problem, "elements %lld to %lld of axis %d are wanted, the input is %s", (long long)how->begin,
                      (long long)how->end, how->axis, shape_text(&in->shape).s);
    out->shape = shape_with(&in->shape, how->axis, how->end - how->begin);
    out->type = in->type;
    return ST_OK;
}

static void slice_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct slice *how = n->attr;
    struct shape shape = shape_of(b, n->in[0]);
    struct pad around = {.value = 0};

    (void)need;
    if (!axis_known(b, "slice", &shape, how->axis))
        return;
    around.before[how->axis] = how->begin;
    around.after[how->axis] = shape.dim[how->axis] - how->end;
    din[0] = emit_pad(b, dout[0], around);
}

static void slice_reference(const struct kernel_call *c)
{
    const struct slice *how = c->node->attr;
    const struct shape *from = &IN_VALUE(c, 0)->shape;
    size_t inner = (size_t)product(from, how->axis + 1, from->rank) * dtype_bytes(IN_VALUE(c, 0)->type);
    size_t row = (size_t)from->dim[how->axis] * inner, part = (size_t)(how->end - how->begin) * inner;
    int64_t outer = product(from, 0, how->axis);

    for (size_t i = 0; i < (size_t)outer; i++)
        memcpy((char *)c->out[0] + i * part, (const char *)c->in[0] + i * row + (size_t)how->begin * inner, part);
}

static double slice_bytes(const struct node *n, const struct value *values)
{
    return 2.0 * (double)value_bytes(&values[n->out[0]]);
}

value_id emit_slice(struct build *b, value_id x, int axis, int64_t begin, int64_t end)
{
    struct shape shape = shape_of(b, x);
    struct slice how = {.axis = shape_axis(&shape, axis), .begin = begin, .end = end};

    if (!x)
        return 0;
    if (how.axis < 0)
        return build_fail(b, ST_INVALID, "there is no axis %d in %s to cut", axis, shape_text(&shape).s);
    if (begin == 0 && end == shape.dim[how.axis])
        return x;
    return emit(b, &op_slice, &how, &x, 1, 1);
}

/* --- pad --------------------------------------------------------------------------------------------------------------- */

static enum status pad_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct pad *how = n->attr;

    same_as_input(in, out);
    for (int i = 0; i < in->shape.rank; i++) {
        if (how->before[i] < 0 || how->after[i] < 0)
            return no_fit(problem, "padding of axis %d by %lld and %lld elements is negative", i, (long long)how->before[i],
                          (long long)how->after[i]);
        if (out->shape.dim[i] != -1 && (__builtin_add_overflow(out->shape.dim[i], how->before[i], &out->shape.dim[i]) ||
                                        __builtin_add_overflow(out->shape.dim[i], how->after[i], &out->shape.dim[i])))
            return fail(problem, ST_TOO_LARGE, "", "padding of axis %d is too large", i);
    }
    return shape_checked(&out->shape, "", problem);
}

static void pad_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct pad *how = n->attr;
    struct shape shape = shape_of(b, n->in[0]);
    value_id d = dout[0];

    (void)need;
    for (int i = 0; i < shape.rank; i++)
        if (how->before[i] || how->after[i]) {
            if (!axis_known(b, "pad", &shape, i))
                return;
            d = emit_slice(b, d, i, how->before[i], how->before[i] + shape.dim[i]);
        }
    din[0] = d;
}

static void pad_reference(const struct kernel_call *c)
{
    const struct pad *how = c->node->attr;
    const struct value *x = IN_VALUE(c, 0), *y = OUT_VALUE(c, 0);
    size_t size = dtype_bytes(x->type);
    int64_t own[MAX_RANK], at[MAX_RANK] = {0}, n = shape_count(&y->shape);

    strides_of(&x->shape, own);
    for (int64_t i = 0; i < n; i++, advance(&y->shape, at)) {
        int64_t from = 0;
        bool inside = true;

        for (int k = 0; k < y->shape.rank; k++) {
            int64_t place = at[k] - how->before[k];

            inside &= place >= 0 && place < x->shape.dim[k];
            from += place * own[k];
        }
        if (inside)
            memcpy((char *)c->out[0] + (size_t)i * size, (const char *)c->in[0] + (size_t)from * size, size);
        else
            element_put(c->out[0], y->type, i, how->value);
    }
}

value_id emit_pad(struct build *b, value_id x, struct pad how)
{
    struct shape shape = shape_of(b, x);
    bool nothing = true;

    if (!x)
        return 0;
    for (int i = 0; i < shape.rank; i++)
        nothing &= !how.before[i] && !how.after[i];
    return nothing ? x : emit(b, &op_pad, &how, &x, 1, 1);
}

/* --- copy, store, cast, reverse ---------------------------------------------------------------------------------------- */

static enum status copy_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    same_as_input(in, out);
    return ST_OK;
}

static void copy_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)b, (void)n, (void)need;
    din[0] = dout[0];
}

static void copy_reference(const struct kernel_call *c)
{
    if (c->out[0] != c->in[0])
        memcpy(c->out[0], c->in[0], value_bytes(OUT_VALUE(c, 0)));
}

value_id emit_copy(struct build *b, value_id x)
{
    return x ? emit(b, &op_copy, NULL, &x, 1, 1) : 0;
}

static enum status store_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n;
    if (!shapes_agree(&in[0].shape, &out->shape) || in[0].type != out->type)
        return no_fit(problem, "%s %s cannot be stored in %s %s", dtype_name(in[0].type), shape_text(&in[0].shape).s,
                      dtype_name(out->type), shape_text(&out->shape).s);
    return ST_OK;
}

static void store_reference(const struct kernel_call *c)
{
    if (c->node->n_in < 2 || element(c->in[1], IN_VALUE(c, 1)->type, 0) != 0)
        memmove(c->out[0], c->in[0], value_bytes(OUT_VALUE(c, 0)));
}

void emit_store(struct build *b, value_id leaf, value_id x)
{
    if (leaf && x && leaf != x)
        emit_effect(b, &op_store, NULL, (value_id[]){x, b->ok}, b->ok ? 2 : 1, &leaf, 1);
}

static enum status cast_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct cast *how = n->attr;

    (void)problem;
    out->shape = in->shape;
    out->type = how->type;
    return ST_OK;
}

static void cast_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct cast *how = n->attr;
    enum dtype from = value_of(b, n->in[0])->type;

    (void)need;
    if (is_float(from) && is_float(how->type)) /* of a bfloat16 value it may stay wider than the value is */
        din[0] = from == BF16 ? dout[0] : emit_cast(b, dout[0], from);
}

static void cast_reference(const struct kernel_call *c)
{
    const struct value *x = IN_VALUE(c, 0), *y = OUT_VALUE(c, 0);
    int64_t n = shape_count(&y->shape);
    bool whole = !is_float(x->type) && y->type == I64; /* doubles hold no whole numbers beyond 2^53 */

    for (int64_t i = 0; i < n; i++)
        if (whole && x->type == I64)
            ((int64_t *)c->out[0])[i] = ((const int64_t *)c->in[0])[i];
        else
            element_put(c->out[0], y->type, i, element(c->in[0], x->type, i));
}

value_id emit_cast(struct build *b, value_id x, enum dtype type)
{
    if (!x || value_of(b, x)->type == type)
        return x;
    return emit(b, &op_cast, &(struct cast){type}, &x, 1, 1);
}

static enum status reverse_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct reverse *how = n->attr;

    if (how->axis < 0 || how->axis >= in->shape.rank)
        return no_fit(problem, "there is no axis %d in %s to reverse", how->axis, shape_text(&in->shape).s);
    same_as_input(in, out);
    return ST_OK;
}

static void reverse_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)need;
    din[0] = emit_reverse(b, dout[0], ((const struct reverse *)n->attr)->axis);
}

static void reverse_reference(const struct kernel_call *c)
{
    const struct reverse *how = c->node->attr;
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    size_t inner = (size_t)product(s, how->axis + 1, s->rank) * dtype_bytes(IN_VALUE(c, 0)->type);
    size_t length = (size_t)s->dim[how->axis], outer = (size_t)product(s, 0, how->axis);

    for (size_t i = 0; i < outer; i++)
        for (size_t k = 0; k < length; k++)
            memcpy((char *)c->out[0] + (i * length + k) * inner, (const char *)c->in[0] + (i * length + length - 1 - k) * inner,
                   inner);
}

value_id emit_reverse(struct build *b, value_id x, int axis)
{
    struct shape shape = shape_of(b, x);
    int which = shape_axis(&shape, axis);

    if (!x)
        return 0;
    if (which < 0)
        return build_fail(b, ST_INVALID, "there is no axis %d in %s to reverse", axis, shape_text(&shape).s);
    return emit(b, &op_reverse, &(struct reverse){which}, &x, 1, 1);
}

const struct op op_reshape = {
    .name = "reshape",
    .flags = OP_VIEW | OP_BFLOAT,
    .attr_size = sizeof(struct reshape),
    .infer = reshape_infer,
    .grad = reshape_grad,
};

const struct op op_transpose = {
    .name = "transpose",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct transpose),
    .infer = transpose_infer,
    .grad = transpose_grad,
    .reference = transpose_reference,
};

const struct op op_concat = {
    .name = "concat",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct concat),
    .infer = concat_infer,
    .grad = concat_grad,
    .reference = concat_reference,
};

const struct op op_slice = {
    .name = "slice",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct slice),
    .infer = slice_infer,
    .grad = slice_grad,
    .reference = slice_reference,
    .bytes = slice_bytes,
};

const struct op op_pad = {
    .name = "pad",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct pad),
    .infer = pad_infer,
    .grad = pad_grad,
    .reference = pad_reference,
};

const struct op op_copy = {
    .name = "copy",
    .flags = OP_BFLOAT,
    .infer = copy_infer,
    .grad = copy_grad,
    .reference = copy_reference,
};

const struct op op_store = {
    .name = "store",
    .flags = OP_EFFECT,
    .infer = store_infer,
    .reference = store_reference,
};

const struct op op_cast = {
    .name = "cast",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct cast),
    .infer = cast_infer,
    .grad = cast_grad,
    .reference = cast_reference,
};

const struct op op_reverse = {
    .name = "reverse",
    .flags = OP_BFLOAT,
    .attr_size = sizeof(struct reverse),
    .infer = reverse_infer,
    .grad = reverse_grad,
    .reference = reverse_reference,
};
