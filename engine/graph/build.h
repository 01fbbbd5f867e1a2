/* The builder: emits nodes, keeps its first problem, and is asked once at the end.
 *
 * After a problem every call returns 0 and 0 as an input makes no second problem, so a layer is written without a single
 * check. `origin` names the layer at work; it becomes problem.where when an op's shape rule fails.
 *
 *     struct build b = build_make(g);
 *     value_id y = emit_matmul(&b, x, w, 0);
 *     if (b.problem.status != ST_OK) ...
 */
#ifndef HORN_GRAPH_BUILD_H
#define HORN_GRAPH_BUILD_H

#include "engine/graph/formula.h"
#include "engine/graph/graph.h"
#include "engine/graph/op.h"

struct weights;

struct build {
    struct graph *graph;
    struct problem problem; /* the first; status ST_OK while all is well */
    const char *origin;
    bool training;           /* dropout drops, batch norm uses the batch */
    value_id seed, step;     /* I64 scalars in AT_STATE, for random ops; 0 when not training */
    value_id ok;             /* scalar: emit_update, emit_store, emit_accumulate and emit_step_next write only where it is
                             * not 0, so that a step that went to NaN changes nothing; 0 (none): always */
    value_id by_rows, where; /* a gradient by rows (emit_scatter_rows), which emit_update reads as if it were the flat vector of
                              * all rows; 0: none */
    uint64_t n_random;       /* random streams given out */
    struct weights *weights;
    value_id *penalties; /* scalars that regularizers add to the loss; in the graph's arena */
    int n_penalties;
    int dialect; /* enum dialect of the model: losses differ by it */
};

struct tuple { /* what a layer takes and gives: any number of values, each with its mask or 0 */
    int n;
    const value_id *v, *mask; /* in the graph's arena; mask values are BOOL or F32 0/1, shape a prefix of v's */
};

struct build build_make(struct graph *g);
bool build_failed(const struct build *b);
/* Notes the first problem; where is b->origin unless given. Returns 0, so: return build_fail(...); */
value_id build_fail(struct build *b, enum status s, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* One node with op->infer run over it; returns out[0]. The other outputs are node->out[1..]: build_out(). */
value_id emit(struct build *b, const struct op *op, const void *attr, const value_id *in, int n_in, int n_out);
value_id build_out(const struct build *b, value_id first, int i); /* output i of the node that made `first`; 0 if first is 0 */
/* An effect node: `out` are existing leaves that it writes. */
void emit_effect(struct build *b, const struct op *op, const void *attr, const value_id *in, int n_in, const value_id *out,
                 int n_out);

value_id input(struct build *b, enum dtype type, const struct shape *shape); /* a leaf in AT_INPUT */
const struct value *value_of(const struct build *b, value_id v);             /* [0] (rank 0) for 0; valid until the next emit */
struct shape shape_of(const struct build *b, value_id v);
int64_t last_dim(const struct build *b, value_id v); /* 1 for rank 0 */
void keep(struct build *b, value_id v);              /* sets value.keep */

struct tuple one(struct build *b, value_id v);
struct tuple one_masked(struct build *b, value_id v, value_id mask);
struct tuple tuple_make(struct build *b, int n, const value_id *v, const value_id *mask /* or NULL */);

void penalty_add(struct build *b, value_id scalar);

/* The two constructors of engine/ops/ops.h that the reverse sweep itself needs: its start, and the sum of several uses.
 * Declared here because the builder does not include engine/ops. */
value_id emit_fill(struct build *b, const struct shape *shape, float value);
value_id emit_add(struct build *b, value_id x, value_id y);
/* And the one that emit() needs: see OP_BFLOAT. */
value_id emit_cast(struct build *b, value_id x, enum dtype type);

/* Reverse sweep from the scalar `loss`: dwrt[i] becomes d loss / d wrt[i], 0 where loss does not depend on it.
 * Gradients of several uses are added in reverse program order. ST_UNSUPPORTED if an op on the way has no gradient. */
void graph_grad(struct build *b, value_id loss, const value_id *wrt, int n, value_id *dwrt);

/* Rewrites in place, before planning (see rewrite.c for the list): fuses chains of formulas, cancels transposes that pair,
 * drops nodes without a reader. Keeps every kept value and every effect. */
void graph_rewrite(struct graph *g);

/* After graph_rewrite, shapes known: nodes that depend on weights alone go to the front and write AT_CONST (see graph.n_constant). */
void graph_constants(struct graph *g);
/* Whether one AT_CONST, written by either graph, serves both. */
bool graph_constants_equal(const struct graph *a, const struct graph *b);

#endif
