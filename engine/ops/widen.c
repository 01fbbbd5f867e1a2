/* Ops that are written for float32, by a reference that converts what is bfloat16 before and after. */
#include <stdlib.h>

#include "engine/ops/element.h"
#include "engine/ops/ops.h"

bool reference_widened(const struct kernel_call *c, void (*reference)(const struct kernel_call *))
{
    const struct node *n = c->node;
    int count = n->n_in + n->n_out;
    bool any = false;

    for (int i = 0; i < count; i++)
        any = any || c->values[i < n->n_in ? n->in[i] : n->out[i - n->n_in]].type == BF16;
    if (!any)
        return false;

    /* the node again, its values numbered from 1 */
    OWNED(free) struct value *values = must_alloc(sizeof *values * ((size_t)count + 1));
    OWNED(free) value_id *ids = must_alloc(sizeof *ids * (size_t)count);
    OWNED(free) void **at = must_alloc(sizeof *at * (size_t)count);
    struct node wide = *n;
    struct kernel_call call = *c;

    for (int i = 0; i < count; i++) {
        value_id id = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
        struct value *v = &values[i + 1];
        void *data = i < n->n_in ? c->in[i] : c->out[i - n->n_in];

        *v = c->values[id];
        ids[i] = id ? (value_id)i + 1 : 0;
        at[i] = data;
        if (!id || v->type != BF16)
            continue;
        int64_t elements = shape_count(&v->shape);
        v->type = F32;
        at[i] = must_alloc(value_bytes(v) + 1);
        for (int64_t k = 0; i < n->n_in && k < elements; k++)
            ((float *)at[i])[k] = float_of_bfloat(((const uint16_t *)data)[k]);
    }
    wide.in = ids;
    wide.out = ids + n->n_in;
    call.node = &wide;
    call.values = values;
    call.in = at;
    call.out = at + n->n_in;
    reference(&call);
    for (int i = 0; i < count; i++) {
        void *data = i < n->n_in ? c->in[i] : c->out[i - n->n_in];
        int64_t elements = shape_count(&values[i + 1].shape);

        if (at[i] == data)
            continue;
        for (int64_t k = 0; i >= n->n_in && k < elements; k++)
            ((uint16_t *)data)[k] = bfloat_of_float(((const float *)at[i])[k]);
        free(at[i]);
    }
    return true;
}
