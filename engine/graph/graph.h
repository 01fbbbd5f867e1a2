/* The program as data: values and the nodes that make them, numbered densely, append only.
 *
 * Program order is execution order, so effects are safe. Index 0 means "none". A value belongs to a region:
 * temporaries are placed by the plan, every other region is one flat buffer whose layout the graph knows.
 * All memory is the arena's. One thread builds; afterwards a graph is immutable and may be shared. */
#ifndef HORN_GRAPH_GRAPH_H
#define HORN_GRAPH_GRAPH_H

#include "engine/base/arena.h"
#include "engine/base/text.h"
#include "engine/graph/shape.h"

struct op;

/* WEIGHT: all that Keras stores, moving statistics too. CONST: what depends on weights alone; run once per loaded version.
 * SLOT: optimizer slots. STATE: step counter, rate, metric accumulators, recurrent state; owned by a session's user. */
enum region { AT_TEMP, AT_INPUT, AT_WEIGHT, AT_CONST, AT_GRAD, AT_SLOT, AT_STATE, N_REGIONS };

#define REGION_ALIGN 64 /* bytes; every leaf and every temporary begins at a multiple */

typedef uint32_t value_id; /* index into graph.values; 0 is "none" */

struct value {
    struct shape shape;
    enum dtype type;
    enum region at;
    uint32_t producer; /* node that writes it first; 0 for a leaf */
    value_id view_of;  /* shares that value's memory (OP_VIEW, region views); 0: its own */
    size_t offset;     /* bytes into its region; for AT_TEMP the plan knows. A view's offset is final too */
    bool keep;         /* read from outside after the run: its memory is never reused */
    bool viewed;       /* some value is, or was, a view of it */
};

struct node {
    const struct op *op;
    const void *attr;         /* op->attr_size bytes in the graph's arena */
    const char *origin;       /* layer that asked for it, for messages and profiles */
    const value_id *in, *out; /* in the graph's arena; an input may be 0 where the op says "or none" */
    uint16_t n_in, n_out;
};

struct graph {
    struct arena *mem;          /* owned */
    struct value *values;       /* [0] unused; moves when it grows: hold ids, not addresses, while building */
    struct node *nodes;         /* [0] unused; moves likewise */
    uint32_t n_values, n_nodes; /* counts including [0] */
    uint32_t value_room, node_room;
    uint32_t n_constant;     /* nodes [1, n_constant) write AT_CONST; session_constants() runs them. 0 or 1: none */
    size_t bytes[N_REGIONS]; /* size of each flat region of leaves, a multiple of REGION_ALIGN */
    uint32_t max_nodes;      /* limit, ST_TOO_LARGE in the builder; default 200,000 */
};

struct graph *graph_new(void);
struct graph *graph_free(struct graph *g);
DEFINE_OWNED(struct graph, graph_free)

/* Appends a leaf at the end of its region. */
value_id graph_leaf(struct graph *g, enum region at, enum dtype type, const struct shape *shape);
/* A leaf at a stated place of a region (a weight, the flat vector of all weights); grows the region to hold it. */
value_id graph_leaf_at(struct graph *g, enum region at, enum dtype type, const struct shape *shape, size_t offset);
value_id graph_value(struct graph *g, const struct value *v);
uint32_t graph_node(struct graph *g, const struct node *n); /* copies in, out and attr into the arena; sets producers */
size_t value_bytes(const struct value *v);                  /* shape must be known */
/* Moves a node's output and its views out of AT_TEMP to a place of a flat region: a gradient straight into AT_GRAD. Its shape
 * must be known. false, and nothing changes, for a leaf, a view, or a value that was placed before: copy those. */
bool graph_place(struct graph *g, value_id v, enum region at, size_t offset);

/* The graph as readable text, one line per node: "%12 = matmul(%3, %7) float32 (128, 512)  dense_1". */
void graph_dump(const struct graph *g, struct text *t);

#endif
