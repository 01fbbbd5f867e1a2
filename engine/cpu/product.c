/* Matrix products: those of few rows by our own loop, all others by oneDNN or OpenBLAS.
 *
 * Up to FEW_ROWS rows, untransposed, which is what a predict call is: simd/few.c. It is as fast as the better library or faster
 * (us for 512 x 784 and 512 x 512, one Sapphire Rapids core, own / oneDNN / OpenBLAS at its fallback: 1 row 64 / 71 / 172, 4 rows
 * 69 / 90, 8 rows 82 / 97, 16 rows 142 / 146, 32 rows 245 / 262), and a row's bits do not depend on how many rows there are:
 * requests that are answered together get what each would get alone.
 *
 * Measured on three machines (GFLOP/s, one thread): with AVX-512 dnnl_sgemm makes 73-83 % of peak, OpenBLAS 55-68 %; with AVX2
 * OpenBLAS is ahead for wide untransposed products (85 against 56 for 128x512x784), dnnl_sgemm for narrow ones and for
 * gradients of weights. Small products are OpenBLAS' everywhere (it has the smaller overhead), one-row products are sgemv,
 * which its older sgemm kernels lose to by five times. On a CPU that OpenBLAS does not know (it goes by model number) it falls
 * back to kernels of 2004 that are four times slower: then oneDNN, which asks for features, does everything. The rule looks at
 * machine and shape only: timing at run time would give other bits on another day.
 *
 * OpenBLAS stays at one thread, since its pool is one for the process: larger products are cut into bands of rows over our own
 * team. The bands are the same for any number of threads, as its bits depend on the shape of a call.
 *
 * oneDNN's own team leaves some of the second thread: with AVX-512 one thread is at 99 % of the ceiling, two at 93 %, and at 75 %
 * where b is transposed. There each thread of our team does a rectangle of c alone, cut so that edges of the library's blocks and
 * what each thread must pack of b cost least (two threads, us before and after: 128 x 512 x 784 312, 301; 128 x 512 x 512 with b
 * transposed 255, 230; 784 x 512 x 128 with a transposed 317, 300; 256 x 4096 x 4096 32,400, 29,100). With AVX2 and below a cut
 * gains nothing. */
#include "engine/cpu/product.h"

#include <cblas.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#define SMALL_PRODUCT (64 * 64 * 64) /* m n k up to here: a library's fork and dispatch show */
#define ALONE_PRODUCT (512 * 1024)   /* m n k up to here: oneDNN's fork costs more than a second thread gives */
#define BAND_ROWS     64
#define FEW_ROWS      32
#define CUT_PRODUCT   (2 << 20) /* m n k to a thread from here on: worth a cut of our own */
#define CUT_ROWS      8         /* the rectangle that oneDNN's inner loop fills; others cost as much */
#define CUT_COLUMNS   48
#define CUT_LINE      16 /* columns are cut at lines of the cache */
#define PACK_A        4  /* what an element costs that a thread packs, in multiplications: a is read along its rows, */
#define PACK_B        8
#define PACK_B_TURNED 24 /* and a transposed b is turned by single numbers; from the times of one cut and the other */
#define FEW_COLUMNS   64 /* what the team splits: whole lines of the cache, four vectors at most */

struct gemm {
    bool ta, tb;
    int64_t m, n, k, lda, ldb, ldc;
    const float *a, *b;
    float beta, *c;
};

struct few {
    const struct gemm *g;
    void (*few_rows)(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, bool add,
                     float *y, int64_t ldy);
};

/* Rows begin .. end of c. */
static void blas_rows(const struct gemm *g, int64_t begin, int64_t end)
{
    const float *a = g->a + (g->ta ? begin : begin * g->lda);

    cblas_sgemm(CblasRowMajor, g->ta ? CblasTrans : CblasNoTrans, g->tb ? CblasTrans : CblasNoTrans, (blasint)(end - begin),
                (blasint)g->n, (blasint)g->k, 1, a, (blasint)g->lda, g->b, (blasint)g->ldb, g->beta, g->c + begin * g->ldc,
                (blasint)g->ldc);
}

static void blas_bands(const void *context, int64_t begin, int64_t end)
{
    const struct gemm *g = context;

    for (int64_t band = begin; band < end; band++) {
        int64_t last = (band + 1) * BAND_ROWS;

        blas_rows(g, band * BAND_ROWS, last < g->m ? last : g->m);
    }
}

static void blas_product(const struct device *d, const struct gemm *g)
{
    if (d->threads == 1 && g->m <= BAND_ROWS) {
        blas_rows(g, 0, g->m);
        return;
    }
    /* at least four million operations to a thread */
    int64_t band = BAND_ROWS * g->n * g->k, grain = band > 2000000 ? 1 : 2000000 / (band + 1) + 1;

    team_run(d, (g->m + BAND_ROWS - 1) / BAND_ROWS, grain, blas_bands, g);
}

static void few_columns(const void *context, int64_t begin, int64_t end)
{
    const struct few *f = context;
    const struct gemm *g = f->g;
    int64_t first = begin * FEW_COLUMNS, last = end * FEW_COLUMNS < g->n ? end * FEW_COLUMNS : g->n;

    f->few_rows(g->m, last - first, g->k, g->a, g->lda, g->b + first, g->ldb, g->beta != 0, g->c + first, g->ldc);
}

static bool few_rows(const struct device *d, const struct gemm *g)
{
    struct few f = {g, d->simd->products->few_rows};

    if (g->ta || g->tb || g->m > FEW_ROWS)
        return false;
    team_run(d, (g->n + FEW_COLUMNS - 1) / FEW_COLUMNS, 1 + 200000 / (g->m * g->k * FEW_COLUMNS + 1), few_columns, &f);
    return true;
}

