/* Ops that only move bytes: transposes in tiles, and everything that is a set of runs copied by memcpy. */
#include "engine/cpu/cpu.h"

#include <string.h>

#include "engine/ops/element.h"

#define TILE 16 /* rows and columns of a transposed tile: two tiles of doubles fit L1 many times */

/* --- transpose -------------------------------------------------------------------------------------------------------- */

/* Output axes after merging neighbours that stay neighbours; stride in elements of the input. */
struct transpose_plan {
    const struct device *device;
    int rank;
    int64_t dim[MAX_RANK], stride[MAX_RANK];
    int unit;      /* output axis along which the input is contiguous, or -1 */
    int64_t outer; /* product of the axes but `unit` and the last */
    size_t bytes;
};

static KERNEL_PREPARE(transpose_prepare)
{
    const struct transpose *how = n->attr;
    const struct value *x = &values[n->in[0]];
    struct transpose_plan p = {.device = d, .unit = -1, .outer = 1, .bytes = dtype_bytes(x->type)};
    int64_t own[MAX_RANK];

    (void)scratch, (void)problem;
    strides_of(&x->shape, own);
    for (int i = 0; i < how->rank; i++) {
        int64_t dim = x->shape.dim[how->axis[i]], stride = own[how->axis[i]];

        if (dim == 1)
            continue;
        if (p.rank && p.stride[p.rank - 1] == stride * dim) {
            p.dim[p.rank - 1] *= dim;
            p.stride[p.rank - 1] = stride;
            continue;
        }
        p.dim[p.rank] = dim;
        p.stride[p.rank++] = stride;
    }
    for (int i = 0; i < p.rank; i++)
        if (p.stride[i] == 1)
            p.unit = i;
    for (int i = 0; i < p.rank - 1; i++)
        if (i != p.unit || p.unit == p.rank - 1)
            p.outer *= p.dim[i];
    struct transpose_plan *keep = must_alloc(sizeof *keep);

    *keep = p;
    *ret = keep;
    return ST_OK;
}

struct move_call {
    const void *plan;
    const char *from;
    char *to;
};

/* to[j, i] = from[i, j] for rows i of the output's unit axis and columns j of its last: tile by tile. */
#define TRANSPOSE(type)                                                                                       \
    static void transpose_##type(type *to, const type *from, int64_t rows, int64_t columns, int64_t to_step,  \
                                 int64_t from_step)                                                           \
    {                                                                                                         \
        for (int64_t a = 0; a < rows; a += TILE)                                                              \
            for (int64_t b = 0; b < columns; b += TILE) {                                                     \
                int64_t a1 = a + TILE < rows ? a + TILE : rows, b1 = b + TILE < columns ? b + TILE : columns; \
                                                                                                              \
                for (int64_t i = a; i < a1; i++)                                                              \
                    for (int64_t j = b; j < b1; j++)                                                          \
                        to[i * to_step + j] = from[i + j * from_step];                                        \
            }                                                                                                 \
    }
TRANSPOSE(uint8_t)
TRANSPOSE(uint16_t)
TRANSPOSE(uint32_t)
TRANSPOSE(uint64_t)

static void transpose_part(const void *context, int64_t begin, int64_t end)
{
    const struct move_call *c = context;
    const struct transpose_plan *p = c->plan;
    int last = p->rank - 1;
    bool runs = p->unit == last;
    int64_t to_stride[MAX_RANK];

    for (int64_t i = last, s = 1; i >= 0; s *= p->dim[i], i--)
        to_stride[i] = s;
    for (int64_t o = begin; o < end; o++) {
        int64_t rest = o, from = 0, to = 0;

        for (int i = last - 1; i >= 0; i--) {
            if (i == p->unit && !runs)
                continue;
            from += rest % p->dim[i] * p->stride[i];
            to += rest % p->dim[i] * to_stride[i];
            rest /= p->dim[i];
        }
        const char *x = c->from + (size_t)from * p->bytes;
        char *y = c->to + (size_t)to * p->bytes;

        if (runs) {
            memcpy(y, x, (size_t)p->dim[last] * p->bytes);
            continue;
        }
        int64_t rows = p->dim[p->unit], columns = p->dim[last], to_step = to_stride[p->unit], from_step = p->stride[last];

        switch (p->bytes) {
        case 1:
            transpose_uint8_t((uint8_t *)y, (const uint8_t *)x, rows, columns, to_step, from_step);
            break;
        case 2:
            transpose_uint16_t((uint16_t *)y, (const uint16_t *)x, rows, columns, to_step, from_step);
            break;
        case 4:
            transpose_uint32_t((uint32_t *)y, (const uint32_t *)x, rows, columns, to_step, from_step);
            break;
        default:
            transpose_uint64_t((uint64_t *)y, (const uint64_t *)x, rows, columns, to_step, from_step);
            break;
        }
    }
}

