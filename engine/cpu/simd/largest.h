/* The largest of a row, sixteen running maxima side by side: a reduction that compilers do not vectorise by themselves, since a
 * comparison says nothing about NaN. Here a NaN is larger than any number. */
#ifndef HORN_CPU_SIMD_LARGEST_H
#define HORN_CPU_SIMD_LARGEST_H

#include <stdint.h>

static inline float larger_of(float m, float x)
{
    return ((x > m) | (x != x)) ? x : m;
}

static inline float largest_of(const float *x, int64_t n) /* n >= 1 */
{
    float m[16], all = x[0];
    int64_t i = 0;

    for (int j = 0; j < 16; j++)
        m[j] = x[0];
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            m[j] = larger_of(m[j], x[i + j]);
    for (int j = 0; j < 16; j++)
        all = larger_of(all, m[j]);
    for (; i < n; i++)
        all = larger_of(all, x[i]);
    return all;
}

#endif
