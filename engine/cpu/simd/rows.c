/* Softmax, its gradient, and cross-entropy over the last axis.
 *
 *   y_i = exp(x_i - max x) / sum_j exp(x_j - max x)        the shift only avoids overflow
 *   dx  = y (dy - sum_j dy_j y_j)
 *   loss = sum_k t_k (max + log sum exp(x - max) - x_k)
 *
 * Long rows run along memory. Short rows (classes) would spend their time in reducing one vector to one number, so 16 of them
 * are turned on their side and the vectors run over rows: 17 ns a row of ten instead of 100. */
#include "engine/cpu/simd/simd.h"

#include <math.h>

#include "engine/cpu/simd/largest.h"
#include "engine/cpu/simd/vmath.h"

#define SIDE  16 /* rows side by side */
#define SHORT 64 /* longest row treated so */

/* t[c][j] = x[j][c]; rows beyond `rows` repeat the first. */
static void turn(float t[SHORT][SIDE], const float *x, int rows, int n)
{
    for (int j = 0; j < SIDE; j++) {
        const float *row = x + (j < rows ? j : 0) * (int64_t)n;

        for (int c = 0; c < n; c++)
            t[c][j] = row[c];
    }
}

static void turn_back(float *y, float t[SHORT][SIDE], int rows, int n)
{
    for (int j = 0; j < rows; j++)
        for (int c = 0; c < n; c++)
            y[(int64_t)j * n + c] = t[c][j];
}

/* t becomes softmax; max and sum of each row remain in m and s. */
static void softmax_side(float t[SHORT][SIDE], int n, float *m, float *s)
{
    for (int j = 0; j < SIDE; j++)
        m[j] = t[0][j], s[j] = 0;
    for (int c = 1; c < n; c++)
        for (int j = 0; j < SIDE; j++)
            m[j] = t[c][j] > m[j] ? t[c][j] : m[j];
    for (int c = 0; c < n; c++)
        for (int j = 0; j < SIDE; j++) {
            float e = v_exp(t[c][j] - m[j]);

            t[c][j] = e;
            s[j] += e;
        }
    float inverse[SIDE];

    for (int j = 0; j < SIDE; j++)
        inverse[j] = 1.0f / s[j];
    for (int c = 0; c < n; c++)
        for (int j = 0; j < SIDE; j++)
            t[c][j] *= inverse[j];
}

static void softmax_long(float *y, const float *x, int64_t n, float *ret_max, float *ret_sum)
{
    float m = largest_of(x, n);
    double total = 0;

    for (int64_t at = 0; at < n; at += SUM_BLOCK) {
        int64_t k = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
        float s = 0;

#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < k; i++) {
            float e = v_exp(x[at + i] - m);

            y[at + i] = e;
            s += e;
        }
        total += (double)s;
    }
    float inverse = (float)(1 / total);

    for (int64_t i = 0; i < n; i++)
        y[i] *= inverse;
    *ret_max = m;
    *ret_sum = (float)total;
}

static void softmax(float *y, const float *x, int64_t rows, int64_t n)
{
    float t[SHORT][SIDE], m[SIDE], s[SIDE];

    if (n > SHORT) {
        for (int64_t r = 0; r < rows; r++)
            softmax_long(y + r * n, x + r * n, n, m, s);
        return;
    }
    for (int64_t r = 0; r < rows; r += SIDE) {
        int k = (int)(rows - r < SIDE ? rows - r : SIDE);

        turn(t, x + r * n, k, (int)n);
        softmax_side(t, (int)n, m, s);
        turn_back(y + r * n, t, k, (int)n);
    }
}

static void softmax_dx(float *dx, const float *y, const float *dy, int64_t rows, int64_t n)
{
    float ty[SHORT][SIDE], td[SHORT][SIDE];

    if (n > SHORT) {
        for (int64_t r = 0; r < rows; r++, dx += n, y += n, dy += n) {
            double total = 0;

            for (int64_t at = 0; at < n; at += SUM_BLOCK) {
                int64_t k = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
                float s = 0;

#pragma omp simd reduction(+ : s)
                for (int64_t i = 0; i < k; i++)
                    s += y[at + i] * dy[at + i];
                total += (double)s;
            }
            float dot = (float)total;

#pragma omp simd
            for (int64_t i = 0; i < n; i++)
                dx[i] = y[i] * (dy[i] - dot);
        }
        return;
    }
    for (int64_t r = 0; r < rows; r += SIDE) {
        int k = (int)(rows - r < SIDE ? rows - r : SIDE);
        float dot[SIDE] = {0};

        turn(ty, y + r * n, k, (int)n);
        turn(td, dy + r * n, k, (int)n);
        for (int c = 0; c < n; c++)
            for (int j = 0; j < SIDE; j++)
                dot[j] += ty[c][j] * td[c][j];
        for (int c = 0; c < n; c++)
            for (int j = 0; j < SIDE; j++)
                td[c][j] = ty[c][j] * (td[c][j] - dot[j]);
        turn_back(dx + r * n, td, k, (int)n);
    }
}

