/* The LSTM cell with tanh and sigmoid, one row at a time, everything in one vectorised loop over units.
 *
 * The pragma matters: the compiler cannot know that the pointers do not overlap, and without it the loop is seven times
 * slower (3.8 against 0.55 ms for 80 steps of 32 rows of 128 units). */
#include "engine/cpu/simd/simd.h"

#include "engine/cpu/simd/vmath.h"

static void cell(int64_t units, const float *z, const float *bias, float *c, float *h, float *y, float *gates)
{
    const float *zi = z, *zf = z + units, *zg = z + 2 * units, *zo = z + 3 * units;
    const float *bi = bias, *bf = bias + units, *bg = bias + 2 * units, *bo = bias + 3 * units;
    float *ki = gates, *kf = gates + units, *kg = gates + 2 * units, *ko = gates + 3 * units;

#pragma omp simd
    for (int64_t k = 0; k < units; k++) {
        float i = v_sigmoid(zi[k] + bi[k]), f = v_sigmoid(zf[k] + bf[k]);
        float g = v_tanh(zg[k] + bg[k]), o = v_sigmoid(zo[k] + bo[k]);
        float state = f * c[k] + i * g, out = o * v_tanh(state);

        ki[k] = i;
        kf[k] = f;
        kg[k] = g;
        ko[k] = o;
        c[k] = state;
        h[k] = out;
        y[k] = out;
    }
}

static void cell_dx(int64_t units, const float *gates, const float *c, const float *c_before, const float *dh, float *dc,
                    float *dz)
{
    const float *ki = gates, *kf = gates + units, *kg = gates + 2 * units, *ko = gates + 3 * units;
    float *di = dz, *df = dz + units, *dg = dz + 2 * units, *do_ = dz + 3 * units;

#pragma omp simd
    for (int64_t k = 0; k < units; k++) {
        float i = ki[k], f = kf[k], g = kg[k], o = ko[k], a = v_tanh(c[k]);
        float d = dc[k] + dh[k] * o * (1.0f - a * a);

        di[k] = d * g * i * (1.0f - i);
        df[k] = d * c_before[k] * f * (1.0f - f);
        dg[k] = d * i * (1.0f - g * g);
        do_[k] = dh[k] * a * o * (1.0f - o);
        dc[k] = d * f;
    }
}

const struct simd_cells SIMD(simd_cells) = {cell, cell_dx};
