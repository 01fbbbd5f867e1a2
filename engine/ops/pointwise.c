/* Pointwise formulas as an op, as an effect, and the handful that everybody writes.
 *
 * The gradient is a formula too, made by formula_grad(). All gradients that are wanted come from one node, since they share
 * most of their terms; those of broadcast inputs are summed afterwards.
 *
 * update_rows is an update of which one input is given by some of its rows, all others being zeros: an optimizer's step for a
 * table that was looked up. Every element is computed, since momentum moves rows that have no gradient. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static enum status broadcast_inputs(const struct node *n, const struct value *in, struct shape *ret, struct problem *problem)
{
    struct shape shape = SCALAR;

    for (int i = 0; i < n->n_in; i++)
        if (!shape_broadcast(&shape, &in[i].shape, &shape))
            return no_fit(problem, "the shapes %s and %s do not fit each other element by element", shape_text(&shape).s,
                          shape_text(&in[i].shape).s);
    *ret = shape;
    return ST_OK;
}

static enum status pointwise_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    struct shape shape;

    TRY(broadcast_inputs(n, in, &shape, problem));
    for (int i = 0; i < n->n_out; i++) {
        out[i].shape = shape;
        out[i].type = (enum dtype)((const struct formula *)n->attr)->type;
    }
    return ST_OK;
}

/* Whether `out` are leaves that a formula over `shape` can write. */
static enum status check_written(const struct shape *shape, const struct value *out, int n_out, struct problem *problem)
{
    for (int i = 0; i < n_out; i++)
        if (!shapes_agree(&out[i].shape, shape) || out[i].type != F32)
            return no_fit(problem, "an update gives float32 %s, the state is %s %s", shape_text(shape).s,
                          dtype_name(out[i].type), shape_text(&out[i].shape).s);
    return ST_OK;
}

static enum status update_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    struct shape shape;

    TRY(broadcast_inputs(n, in, &shape, problem));
    return check_written(&shape, out, n->n_out, problem);
}

static enum status update_rows_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct update_rows *how = n->attr;
    const struct value *given = &in[how->by_rows], *where = &in[n->n_in - 1];
    struct shape shape = SCALAR;

    for (int i = 0; i < n->n_in - 1; i++)
        if (i != how->by_rows && !shape_broadcast(&shape, &in[i].shape, &shape))
            return no_fit(problem, "the shapes %s and %s do not fit each other element by element", shape_text(&shape).s,
                          shape_text(&in[i].shape).s);
    if (given->shape.rank != 2 || where->shape.rank != 1 || where->type != I32 || !shape_known(&shape) ||
        shape_count(&shape) != where->shape.dim[0] * given->shape.dim[1])
        return no_fit(problem, "rows of %s, placed by %s, do not make a whole of %s", shape_text(&given->shape).s,
                      shape_text(&where->shape).s, shape_text(&shape).s);
    return check_written(&shape, out, n->n_out, problem);
}

static void pointwise_reference(const struct kernel_call *c)
{
    const struct formula *f = c->node->attr;
    const struct shape *shape = &OUT_VALUE(c, 0)->shape;
    int64_t stride[MAX_FORMULA_IN][MAX_RANK], at[MAX_RANK] = {0}, n = shape_count(shape);
    float in[MAX_FORMULA_IN] = {0}, out[MAX_FORMULA_OUT];

    for (int k = 0; k < f->n_in; k++)
        strides_broadcast(&IN_VALUE(c, k)->shape, shape, stride[k]);
    for (int64_t i = 0; i < n; i++, advance(shape, at)) {
        for (int k = 0; k < f->n_in; k++)
            in[k] = (float)element(c->in[k], IN_VALUE(c, k)->type, dot_strides(shape->rank, at, stride[k]));
        formula_value(f, in, out);
        for (int k = 0; k < f->n_out; k++)
            if (f->type == BF16)
                ((uint16_t *)c->out[k])[i] = bfloat_of_float(out[k]);
            else
                ((float *)c->out[k])[i] = out[k];
    }
}

static void update_rows_reference(const struct kernel_call *c)
{
    const struct update_rows *how = c->node->attr;
    const struct formula *f = &how->formula;
    const struct shape *shape = &OUT_VALUE(c, 0)->shape;
    const int32_t *where = c->in[f->n_in];
    int64_t stride[MAX_FORMULA_IN][MAX_RANK], at[MAX_RANK] = {0}, n = shape_count(shape);
    int64_t width = IN_VALUE(c, how->by_rows)->shape.dim[1];
    float in[MAX_FORMULA_IN] = {0}, out[MAX_FORMULA_OUT];

    for (int k = 0; k < f->n_in; k++)
        if (k != how->by_rows)
            strides_broadcast(&IN_VALUE(c, k)->shape, shape, stride[k]);
    for (int64_t i = 0; i < n; i++, advance(shape, at)) {
        int64_t row = where[i / width];

        for (int k = 0; k < f->n_in; k++)
            if (k == how->by_rows)
                in[k] = row < 0 ? 0 : ((const float *)c->in[k])[row * width + i % width];
            else
                in[k] = (float)element(c->in[k], IN_VALUE(c, k)->type, dot_strides(shape->rank, at, stride[k]));
        formula_value(f, in, out);
        for (int k = 0; k < f->n_out; k++)
            ((float *)c->out[k])[i] = out[k];
    }
}

