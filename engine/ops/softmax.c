/* Softmax, its logarithm, and sparsemax over the last axis, with gradients that read the result instead of x.
 *
 *   softmax       y = exp(x - max) / sum exp(x - max)      dx = y (dy - sum dy y)      the shift only avoids overflow
 *   log_softmax   y = x - max - log sum exp(x - max)       dx = dy - exp(y) sum dy
 *   sparsemax     y = max(x - tau, 0), sum y = 1           dx = dy - mean of dy over y > 0, where y > 0; else 0
 *
 * tau: Martins & Astudillo 2016, arXiv:1602.02068, algorithm 1. Keras 3.15 differs: it subtracts another threshold (all
 * partial sums added up instead of the last), so that its results do not sum to 1. Rows are independent. */
#include "engine/ops/ops.h"

#include <math.h>
#include <stdlib.h>

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static enum status row_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    if (in->shape.rank < 1)
        return no_fit(problem, "%s needs at least one axis, the input is a scalar", n->op->name);
    if (in->type != F32)
        return no_fit(problem, "%s needs float32, the input is %s", n->op->name, dtype_name(in->type));
    out->shape = in->shape;
    out->type = F32;
    return ST_OK;
}

static enum status row_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    if (!shapes_agree(&in[0].shape, &in[1].shape))
        return no_fit(problem, "%s: the result is %s, its gradient %s", n->op->name, shape_text(&in[0].shape).s,
                      shape_text(&in[1].shape).s);
    return row_infer(n, in, out, problem);
}

/* Both y and dy are read row by row before dx is written. */
static bool either_shares(const struct node *n, int in)
{
    (void)n, (void)in;
    return true;
}

static float largest_of(const float *x, int64_t n)
{
    float largest = -INFINITY;

    for (int64_t i = 0; i < n; i++)
        largest = x[i] > largest || isnan(x[i]) ? x[i] : largest;
    return largest;
}

static void softmax_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[0] + r * n;
        float *y = (float *)c->out[0] + r * n, shift = largest_of(x, n);
        double sum = 0;

        for (int64_t i = 0; i < n; i++)
            sum += exp((double)x[i] - shift);
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)(exp((double)x[i] - shift) / sum);
    }
}

static void softmax_dx_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *y = (const float *)c->in[0] + r * n, *dy = (const float *)c->in[1] + r * n;
        float *dx = (float *)c->out[0] + r * n;
        double dot = 0;

        for (int64_t i = 0; i < n; i++)
            dot += (double)y[i] * (double)dy[i];
        for (int64_t i = 0; i < n; i++)
            dx[i] = (float)((double)y[i] * ((double)dy[i] - dot));
    }
}

static void softmax_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)need;
    din[0] = emit(b, &op_softmax_dx, NULL, (value_id[]){n->out[0], dout[0]}, 2, 1);
}

static void log_softmax_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[0] + r * n;
        float *y = (float *)c->out[0] + r * n, shift = largest_of(x, n);
        double sum = 0;

        for (int64_t i = 0; i < n; i++)
            sum += exp((double)x[i] - shift);
        for (int64_t i = 0; i < n; i++)
            y[i] = (float)((double)x[i] - shift - log(sum));
    }
}

static void log_softmax_dx_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *y = (const float *)c->in[0] + r * n, *dy = (const float *)c->in[1] + r * n;
        float *dx = (float *)c->out[0] + r * n;
        double sum = 0;

        for (int64_t i = 0; i < n; i++)
            sum += dy[i];
        for (int64_t i = 0; i < n; i++)
            dx[i] = (float)((double)dy[i] - exp(y[i]) * sum);
    }
}

static void log_softmax_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)need;
    din[0] = emit(b, &op_log_softmax_dx, NULL, (value_id[]){n->out[0], dout[0]}, 2, 1);
}

/* tau with sum of max(x - tau, 0) = 1. The set of elements above tau only shrinks while tau = (sum of the set - 1) / size
 * rises, so this ends after at most n passes and needs no sorted copy (Condat 2016, "Fast projection onto the simplex",
 * section 2). */
static double sparsemax_threshold(const float *x, int64_t n)
{
    double shift = largest_of(x, n), tau = -INFINITY; /* relative to the largest element */
    int64_t size = n + 1;

    for (;;) {
        double sum = 0;
        int64_t above = 0;

        for (int64_t i = 0; i < n; i++)
            if ((double)x[i] - shift > tau) {
                sum += (double)x[i] - shift;
                above++;
            }
        if (above == 0 || above >= size)
            return shift + tau;
        size = above;
        tau = (sum - 1) / (double)above;
    }
}

static void sparsemax_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[0] + r * n;
        float *y = (float *)c->out[0] + r * n;
        double tau = sparsemax_threshold(x, n);

        for (int64_t i = 0; i < n; i++)
            y[i] = isnan(tau) ? NAN : (float)fmax((double)x[i] - tau, 0);
    }
}

static void sparsemax_dx_reference(const struct kernel_call *c)
{
    const struct shape *s = &OUT_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), n = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *y = (const float *)c->in[0] + r * n, *dy = (const float *)c->in[1] + r * n;
        float *dx = (float *)c->out[0] + r * n;
        double sum = 0;
        int64_t support = 0;

        for (int64_t i = 0; i < n; i++)
            if (y[i] > 0) {
                sum += dy[i];
                support++;
            }
        for (int64_t i = 0; i < n; i++)
            dx[i] = y[i] > 0 ? (float)((double)dy[i] - sum / (double)support) : isnan(y[i]) ? NAN : 0;
    }
}

static void sparsemax_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)need;
    din[0] = emit(b, &op_sparsemax_dx, NULL, (value_id[]){n->out[0], dout[0]}, 2, 1);
}

value_id emit_softmax(struct build *b, value_id x)
{
    return x ? emit(b, &op_softmax, NULL, &x, 1, 1) : 0;
}

value_id emit_log_softmax(struct build *b, value_id x)
{
    return x ? emit(b, &op_log_softmax, NULL, &x, 1, 1) : 0;
}

value_id emit_sparsemax(struct build *b, value_id x)
{
    return x ? emit(b, &op_sparsemax, NULL, &x, 1, 1) : 0;
}

const struct op op_softmax = {
    .name = "softmax",
    .flags = OP_IN_PLACE,
    .infer = row_infer,
    .grad = softmax_grad,
    .reference = softmax_reference,
};

const struct op op_softmax_dx = {
    .name = "softmax_dx",
    .flags = OP_IN_PLACE,
    .infer = row_dx_infer,
    .reference = softmax_dx_reference,
    .shares = either_shares,
};

const struct op op_log_softmax = {
    .name = "log_softmax",
    .flags = OP_IN_PLACE,
    .infer = row_infer,
    .grad = log_softmax_grad,
    .reference = log_softmax_reference,
};

const struct op op_log_softmax_dx = {
    .name = "log_softmax_dx",
    .flags = OP_IN_PLACE,
    .infer = row_dx_infer,
    .reference = log_softmax_dx_reference,
    .shares = either_shares,
};

const struct op op_sparsemax = {
    .name = "sparsemax",
    .flags = OP_IN_PLACE,
    .infer = row_infer,
    .grad = sparsemax_grad,
    .reference = sparsemax_reference,
};

const struct op op_sparsemax_dx = {
    .name = "sparsemax_dx",
    .flags = OP_IN_PLACE,
    .infer = row_dx_infer,
    .reference = sparsemax_dx_reference,
    .shares = either_shares,
};
