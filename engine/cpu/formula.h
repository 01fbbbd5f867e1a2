/* A formula compiled for given shapes: what pointwise kernels run (engine/cpu/simd/formula.c is the engine). */
#ifndef HORN_CPU_FORMULA_H
#define HORN_CPU_FORMULA_H

#include "engine/cpu/cpu.h"

struct formula_program;

/* in, out: the values' descriptions; same[o]: bits of the inputs that may lie where output o lies. guard_of[o]: the input that
 * is the leaf which output o overwrites, or -1; where every output is select(scalar, new, that input), nothing is computed
 * when the scalar is 0. The outputs are of f->type and have n elements. */
struct formula_program *formula_compile(const struct formula *f, const struct value *const *in, const struct shape *out,
                                        const uint32_t *same, const int *guard_of);
/* The same for a node whose formula this is, an effect or not; in: as the formula sees them. Outputs are float32, of equal size. */
struct formula_program *node_formula(const struct formula *f, const struct value *const *in, const struct node *n,
                                     const struct value *values);
struct formula_program *formula_free(struct formula_program *p);
void formula_run(const struct device *d, const struct formula_program *p, void *const *in, void *const *out);
/* The same with an input that is given by rows; `rows` names inputs by their numbers in the formula. They are float32 of n elements,
 * which formula_compile() was told of the one by rows too. */
void formula_run_rows(const struct device *d, const struct formula_program *p, void *const *in, void *const *out,
                      const struct formula_rows *rows);

#endif