static void transpose_run(const struct kernel_call *c)
{
    const struct transpose_plan *p = c->prepared;
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape);

    if (p->rank == 0 || n == 0) { /* one element, or none */
        memcpy(c->out[0], c->in[0], (size_t)n * p->bytes);
        return;
    }
    team_run(p->device, p->outer, team_grain(n / p->outer), transpose_part, &(struct move_call){p, c->in[0], c->out[0]});
}

/* --- runs: `count` runs of `bytes` at regular places ------------------------------------------------------------------ */

struct runs {
    char *to;
    const char *from;
    size_t bytes, to_step, from_step;
};

static void copy_runs(const void *context, int64_t begin, int64_t end)
{
    const struct runs *r = context;

    for (size_t i = (size_t)begin; i < (size_t)end; i++)
        memcpy(r->to + i * r->to_step, r->from + i * r->from_step, r->bytes);
}

static void run_copies(const struct device *d, int64_t count, struct runs r)
{
    if (r.bytes)
        team_run(d, count, team_grain((int64_t)r.bytes / 2), copy_runs, &r);
}

static int64_t span(const struct shape *s, int begin, int end)
{
    int64_t n = 1;

    for (int i = begin; i < end; i++)
        n *= s->dim[i];
    return n;
}

static void concat_run(const struct kernel_call *c)
{
    const struct concat *how = c->node->attr;
    const struct shape *to = &OUT_VALUE(c, 0)->shape;
    size_t size = dtype_bytes(OUT_VALUE(c, 0)->type), row = (size_t)span(to, how->axis, to->rank) * size, at = 0;

    for (int k = 0; k < c->node->n_in; k++) {
        size_t part = (size_t)span(&IN_VALUE(c, k)->shape, how->axis, to->rank) * size;

        run_copies(DEVICE(c), span(to, 0, how->axis), (struct runs){(char *)c->out[0] + at, c->in[k], part, row, part});
        at += part;
    }
}

static void slice_run(const struct kernel_call *c)
{
    const struct slice *how = c->node->attr;
    const struct shape *from = &IN_VALUE(c, 0)->shape;
    size_t inner = (size_t)span(from, how->axis + 1, from->rank) * dtype_bytes(IN_VALUE(c, 0)->type);
    size_t row = (size_t)from->dim[how->axis] * inner, part = (size_t)(how->end - how->begin) * inner;

    run_copies(DEVICE(c), span(from, 0, how->axis),
               (struct runs){c->out[0], (const char *)c->in[0] + (size_t)how->begin * inner, part, part, row});
}

static void copy_run(const struct kernel_call *c)
{
    size_t bytes = value_bytes(OUT_VALUE(c, 0)), piece = (size_t)1 << 16;

    if (c->out[0] == c->in[0])
        return;
    run_copies(DEVICE(c), (int64_t)(bytes / piece), (struct runs){c->out[0], c->in[0], piece, piece, piece});
    memcpy((char *)c->out[0] + bytes / piece * piece, (const char *)c->in[0] + bytes / piece * piece, bytes % piece);
}

static void reverse_run(const struct kernel_call *c)
{
    const struct reverse *how = c->node->attr;
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    size_t inner = (size_t)span(s, how->axis + 1, s->rank) * dtype_bytes(IN_VALUE(c, 0)->type);
    int64_t length = s->dim[how->axis], outer = span(s, 0, how->axis);
    size_t row = (size_t)length * inner;

    if (outer <= length) {
        for (int64_t i = 0; i < outer; i++) /* the runs of one row go backwards: a negative step */
            run_copies(DEVICE(c), length,
                       (struct runs){(char *)c->out[0] + (size_t)i * row,
                                     (const char *)c->in[0] + (size_t)i * row + (row - inner), inner, inner, -inner});
    } else {
        for (int64_t k = 0; k < length; k++)
            run_copies(DEVICE(c), outer,
                       (struct runs){(char *)c->out[0] + (size_t)k * inner,
                                     (const char *)c->in[0] + (size_t)(length - 1 - k) * inner, inner, row, row});
    }
}

