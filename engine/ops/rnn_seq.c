/* A whole recurrent sequence as one op: LSTM.
 *
 *   z = x W + h U + b, columns i f c o;   i = s(z_i)  f = s(z_f)  g = a(z_c)  o = s(z_o);   c = f c + i g;   h = o a(c)
 *
 *   back in time, with dh, dc arriving from the step after:
 *   do = dh a(c)   dc += dh o a'(c)   di = dc g   df = dc c_before   dg = dc i   dc_before = dc f
 *   dz = gates' derivatives;   dx = dz W^T   dh_before = dz U^T   dW += x dz   dU += h_before dz   db += dz
 *
 * Hochreiter & Schmidhuber 1997 with the forget gate of Gers, Schmidhuber, Cummins 2000. Masked steps as in Keras: the state
 * stays, the output is the one before (zeros at first) or zeros. Rows of the batch are independent but for the sums dW, dU,
 * db, which run over rows first to last and within a row over steps last to first. */
#include "engine/ops/ops.h"

#include "engine/base/arena.h"
#include "engine/ops/all.h"
#include "engine/ops/element.h"

enum {
    IN_X,
    IN_W,
    IN_U,
    IN_BIAS,
    IN_H0,
    IN_C0,
    IN_MASK,
    N_FORWARD_IN,
    IN_SEQUENCE = N_FORWARD_IN,
    IN_GATES,
    IN_CELLS,
    IN_DSEQUENCE,
    IN_DH,
    IN_DC,
    N_BACKWARD_IN
};
enum { OUT_SEQUENCE, OUT_H, OUT_C, OUT_GATES, OUT_CELLS, N_TRAINING_OUT };
enum { OUT_DW, OUT_DU, OUT_DBIAS, OUT_DH0, OUT_DC0, OUT_DX, N_BACKWARD_OUT };

/* An activation and its derivative as a function of argument and value. */
struct curve {
    struct formula value, derivative;
    bool needs_argument;
};

static bool curve_make(int which, struct curve *ret)
{
    bool uses[MAX_FORMULA_IN] = {0};
    term y;

    *ret = (struct curve){0};
    if (!activation_term(&ret->value, which, f_in(&ret->value), &y))
        return false;
    f_out(&ret->value, y);
    if (!formula_grad(&ret->value, (bool[]){true}, &ret->derivative, uses))
        return false;
    ret->needs_argument = uses[0];
    return true;
}

static double curve_at(const struct curve *c, double x)
{
    float in = (float)x, out;

    formula_value(&c->value, &in, &out);
    return out;
}

static double slope_at(const struct curve *c, double x, double y)
{
    float in[] = {(float)x, (float)y, 1}, out;

    formula_value(&c->derivative, in, &out);
    return out;
}

bool rnn_keeps_sums(const struct rnn *how)
{
    struct curve inner, gate;

    return curve_make(how->activation, &inner) && curve_make(how->recurrent_activation, &gate) &&
           (inner.needs_argument || gate.needs_argument);
}

struct sizes {
    int64_t batch, time, in, units;
};

static struct sizes sizes_of(const struct shape *x, const struct shape *u)
{
    return (struct sizes){x->dim[0], x->dim[1], x->dim[2], u->dim[0]};
}

/* Row of the input that processing step t reads. */
static int64_t source(const struct rnn *how, const struct sizes *s, int64_t t)
{
    return how->reverse ? s->time - 1 - t : t;
}

static bool is_masked(const struct kernel_call *c, const struct sizes *s, int64_t n, int64_t at)
{
    return c->in[IN_MASK] && element(c->in[IN_MASK], IN_VALUE(c, IN_MASK)->type, n * s->time + at) == 0;
}

/* --- forward ----------------------------------------------------------------------------------------------------------- */

static enum status check_part(const struct node *n, const struct value *in, int which, const char *name, struct shape want,
                              struct problem *problem)
{
    const struct shape *got = &in[which].shape;
    bool fits = got->rank == want.rank && (in[which].type == F32 || which == IN_MASK);

    for (int i = 0; fits && i < want.rank; i++)
        fits = dims_agree(got->dim[i], want.dim[i]);
    if (n->in[which] && !fits)
        return no_fit(problem, "the %s of an LSTM over %s must be %s, it is %s %s", name, shape_text(&in[IN_X].shape).s,
                      shape_text(&want).s, dtype_name(in[which].type), shape_text(got).s);
    return ST_OK;
}

