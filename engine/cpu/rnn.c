/* LSTM over a sequence.
 *
 * Forward: one product of all inputs with W, then per step one product with U and one fused cell per row. Rows of the batch are
 * independent in the recurrence, so the team splits the batch once and needs no barrier per step. z of row n and step t lies
 * at (n time + t): the product with U writes through that stride, and backward the same matrix of dz gives dW, dU, dx and the
 * bias' gradient by one product or sum each. Backward, U and W are turned once: products of few rows with a transposed right
 * side are slow in every library (32 x 128 x 512, oneDNN 2.6, AVX-512: 38 us, turned 24; turning takes 16).
 *
 * tanh with sigmoid, which is Keras' default, has a cell of its own; any other pair runs the formulas of the activations. */
#include "engine/cpu/formula.h"
#include "engine/cpu/product.h"

#include <string.h>

#include "engine/ops/element.h"

enum { IN_X, IN_W, IN_U, IN_BIAS, IN_H0, IN_C0, IN_MASK, IN_SEQUENCE, IN_GATES, IN_CELLS, IN_DSEQUENCE, IN_DH, IN_DC };
enum { OUT_SEQUENCE, OUT_H, OUT_C, OUT_GATES, OUT_CELLS };
enum { OUT_DW, OUT_DU, OUT_DBIAS, OUT_DH0, OUT_DC0, OUT_DX };

/* y = f(x) and dx = dy f'(x), for one row of units. */
struct curve {
    struct formula_program *value, *slope;
};

struct rnn_plan {
    const struct device *device;
    struct rnn how;
    int64_t batch, time, in, units;
    bool fast, keeps_sums;
    struct curve inner, gate;
    size_t mask_at, line_at, rows_at, before_at, sums_at, u_at, w_at; /* bytes in scratch; z or dz at 0 */
};

static struct formula_program *compile(const struct formula *f, int64_t units, int n_in)
{
    struct value v = {.shape = SHAPE(units), .type = F32};
    const struct value *in[MAX_FORMULA_IN];
    uint32_t same[MAX_FORMULA_OUT];

    for (int i = 0; i < n_in; i++)
        in[i] = &v;
    for (int i = 0; i < MAX_FORMULA_OUT; i++)
        same[i] = ~0u; /* any row may be written over */
    return formula_compile(f, in, &v.shape, same, NULL);
}

static bool curve_make(int which, int64_t units, struct curve *ret)
{
    struct formula f = {0}, g = {0};
    bool uses[MAX_FORMULA_IN] = {0};
    term y;

    if (!activation_term(&f, which, f_in(&f), &y))
        return false;
    f_out(&f, y);
    if (!formula_grad(&f, (bool[]){true}, &g, uses))
        return false;
    ret->value = compile(&f, units, 1);
    ret->slope = compile(&g, units, 3); /* x, y, dy */
    return true;
}

static void rnn_release(void *prepared)
{
    struct rnn_plan *p = prepared;

    (void)formula_free(p->inner.value);
    (void)formula_free(p->inner.slope);
    (void)formula_free(p->gate.value);
    (void)formula_free(p->gate.slope);
    free_null(p);
}

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;

    *at += (bytes + 63) & ~(size_t)63;
    return here;
}

