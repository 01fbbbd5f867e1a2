/* product(): few rows against double sums, at every SIMD level; what a team shares, for teams of one to four; and what a predict call
 * relies on: a row's bits do not depend on the rows beside it, nor on the number of threads. */
#include "engine/cpu/product.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/philox.h"
#include "tests/cpu/compare.h"
#include "tests/test.h"

static float *numbers(int64_t n, uint64_t key)
{
    float *p = must_alloc((size_t)n * sizeof *p);

    for (int64_t i = 0; i < n; i++)
        p[i] = (float)((double)philox(key, 0, (uint64_t)i).w[0] / 2147483648.0 - 1);
    return p;
}

static struct device *open_device(const char *level, int threads)
{
    struct device *d;
    struct problem problem = {0};

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = threads, .simd = level}, &d, &problem));
    backend_cpu()->enter(d);
    return d;
}

static const struct {
    int64_t n, k;
} sizes[] = {{1, 1}, {3, 300}, {10, 512}, {16, 17}, {47, 256}, {63, 257}, {130, 784}, {517, 60}};

/* Every m that takes the own loop, some strides, with and without beta. */
TEST(a_product_of_few_rows_is_the_sum_of_products)
{
    for (int l = 0; compare_level(l); l++) {
        struct device *d = open_device(compare_level(l), 1);

        for (size_t s = 0; s < COUNT(sizes); s++) {
            int64_t n = sizes[s].n, k = sizes[s].k, ldx = k + 3, ldw = n + 5, ldy = n + 1;
            float *x = numbers(33 * ldx, 1), *w = numbers(k * ldw, 2), *y = numbers(33 * ldy, 3),
                  *before = numbers(33 * ldy, 3);

            for (int64_t m = 1; m <= 33; m++) {
                float beta = (float)(m % 2);

                memcpy(y, before, (size_t)(33 * ldy) * sizeof *y);
                product(d, false, false, m, n, k, x, ldx, w, ldw, beta, y, ldy);
                for (int64_t i = 0; i < 33 * ldy; i++) {
                    int64_t row = i / ldy, j = i % ldy;
                    double sum = before[i];

                    if (row < m && j < n) {
                        sum *= (double)beta;
                        for (int64_t t = 0; t < k; t++)
                            sum += (double)x[row * ldx + t] * (double)w[t * ldw + j];
                    }
                    if (fabs((double)y[i] - sum) > 1e-5 * sqrt((double)k))
                        fail_msg("%s, %lldx%lldx%lld: element (%lld, %lld) is %.9g, must be %.9g", compare_level(l),
                                 (long long)m, (long long)n, (long long)k, (long long)row, (long long)j, (double)y[i], sum);
                }
            }
            free(x), free(w), free(y), free(before);
        }
        backend_cpu()->close(d);
    }
}

TEST(the_bits_of_a_row_depend_neither_on_the_rows_beside_it_nor_on_threads)
{
    const int64_t n = 330, k = 700;
    float *x = numbers(32 * k, 1), *w = numbers(k * n, 2), alone[330], together[32 * 330];

    for (int l = 0; compare_level(l); l++) {
        struct device *one = open_device(compare_level(l), 1), *three = open_device(compare_level(l), 3);

        for (int64_t m = 2; m <= 32; m++) {
            product(m % 2 ? three : one, false, false, m, n, k, x, k, w, n, 0, together, n);
            for (int64_t row = 0; row < m; row++) {
                product(one, false, false, 1, n, k, x + row * k, k, w, n, 0, alone, n);
                if (memcmp(alone, together + row * n, sizeof alone))
                    fail_msg("%s: row %lld of %lld has other bits than alone", compare_level(l), (long long)row, (long long)m);
            }
        }
        backend_cpu()->close(one);
        backend_cpu()->close(three);
    }
    free(x), free(w);
}

/* op(a) op(b) in double, (m, n). */
static double *sums_of(bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda, const float *b,
                       int64_t ldb)
{
    double *c = must_alloc((size_t)(m * n) * sizeof *c);

    for (int64_t i = 0; i < m; i++)
        for (int64_t t = 0; t < k; t++) {
            double x = (double)a[ta ? t * lda + i : i * lda + t];

            for (int64_t j = 0; j < n; j++)
                c[i * n + j] += x * (double)b[tb ? j * ldb + t : t * ldb + j];
        }
    return c;
}

static void check_cut(struct device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k)
{
    int64_t lda = (ta ? m : k) + 3, ldb = (tb ? k : n) + 5, ldc = n + 1;
    float *a = numbers((ta ? k : m) * lda, 1), *b = numbers((tb ? n : k) * ldb, 2), *c = numbers(m * ldc, 3),
          *before = numbers(m * ldc, 3), *again = numbers(m * ldc, 3);
    double *sums = sums_of(ta, tb, m, n, k, a, lda, b, ldb);

    for (int beta = 0; beta < 2; beta++) {
        memcpy(c, before, (size_t)(m * ldc) * sizeof *c);
        memcpy(again, before, (size_t)(m * ldc) * sizeof *c);
        product(d, ta, tb, m, n, k, a, lda, b, ldb, (float)beta, c, ldc);
        product(d, ta, tb, m, n, k, a, lda, b, ldb, (float)beta, again, ldc);
        CHECK(!memcmp(c, again, (size_t)(m * ldc) * sizeof *c));
        for (int64_t i = 0; i < m * ldc; i++) {
            int64_t row = i / ldc, j = i % ldc;
            double sum = j < n ? sums[row * n + j] + beta * (double)before[i] : (double)before[i];

            if (fabs((double)c[i] - sum) > 1e-5 * sqrt((double)k))
                fail_msg("%s%s %lldx%lldx%lld: element (%lld, %lld) is %.9g, must be %.9g", ta ? "T" : "N", tb ? "T" : "N",
                         (long long)m, (long long)n, (long long)k, (long long)row, (long long)j, (double)c[i], sum);
        }
    }
    free(a), free(b), free(c), free(before), free(again), free(sums);
}

/* Tall, wide and square ones, in parts of whole blocks and not, too deep for a cut, and too small for one. */
static const struct {
    int64_t m, n, k;
} large[] = {{133, 517, 100}, {700, 33, 190}, {40, 1031, 150}, {128, 128, 512}, {40, 40, 4000}, {37, 70, 50}};

TEST(a_product_that_the_team_shares_is_the_sum_of_products)
{
    for (int threads = 1; threads <= 4; threads++) {
        struct device *d = open_device(NULL, threads);

        for (size_t s = 0; s < COUNT(large); s++)
            for (int turned = 0; turned < 4; turned++)
                check_cut(d, turned & 1, turned & 2, large[s].m, large[s].n, large[s].k);
        backend_cpu()->close(d);
    }
}