static enum status rnn_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct shape *x = &in[IN_X].shape, *u = &in[IN_U].shape;

    if (x->rank != 3 || in[IN_X].type != F32)
        return no_fit(problem, "an LSTM needs float32 (batch, time, features), not %s %s", dtype_name(in[IN_X].type),
                      shape_text(x).s);
    if (u->rank != 2 || !dims_agree(u->dim[0] == -1 ? -1 : 4 * u->dim[0], u->dim[1]))
        return no_fit(problem, "the recurrent kernel of an LSTM must be (units, 4 units), it is %s", shape_text(u).s);

    int64_t units = u->dim[0], gates = units == -1 ? -1 : 4 * units;
    struct shape state = SHAPE(x->dim[0], units);

    TRY(check_part(n, in, IN_W, "kernel", SHAPE(x->dim[2], gates), problem));
    TRY(check_part(n, in, IN_U, "recurrent kernel", SHAPE(units, gates), problem));
    TRY(check_part(n, in, IN_BIAS, "bias", SHAPE(gates), problem));
    TRY(check_part(n, in, IN_H0, "initial state", state, problem));
    TRY(check_part(n, in, IN_C0, "initial cell state", state, problem));
    TRY(check_part(n, in, IN_MASK, "mask", SHAPE(x->dim[0], x->dim[1]), problem));
    out[OUT_SEQUENCE].shape = SHAPE(x->dim[0], x->dim[1], units);
    out[OUT_H].shape = out[OUT_C].shape = state;
    if (n->n_out > OUT_GATES) {
        out[OUT_GATES].shape = SHAPE(x->dim[1], x->dim[0], gates);
        out[OUT_CELLS].shape = SHAPE(x->dim[1], x->dim[0], units);
    }
    for (int i = 0; i < n->n_out; i++)
        out[i].type = F32;
    return ST_OK;
}

/* z (4 units) of one row and step. */
static void sums_at(const struct kernel_call *c, const struct sizes *s, const float *x, const float *h, double *z)
{
    const float *w = c->in[IN_W], *u = c->in[IN_U], *bias = c->in[IN_BIAS];
    int64_t width = 4 * s->units;

    for (int64_t j = 0; j < width; j++) {
        z[j] = bias ? bias[j] : 0;
        for (int64_t i = 0; i < s->in; i++)
            z[j] += (double)x[i] * (double)w[i * width + j];
        for (int64_t i = 0; i < s->units; i++)
            z[j] += (double)h[i] * (double)u[i * width + j];
    }
}

/* One valid step of one row: h and cell are the state before and after; gates (4 units) or NULL gets what is kept. */
static void cell_forward(const struct sizes *s, const struct curve *inner, const struct curve *gate, bool keep_sums,
                         const double *z, float *h, float *cell, float *gates)
{
    int64_t units = s->units;

    for (int64_t k = 0; k < units; k++) {
        double i = curve_at(gate, z[k]), f = curve_at(gate, z[units + k]);
        double g = curve_at(inner, z[2 * units + k]), o = curve_at(gate, z[3 * units + k]);

        cell[k] = (float)(f * (double)cell[k] + i * g);
        h[k] = (float)(o * curve_at(inner, cell[k]));
        for (int p = 0; gates && p < 4; p++)
            gates[p * units + k] = (float)(keep_sums ? z[p * units + k] : (const double[]){i, f, g, o}[p]);
    }
}

