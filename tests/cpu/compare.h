/* Runs a graph node by node and compares every kernel of the CPU backend with the op's reference.
 *
 * Leaves are filled with numbers from a seed (whole types: 0 .. whole_below - 1) unless compare_put() said otherwise. Each node
 * gets the reference's inputs, so that errors do not add up; effects are run on copies. */
#ifndef HORN_TESTS_CPU_COMPARE_H
#define HORN_TESTS_CPU_COMPARE_H

#include "engine/ops/ops.h"
#include "engine/run/backend.h"

struct compare {
    struct graph *g;
    struct build b;
    void **data; /* by value; owned */
    uint32_t n_data;
    void **given;     /* by value: what compare_put gave; owned */
    double tolerance; /* |got - want| <= tolerance * max(1, largest |want|) */
    int whole_below;
    uint64_t seed;
    const char *simd; /* level, NULL: the best */
    int threads;
    int n_kernels, n_references; /* nodes that ran by a kernel, and those without one */
    bool last_rows;              /* of several kernels for an op the last, which takes what the others decline */
    bool in_place;               /* out[0] over an input wherever the op allows it */
    struct compare_error {       /* of the first outputs, as parts of max(1, largest |want|) */
        const char *op;
        double most, mean;
    } errors[32];
    int n_errors;
};

struct compare compare_make(void);
void compare_done(struct compare *c);
value_id compare_input(struct compare *c, enum dtype type, struct shape shape);
void compare_put(struct compare *c, value_id v, const void *data);
/* Fails the test with the op's name at the first difference. `want_kernel`: a node without a kernel is a failure too. */
void compare_run(struct compare *c, bool want_kernel);
const float *compare_floats(const struct compare *c, value_id v);            /* by the reference, after compare_run */
struct compare_error compare_error(const struct compare *c, const char *op); /* of the last node of that op */
/* Hash of all outputs of all kernels, for runs that must give the same bits. */
uint64_t compare_bits(struct compare *c);
const char *compare_level(int i); /* names of levels that this machine runs, NULL behind the last */

#endif