/* Any input of the output's type: each element is read before it is written. */
static bool pointwise_shares(const struct node *n, int in)
{
    (void)n, (void)in;
    return true;
}

static double formula_flops(const struct formula *f, const struct value *out)
{
    int operations = 0;

    for (int i = 0; i < f->n_terms; i++)
        operations += f->terms[i].code != TERM_IN && f->terms[i].code != TERM_CONST;
    return (double)operations * (double)shape_count(&out->shape);
}

static double pointwise_flops(const struct node *n, const struct value *values)
{
    return formula_flops(n->attr, &values[n->out[0]]);
}

static double update_rows_flops(const struct node *n, const struct value *values)
{
    return formula_flops(&((const struct update_rows *)n->attr)->formula, &values[n->out[0]]);
}

/* With the type of the outputs as the formula has it. */
static value_id emit_formula_as(struct build *b, const struct formula *f, const value_id *in)
{
    if (f->full || !f->n_out)
        return build_fail(b, ST_UNSUPPORTED, "an element-wise formula has more than %d terms, %d inputs or %d outputs",
                          MAX_TERMS, MAX_FORMULA_IN, MAX_FORMULA_OUT);
    for (int i = 0; i < f->n_in; i++)
        if (!in[i])
            return 0;
    return emit(b, &op_pointwise, f, in, f->n_in, f->n_out);
}

/* Gradients of the inputs with need[i], at most MAX_FORMULA_OUT of them. */
static void grad_some(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    const struct formula *f = n->attr;
    struct formula whole = {0}, g = {0};
    bool uses[MAX_FORMULA_IN] = {0};
    value_id given[MAX_FORMULA_IN] = {0}, in[MAX_FORMULA_IN], first;
    term terms[MAX_FORMULA_IN], outs[MAX_FORMULA_OUT];
    int kept[MAX_FORMULA_IN], wanted[MAX_FORMULA_OUT], n_wanted = 0, k = 0;

    if (f->n_in + 2 * f->n_out > MAX_FORMULA_IN || !formula_grad(f, need, &whole, uses)) {
        build_fail(b, ST_UNSUPPORTED, "the gradient of an element-wise formula of %d terms needs too many terms", f->n_terms);
        return;
    }
    for (int i = 0; i < f->n_in; i++)
        given[k++] = n->in[i];
    for (int i = 0; i < f->n_out; i++)
        given[k++] = n->out[i];
    for (int i = 0; i < f->n_out; i++)
        given[k++] = dout[i];
    /* an output without a gradient counts as the constant 0, which folds away */
    for (int i = 0; i < k; i++)
        terms[i] = given[i] && uses[i] ? f_in(&g) : f_const(&g, 0);
    for (int i = 0, j = 0; i < k; i++)
        if (given[i] && uses[i])
            in[j++] = given[i];
    formula_inline(&g, &whole, terms, outs);
    for (int i = 0, j = 0; i < f->n_in; i++) {
        if (!need[i])
            continue;
        term t = outs[j++];
        if (g.terms[t].code == TERM_CONST && g.terms[t].constant == 0)
            continue;
        f_out(&g, t);
        wanted[n_wanted++] = i;
    }
    if (!n_wanted)
        return;
    formula_trim(&g, kept);
    for (int i = 0; i < g.n_in; i++)
        in[i] = in[kept[i]];
    g.type = BF16; /* where all that they belong to is bfloat16 */
    for (int i = 0; i < n_wanted; i++)
        if (value_of(b, n->in[wanted[i]])->type != BF16)
            g.type = F32;
    first = emit_formula_as(b, &g, in);
    for (int i = 0; i < n_wanted; i++) {
        struct shape shape = shape_of(b, n->in[wanted[i]]);

        din[wanted[i]] = emit_sum_to(b, build_out(b, first, i), &shape);
    }
}

static void pointwise_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    for (int begin = 0; begin < n->n_in;) {
        bool some[MAX_FORMULA_IN] = {0};
        int count = 0;

        for (; begin < n->n_in && count < MAX_FORMULA_OUT; begin++)
            if (need[begin] && is_float(value_of(b, n->in[begin])->type)) {
                some[begin] = true;
                count++;
            }
        if (count)
            grad_some(b, n, dout, some, din);
    }
}

value_id emit_formula(struct build *b, const struct formula *f, const value_id *in)
{
    struct formula typed = *f;
    bool narrow = false, wide = false;

    for (int i = 0; i < f->n_in; i++) {
        enum dtype t = value_of(b, in[i])->type;

        narrow = narrow || t == BF16;
        wide = wide || (is_float(t) && t != BF16);
    }
    typed.type = narrow && !wide ? BF16 : F32;
    return emit_formula_as(b, &typed, in);
}