static KERNEL_PREPARE(rnn_prepare)
{
    const struct rnn *how = n->attr;
    const struct shape *x = &values[n->in[IN_X]].shape;
    bool backward = n->n_in > IN_SEQUENCE;
    struct rnn_plan *p;
    size_t row;

    for (int i = 0; i < n->n_in; i++)
        if (n->in[i] && i != IN_MASK && values[n->in[i]].type != F32)
            return fail(problem, ST_UNSUPPORTED, "", "only float32");
    p = must_alloc(sizeof *p);
    *p = (struct rnn_plan){.device = d,
                           .how = *how,
                           .batch = x->dim[0],
                           .time = x->dim[1],
                           .in = x->dim[2],
                           .units = values[n->in[IN_U]].shape.dim[0],
                           .keeps_sums = rnn_keeps_sums(how)};
    p->fast = how->activation == activation_find("tanh") && how->recurrent_activation == activation_find("sigmoid");
    if (p->batch * p->time * p->units == 0 || (!p->fast && (!curve_make(how->activation, p->units, &p->inner) ||
                                                            !curve_make(how->recurrent_activation, p->units, &p->gate)))) {
        rnn_release(p);
        return fail(problem, ST_UNSUPPORTED, "", "this activation or an empty sequence");
    }
    row = (size_t)p->units * sizeof(float);
    (void)place(scratch, (size_t)(p->batch * p->time) * 4 * row);
    p->mask_at = place(scratch, n->in[IN_MASK] ? (size_t)(p->batch * p->time) : 0);
    p->line_at = place(scratch, (size_t)p->device->threads * 16 * row); /* per thread; the first also zeros for no bias */
    if (backward) {
        p->rows_at = place(scratch, 3 * (size_t)p->batch * row); /* dh, what the product gives, what masked outputs carry */
        p->before_at = place(scratch, (size_t)(p->batch * p->time) * row);
        p->sums_at = place(scratch, 4 * (size_t)p->units * sizeof(double));
        p->u_at = place(scratch, 4 * (size_t)p->units * row);
        p->w_at = place(scratch, 4 * (size_t)p->in * row);
    } else {
        p->rows_at = place(scratch, 4 * row); /* zeros for a bias */
    }
    *ret = p;
    return ST_OK;
}

struct rnn_call {
    const struct rnn_plan *p;
    const struct kernel_call *c;
    float *z;            // (batch, time, 4 units): z, then dz
    const uint8_t *mask; // (batch, time), NULL: all valid
    const float *bias;
};

static void convert_mask(const struct rnn_plan *p, const struct kernel_call *c, struct rnn_call *call)
{
    uint8_t *mask = (uint8_t *)c->scratch + p->mask_at;

    if (!c->in[IN_MASK])
        return;
    for (int64_t i = 0; i < p->batch * p->time; i++)
        mask[i] = element(c->in[IN_MASK], IN_VALUE(c, IN_MASK)->type, i) != 0;
    call->mask = mask;
}

/* Row of the input that processing step t reads. */
static int64_t source(const struct rnn_plan *p, int64_t t)
{
    return p->how.reverse ? p->time - 1 - t : t;
}

static bool is_valid(const struct rnn_call *r, int64_t n, int64_t at)
{
    return !r->mask || r->mask[n * r->p->time + at];
}

static float *own_line(const struct rnn_call *r)
{
    return (float *)((char *)r->c->scratch + r->p->line_at) + (int64_t)team_member() * 16 * r->p->units;
}

static void apply(const struct rnn_plan *p, const struct formula_program *f, const float *a, const float *b, const float *c,
                  float *to)
{
    formula_run(p->device, f, (void *const[]){(void *)a, (void *)b, (void *)c}, (void *const[]){to});
}

/* --- forward ---------------------------------------------------------------------------------------------------------- */

/* The cell by formulas: z gets the bias and stays the sums; gates what is kept. */
static void any_cell(const struct rnn_call *r, float *z, float *c, float *h, float *y, float *gates)
{
    const struct rnn_plan *p = r->p;
    int64_t units = p->units;
    float *value = own_line(r), *curved = value + 4 * units;

    p->device->simd->sums->add(z, r->bias, 4 * units);
    for (int part = 0; part < 4; part++)
        apply(p, part == 2 ? p->inner.value : p->gate.value, z + part * units, NULL, NULL, value + part * units);
    for (int64_t k = 0; k < units; k++)
        c[k] = value[units + k] * c[k] + value[k] * value[2 * units + k];
    apply(p, p->inner.value, c, NULL, NULL, curved);
    for (int64_t k = 0; k < units; k++)
        h[k] = y[k] = value[3 * units + k] * curved[k];
    if (gates)
        memcpy(gates, p->keeps_sums ? z : value, (size_t)(4 * units) * sizeof(float));
}

