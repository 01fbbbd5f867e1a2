/* Effects on state: sums that outlive a step (metrics), and the step counter. Both are skipped where b->ok is 0. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static bool may_run(const struct kernel_call *c, int ok)
{
    return c->node->n_in <= ok || element(c->in[ok], IN_VALUE(c, ok)->type, 0) != 0;
}

static enum status accumulate_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n;
    if (out->type != F64)
        return no_fit(problem, "sums are kept in float64, not %s", dtype_name(out->type));
    if (!dims_agree(shape_count(&in[0].shape), shape_count(&out->shape)))
        return no_fit(problem, "%s cannot be added to the state %s", shape_text(&in[0].shape).s, shape_text(&out->shape).s);
    return ST_OK;
}

static void accumulate_reference(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape);

    for (int64_t i = 0; may_run(c, 1) && i < n; i++)
        ((double *)c->out[0])[i] += element(c->in[0], IN_VALUE(c, 0)->type, i);
}

void emit_accumulate(struct build *b, value_id state, value_id x)
{
    if (state && x)
        emit_effect(b, &op_accumulate, NULL, (value_id[]){x, b->ok}, b->ok ? 2 : 1, &state, 1);
}

static enum status step_next_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)in;
    if (out->type != I64 || out->shape.rank != 0)
        return no_fit(problem, "the step counter is an int64 scalar, not %s %s", dtype_name(out->type),
                      shape_text(&out->shape).s);
    return ST_OK;
}

static void step_next_reference(const struct kernel_call *c)
{
    *(int64_t *)c->out[0] += may_run(c, 0);
}

void emit_step_next(struct build *b, value_id step)
{
    if (step)
        emit_effect(b, &op_step_next, NULL, &b->ok, b->ok ? 1 : 0, &step, 1);
}

const struct op op_accumulate = {
    .name = "accumulate",
    .flags = OP_EFFECT,
    .infer = accumulate_infer,
    .reference = accumulate_reference,
};

const struct op op_step_next = {
    .name = "step_next",
    .flags = OP_EFFECT,
    .infer = step_next_infer,
    .reference = step_next_reference,
};
