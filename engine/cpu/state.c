/* Sums of metrics: F64 state += x. One or two elements as a rule, so what counts is not to go through a general loop. */
#include "engine/cpu/cpu.h"

#include "engine/ops/element.h"

static void accumulate_run(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape);
    enum dtype type = IN_VALUE(c, 0)->type;
    double *sum = c->out[0];

    if (c->node->n_in > 1 && c->in[1] && element(c->in[1], IN_VALUE(c, 1)->type, 0) == 0)
        return;
    if (type == F32)
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)((const float *)c->in[0])[i];
    else
        for (int64_t i = 0; i < n; i++)
            sum[i] += element(c->in[0], type, i);
}

const struct kernel kernel_accumulate = {"accumulate", "state.accumulate", prepare_plain, accumulate_run, release_plain};