static void rnn_reference(const struct kernel_call *c)
{
    const struct rnn *how = c->node->attr;
    struct sizes s = sizes_of(&IN_VALUE(c, IN_X)->shape, &IN_VALUE(c, IN_U)->shape);
    bool keep_sums = rnn_keeps_sums(how), training = c->node->n_out > OUT_GATES;
    size_t bytes = sizeof(float) * (size_t)s.units;
    struct curve inner, gate;
    OWNED(free) double *z = must_alloc(sizeof(double) * 4 * (size_t)s.units);

    (void)curve_make(how->activation, &inner);
    (void)curve_make(how->recurrent_activation, &gate);
    for (int64_t n = 0; n < s.batch; n++) {
        float *h = (float *)c->out[OUT_H] + n * s.units, *cell = (float *)c->out[OUT_C] + n * s.units;
        const float *before = NULL; /* output of the step before */

        memset(h, 0, bytes);
        memset(cell, 0, bytes);
        if (c->in[IN_H0])
            memcpy(h, (const float *)c->in[IN_H0] + n * s.units, bytes);
        if (c->in[IN_C0])
            memcpy(cell, (const float *)c->in[IN_C0] + n * s.units, bytes);
        for (int64_t t = 0; t < s.time; t++) {
            int64_t at = source(how, &s, t);
            float *y = (float *)c->out[OUT_SEQUENCE] + (n * s.time + t) * s.units;
            float *gates = training ? (float *)c->out[OUT_GATES] + (t * s.batch + n) * 4 * s.units : NULL;

            if (!is_masked(c, &s, n, at)) {
                sums_at(c, &s, (const float *)c->in[IN_X] + (n * s.time + at) * s.in, h, z);
                cell_forward(&s, &inner, &gate, keep_sums, z, h, cell, gates);
                memcpy(y, h, bytes);
            } else {
                if (before && !how->zero_output_for_mask)
                    memcpy(y, before, bytes);
                else
                    memset(y, 0, bytes);
                if (gates)
                    memset(gates, 0, 4 * bytes);
            }
            if (training)
                memcpy((float *)c->out[OUT_CELLS] + (t * s.batch + n) * s.units, cell, bytes);
            before = y;
        }
    }
}

/* --- backward ---------------------------------------------------------------------------------------------------------- */

static enum status rnn_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct shape *x = &in[IN_X].shape, *u = &in[IN_U].shape;

    (void)problem;
    out[OUT_DW].shape = in[IN_W].shape;
    out[OUT_DU].shape = *u;
    out[OUT_DBIAS].shape = SHAPE(u->dim[1]);
    out[OUT_DH0].shape = out[OUT_DC0].shape = SHAPE(x->dim[0], u->dim[0]);
    if (n->n_out > OUT_DX)
        out[OUT_DX].shape = *x;
    for (int i = 0; i < n->n_out; i++)
        out[i].type = F32;
    return ST_OK;
}

struct backward { /* of one row; all in one piece of memory */
    double *dh, *dc, *carried, *dz, *dw, *du, *dbias;
};

/* Gates of one step and unit, and the derivatives of their activations. */
struct gate_values {
    double value[4], slope[4];
};

static struct gate_values gates_at(const float *kept, int64_t units, int64_t k, const struct curve *inner,
                                   const struct curve *gate, bool keep_sums)
{
    struct gate_values g;

    for (int p = 0; p < 4; p++) {
        const struct curve *curve = p == 2 ? inner : gate;
        double x = kept[p * units + k];

        g.value[p] = keep_sums ? curve_at(curve, x) : x;
        g.slope[p] = slope_at(curve, x, g.value[p]);
    }
    return g;
}

/* dz of one valid step of one row; d->dc becomes that of the step before, d->dh is cleared. */
static void cell_backward(const struct sizes *s, const struct curve *inner, const struct curve *gate, bool keep_sums,
                          const float *kept, const float *cell, const float *cell_before, struct backward *d)
{
    int64_t units = s->units;

    for (int64_t k = 0; k < units; k++) {
        struct gate_values g = gates_at(kept, units, k, inner, gate, keep_sums);
        double a = curve_at(inner, cell[k]);

        d->dc[k] += d->dh[k] * g.value[3] * slope_at(inner, cell[k], a);
        d->dz[k] = d->dc[k] * g.value[2] * g.slope[0];
        d->dz[units + k] = d->dc[k] * (cell_before ? cell_before[k] : 0) * g.slope[1];
        d->dz[2 * units + k] = d->dc[k] * g.value[0] * g.slope[2];
        d->dz[3 * units + k] = d->dh[k] * a * g.slope[3];
        d->dc[k] *= g.value[1];
        d->dh[k] = 0;
    }
}

/* Sums of the weights' gradients, and what goes on to x and to the state before. */
static void spread(const struct kernel_call *c, const struct sizes *s, const float *x, const float *h_before, float *dx,
                   struct backward *d)
{
    const float *w = c->in[IN_W], *u = c->in[IN_U];
    int64_t width = 4 * s->units;

