/* Any bytes as an architecture: parsed in its dialect, and built into a graph when it is one. Nothing runs. */
#include <stdint.h>

#include "engine/model/model.h"
#include "engine/model/weights.h"

/* The build of a model that was read: unknown dimensions become 2, large models are left alone, since shapes alone take memory. */
static void build(const struct model *m)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(weights_free) struct weights *w = weights_new();
    struct build b = build_make(g);
    struct problem problem;
    struct tuple in, out;
    value_id v[8];

    if (m->n_inputs > 8 || m->n_calls > 200)
        return;
    g->max_nodes = 5000;
    b.weights = w;
    for (int i = 0; i < m->n_inputs; i++) {
        struct shape s = m->inputs[i].shape.rank < 0 ? SHAPE(2, 4) : m->inputs[i].shape;
        for (int d = 0; d < s.rank; d++)
            s.dim[d] = s.dim[d] < 0 ? 2 : s.dim[d];
        v[i] = input(&b, m->inputs[i].type, &s);
    }
    in = tuple_make(&b, m->n_inputs, v, NULL);
    (void)model_build(m, &b, &in, &out, &problem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct json_limits limits = {.bytes = 1 << 20, .nodes = 20000, .depth = 64};
    OWNED(json_free) struct json *j = NULL;
    OWNED(model_free) struct model *m = NULL;
    struct problem problem;

    if (json_parse((const char *)data, size, &limits, JSON_NAN, &j, &problem) != ST_OK)
        return 0;
    if (model_parse(j, "", &m, &problem) == ST_OK)
        build(m);
    return 0;
}
