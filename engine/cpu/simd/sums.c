/* Sums and maxima, along memory and down columns.
 *
 * A sum runs in blocks of SUM_BLOCK float additions per lane set and joins the blocks in double, in order: the error stays
 * near that of one block whatever the length, and no split over threads changes a bit. */
#include "engine/cpu/simd/simd.h"

#include <math.h>

#define COLUMNS 64 /* columns summed side by side: their sums stay in registers or L1 */

static void add(float *y, const float *x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += x[i];
}

static void add_row(float *y, const float *row, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, y += n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] += row[i];
    }
}

static double sum(const float *x, int64_t n)
{
    double total = 0;

    for (int64_t at = 0; at < n; at += SUM_BLOCK) {
        int64_t m = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
        float s = 0;

#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < m; i++)
            s += x[at + i];
        total += (double)s;
    }
    return total;
}

static double sum_squares(const float *x, int64_t n)
{
    double total = 0;

    for (int64_t at = 0; at < n; at += SUM_BLOCK) {
        int64_t m = n - at < SUM_BLOCK ? n - at : SUM_BLOCK;
        float s = 0;

#pragma omp simd reduction(+ : s)
        for (int64_t i = 0; i < m; i++)
            s += x[at + i] * x[at + i];
        total += (double)s;
    }
    return total;
}

static float largest(const float *x, int64_t n)
{
    float m = x[0];
    int bad = 0;

#pragma omp simd reduction(max : m) reduction(| : bad)
    for (int64_t i = 0; i < n; i++) {
        m = x[i] > m ? x[i] : m;
        bad |= x[i] != x[i];
    }
    return bad ? NAN : m;
}

static void sum_rows(double *y, const float *x, int64_t rows, int64_t n, bool squares)
{
    for (int64_t c = 0; c < n; c++)
        y[c] = 0;
    for (int64_t first = 0; first < rows; first += SUM_BLOCK) {
        int64_t last = first + SUM_BLOCK < rows ? first + SUM_BLOCK : rows;

        for (int64_t c = 0; c < n; c += COLUMNS) {
            int width = (int)(n - c < COLUMNS ? n - c : COLUMNS);
            float s[COLUMNS] = {0};

            for (int64_t r = first; r < last; r++) {
                const float *row = x + r * n + c;

                if (squares) {
#pragma omp simd
                    for (int i = 0; i < width; i++)
                        s[i] += row[i] * row[i];
                } else {
#pragma omp simd
                    for (int i = 0; i < width; i++)
                        s[i] += row[i];
                }
            }
            for (int i = 0; i < width; i++)
                y[c + i] += (double)s[i];
        }
    }
}

static void largest_rows(float *y, const float *x, int64_t rows, int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        y[c] = x[c];
    for (int64_t r = 1; r < rows; r++) {
        const float *row = x + r * n;

#pragma omp simd
        for (int64_t c = 0; c < n; c++)
            y[c] = y[c] != y[c] || y[c] > row[c] ? y[c] : row[c]; /* a NaN on either side stays */
    }
}

const struct simd_sums SIMD(simd_sums) = {add, add_row, sum, sum_squares, largest, sum_rows, largest_rows};