static void forward_row(const struct rnn_call *r, int64_t n, int64_t t)
{
    const struct rnn_plan *p = r->p;
    const struct kernel_call *c = r->c;
    bool training = c->node->n_out > OUT_GATES;
    int64_t units = p->units, at = source(p, t);
    size_t bytes = (size_t)units * sizeof(float);
    float *y = (float *)c->out[OUT_SEQUENCE] + (n * p->time + t) * units;
    float *h = (float *)c->out[OUT_H] + n * units, *cell = (float *)c->out[OUT_C] + n * units;
    float *z = r->z + (n * p->time + at) * 4 * units;
    float *gates = training ? (float *)c->out[OUT_GATES] + (t * p->batch + n) * 4 * units : NULL;

    if (!is_valid(r, n, at)) {
        if (t > 0 && !p->how.zero_output_for_mask)
            memcpy(y, y - units, bytes);
        else
            memset(y, 0, bytes);
        if (gates)
            memset(gates, 0, 4 * bytes);
    } else if (p->fast) {
        p->device->simd->cells->cell(units, z, r->bias, cell, h, y, gates ? gates : own_line(r));
    } else {
        any_cell(r, z, cell, h, y, gates);
    }
    if (training)
        memcpy((float *)c->out[OUT_CELLS] + (t * p->batch + n) * units, cell, bytes);
}

static void forward_part(const void *context, int64_t begin, int64_t end)
{
    const struct rnn_call *r = context;
    const struct rnn_plan *p = r->p;
    const float *h = (const float *)r->c->out[OUT_H] + begin * p->units;

    for (int64_t t = 0; t < p->time; t++) {
        float *z = r->z + (begin * p->time + source(p, t)) * 4 * p->units;

        if (t > 0 || r->c->in[IN_H0])
            product(p->device, false, false, end - begin, 4 * p->units, p->units, h, p->units, r->c->in[IN_U], 4 * p->units, 1,
                    z, p->time * 4 * p->units);
        for (int64_t n = begin; n < end; n++)
            forward_row(r, n, t);
    }
}

static void start_state(float *to, const void *from, int64_t n)
{
    if (from)
        memcpy(to, from, (size_t)n * sizeof(float));
    else
        memset(to, 0, (size_t)n * sizeof(float));
}

/* Rows of the batch that are worth a thread. */
static int64_t row_grain(const struct rnn_plan *p)
{
    return 1 + 65536 / (p->time * p->units * 16 + 1);
}

static void rnn_run(const struct kernel_call *c)
{
    const struct rnn_plan *p = c->prepared;
    struct rnn_call r = {.p = p, .c = c, .z = c->scratch, .bias = c->in[IN_BIAS]};

    if (!r.bias) {
        float *zeros = (float *)((char *)c->scratch + p->rows_at);

        memset(zeros, 0, (size_t)(4 * p->units) * sizeof(float));
        r.bias = zeros;
    }
    convert_mask(p, c, &r);
    start_state(c->out[OUT_H], c->in[IN_H0], p->batch * p->units);
    start_state(c->out[OUT_C], c->in[IN_C0], p->batch * p->units);
    product(p->device, false, false, p->batch * p->time, 4 * p->units, p->in, c->in[IN_X], p->in, c->in[IN_W], 4 * p->units, 0,
            r.z, 4 * p->units);
    team_run(p->device, p->batch, row_grain(p), forward_part, &r);
}

/* --- backward --------------------------------------------------------------------------------------------------------- */

