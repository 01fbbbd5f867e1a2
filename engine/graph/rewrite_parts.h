/* What the files of graph_rewrite() share. */
#ifndef HORN_GRAPH_REWRITE_PARTS_H
#define HORN_GRAPH_REWRITE_PARTS_H

#include <string.h>

#include "engine/graph/build.h"

struct write { /* by a node into memory that is no temporary */
    uint32_t node;
    enum region at;
    size_t begin, end;
    value_id value;
};

struct rewrite {
    struct graph *g;
    bool *dead;            /* by node */
    uint32_t *readers;     /* by value: nodes that read it, each counted once */
    uint32_t *last_reader; /* by value */
    value_id *instead;     /* by value: what to read in its place; 0: itself */
    uint32_t *dropped_by;  /* by value: the first dropout that reads it; 0: none */
    struct write *writes;  /* by node, ascending */
    uint32_t n_writes;
};

static inline bool is_op(const struct node *n, const char *name)
{
    return strcmp(n->op->name, name) == 0;
}

/* Has v, read at node `from`, the same value at node `to`? `to` itself may write the very place of v, element by element, if it
 * is a formula of v's shape. */
bool rewrite_may_move(const struct rewrite *r, value_id v, uint32_t from, uint32_t to);
void rewrite_inputs(struct rewrite *r, uint32_t i, const value_id *in, int n_in); /* node i reads these instead */
void rewrite_drop(struct rewrite *r, uint32_t i);                                 /* if nobody reads its outputs any more */
void rewrite_masks(struct rewrite *r, uint32_t i);                                /* rule 7 for formula i */

#endif
