/* One table of op cases for all tests of ops: each row builds an op on inputs of stated shapes and attributes.
 *
 *     struct trial *t = trial_new(&op_cases[i]);   graph with the forward nodes, then a loss and its gradient
 *     struct memory *m = memory_new(t->graph);     a guarded buffer for each value
 *     trial_feed(t, m);
 *     trial_run(t, m, 1, t->graph->n_nodes);       by the reference kernels
 *
 * The loss is the sum of r y over all outputs that have a gradient, r being one more fed input per output. Buffers begin as
 * NaN and stand between guard zones, so reading what was never written and writing outside are both found. */
#ifndef HORN_TESTS_OPS_CASES_H
#define HORN_TESTS_OPS_CASES_H

#include "engine/ops/ops.h"

#define MAX_FED          32
#define SKIP_DIFFERENCES (-1)

enum fill_kind {
    FILL_UNIFORM,  /* in [low, high] */
    FILL_DISTINCT, /* a permutation of numbers 0.125 apart around 0, so that no two compete within a difference */
    FILL_WHOLE,    /* whole numbers in [low, high) */
};

struct filling {
    enum fill_kind kind;
    double low, high;
    double kinks[10]; /* no number closer than 0.1 to one of them */
    int n_kinks;
};

struct trial {
    const struct op_case *row;
    struct graph *graph;
    struct build b;
    struct fed {
        value_id v;
        struct filling how;
        bool smooth; /* a gradient is asked for */
    } fed[MAX_FED];
    int n_fed;
    value_id out[8], r[8]; /* outputs with a gradient, and their weights in the loss */
    int n_out;
    uint32_t n_forward; /* nodes [1, n_forward) are the case itself */
    value_id loss;
    value_id wrt[MAX_FED], gradient[MAX_FED];
    int n_wrt;
};

struct op_case {
    const char *name;
    void (*make)(struct trial *t, const int64_t *p);
    int64_t p[16];
    /* Of the gradient against differences; 0: the usual 2e-4. SKIP_DIFFERENCES: too large for them, it is there for teams. */
    double tolerance;
};

extern const struct op_case op_cases[];
extern const int n_op_cases;

struct trial *trial_new(const struct op_case *row); /* fails the test if the case does not build */
struct trial *trial_free(struct trial *t);
DEFINE_OWNED(struct trial, trial_free)

struct memory {
    const struct graph *graph;
    void **at; /* by value */
};

void *guarded_new(size_t bytes); /* 64-byte aligned, all bytes 0xFF (NaN) */
bool guarded_intact(const void *p, size_t bytes);
void guarded_free(void *p);

struct memory *memory_new(const struct graph *g);
struct memory *memory_free(struct memory *m);
DEFINE_OWNED(struct memory, memory_free)
bool memory_intact(const struct memory *m);

void trial_feed(const struct trial *t, struct memory *m);
/* Runs nodes [begin, end) by reference in m. */
void trial_run(const struct trial *t, struct memory *m, uint32_t begin, uint32_t end);

#endif