/* dz of one row by formulas: the gates' gradients go through the slopes of their curves. */
static void any_cell_dx(const struct rnn_call *r, const float *kept, const float *cell, const float *before, const float *dh,
                        float *dc, float *dz)
{
    const struct rnn_plan *p = r->p;
    int64_t units = p->units;
    float *value = own_line(r), *curved = value + 4 * units, *arriving = curved + units, *inside = arriving + units;

    for (int part = 0; part < 4; part++)
        if (p->keeps_sums)
            apply(p, part == 2 ? p->inner.value : p->gate.value, kept + part * units, NULL, NULL, value + part * units);
        else
            memcpy(value + part * units, kept + part * units, (size_t)units * sizeof(float));
    apply(p, p->inner.value, cell, NULL, NULL, curved);
    for (int64_t k = 0; k < units; k++)
        arriving[k] = dh[k] * value[3 * units + k];
    apply(p, p->inner.slope, cell, curved, arriving, inside);
    for (int64_t k = 0; k < units; k++) {
        dc[k] += inside[k];
        dz[k] = dc[k] * value[2 * units + k];
        dz[units + k] = dc[k] * before[k];
        dz[2 * units + k] = dc[k] * value[k];
        dz[3 * units + k] = dh[k] * curved[k];
        dc[k] *= value[units + k];
    }
    for (int part = 0; part < 4; part++)
        apply(p, part == 2 ? p->inner.slope : p->gate.slope, kept + part * units, value + part * units, dz + part * units,
              dz + part * units);
}

struct backward_rows {
    float *dh, *given, *carried, *dc; // (batch, units)
};

static struct backward_rows rows_at(const struct rnn_call *r)
{
    float *first = (float *)((char *)r->c->scratch + r->p->rows_at);
    int64_t size = r->p->batch * r->p->units;

    return (struct backward_rows){first, first + size, first + 2 * size, r->c->out[OUT_DC0]};
}

static void backward_row(const struct rnn_call *r, const struct backward_rows *b, int64_t n, int64_t t)
{
    const struct rnn_plan *p = r->p;
    const struct kernel_call *c = r->c;
    int64_t units = p->units, at = source(p, t), step = (t * p->batch + n) * units;
    const float *dy = c->in[IN_DSEQUENCE] ? (const float *)c->in[IN_DSEQUENCE] + (n * p->time + t) * units : NULL;
    const float *cells = c->in[IN_CELLS], *gates = (const float *)c->in[IN_GATES] + 4 * step;
    float *dh = b->dh + n * units, *dc = b->dc + n * units, *carried = b->carried + n * units;
    float *dz = r->z + (n * p->time + at) * 4 * units, *zeros = own_line(r) + 8 * units;
    const float *before;

    if (!is_valid(r, n, at)) { /* its output is that of the step before, or nothing */
        if (dy && !p->how.zero_output_for_mask)
            p->device->simd->sums->add(carried, dy, units);
        memset(dz, 0, (size_t)(4 * units) * sizeof(float));
        return;
    }
    if (dy)
        p->device->simd->sums->add(dh, dy, units);
    if (r->mask) {
        p->device->simd->sums->add(dh, carried, units);
        memset(carried, 0, (size_t)units * sizeof(float));
    }
    before = t > 0 ? cells + step - p->batch * units : c->in[IN_C0] ? (const float *)c->in[IN_C0] + n * units : NULL;
    if (!before) {
        memset(zeros, 0, (size_t)units * sizeof(float));
        before = zeros;
    }
    if (p->fast)
        p->device->simd->cells->cell_dx(units, gates, cells + step, before, dh, dc, dz);
    else
        any_cell_dx(r, gates, cells + step, before, dh, dc, dz);
}

#define TILE 16

/* to (columns, rows) = the transpose of from (rows, columns), in tiles that stay in L1. */
static void turn(float *to, const float *from, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i += TILE)
        for (int64_t j = 0; j < columns; j += TILE)
            for (int64_t k = j; k < j + TILE && k < columns; k++)
                for (int64_t l = i; l < i + TILE && l < rows; l++)
                    to[k * rows + l] = from[l * columns + k];
}

