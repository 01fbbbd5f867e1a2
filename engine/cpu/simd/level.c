/* All own loops of one SIMD level. */
#include "engine/cpu/simd/simd.h"

const struct simd SIMD(simd) = {
    .name = SIMD_NAME,
    .formulas = &SIMD(simd_formulas),
    .sums = &SIMD(simd_sums),
    .rows = &SIMD(simd_rows),
    .random = &SIMD(simd_random),
    .windows = &SIMD(simd_windows),
    .norms = &SIMD(simd_norms),
    .winograd = &SIMD(simd_winograd),
    .cells = &SIMD(simd_cells),
    .products = &SIMD(simd_products),
};
