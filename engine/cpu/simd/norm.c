/* Batch normalisation: sums down channels in blocks of ROW_BLOCK rows, and the passes that apply a line per channel. */
#include "engine/cpu/simd/simd.h"

#define COLUMNS 64

static void squares_around(double *y, const float *x, const float *mean, int64_t rows, int64_t n)
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

#pragma omp simd
                for (int i = 0; i < width; i++) {
                    float d = row[i] - mean[c + i];

                    s[i] += d * d;
                }
            }
            for (int i = 0; i < width; i++)
                y[c + i] += (double)s[i];
        }
    }
}

static void gradient_sums(double *dbeta, double *dgamma, const float *dy, const float *x, const float *mean, int64_t rows,
                          int64_t n)
{
    for (int64_t c = 0; c < n; c++)
        dbeta[c] = dgamma[c] = 0;
    for (int64_t first = 0; first < rows; first += ROW_BLOCK) {
        int64_t last = first + ROW_BLOCK < rows ? first + ROW_BLOCK : rows;

        for (int64_t c = 0; c < n; c += COLUMNS) {
            int width = (int)(n - c < COLUMNS ? n - c : COLUMNS);
            float s[COLUMNS] = {0}, t[COLUMNS] = {0};

            for (int64_t r = first; r < last; r++) {
                const float *d = dy + r * n + c, *row = x + r * n + c;

#pragma omp simd
                for (int i = 0; i < width; i++) {
                    s[i] += d[i];
                    t[i] += d[i] * (row[i] - mean[c + i]);
                }
            }
            for (int i = 0; i < width; i++) {
                dbeta[c + i] += (double)s[i];
                dgamma[c + i] += (double)t[i];
            }
        }
    }
}

static void line(float *y, const float *x, const float *mean, const float *scale, const float *shift, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, x += n, y += n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            y[i] = (x[i] - mean[i]) * scale[i] + shift[i];
    }
}

static void plane(float *dx, const float *dy, const float *x, const float *mean, const float *of_dy, const float *of_x,
                  const float *shift, int64_t rows, int64_t n)
{
    for (int64_t r = 0; r < rows; r++, x += n, dy += n, dx += n) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++)
            dx[i] = of_dy[i] * dy[i] + of_x[i] * (x[i] - mean[i]) + shift[i];
    }
}

const struct simd_norms SIMD(simd_norms) = {squares_around, gradient_sums, line, plane};