static void backward_part(const void *context, int64_t begin, int64_t end)
{
    const struct rnn_call *r = context;
    const struct rnn_plan *p = r->p;
    struct backward_rows b = rows_at(r);
    const float *u = (const float *)((char *)r->c->scratch + p->u_at); // (4 units, units)
    int64_t units = p->units;

    for (int64_t t = p->time - 1; t >= 0; t--) {
        int64_t at = source(p, t);

        for (int64_t n = begin; n < end; n++)
            backward_row(r, &b, n, t);
        product(p->device, false, false, end - begin, units, 4 * units, r->z + (begin * p->time + at) * 4 * units,
                p->time * 4 * units, u, units, 0, (r->mask ? b.given : b.dh) + begin * units, units);
        for (int64_t n = begin; r->mask && n < end; n++)
            if (is_valid(r, n, at))
                memcpy(b.dh + n * units, b.given + n * units, (size_t)units * sizeof(float));
    }
}

/* h before each step, in the order of x's rows: zeros for a masked step, whose dz is zero too. */
static void before_part(const void *context, int64_t begin, int64_t end)
{
    const struct rnn_call *r = context;
    const struct rnn_plan *p = r->p;
    size_t bytes = (size_t)p->units * sizeof(float);
    float *all = (float *)((char *)r->c->scratch + p->before_at);

    for (int64_t n = begin; n < end; n++) {
        const float *h = r->c->in[IN_H0] ? (const float *)r->c->in[IN_H0] + n * p->units : NULL;

        for (int64_t t = 0; t < p->time; t++) {
            int64_t at = source(p, t);
            float *to = all + (n * p->time + at) * p->units;

            if (h && is_valid(r, n, at))
                memcpy(to, h, bytes);
            else
                memset(to, 0, bytes);
            if (is_valid(r, n, at))
                h = (const float *)r->c->in[IN_SEQUENCE] + (n * p->time + t) * p->units;
        }
    }
}

static void rnn_dx_run(const struct kernel_call *c)
{
    const struct rnn_plan *p = c->prepared;
    struct rnn_call r = {.p = p, .c = c, .z = c->scratch};
    struct backward_rows b = rows_at(&r);
    int64_t rows = p->batch * p->time, width = 4 * p->units, state = p->batch * p->units;
    float *before = (float *)((char *)c->scratch + p->before_at);
    double *sums = (double *)((char *)c->scratch + p->sums_at);
    float *u = (float *)((char *)c->scratch + p->u_at), *w = (float *)((char *)c->scratch + p->w_at);

    convert_mask(p, c, &r);
    turn(u, c->in[IN_U], p->units, width);
    start_state(b.dh, c->in[IN_DH], state);
    start_state(b.dc, c->in[IN_DC], state);
    memset(b.carried, 0, (size_t)state * sizeof(float));
    team_run(p->device, p->batch, row_grain(p), backward_part, &r);
    memcpy(c->out[OUT_DH0], b.dh, (size_t)state * sizeof(float));
    team_run(p->device, p->batch, team_grain(p->time * p->units), before_part, &r);
    product(p->device, true, false, p->in, width, rows, c->in[IN_X], p->in, r.z, width, 0, c->out[OUT_DW], width);
    product(p->device, true, false, p->units, width, rows, before, p->units, r.z, width, 0, c->out[OUT_DU], width);
    p->device->simd->sums->sum_rows(sums, r.z, rows, width, false);
    for (int64_t i = 0; i < width; i++)
        ((float *)c->out[OUT_DBIAS])[i] = (float)sums[i];
    if (c->node->n_out > OUT_DX && c->out[OUT_DX]) {
        turn(w, c->in[IN_W], p->in, width);
        product(p->device, false, false, rows, p->in, width, r.z, width, w, p->in, 0, c->out[OUT_DX], p->in);
    }
}

const struct kernel kernel_rnn = {"rnn_seq", "rnn.forward", rnn_prepare, rnn_run, rnn_release};
const struct kernel kernel_rnn_dx = {"rnn_seq_dx", "rnn.dx", rnn_prepare, rnn_dx_run, rnn_release};
