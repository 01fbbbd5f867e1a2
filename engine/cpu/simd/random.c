/* Dropout's mask by Philox, many counters side by side; the numbers are those of engine/base/philox.h.
 *
 * A counter gives four words for four neighbouring elements. Each of its words has a lane of 64 bits to itself, whose upper half
 * is left to whatever falls there: the multiplication of lower halves to a whole lane (pmuludq) does not look at it, so a round
 * is two multiplications, two shifts and two xors of three. gcc and clang do not find that instruction from plain C (gcc 12:
 * 1.40 ns an element in and out of L2, so 0.58; Emerald Rapids, v4), hence the one intrinsic. */
#include "engine/cpu/simd/simd.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#define LANES       8
#define MUL32(a, b) ((lanes)_mm512_mul_epu32((__m512i)(a), (__m512i)(b)))
#define PAIRS_LOW   0, 8, 1, 9, 2, 10, 3, 11
#define PAIRS_HIGH  4, 12, 5, 13, 6, 14, 7, 15
#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES       4
#define MUL32(a, b) ((lanes)_mm256_mul_epu32((__m256i)(a), (__m256i)(b)))
#define PAIRS_LOW   0, 4, 1, 5
#define PAIRS_HIGH  2, 6, 3, 7
#else
#ifdef __SSE2__
#include <emmintrin.h>
#define MUL32(a, b) ((lanes)_mm_mul_epu32((__m128i)(a), (__m128i)(b)))
#else
#define MUL32(a, b) (((a)&0xffffffff) * ((b)&0xffffffff))
#endif
#define LANES      2
#define PAIRS_LOW  0, 2
#define PAIRS_HIGH 1, 3
#endif

typedef uint64_t lanes __attribute__((vector_size(8 * LANES)));

#define GROUP 64 /* counters at once: their words stay in L1 */

/* word: the four words of the counters first .. first + GROUP - 1, in order. */
static void philox_group(uint64_t key, uint64_t high, uint64_t first, lanes word[4 * GROUP / (2 * LANES)])
{
    const lanes m0 = (lanes){0} + 0xD2511F53u, m1 = (lanes){0} + 0xCD9E8D57u;
    lanes low = {0};

    for (int i = 0; i < LANES; i++)
        low[i] = first + (uint64_t)i;
    for (int i = 0; i < GROUP / LANES; i++, low += LANES) {
        uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
        lanes c0 = low, c1 = low >> 32, c2 = (lanes){0} + high, c3 = (lanes){0} + (high >> 32);

#pragma GCC unroll 10
        for (int round = 0; round < 10; round++) {
            lanes p0 = MUL32(c0, m0), p1 = MUL32(c2, m1);

            c0 = (p1 >> 32) ^ c1 ^ ((lanes){0} + k0);
            c1 = p1;
            c2 = (p0 >> 32) ^ c3 ^ ((lanes){0} + k1);
            c3 = p0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        lanes front = (c0 & 0xffffffff) | c1 << 32, back = (c2 & 0xffffffff) | c3 << 32;

        word[2 * i] = __builtin_shufflevector(front, back, PAIRS_LOW);
        word[2 * i + 1] = __builtin_shufflevector(front, back, PAIRS_HIGH);
    }
}

static void dropout(float *y, const float *x, uint64_t key, uint64_t high, uint32_t threshold, float scale, int64_t begin,
                    int64_t end)
{
    union {
        lanes lane[4 * GROUP / (2 * LANES)];
        uint32_t word[4 * GROUP];
    } w;

    for (int64_t at = begin; at < end; at += 4 * GROUP) {
        int n = (int)(end - at < 4 * GROUP ? end - at : 4 * GROUP);

        philox_group(key, high, (uint64_t)at / 4, w.lane);
#pragma omp simd
        for (int i = 0; i < n; i++)
            y[at + i] = w.word[i] >> 8 >= threshold ? x[at + i] * scale : 0.0f;
    }
}

const struct simd_random SIMD(simd_random) = {dropout};