/* One row, w transposed. */
static bool by_vector(const struct gemm *g)
{
    if (g->m == 1 && g->tb && (!g->ta || g->lda == 1 || g->k == 1)) {
        cblas_sgemv(CblasRowMajor, CblasNoTrans, (blasint)g->n, (blasint)g->k, 1, g->b, (blasint)g->ldb, g->a, 1, g->beta, g->c,
                    1);
        return true;
    }
    return false;
}

#ifdef HORN_ONEDNN
/* Whether oneDNN is the better one for this shape; see the head of the file. */
static bool onednn_better(const struct device *d, const struct gemm *g)
{
    if (d->level == '3') {
        if (!g->ta && !g->tb)
            return g->n < 256;
        if (!g->ta)
            return g->k <= g->n;
    }
    return d->level != 'b';
}
#endif

#ifdef HORN_ONEDNN
/* The size of the teams that this thread starts, oneDNN's too. */
static void set_team(int n)
{
#ifdef _OPENMP
    omp_set_num_threads(n);
#else
    (void)n;
#endif
}

static bool onednn_sgemm(const struct gemm *g)
{
    return dnnl_sgemm(g->ta ? 'T' : 'N', g->tb ? 'T' : 'N', g->m, g->n, g->k, 1, g->a, g->lda, g->b, g->ldb, g->beta, g->c,
                      g->ldc) == dnnl_success;
}

struct cut {
    const struct gemm *g;
    int64_t down, across; /* parts: one for each thread of the team */
};

static int64_t round_up(int64_t n, int64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Part `at` of n in units: where it begins; at = parts is the end of n. */
static int64_t cut_at(int64_t n, int64_t unit, int64_t parts, int64_t at)
{
    int64_t begin = (n + unit - 1) / unit * at / parts * unit;

    return begin < n ? begin : n;
}

/* What the largest part takes, in multiplications for each of k. */
static int64_t cut_cost(const struct gemm *g, int64_t down, int64_t across)
{
    int64_t rows = round_up((g->m + down - 1) / down, CUT_ROWS), columns = round_up((g->n + across - 1) / across, CUT_LINE);

    return rows * round_up(columns, CUT_COLUMNS) + rows * PACK_A + columns * (g->tb ? PACK_B_TURNED : PACK_B);
}

/* The best of the ways to give each thread a part; false where oneDNN's own is the better one: it cuts k, too. */
static bool cut_choose(const struct device *d, const struct gemm *g, struct cut *ret)
{
    int64_t least = INT64_MAX, threads = d->threads;

    if (d->level != '4' || threads == 1 || team_inside() || g->m * g->n * g->k < CUT_PRODUCT * threads ||
        g->k > 16 * (g->m + g->n))
        return false;
    for (int64_t down = 1; down <= threads; down++) {
        int64_t across = threads / down;

        if (down * across != threads || g->m < down * CUT_ROWS || g->n < across * CUT_LINE)
            continue;
        int64_t cost = cut_cost(g, down, across);

        if (cost < least) {
            least = cost;
            *ret = (struct cut){g, down, across};
        }
    }
    return least < INT64_MAX;
}

static void onednn_parts(const void *context, int64_t begin, int64_t end)
{
    const struct cut *cut = context;
    const struct gemm *g = cut->g;

    for (int64_t i = begin; i < end; i++) {
        int64_t row = cut_at(g->m, CUT_ROWS, cut->down, i / cut->across),
                last_row = cut_at(g->m, CUT_ROWS, cut->down, i / cut->across + 1),
                column = cut_at(g->n, CUT_LINE, cut->across, i % cut->across),
                last_column = cut_at(g->n, CUT_LINE, cut->across, i % cut->across + 1);
        struct gemm part = *g;

        part.m = last_row - row;
        part.n = last_column - column;
        part.a += g->ta ? row : row * g->lda;
        part.b += g->tb ? column * g->ldb : column;
        part.c += row * g->ldc + column;
        if (!onednn_sgemm(&part))
            blas_rows(&part, 0, part.m);
    }
}

/* oneDNN shares any product over the whole team, also one of 2 us. */
static bool onednn_product(const struct device *d, const struct gemm *g)
{
    bool alone = d->threads > 1 && g->m * g->n * g->k <= ALONE_PRODUCT && !team_inside();
    struct cut cut;

    if (cut_choose(d, g, &cut)) {
        team_run(d, d->threads, 1, onednn_parts, &cut);
        return true;
    }
    if (alone)
        set_team(1);
    bool ok = onednn_sgemm(g);

    if (alone)
        set_team(d->threads);
    return ok;
}
#endif

void product(const struct device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, const float *a, int64_t lda,
             const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    struct gemm g = {ta, tb, m, n, k, lda, ldb, ldc, a, b, beta, c};

    if (m <= 0 || n <= 0)
        return;
    if (k <= 0) {
        for (int64_t i = 0; i < m && beta == 0; i++)
            memset(c + i * ldc, 0, (size_t)n * sizeof *c);
        return;
    }
    if (few_rows(d, &g))
        return;
#ifdef HORN_ONEDNN
    bool known = d->blas_level >= d->level;
#else
    bool known = true;
#endif
    if (known && by_vector(&g))
        return;
    if (known && m * n * k <= SMALL_PRODUCT) {
        blas_rows(&g, 0, m);
        return;
    }
#ifdef HORN_ONEDNN
    if ((!known || onednn_better(d, &g)) && onednn_product(d, &g))
        return;
#endif
    blas_product(d, &g);
}
