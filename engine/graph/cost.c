/* What a node costs: operations and bytes, for reports and profiles. One place, so that the plan's sum and a profile agree. */
#include "engine/graph/op.h"

double node_flops(const struct node *n, const struct value *values)
{
    if (n->op->flops)
        return n->op->flops(n, values);
    return n->n_out ? (double)shape_count(&values[n->out[0]].shape) : 0;
}

double node_bytes(const struct node *n, const struct value *values)
{
    double sum = 0;

    if (n->op->bytes)
        return n->op->bytes(n, values);
    for (int i = 0; i < n->n_in; i++) {
        bool again = false;

        for (int k = 0; k < i && !again; k++)
            again = n->in[k] == n->in[i];
        if (n->in[i] && !again)
            sum += (double)value_bytes(&values[n->in[i]]);
    }
    for (int i = 0; i < n->n_out; i++)
        if (n->out[i])
            sum += (double)value_bytes(&values[n->out[i]]);
    return sum;
}
