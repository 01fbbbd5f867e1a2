/* Runs a graph by its reference kernels: every temporary in memory of its own, or where a plan puts it. The two must agree. */
#ifndef HORN_TESTS_GRAPH_MACHINE_H
#define HORN_TESTS_GRAPH_MACHINE_H

#include "engine/graph/op.h"
#include "engine/graph/plan.h"

struct machine {
    const struct graph *g;
    const struct plan *p; /* NULL: no sharing of memory */
    unsigned char *base[N_REGIONS], *scratch;
    unsigned char **own; /* by root, without a plan */
};

struct machine *machine_new(const struct graph *g, const struct plan *p); /* temporaries begin as NaN */
struct machine *machine_free(struct machine *m);
DEFINE_OWNED(struct machine, machine_free)
void *machine_at(const struct machine *m, value_id v);
void machine_run(struct machine *m);

#endif
