/* Batch normalisation over all axes but the last.
 *
 *   m = mean of x    v = mean of (x - m)^2    s = 1 / sqrt(v + epsilon)    t = (x - m) s    y = gamma t + beta
 *   dbeta = sum dy    dgamma = sum dy t    dx = gamma s (dy - dbeta / n - t dgamma / n)
 *
 * n rows, sums over them. Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1 and the equations below it. s is kept for the
 * gradient; the moments may have gradients of their own: dx += dm / n + 2 (x - m) dv / n. */
#include "engine/ops/ops.h"

#include <math.h>

#include "engine/ops/all.h"
#include "engine/ops/element.h"

enum { OUT_Y, OUT_MEAN, OUT_VARIANCE, OUT_INVERSE };

static enum status check_vector(const struct value *v, int64_t channels, const char *name, struct problem *problem)
{
    if (v->shape.rank != 1 || !dims_agree(v->shape.dim[0], channels) || v->type != F32)
        return no_fit(problem, "%s must be float32 (%lld,), it is %s %s", name, (long long)channels, dtype_name(v->type),
                      shape_text(&v->shape).s);
    return ST_OK;
}

static enum status batch_norm_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct shape *x = &in[0].shape;
    int64_t channels;

    if (x->rank < 2 || in[0].type != F32)
        return no_fit(problem, "batch normalisation needs float32 of rank 2 or more, not %s %s", dtype_name(in[0].type),
                      shape_text(x).s);
    channels = x->dim[x->rank - 1];
    if (n->in[1])
        TRY(check_vector(&in[1], channels, "gamma", problem));
    if (n->in[2])
        TRY(check_vector(&in[2], channels, "beta", problem));
    out[OUT_Y].shape = *x;
    for (int i = OUT_MEAN; i <= OUT_INVERSE; i++)
        out[i].shape = SHAPE(channels);
    for (int i = OUT_Y; i <= OUT_INVERSE; i++)
        out[i].type = F32;
    return ST_OK;
}

static void batch_norm_reference(const struct kernel_call *c)
{
    const struct batch_norm *how = c->node->attr;
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    int64_t rows = rows_of(s), channels = width_of(s);
    const float *x = c->in[0], *gamma = c->in[1], *beta = c->in[2];

    for (int64_t k = 0; k < channels; k++) {
        double mean = 0, variance = 0, inverse;

        for (int64_t r = 0; r < rows; r++)
            mean += x[r * channels + k];
        mean /= (double)rows;
        for (int64_t r = 0; r < rows; r++)
            variance += (x[r * channels + k] - mean) * (x[r * channels + k] - mean);
        variance /= (double)rows;
        inverse = 1 / sqrt(variance + (double)how->epsilon);
        for (int64_t r = 0; r < rows; r++)
            ((float *)c->out[OUT_Y])[r * channels + k] =
                (float)((x[r * channels + k] - mean) * inverse * (gamma ? gamma[k] : 1) + (beta ? beta[k] : 0));
        ((float *)c->out[OUT_MEAN])[k] = (float)mean;
        ((float *)c->out[OUT_VARIANCE])[k] = (float)variance;
        ((float *)c->out[OUT_INVERSE])[k] = (float)inverse;
    }
}

/* inputs: dy, x, gamma or 0, mean, inverse */
static enum status batch_norm_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    out[0].shape = in[1].shape;
    out[1].shape = out[2].shape = in[3].shape;
    out[0].type = out[1].type = out[2].type = F32;
    return ST_OK;
}

static void batch_norm_dx_reference(const struct kernel_call *c)
{
    const struct shape *s = &IN_VALUE(c, 1)->shape;
    int64_t rows = rows_of(s), channels = width_of(s);
    const float *dy = c->in[0], *x = c->in[1], *gamma = c->in[2], *mean = c->in[3], *inverse = c->in[4];

    for (int64_t k = 0; k < channels; k++) {
        double dgamma = 0, dbeta = 0, m = mean[k], i = inverse[k], scale = i * (gamma ? gamma[k] : 1);

        for (int64_t r = k; r < rows * channels; r += channels) {
            dgamma += dy[r] * (x[r] - m) * i;
            dbeta += dy[r];
        }
        for (int64_t r = k; r < rows * channels; r += channels)
            ((float *)c->out[0])[r] = (float)(scale * (dy[r] - (dbeta + (x[r] - m) * i * dgamma) / (double)rows));
        ((float *)c->out[1])[k] = (float)dgamma;
        ((float *)c->out[2])[k] = (float)dbeta;
    }
}