    for (int64_t j = 0; j < width; j++)
        d->dbias[j] += d->dz[j];
    for (int64_t i = 0; i < s->in; i++) {
        double sum = 0;

        for (int64_t j = 0; j < width; j++) {
            d->dw[i * width + j] += (double)x[i] * d->dz[j];
            sum += d->dz[j] * (double)w[i * width + j];
        }
        if (dx)
            dx[i] = (float)sum;
    }
    for (int64_t i = 0; i < s->units; i++)
        for (int64_t j = 0; j < width; j++) {
            d->du[i * width + j] += (h_before ? (double)h_before[i] : 0) * d->dz[j];
            d->dh[i] += d->dz[j] * (double)u[i * width + j];
        }
}

/* State h before step t of row n: the output of the last valid step before it, else h0, else NULL for zeros. */
static const float *state_before(const struct kernel_call *c, const struct sizes *s, int64_t n, int64_t t)
{
    while (t-- > 0)
        if (!is_masked(c, s, n, source(c->node->attr, s, t)))
            return (const float *)c->in[IN_SEQUENCE] + (n * s->time + t) * s->units;
    return c->in[IN_H0] ? (const float *)c->in[IN_H0] + n * s->units : NULL;
}

static void add_row(double *to, const void *from, int64_t row, int64_t n)
{
    for (int64_t i = 0; from && i < n; i++)
        to[i] += ((const float *)from)[row * n + i];
}

static void store_row(void *to, int64_t row, const double *from, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        ((float *)to)[row * n + i] = (float)from[i];
}

static void row_backward(const struct kernel_call *c, const struct sizes *s, const struct curve *inner,
                         const struct curve *gate, bool keep_sums, int64_t n, struct backward *d)
{
    const struct rnn *how = c->node->attr;
    int64_t units = s->units;

    memset(d->dh, 0, sizeof(double) * (size_t)(3 * units)); /* dh, dc, carried */
    add_row(d->dh, c->in[IN_DH], n, units);
    add_row(d->dc, c->in[IN_DC], n, units);
    for (int64_t t = s->time - 1; t >= 0; t--) {
        int64_t at = source(how, s, t);
        float *dx = c->node->n_out > OUT_DX ? (float *)c->out[OUT_DX] + (n * s->time + at) * s->in : NULL;
        const float *cells = (const float *)c->in[IN_CELLS] + n * units; // (time, batch, units) from row n on
        bool masked = is_masked(c, s, n, at);

        if (masked) { /* its output is that of the step before, or nothing */
            if (!how->zero_output_for_mask)
                add_row(d->carried, c->in[IN_DSEQUENCE], n * s->time + t, units);
            if (dx)
                memset(dx, 0, sizeof(float) * (size_t)s->in);
            continue;
        }
        add_row(d->dh, c->in[IN_DSEQUENCE], n * s->time + t, units);
        for (int64_t k = 0; k < units; k++) {
            d->dh[k] += d->carried[k];
            d->carried[k] = 0;
        }
        const float *before = t > 0          ? cells + (t - 1) * s->batch * units
                              : c->in[IN_C0] ? (const float *)c->in[IN_C0] + n * units
                                             : NULL;

        cell_backward(s, inner, gate, keep_sums, (const float *)c->in[IN_GATES] + (t * s->batch + n) * 4 * units,
                      cells + t * s->batch * units, before, d);
        spread(c, s, (const float *)c->in[IN_X] + (n * s->time + at) * s->in, state_before(c, s, n, t), dx, d);
    }
    store_row(c->out[OUT_DH0], n, d->dh, units);
    store_row(c->out[OUT_DC0], n, d->dc, units);
}

