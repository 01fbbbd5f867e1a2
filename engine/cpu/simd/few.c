/* Products of few rows: y (m, n) = x (m, k) w (k, n), w read once from wherever it lies, nothing packed.
 *
 * With few rows w comes from L2, L3 or memory and decides the time. A tile of some rows by a few vectors of columns stays in
 * registers while k runs; since the rows of w are far apart, the processor's own prefetcher sees no stream, so each tile fetches
 * AHEAD rows before their use (512 x 1,296 weights from L3, one Sapphire Rapids core: 6 rows 87 us without, 69 with; 8 rows 106
 * and 82). One row alone goes by whole rows of w: 90 us against 100 by tiles, after other work has emptied L2.
 *
 * Order of sums: along k in blocks of SUM_BLOCK, a chain of multiply-adds from zero within a block, blocks added to y in order.
 * It is the same for every element whatever m, n and the split: a row's result does not depend on the rows beside it, nor on
 * the number of threads. */
#include "engine/cpu/simd/simd.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

enum {
    WIDTH = VECTOR_BYTES / (int)sizeof(float),
    MANY_REGISTERS = VECTOR_BYTES == 64, /* 32 of them, else 16 */
    ROWS = MANY_REGISTERS ? 8 : 6,
    AHEAD = 8
};

/* Vectors of columns beside `rows` rows: sums, one row of w and one number of x fit the registers. */
enum { MOST = 4, MOST_ROWS = MANY_REGISTERS ? 6 : 2, FEWER = MANY_REGISTERS ? 3 : 2 };

struct part {
    int64_t n, k, ldx, ldw, ldy;
    const float *x, *w;
    float *y;
    bool add; /* to what is in y */
};

/* rows x vectors at the part's corner, k <= SUM_BLOCK. Called with constants: all loops over rows and vectors unroll. */
INLINE void tile(const struct part *p, int rows, int vectors)
{
    vector sum[8][4] = {0};
    const float *w = p->w;

    for (int64_t i = 0; i < p->k; i++, w += p->ldw) {
        vector line[4];

#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            line[v] = *(const vector *)(w + v * WIDTH);
            __builtin_prefetch(w + v * WIDTH + AHEAD * p->ldw);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[r][v] += line[v] * p->x[r * p->ldx + i];
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            vector *to = (vector *)(p->y + r * p->ldy + v * WIDTH);

            if (p->add)
                sum[r][v] += *to;
            *to = sum[r][v];
        }
}

/* vectors: MOST, FEWER or 1. */
static void columns(const struct part *p, int rows, int vectors)
{
    switch (rows) {
#define ROW_CASE(r)                                 \
    case r:                                         \
        if (vectors == 1)                           \
            tile(p, r, 1);                          \
        else if (r <= MOST_ROWS && vectors == MOST) \
            tile(p, r, MOST);                       \
        else                                        \
            tile(p, r, FEWER);                      \
        break;
        ROW_CASE(1)
        ROW_CASE(2)
        ROW_CASE(3)
        ROW_CASE(4)
        ROW_CASE(5)
        ROW_CASE(6)
#if VECTOR_BYTES == 64
        ROW_CASE(7)
        ROW_CASE(8)
#endif
#undef ROW_CASE
    }
}

/* All rows beside one tile of columns, so that its part of w stays in L1 or L2. */
static void all_rows(struct part p, int64_t m, int group, int vectors)
{
    for (int64_t r = 0; r < m; r += group) {
        int rows = (int)(m - r < group ? m - r : group);
        struct part here = p;

        here.x += r * p.ldx;
        here.y += r * p.ldy;
        columns(&here, rows, vectors);
    }
}

/* The last n < WIDTH columns, through copies with zeros beside them. */
static void narrow(struct part p, int64_t m)
{
    float w[SUM_BLOCK * WIDTH], y[ROWS * WIDTH];

    memset(w, 0, sizeof w);
    for (int64_t i = 0; i < p.k; i++)
        memcpy(w + i * WIDTH, p.w + i * p.ldw, (size_t)p.n * sizeof *w);
    for (int64_t r = 0; r < m; r += ROWS) {
        int rows = (int)(m - r < ROWS ? m - r : ROWS);
        struct part here = {
            .n = WIDTH, .k = p.k, .ldx = p.ldx, .ldw = WIDTH, .ldy = WIDTH, .x = p.x + r * p.ldx, .w = w, .y = y};

        columns(&here, rows, 1);
        for (int row = 0; row < rows; row++)
            for (int64_t j = 0; j < p.n; j++) {
                float *to = p.y + (r + row) * p.ldy + j;

                *to = p.add ? *to + y[row * WIDTH + j] : y[row * WIDTH + j];
            }
    }
}

/* One row alone is bound by the reading of w, which is fastest in the order in which it lies: STREAM rows of w at a time, the sums
 * of a block in L1. The chains are those of a tile. n a multiple of WIDTH, at most STREAM_COLUMNS; k <= SUM_BLOCK. */
enum { STREAM = 4, STREAM_COLUMNS = 1024 };

static void one_row(const struct part *p)
{
    float sums[STREAM_COLUMNS];
    const float *w = p->w;
    int64_t i = 0;

    memset(sums, 0, (size_t)p->n * sizeof *sums);
    for (; i + STREAM <= p->k; i += STREAM, w += STREAM * p->ldw)
        for (int64_t j = 0; j < p->n; j += WIDTH) {
            vector sum = *(vector *)(sums + j);

#pragma GCC unroll 4
            for (int r = 0; r < STREAM; r++)
                sum += *(const vector *)(w + r * p->ldw + j) * p->x[i + r];
            *(vector *)(sums + j) = sum;
        }
    for (; i < p->k; i++, w += p->ldw)
        for (int64_t j = 0; j < p->n; j += WIDTH)
            *(vector *)(sums + j) += *(const vector *)(w + j) * p->x[i];
    for (int64_t j = 0; j < p->n; j += WIDTH) {
        vector *to = (vector *)(p->y + j);

        if (p->add)
            *(vector *)(sums + j) += *to;
        *to = *(vector *)(sums + j);
    }
}

static void few_rows(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, bool add,
                     float *y, int64_t ldy)
{
    int64_t groups = (m + ROWS - 1) / ROWS;
    int group = (int)((m + groups - 1) / groups);
    int64_t step;

    for (int64_t j = 0; j < n; j += step) {
        int vectors = group <= MOST_ROWS ? MOST : FEWER;

        if (n - j < vectors * WIDTH)
            vectors = 1;
        step = (int64_t)vectors * WIDTH;
        if (m == 1 && n - j >= WIDTH)
            step = n - j < STREAM_COLUMNS ? (n - j) / WIDTH * WIDTH : STREAM_COLUMNS;
        for (int64_t i = 0; i < k; i += SUM_BLOCK) {
            struct part p = {.n = n - j < step ? n - j : step,
                             .k = k - i < SUM_BLOCK ? k - i : SUM_BLOCK,
                             .ldx = ldx,
                             .ldw = ldw,
                             .ldy = ldy,
                             .x = x + i,
                             .w = w + i * ldw + j,
                             .y = y + j,
                             .add = add || i > 0};

            if (p.n < WIDTH)
                narrow(p, m);
            else if (m == 1)
                one_row(&p);
            else
                all_rows(p, m, group, vectors);
        }
    }
}

const struct simd_products SIMD(simd_products) = {few_rows};
