/* Dropout's mask by Philox, many counters side by side; the numbers are those of engine/base/philox.h.
 *
 * A counter gives four words for four neighbouring elements. The rounds run over GROUP counters at once, as vector code; the
 * words are then laid out in element order. */
#include "engine/cpu/simd/simd.h"

#define GROUP 64

/* w[k][i]: word k of counter first + i. */
static void philox_group(uint64_t key, uint64_t high, uint64_t first, uint32_t w[4][GROUP])
{
#pragma omp simd
    for (int i = 0; i < GROUP; i++) {
        uint64_t low = first + (uint64_t)i;
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        uint32_t c0 = (uint32_t)low, c1 = (uint32_t)(low >> 32), c2 = (uint32_t)high, c3 = (uint32_t)(high >> 32);

#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

            c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
            c1 = (uint32_t)p1;
            c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
            c3 = (uint32_t)p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        w[0][i] = c0;
        w[1][i] = c1;
        w[2][i] = c2;
        w[3][i] = c3;
    }
}

static void dropout(float *y, const float *x, uint64_t key, uint64_t high, uint32_t threshold, float scale, int64_t begin,
                    int64_t end)
{
    uint32_t w[4][GROUP], flat[4 * GROUP];

    for (int64_t at = begin; at < end; at += 4 * GROUP) {
        int n = (int)(end - at < 4 * GROUP ? end - at : 4 * GROUP);

        philox_group(key, high, (uint64_t)at / 4, w);
        for (int i = 0; i < GROUP; i++)
            for (int k = 0; k < 4; k++)
                flat[4 * i + k] = w[k][i];
#pragma omp simd
        for (int i = 0; i < n; i++)
            y[at + i] = flat[i] >> 8 >= threshold ? x[at + i] * scale : 0.0f;
    }
}

const struct simd_random SIMD(simd_random) = {dropout};