/* p = softmax(x) and the maximum and sum of up to SIDE rows. */
static void some_rows(float *p, const float *x, int rows, int64_t n, float *m, float *s)
{
    float t[SHORT][SIDE];

    if (n > SHORT) {
        for (int r = 0; r < rows; r++)
            softmax_long(p + r * n, x + r * n, n, &m[r], &s[r]);
        return;
    }
    turn(t, x, rows, (int)n);
    softmax_side(t, (int)n, m, s);
    turn_back(p, t, rows, (int)n);
}

/* sum_k t_k (log s - (x_k - m)); a target of 0 takes nothing even where x is -inf: 0 log 0 is 0. */
static float row_loss(const float *x, const float *t, int64_t n, float m, float log_s)
{
    double total = 0;

    for (int64_t at = 0; at < n; at += SUM_BLOCK) {
        int64_t k = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
        float l = 0;

#pragma omp simd reduction(+ : l)
        for (int64_t i = 0; i < k; i++)
            l += t[at + i] != 0.0f ? t[at + i] * (log_s - (x[at + i] - m)) : 0.0f;
        total += (double)l;
    }
    return (float)total;
}

static void side_loss(float *loss, const float *x, const float *t, int rows, int n, const float *m, const float *log_s)
{
    float a[SHORT][SIDE], b[SHORT][SIDE], l[SIDE] = {0};

    turn(a, x, rows, n);
    turn(b, t, rows, n);
    for (int c = 0; c < n; c++)
        for (int j = 0; j < SIDE; j++)
            l[j] += b[c][j] != 0.0f ? b[c][j] * (log_s[j] - (a[c][j] - m[j])) : 0.0f;
    for (int j = 0; j < rows; j++)
        loss[j] = l[j];
}

static void cross_entropy(float *loss, float *p, const float *x, const float *t, int64_t rows, int64_t n)
{
    float m[SIDE] = {0}, s[SIDE] = {0}, log_s[SIDE];

    for (int64_t r = 0; r < rows; r += SIDE) {
        int k = (int)(rows - r < SIDE ? rows - r : SIDE);

        some_rows(p + r * n, x + r * n, k, n, m, s);
        for (int j = 0; j < SIDE; j++)
            log_s[j] = v_log(s[j]);
        if (n <= SHORT)
            side_loss(loss + r, x + r * n, t + r * n, k, (int)n, m, log_s);
        else
            for (int j = 0; j < k; j++)
                loss[r + j] = row_loss(x + (r + j) * n, t + (r + j) * n, n, m[j], log_s[j]);
        for (int j = 0; j < k; j++)
            loss[r + j] = s[j] != s[j] ? NAN : loss[r + j];
    }
}

static void cross_entropy_sparse(float *loss, float *p, const float *x, const int32_t *classes, int64_t rows, int64_t n)
{
    float m[SIDE] = {0}, s[SIDE] = {0}, log_s[SIDE];

    for (int64_t r = 0; r < rows; r += SIDE) {
        int k = (int)(rows - r < SIDE ? rows - r : SIDE);

        some_rows(p + r * n, x + r * n, k, n, m, s);
        for (int j = 0; j < SIDE; j++)
            log_s[j] = v_log(s[j]);
        for (int j = 0; j < k; j++) {
            int32_t class = classes[r + j];

            loss[r + j] = class < 0 ? NAN : log_s[j] - (x[(r + j) * n + class] - m[j]);
        }
    }
}

static void cross_entropy_dx(float *dx, const float *p, const float *t, const float *d, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, dx += n, p += n, t += n) {
        double total = 0;
        float scale = d[r];

        for (int64_t at = 0; at < n; at += SUM_BLOCK) {
            int64_t k = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
            float s = 0;

#pragma omp simd reduction(+ : s)
            for (int64_t i = 0; i < k; i++)
                s += t[at + i];
            total += (double)s;
        }
        float sum = (float)total;

#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = (p[i] * sum - t[i]) * scale;
    }
}

static void cross_entropy_sparse_dx(float *dx, const float *p, const int32_t *classes, const float *d, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, dx += n, p += n) {
        int32_t class = classes[r];
        float scale = class < 0 ? NAN : d[r], own = class < 0 ? NAN : (p[class] - 1.0f) * scale;

#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = p[i] * scale;
        if (class >= 0)
            dx[class] = own;
    }
}

const struct simd_rows SIMD(simd_rows) = {
    softmax, softmax_dx, cross_entropy, cross_entropy_sparse, cross_entropy_dx, cross_entropy_sparse_dx,
};
