/* A plan: the graph with a kernel for each node and a place for each temporary. Immutable, may be shared.
 *
 * Temporaries are placed by best fit over program order. In place only if the op allows it, the input's last reader is this
 * node, the input is an unkept temporary of the same size and not a view's base with later readers. */
#ifndef HORN_GRAPH_PLAN_H
#define HORN_GRAPH_PLAN_H

#include "engine/graph/graph.h"

struct backend;
struct device;
struct kernel;

struct plan {
    const struct graph *graph; /* borrowed: outlives the plan */
    const struct backend *backend;
    struct device *device;
    struct plan_step {
        uint32_t node;
        const struct kernel *kernel; /* NULL: op->reference */
        void *prepared;
        size_t scratch_bytes;
    } * steps;
    uint32_t n_steps, n_constant; /* the first n_constant of them: see graph.n_constant */
    size_t *temp_offset;          /* by value_id; for AT_TEMP */
    size_t arena_bytes, scratch_bytes;
    struct plan_report {
        uint32_t peak_node;                /* where the arena is fullest */
        size_t live_bytes, unshared_bytes; /* at the peak; if nothing were shared */
        uint32_t in_place, fallbacks;      /* steps in place; steps run by the reference */
        double flops;
    } report;
};

/* Chooses kernels (rows in order; a row may decline), prepares, places. limit: bytes that the arena may take, 0 for no limit;
 * above it ST_NO_MEMORY names the bytes at the peak and the layer there. Every shape must be known. device may be NULL with
 * backend NULL: all steps by reference (validation, check mode). */
enum status plan_make(const struct graph *g, const struct backend *backend, struct device *device, size_t limit,
                      struct plan **ret, struct problem *problem);
struct plan *plan_free(struct plan *p);
DEFINE_OWNED(struct plan, plan_free)
void plan_dump(const struct plan *p, struct text *t);

#endif
