/* Choosing a kernel: the first row of the backend's table that has the op's name and does not decline. */
#include "engine/run/backend.h"

#include <string.h>

#include "engine/graph/plan.h"

enum status backend_choose(const struct backend *b, struct device *d, const struct graph *g, uint32_t node,
                           struct plan_step *step, struct problem *problem)
{
    const struct node *n = &g->nodes[node];

    step->node = node;
    step->kernel = NULL;
    step->prepared = NULL;
    step->scratch_bytes = 0;
    for (const struct kernel *k = b ? b->kernels : NULL; k && k->op; k++) {
        void *prepared = NULL;
        size_t scratch = 0;
        struct problem refusal;

        if (strcmp(k->op, n->op->name))
            continue;
        if (k->prepare) {
            memset(&refusal, 0, sizeof refusal);
            enum status s = k->prepare(d, n, g->values, &prepared, &scratch, &refusal);

            if (s == ST_UNSUPPORTED)
                continue;
            if (s != ST_OK) {
                *problem = refusal;
                if (!problem->where[0] && n->origin)
                    (void)fail(problem, s, n->origin, "%s", refusal.detail);
                return s;
            }
        }
        step->kernel = k;
        step->prepared = prepared;
        step->scratch_bytes = scratch;
        return ST_OK;
    }
    if ((!b || b->reference_ok) && n->op->reference)
        return ST_OK;
    return fail(problem, ST_UNSUPPORTED, n->origin ? n->origin : "",
                "the backend %s has no kernel for the op %s with these shapes and types; the backend cpu computes it",
                b ? b->name : "reference", n->op->name);
}
