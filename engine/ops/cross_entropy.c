/* Cross-entropy of softmax(x) with targets y, in one op, since the logarithm of a softmax loses no digits this way.
 *
 *   loss = -sum_k y_k (x_k - log sum_j exp x_j)           sparse: -(x_c - log sum_j exp x_j)
 *   dx = (p sum_k y_k - y) dloss,  p = softmax(x)         sparse: (p - [k = c]) dloss
 *
 * Only the sum of y for a distribution is 1, so it stays in the formula. p is kept for the gradient instead of x. A class
 * outside 0 .. k-1 makes the loss and the gradient of its row NaN, so that the check of each step finds it. */
#include "engine/ops/ops.h"

#include <math.h>

#include "engine/ops/all.h"
#include "engine/ops/element.h"

/* y against x (..., k): sparse y is (...) or (..., 1), dense y as x. */
static enum status check_target(bool sparse, const struct value *x, const struct value *y, struct problem *problem)
{
    const struct shape *xs = &x->shape, *ys = &y->shape;
    int want = sparse ? xs->rank - 1 : xs->rank;
    bool fits = xs->rank >= 1 && (ys->rank == want || (sparse && ys->rank == want + 1 && dims_agree(ys->dim[want], 1)));

    for (int i = 0; fits && i < want; i++)
        fits = dims_agree(xs->dim[i], ys->dim[i]);
    if (!fits)
        return no_fit(problem, "%s targets of shape %s do not fit predictions of shape %s",
                      sparse ? "class numbers as" : "distributions as", shape_text(ys).s, shape_text(xs).s);
    if (x->type != F32)
        return no_fit(problem, "cross-entropy needs float32 predictions, not %s", dtype_name(x->type));
    return ST_OK;
}

static enum status cross_entropy_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct cross_entropy *how = n->attr;

    TRY(check_target(how->sparse, &in[0], &in[1], problem));
    out[0].shape = shape_without(&in[0].shape, in[0].shape.rank - 1);
    out[1].shape = in[0].shape;
    out[0].type = out[1].type = F32;
    return ST_OK;
}

static void cross_entropy_reference(const struct kernel_call *c)
{
    const struct cross_entropy *how = c->node->attr;
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    enum dtype y_type = IN_VALUE(c, 1)->type;
    int64_t rows = rows_of(s), k = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[0] + r * k;
        float *p = (float *)c->out[1] + r * k;
        double largest = -INFINITY, sum = 0, loss = 0;

        for (int64_t i = 0; i < k; i++)
            largest = x[i] > largest || isnan(x[i]) ? x[i] : largest;
        for (int64_t i = 0; i < k; i++)
            sum += exp((double)x[i] - largest);
        if (how->sparse) {
            int64_t class = element_index(c->in[1], y_type, r, k);

            loss = class < 0 ? NAN : log(sum) - ((double)x[class] - largest);
        } else {
            for (int64_t i = 0; i < k; i++) {
                double y = element(c->in[1], y_type, r * k + i);

                loss += y == 0 ? 0 : y * (log(sum) - ((double)x[i] - largest)); /* 0 log 0 is 0 */
            }
        }
        for (int64_t i = 0; i < k; i++)
            p[i] = (float)(exp((double)x[i] - largest) / sum);
        ((float *)c->out[0])[r] = isnan(sum) ? NAN : (float)loss;
    }
}

static enum status cross_entropy_dx_infer(const struct node *n, const struct value *in, struct value *out,
                                          struct problem *problem)
{
    const struct cross_entropy *how = n->attr;
    struct shape rows = shape_without(&in[0].shape, in[0].shape.rank - 1);

    TRY(check_target(how->sparse, &in[0], &in[1], problem));
    if (!shapes_agree(&rows, &in[2].shape))
        return no_fit(problem, "the loss is %s, its gradient %s", shape_text(&rows).s, shape_text(&in[2].shape).s);
    out->shape = in[0].shape;
    out->type = F32;
    return ST_OK;
}

static void cross_entropy_dx_reference(const struct kernel_call *c)
{
    const struct cross_entropy *how = c->node->attr;
    const struct shape *s = &IN_VALUE(c, 0)->shape;
    enum dtype y_type = IN_VALUE(c, 1)->type;
    int64_t rows = rows_of(s), k = width_of(s);

    for (int64_t r = 0; r < rows; r++) {
        const float *p = (const float *)c->in[0] + r * k;
        float *dx = (float *)c->out[0] + r * k;
        double d = ((const float *)c->in[2])[r], sum = 1;
        int64_t class = -1;

        if (how->sparse) {
            class = element_index(c->in[1], y_type, r, k);
            sum = class < 0 ? NAN : 1;
        } else {
            sum = 0;
            for (int64_t i = 0; i < k; i++)
                sum += element(c->in[1], y_type, r * k + i);
        }
        for (int64_t i = 0; i < k; i++) {
            double y = how->sparse ? i == class : element(c->in[1], y_type, r * k + i);

            dx[i] = (float)(((double)p[i] * sum - y) * d);
        }
    }
}

static void cross_entropy_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    if (!need[0])
        return;
    if (dout[0])
        din[0] = emit(b, &op_cross_entropy_dx, n->attr, (value_id[]){n->out[1], n->in[1], dout[0]}, 3, 1);
    if (dout[1]) {
        value_id d = emit(b, &op_softmax_dx, NULL, (value_id[]){n->out[1], dout[1]}, 2, 1);

        din[0] = din[0] ? emit_add(b, din[0], d) : d;
    }
}

static double cross_entropy_flops(const struct node *n, const struct value *values)
{
    return 4.0 * (double)shape_count(&values[n->in[0]].shape);
}

value_id emit_cross_entropy(struct build *b, value_id logits, value_id y, bool sparse)
{
    if (!logits || !y)
        return 0;
    return emit(b, &op_cross_entropy, &(struct cross_entropy){sparse}, (value_id[]){logits, y}, 2, 2);
}

const struct op op_cross_entropy = {
    .name = "cross_entropy",
    .attr_size = sizeof(struct cross_entropy),
    .infer = cross_entropy_infer,
    .grad = cross_entropy_grad,
    .reference = cross_entropy_reference,
    .flops = cross_entropy_flops,
};

const struct op op_cross_entropy_dx = {
    .name = "cross_entropy_dx",
    .flags = OP_IN_PLACE,
    .attr_size = sizeof(struct cross_entropy),
    .infer = cross_entropy_dx_infer,
    .reference = cross_entropy_dx_reference,
};
