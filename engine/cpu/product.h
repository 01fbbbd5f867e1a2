/* Matrix products on one lane: which library, by the machine's SIMD level and the shape alone. */
#ifndef HORN_CPU_PRODUCT_H
#define HORN_CPU_PRODUCT_H

#include "engine/cpu/cpu.h"

/* c (m, n) = op(a) op(b) + beta c, row-major, beta 0 or 1; op transposes with the flag. lda, ldb, ldc: elements between rows as
 * they lie in memory. With beta 0 what was in c is not read. Within a team's thread it runs in that thread alone. */
void product(const struct device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
             const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

#endif
