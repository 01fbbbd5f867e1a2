/* Softmax, its gradient and cross-entropy: rows split over the team. */
#include "engine/cpu/cpu.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

#define ROW_GRAIN(n) team_grain((n)*4) /* an exponential per element */

struct rows_call {
    const struct simd *simd;
    const float *x, *t, *d;
    const int32_t *classes;
    float *y, *loss;
    int64_t n;
};

static KERNEL_PREPARE(rows_prepare)
{
    TRY(all_f32(n, values, problem));
    return prepare_plain(d, n, values, ret, scratch, problem);
}

static void softmax_part(const void *context, int64_t begin, int64_t end)
{
    const struct rows_call *c = context;

    c->simd->rows->softmax(c->y + begin * c->n, c->x + begin * c->n, end - begin, c->n);
}

static void softmax_run(const struct kernel_call *c)
{
    const struct device *d = DEVICE(c);
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    struct rows_call call = {.simd = d->simd, .x = c->in[0], .y = c->out[0], .n = width_of(s)};

    team_run(d, rows_of(s), ROW_GRAIN(call.n), softmax_part, &call);
}

static void softmax_dx_part(const void *context, int64_t begin, int64_t end)
{
    const struct rows_call *c = context;

    c->simd->rows->softmax_dx(c->y + begin * c->n, c->x + begin * c->n, c->d + begin * c->n, end - begin, c->n);
}

static void softmax_dx_run(const struct kernel_call *c)
{
    const struct device *d = DEVICE(c);
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    struct rows_call call = {.simd = d->simd, .x = c->in[0], .d = c->in[1], .y = c->out[0], .n = width_of(s)};

    team_run(d, rows_of(s), team_grain(call.n), softmax_dx_part, &call);
}

/* --- cross-entropy: targets are brought to float32, class numbers to int32, in scratch -------------------------------- */

static KERNEL_PREPARE(cross_entropy_prepare)
{
    const struct cross_entropy *how = n->attr;
    const struct shape *x = &values[n->in[0]].shape;

    if (width_of(x) > INT32_MAX || !width_of(x))
        return fail(problem, ST_UNSUPPORTED, "", "so many classes");
    if (how->sparse)
        *scratch = (size_t)rows_of(x) * sizeof(int32_t);
    else if (values[n->in[1]].type != F32)
        *scratch = (size_t)shape_count(x) * sizeof(float);
    return prepare_plain(d, n, values, ret, scratch, problem);
}

/* Fills t or classes of the call. */
static void targets(const struct kernel_call *c, struct rows_call *call, int64_t rows)
{
    const struct cross_entropy *how = c->node->attr;
    enum dtype type = IN_VALUE(c, 1)->type;

    if (how->sparse) {
        int32_t *classes = c->scratch;

        for (int64_t r = 0; r < rows; r++)
            classes[r] = (int32_t)element_index(c->in[1], type, r, call->n);
        call->classes = classes;
    } else if (type == F32) {
        call->t = c->in[1];
    } else {
        call->simd->formulas->load(c->scratch, c->in[1], type, rows * call->n);
        call->t = c->scratch;
    }
}

static void cross_entropy_part(const void *context, int64_t begin, int64_t end)
{
    const struct rows_call *c = context;
    int64_t at = begin * c->n;

    if (c->classes)
        c->simd->rows->cross_entropy_sparse(c->loss + begin, c->y + at, c->x + at, c->classes + begin, end - begin, c->n);
    else
        c->simd->rows->cross_entropy(c->loss + begin, c->y + at, c->x + at, c->t + at, end - begin, c->n);
}

static void cross_entropy_run(const struct kernel_call *c)
{
    const struct device *d = DEVICE(c);
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    struct rows_call call = {.simd = d->simd, .x = c->in[0], .loss = c->out[0], .y = c->out[1], .n = width_of(s)};

    targets(c, &call, rows_of(s));
    team_run(d, rows_of(s), ROW_GRAIN(call.n), cross_entropy_part, &call);
}

static void cross_entropy_dx_part(const void *context, int64_t begin, int64_t end)
{
    const struct rows_call *c = context;
    int64_t at = begin * c->n;

    if (c->classes)
        c->simd->rows->cross_entropy_sparse_dx(c->y + at, c->x + at, c->classes + begin, c->d + begin, end - begin, c->n);
    else
        c->simd->rows->cross_entropy_dx(c->y + at, c->x + at, c->t + at, c->d + begin, end - begin, c->n);
}

static void cross_entropy_dx_run(const struct kernel_call *c)
{
    const struct device *d = DEVICE(c);
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    struct rows_call call = {.simd = d->simd, .x = c->in[0], .d = c->in[2], .y = c->out[0], .n = width_of(s)};

    targets(c, &call, rows_of(s));
    team_run(d, rows_of(s), team_grain(call.n), cross_entropy_dx_part, &call);
}

const struct kernel kernel_softmax = {"softmax", "softmax.forward", rows_prepare, softmax_run, release_plain};
const struct kernel kernel_softmax_dx = {"softmax_dx", "softmax.dx", rows_prepare, softmax_dx_run, release_plain};
const struct kernel kernel_cross_entropy = {"cross_entropy", "softmax.cross_entropy", cross_entropy_prepare, cross_entropy_run,
                                            release_plain};
const struct kernel kernel_cross_entropy_dx = {"cross_entropy_dx", "softmax.cross_entropy_dx", cross_entropy_prepare,
                                               cross_entropy_dx_run, release_plain};
