/* Sums and maxima, along memory and down columns.
 *
 * A sum runs in blocks of float additions and joins the blocks in double, in order: the error stays near that of one block
 * whatever the length, and no split over threads changes a bit. */
#include "engine/cpu/simd/simd.h"

#include "engine/cpu/simd/largest.h"

#define LANES   32
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

/* A block in LANES running sums, then a tree: the error is that of a dozen additions, and the bits are those of every level. */
static float join_lanes(float *lane)
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

#define SUM(name, term)                                                    \
    static double name(const float *x, int64_t n)                          \
    {                                                                      \
        double total = 0;                                                  \
                                                                           \
        for (int64_t at = 0; at < n; at += SUM_BLOCK, x += SUM_BLOCK) {    \
            int m = (int)(n - at < SUM_BLOCK ? n - at : SUM_BLOCK), i = 0; \
            float lane[LANES] = {0};                                       \
                                                                           \
            for (; i + LANES <= m; i += LANES)                             \
                for (int j = 0; j < LANES; j++)                            \
                    lane[j] += term(x[i + j]);                             \
            for (; i < m; i++)                                             \
                lane[i % LANES] += term(x[i]);                             \
            total += (double)join_lanes(lane);                             \
        }                                                                  \
        return total;                                                      \
    }
#define SELF(x)   (x)
#define SQUARE(x) ((x) * (x))
SUM(sum, SELF)
SUM(sum_squares, SQUARE)

static float largest(const float *x, int64_t n)
{
    return largest_of(x, n);
}

static void sum_rows(double *y, const float *x, int64_t rows, int64_t n, bool squares)
{
    for (int64_t c = 0; c < n; c++)
        y[c] = 0;
    for (int64_t first = 0; first < rows; first += ROW_BLOCK) {
        int64_t last = first + ROW_BLOCK < rows ? first + ROW_BLOCK : rows;

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
            y[c] = larger_of(y[c], row[c]);
    }
}

const struct simd_sums SIMD(simd_sums) = {add, add_row, sum, sum_squares, largest, sum_rows, largest_rows};