/* --- pad: all is filled, then the input's runs are laid in ------------------------------------------------------------ */

static void pad_run(const struct kernel_call *c)
{
    const struct pad *how = c->node->attr;
    const struct value *x = IN_VALUE(c, 0), *y = OUT_VALUE(c, 0);
    size_t size = dtype_bytes(x->type), total = value_bytes(y);
    int64_t to_stride[MAX_RANK], at[MAX_RANK] = {0}, base = 0, run = 1;
    struct shape outer = x->shape;
    int inner = x->shape.rank;
    char *to = c->out[0];
    const char *from = c->in[0];

    if (!total)
        return;
    if (how->value == 0) {
        memset(to, 0, total);
    } else if (y->type == F32) {
        DEVICE(c)->simd->formulas->fill((float *)to, how->value, (int64_t)(total / size));
    } else {
        element_put(to, y->type, 0, (double)how->value);
        for (size_t done = size; done < total; done *= 2) /* doubles what is filled */
            memcpy(to + done, to, done < total - done ? done : total - done);
    }
    strides_of(&y->shape, to_stride);
    for (int i = 0; i < x->shape.rank; i++)
        base += how->before[i] * to_stride[i];
    /* trailing axes without padding, and the one before them, are one run */
    while (inner > 0) {
        inner--;
        run *= x->shape.dim[inner];
        if (how->before[inner] || how->after[inner])
            break;
    }
    outer.rank = inner;
    for (int64_t i = 0, n = shape_count(&outer); run && i < n; i++, advance(&outer, at))
        memcpy(to + (size_t)(base + dot_strides(inner, at, to_stride)) * size, from + (size_t)(i * run) * size,
               (size_t)run * size);
}

/* --- store and cast --------------------------------------------------------------------------------------------------- */

static void store_run(const struct kernel_call *c)
{
    if (c->node->n_in < 2 || !c->in[1] || element(c->in[1], IN_VALUE(c, 1)->type, 0) != 0)
        memmove(c->out[0], c->in[0], value_bytes(OUT_VALUE(c, 0)));
}

struct cast_call {
    const struct device *device;
    const char *from;
    char *to;
    enum dtype from_type, to_type;
};

static KERNEL_PREPARE(cast_prepare)
{
    if (values[n->out[0]].type != F32 && values[n->in[0]].type != F32)
        return fail(problem, ST_UNSUPPORTED, "", "a cast without float32");
    return prepare_plain(d, n, values, ret, scratch, problem);
}

static void cast_part(const void *context, int64_t begin, int64_t end)
{
    const struct cast_call *c = context;
    const float *x = (const float *)c->from;

    if (c->to_type == F32) {
        c->device->simd->formulas->load((float *)c->to + begin, c->from + (size_t)begin * dtype_bytes(c->from_type),
                                        (int)c->from_type, end - begin);
        return;
    }
#define TO(type)                                       \
    case type:                                         \
        for (int64_t i = begin; i < end; i++)          \
            element_put(c->to, type, i, (double)x[i]); \
        break
    switch (c->to_type) {
        TO(F64);
        TO(F16);
        TO(BF16);
        TO(I64);
        TO(I32);
        TO(U8);
        TO(BOOL);
    case F32:
    case N_DTYPES:
        break;
    }
#undef TO
}

static void cast_run(const struct kernel_call *c)
{
    const struct device *d = DEVICE(c);

    team_run(d, shape_count(&OUT_VALUE(c, 0)->shape), TEAM_GRAIN, cast_part,
             &(struct cast_call){d, c->in[0], c->out[0], IN_VALUE(c, 0)->type, OUT_VALUE(c, 0)->type});
}

const struct kernel kernel_transpose = {"transpose", "move.transpose", transpose_prepare, transpose_run, release_plain};
const struct kernel kernel_concat = {"concat", "move.concat", prepare_plain, concat_run, release_plain};
const struct kernel kernel_slice = {"slice", "move.slice", prepare_plain, slice_run, release_plain};
const struct kernel kernel_copy = {"copy", "move.copy", prepare_plain, copy_run, release_plain};
const struct kernel kernel_reverse = {"reverse", "move.reverse", prepare_plain, reverse_run, release_plain};
const struct kernel kernel_pad = {"pad", "move.pad", prepare_plain, pad_run, release_plain};
const struct kernel kernel_store = {"store", "move.store", prepare_plain, store_run, release_plain};
const struct kernel kernel_cast = {"cast", "move.cast", cast_prepare, cast_run, release_plain};