void emit_update(struct build *b, const struct formula *f, const value_id *in, const value_id *out)
{
    struct formula guarded = {0};
    value_id all[MAX_FORMULA_IN + MAX_FORMULA_OUT + 2];
    term terms[MAX_FORMULA_IN + MAX_FORMULA_OUT + 1], outs[MAX_FORMULA_OUT];
    int n = 0;

    for (int i = 0; i < f->n_in; i++)
        if (!in[i])
            return;
    for (int i = 0; i < f->n_out; i++)
        if (!out[i])
            return;
    for (int i = 0; i < f->n_in; i++) {
        all[n] = in[i];
        terms[n++] = f_in(&guarded);
    }
    formula_inline(&guarded, f, terms, outs);
    if (b->ok) {
        term ok = f_in(&guarded);

        all[n] = b->ok;
        terms[n++] = ok;
        for (int i = 0; i < f->n_out; i++) {
            int old = 0;

            while (old < n && all[old] != out[i])
                old++;
            if (old == n) {
                all[n] = out[i];
                terms[n++] = f_in(&guarded);
            }
            outs[i] = f_select(&guarded, ok, outs[i], terms[old]);
        }
    }
    for (int i = 0; i < f->n_out; i++)
        f_out(&guarded, outs[i]);
    if (f->full || guarded.full || !f->n_out) {
        build_fail(b, ST_UNSUPPORTED, "an update has more than %d terms, %d inputs or %d outputs", MAX_TERMS, MAX_FORMULA_IN,
                   MAX_FORMULA_OUT);
        return;
    }
    for (int i = 0; i < n && b->by_rows; i++)
        if (all[i] == b->by_rows) {
            struct update_rows how = {guarded, i};

            all[n] = b->where;
            emit_effect(b, &op_update_rows, &how, all, n + 1, out, f->n_out);
            return;
        }
    emit_effect(b, &op_pointwise_update, &guarded, all, n, out, f->n_out);
}

static enum status fill_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct fill *how = n->attr;

    (void)in;
    TRY(shape_checked(&how->shape, "", problem));
    out->shape = how->shape;
    out->type = F32;
    return ST_OK;
}

static void fill_reference(const struct kernel_call *c)
{
    const struct fill *how = c->node->attr;
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape);

    for (int64_t i = 0; i < n; i++)
        ((float *)c->out[0])[i] = how->value;
}

value_id emit_fill(struct build *b, const struct shape *shape, float value)
{
    return emit(b, &op_fill, &(struct fill){.shape = *shape, .value = value}, NULL, 0, 1);
}

static value_id emit_binary(struct build *b, value_id x, value_id y, term (*operation)(struct formula *, term, term))
{
    struct formula f = {0};
    term s = f_in(&f), t = f_in(&f);

    f_out(&f, operation(&f, s, t));
    return emit_formula(b, &f, (value_id[]){x, y});
}

value_id emit_add(struct build *b, value_id x, value_id y)
{
    return emit_binary(b, x, y, f_add);
}

value_id emit_sub(struct build *b, value_id x, value_id y)
{
    return emit_binary(b, x, y, f_sub);
}

value_id emit_mul(struct build *b, value_id x, value_id y)
{
    return emit_binary(b, x, y, f_mul);
}

value_id emit_div(struct build *b, value_id x, value_id y)
{
    return emit_binary(b, x, y, f_div);
}

value_id emit_scale(struct build *b, value_id x, double k)
{
    struct formula f = {0};
    term t = f_in(&f);

    f_out(&f, f_mul(&f, t, f_const(&f, k)));
    return emit_formula(b, &f, &x);
}

value_id emit_shift(struct build *b, value_id x, double k)
{
    struct formula f = {0};
    term t = f_in(&f);

    f_out(&f, f_add(&f, t, f_const(&f, k)));
    return emit_formula(b, &f, &x);
}

value_id emit_sigmoid(struct build *b, value_id x)
{
    struct formula f = {0};
    term t = f_in(&f);

    f_out(&f, f_sigmoid(&f, t));
    return emit_formula(b, &f, &x);
}

const struct op op_pointwise = {
    .name = "pointwise",
    .flags = OP_IN_PLACE | OP_BFLOAT,
    .attr_size = sizeof(struct formula),
    .infer = pointwise_infer,
    .grad = pointwise_grad,
    .reference = pointwise_reference,
    .shares = pointwise_shares,
    .flops = pointwise_flops,
};

const struct op op_pointwise_update = {
    .name = "pointwise_update",
    .flags = OP_EFFECT | OP_BFLOAT,
    .attr_size = sizeof(struct formula),
    .infer = update_infer,
    .reference = pointwise_reference,
    .flops = pointwise_flops,
};

const struct op op_update_rows = {
    .name = "update_rows",
    .flags = OP_EFFECT,
    .attr_size = sizeof(struct update_rows),
    .infer = update_rows_infer,
    .reference = update_rows_reference,
    .flops = update_rows_flops,
};

const struct op op_fill = {
    .name = "fill",
    .attr_size = sizeof(struct fill),
    .infer = fill_infer,
    .reference = fill_reference,
};