static value_id moments_grad(struct build *b, const struct node *n, value_id dmean, value_id dvariance)
{
    struct shape shape = shape_of(b, n->in[0]), mean = shape_of(b, n->out[OUT_MEAN]);
    double rows = (double)shape_count(&shape) / (double)shape_count(&mean);
    struct formula f = {0};
    value_id in[4] = {n->in[0], n->out[OUT_MEAN]};
    term x = f_in(&f), m = f_in(&f), d = f_const(&f, 0);
    int k = 2;

    if (dmean) {
        in[k++] = dmean;
        d = f_add(&f, d, f_mul(&f, f_in(&f), f_const(&f, 1 / rows)));
    }
    if (dvariance) {
        in[k++] = dvariance;
        d = f_add(&f, d, f_mul(&f, f_mul(&f, f_sub(&f, x, m), f_in(&f)), f_const(&f, 2 / rows)));
    }
    f_out(&f, d);
    return emit_expand(b, emit_formula(b, &f, in), &shape);
}

static void batch_norm_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    value_id in[] = {dout[OUT_Y], n->in[0], n->in[1], n->out[OUT_MEAN], n->out[OUT_INVERSE]};

    if (dout[OUT_Y]) {
        value_id dx = emit(b, &op_batch_norm_dx, n->attr, in, 5, 3);

        din[0] = dx;
        din[1] = need[1] ? build_out(b, dx, 1) : 0;
        din[2] = need[2] ? build_out(b, dx, 2) : 0;
    }
    if (need[0] && (dout[OUT_MEAN] || dout[OUT_VARIANCE])) {
        value_id d = moments_grad(b, n, dout[OUT_MEAN], dout[OUT_VARIANCE]);

        din[0] = din[0] ? emit_add(b, din[0], d) : d;
    }
}

static double batch_norm_flops(const struct node *n, const struct value *values)
{
    return 7.0 * (double)shape_count(&values[n->out[0]].shape);
}

struct batch_norm_out emit_batch_norm(struct build *b, value_id x, value_id gamma, value_id beta, struct batch_norm how)
{
    value_id y = x ? emit(b, &op_batch_norm, &how, (value_id[]){x, gamma, beta}, 3, 4) : 0;

    return (struct batch_norm_out){y, build_out(b, y, OUT_MEAN), build_out(b, y, OUT_VARIANCE)};
}

/* As one scale and one shift per channel, which depend on weights alone. */
value_id emit_batch_norm_fixed(struct build *b, value_id x, value_id gamma, value_id beta, value_id mean, value_id variance,
                               struct batch_norm how)
{
    struct formula f = {0}, apply = {0};
    value_id in[4] = {mean, variance}, scale, shift;
    term m = f_in(&f), v = f_in(&f), g, s;
    int k = 2;

    if (!x || !mean || !variance)
        return 0;
    g = f_const(&f, 1);
    if (gamma) {
        in[k++] = gamma;
        g = f_in(&f);
    }
    s = f_div(&f, g, f_sqrt(&f, f_add(&f, v, f_const(&f, (double)how.epsilon))));
    f_out(&f, s);
    if (beta) {
        in[k++] = beta;
        f_out(&f, f_sub(&f, f_in(&f), f_mul(&f, m, s)));
    } else {
        f_out(&f, f_neg(&f, f_mul(&f, m, s)));
    }
    scale = emit_formula(b, &f, in);
    shift = build_out(b, scale, 1);
    term x_ = f_in(&apply), scale_ = f_in(&apply), shift_ = f_in(&apply);

    f_out(&apply, f_add(&apply, f_mul(&apply, x_, scale_), shift_));
    return emit_formula(b, &apply, (value_id[]){x, scale, shift});
}

const struct op op_batch_norm = {
    .name = "batch_norm",
    .attr_size = sizeof(struct batch_norm),
    .infer = batch_norm_infer,
    .grad = batch_norm_grad,
    .reference = batch_norm_reference,
    .flops = batch_norm_flops,
};

const struct op op_batch_norm_dx = {
    .name = "batch_norm_dx",
    .attr_size = sizeof(struct batch_norm),
    .infer = batch_norm_dx_infer,
    .reference = batch_norm_dx_reference,
    .flops = batch_norm_flops,
};