static void rnn_dx_reference(const struct kernel_call *c)
{
    const struct rnn *how = c->node->attr;
    struct sizes s = sizes_of(&IN_VALUE(c, IN_X)->shape, &IN_VALUE(c, IN_U)->shape);
    int64_t units = s.units, width = 4 * units;
    OWNED(free) double *memory = must_alloc(sizeof(double) * (size_t)(3 * units + width * (s.in + units + 2)));
    struct backward d = {.dh = memory};
    struct curve inner, gate;
    bool keep_sums = rnn_keeps_sums(how);

    d.dc = d.dh + units;
    d.carried = d.dc + units;
    d.dz = d.carried + units;
    d.dw = d.dz + width;
    d.du = d.dw + s.in * width;
    d.dbias = d.du + units * width;
    (void)curve_make(how->activation, &inner);
    (void)curve_make(how->recurrent_activation, &gate);
    for (int64_t n = 0; n < s.batch; n++)
        row_backward(c, &s, &inner, &gate, keep_sums, n, &d);
    store_row(c->out[OUT_DW], 0, d.dw, s.in * width);
    store_row(c->out[OUT_DU], 0, d.du, units * width);
    store_row(c->out[OUT_DBIAS], 0, d.dbias, width);
}

static void rnn_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    value_id in[N_BACKWARD_IN], dw;

    if (n->n_out < N_TRAINING_OUT) {
        build_fail(b, ST_INTERNAL, "a recurrent sequence built for inference has kept nothing for a gradient");
        return;
    }
    for (int i = 0; i < N_FORWARD_IN; i++)
        in[i] = n->in[i];
    in[IN_SEQUENCE] = n->out[OUT_SEQUENCE];
    in[IN_GATES] = n->out[OUT_GATES];
    in[IN_CELLS] = n->out[OUT_CELLS];
    in[IN_DSEQUENCE] = dout[OUT_SEQUENCE];
    in[IN_DH] = dout[OUT_H];
    in[IN_DC] = dout[OUT_C];
    dw = emit(b, &op_rnn_seq_dx, n->attr, in, N_BACKWARD_IN, need[IN_X] ? N_BACKWARD_OUT : OUT_DX);
    din[IN_X] = need[IN_X] ? build_out(b, dw, OUT_DX) : 0;
    din[IN_W] = dw;
    din[IN_U] = build_out(b, dw, OUT_DU);
    din[IN_BIAS] = n->in[IN_BIAS] ? build_out(b, dw, OUT_DBIAS) : 0;
    din[IN_H0] = n->in[IN_H0] ? build_out(b, dw, OUT_DH0) : 0;
    din[IN_C0] = n->in[IN_C0] ? build_out(b, dw, OUT_DC0) : 0;
}

static double rnn_flops(const struct node *n, const struct value *values)
{
    struct sizes s = sizes_of(&values[n->in[IN_X]].shape, &values[n->in[IN_U]].shape);

    return (double)s.batch * (double)s.time * (double)s.units * (8.0 * (double)(s.in + s.units) + 10);
}

static double rnn_dx_flops(const struct node *n, const struct value *values)
{
    return 2 * rnn_flops(n, values);
}

struct rnn_out emit_rnn(struct build *b, value_id x, value_id w, value_id u, value_id bias, value_id h0, value_id c0,
                        value_id mask, struct rnn how)
{
    const int activations[] = {how.activation, how.recurrent_activation};
    value_id y;

    if (!x || !w || !u)
        return (struct rnn_out){0};
    for (int i = 0; i < 2; i++) {
        struct curve curve;

        if (!curve_make(activations[i], &curve)) {
            build_fail(b, ST_UNSUPPORTED, "the activation %s works on whole rows and cannot be used inside a recurrent layer",
                       activation_names[activations[i]]);
            return (struct rnn_out){0};
        }
    }
    how.training = b->training;
    y = emit(b, &op_rnn_seq, &how, (value_id[]){x, w, u, bias, h0, c0, mask}, N_FORWARD_IN,
             b->training ? N_TRAINING_OUT : OUT_GATES);
    return (struct rnn_out){y, build_out(b, y, OUT_H), build_out(b, y, OUT_C)};
}

const struct op op_rnn_seq = {
    .name = "rnn_seq",
    .attr_size = sizeof(struct rnn),
    .infer = rnn_infer,
    .grad = rnn_grad,
    .reference = rnn_reference,
    .flops = rnn_flops,
};

const struct op op_rnn_seq_dx = {
    .name = "rnn_seq_dx",
    .attr_size = sizeof(struct rnn),
    .infer = rnn_dx_infer,
    .reference = rnn_dx_reference,
    .flops = rnn_dx_flops,
};
