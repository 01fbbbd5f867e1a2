/* exp, log, tanh ... as branch-free polynomials, so that the loop that calls them becomes vector code at any level.
 *
 * Errors below 1.5e-7, relative for exp, log, log1p, absolute for the bounded ones; infinities and NaN as in C's library.
 * They rely on the order of additions (the rounding trick), so never compile this folder with -ffast-math.
 * Sources: Cephes (S. L. Moshier, netlib.org/cephes, single/) for exp, log, tanh: ranges and coefficients; erf is the minimax
 * pair published by N. Juffa (stackoverflow.com/q/35148198). */
#ifndef HORN_CPU_SIMD_VMATH_H
#define HORN_CPU_SIMD_VMATH_H

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define VINLINE static inline __attribute__((always_inline))

VINLINE float v_from_bits(uint32_t u)
{
    float f;

    memcpy(&f, &u, 4);
    return f;
}

VINLINE uint32_t v_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, 4);
    return u;
}

/* x = n ln 2 + r, |r| <= ln 2 / 2; e^x = 2^n e^r. 2^n is applied as two factors, so that results next to overflow survive. */
VINLINE float v_exp(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it leaves the rounded integer in the low bits */
    float c = x > 89.0f ? 89.0f : x;

    c = c < -104.0f ? -104.0f : c;
    float t = c * 1.44269504088896341f + magic, n = t - magic;
    float r = c - n * 0.693359375f;

    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;

    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t whole = (int32_t)(v_bits(t) - 0x4b400000u), half = whole >> 1;

    return p * v_from_bits((uint32_t)(half + 127) << 23) * v_from_bits((uint32_t)(whole - half + 127) << 23);
}

VINLINE float v_sigmoid(float x)
{
    return 1.0f / (1.0f + v_exp(-x));
}

VINLINE float v_tanh(float x)
{
    float a = fabsf(x), z = x * x;
    float p = -5.70498872745e-3f;

    p = p * z + 2.06390887954e-2f;
    p = p * z - 5.37397155531e-2f;
    p = p * z + 1.33314422036e-1f;
    p = p * z - 3.33332819422e-1f;
    float near = p * z * x + x, far = 1.0f - 2.0f / (v_exp(2.0f * a) + 1.0f);

    far = x < 0.0f ? -far : far;
    return a > 0.625f ? far : near; /* NaN goes through `near` */
}

/* x = 2^e m with m in [sqrt(1/2), sqrt(2)); log m by a polynomial in m - 1. */
VINLINE float v_log(float x)
{
    uint32_t u = v_bits(x < FLT_MIN ? x * 8388608.0f : x); /* denormals are lifted by 2^23 */
    float e = x < FLT_MIN ? -23.0f : 0.0f;
    uint32_t k = u - 0x3f3504f3u; /* the bits of sqrt(1/2) */
    int32_t whole = (int32_t)k >> 23;
    float m = v_from_bits((k & 0x007fffffu) + 0x3f3504f3u) - 1.0f, z = m * m;

    e += (float)whole;
    float p = 7.0376836292e-2f;

    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    float y = p * m * z;

    y += e * -2.12194440e-4f;
    y -= 0.5f * z;
    y = m + y;
    y += e * 0.693359375f;
    y = x == 0.0f ? -INFINITY : y;
    y = x < 0.0f ? NAN : y;
    return x < INFINITY ? y : x; /* inf and NaN give themselves */
}

/* log(u) for u = 1 + x rounded, and what rounding took away. */
VINLINE float v_log1p(float x)
{
    float u = 1.0f + x, lost = x - (u - 1.0f), y = v_log(u) + lost / u;

    y = u > 0.0f && u < INFINITY ? y : v_log(u);
    return fabsf(x) < 1e-7f ? x : y;
}

VINLINE float v_erf(float x)
{
    float a = fabsf(x), z = x * x;
    float r = -1.72853470e-5f * a + 3.83197126e-4f, u = -3.88396438e-3f * a + 2.42546219e-2f;

    r = r * z + u;
    r = r * a - 1.06777877e-1f;
    r = r * a - 6.34846687e-1f;
    r = r * a - 1.28717512e-1f;
    r = r * a - a;
    float far = 1.0f - v_exp(a > 4.0f ? -20.0f : r);

    far = x < 0.0f ? -far : far;
    float p = -5.96761703e-4f;

    p = p * z + 4.99119423e-3f;
    p = p * z - 2.67681349e-2f;
    p = p * z + 1.12819925e-1f;
    p = p * z - 3.76125336e-1f;
    p = p * z + 1.28379166e-1f;
    float near = p * x + x;

    return a > 0.927734375f ? far : near;
}

#endif
