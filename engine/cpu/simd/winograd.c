/* Winograd's minimal filtering, F(4 x 4, 3 x 3) and its weight gradient F(3 x 3, 4 x 4): transforms of tiles and the products
 * between them. Lavin & Gray 2015, arXiv:1509.09308.
 *
 *   y  = A^T ((G k G^T) . (B^T x B)) A        k 3 x 3, x 6 x 6, y 4 x 4; . is a product over channels at each of 36 points
 *   dk = A3^T ((G4 dy G4^T) . (B^T x B)) A3   dy 4 x 4 as the filter of four taps, summed over tiles
 *
 * The points are 0, +-5/8, +-3/2 and infinity: the usual +-1, +-2 need fewer multiplications and have four times the error.
 * All tensors are NHWC: a vector holds neighbouring channels, so that a transform is additions of whole vectors. */
#include "engine/cpu/simd/simd.h"

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif

#define ALL _Pragma("GCC unroll 16") /* loops of a few turns, over arrays that then stay in registers */

typedef float vec __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

static inline vec load(const float *p)
{
    return *(const vec *)p;
}

static inline void store(float *p, vec v)
{
    *(vec *)p = v;
}

/* --- transforms of one line: six, four or three vectors into six, four or three ----------------------------------------- */

/* For points 0, P, -P, Q, -Q: row i of A^T is the points' i-th powers, row p of G the powers of p over the product of its
 * distances to the others, row p of B^T the coefficients of that product. The last of each is the point at infinity. */
#define P   0.625f
#define Q   1.5f
#define P2  (P * P)
#define Q2  (Q * Q)
#define AT0 (1 / (P2 * Q2))
#define ATP (1 / (2 * P2 * (P2 - Q2)))
#define ATQ (1 / (2 * Q2 * (Q2 - P2)))

static inline void points_of_six(vec y[6], const vec x[6]) /* B^T */
{
    vec even = x[4] - Q2 * x[2], odd = P * (x[3] - Q2 * x[1]), far = x[4] - P2 * x[2], steep = Q * (x[3] - P2 * x[1]);

    y[0] = P2 * Q2 * x[0] - (P2 + Q2) * x[2] + x[4];
    y[1] = even + odd;
    y[2] = even - odd;
    y[3] = far + steep;
    y[4] = far - steep;
    y[5] = P2 * Q2 * x[1] - (P2 + Q2) * x[3] + x[5];
}

static inline void points_of_three(vec y[6], const vec x[3]) /* G */
{
    vec even = ATP * x[0] + ATP * P2 * x[2], odd = ATP * P * x[1], far = ATQ * x[0] + ATQ * Q2 * x[2], steep = ATQ * Q * x[1];

    y[0] = AT0 * x[0];
    y[1] = even + odd;
    y[2] = even - odd;
    y[3] = far + steep;
    y[4] = far - steep;
    y[5] = x[2];
}

static inline void points_of_four(vec y[6], const vec x[4]) /* G4 */
{
    vec even = ATP * x[0] + ATP * P2 * x[2], odd = ATP * P * x[1] + ATP * P2 * P * x[3], far = ATQ * x[0] + ATQ * Q2 * x[2],
        steep = ATQ * Q * x[1] + ATQ * Q2 * Q * x[3];

    y[0] = AT0 * x[0];
    y[1] = even + odd;
    y[2] = even - odd;
    y[3] = far + steep;
    y[4] = far - steep;
    y[5] = x[3];
}

static inline void four_of_points(vec y[4], const vec x[6]) /* A^T */
{
    vec near = x[1] + x[2], slope = x[1] - x[2], far = x[3] + x[4], steep = x[3] - x[4];

    y[0] = x[0] + near + far;
    y[1] = P * slope + Q * steep;
    y[2] = P2 * near + Q2 * far;
    y[3] = P2 * P * slope + Q2 * Q * steep + x[5];
}

static inline void three_of_points(vec y[3], const vec x[6]) /* A3^T */
{
    vec near = x[1] + x[2], far = x[3] + x[4];

    y[0] = x[0] + near + far;
    y[1] = P * (x[1] - x[2]) + Q * (x[3] - x[4]);
    y[2] = P2 * near + Q2 * far + x[5];
}

/* --- tiles ---------------------------------------------------------------------------------------------------------------- */

struct corner { /* of a tile's window into an image */
    const float *image;
    int64_t row, column;
};

static struct corner corner_of(const struct winograd_tiles *g, const float *x, int64_t tile, int64_t before_row,
                               int64_t before_column)
{
    int64_t in_image = tile % (g->rows * g->columns);

    return (struct corner){x + tile / (g->rows * g->columns) * g->h * g->w * g->c, in_image / g->columns * 4 - before_row,
                           in_image % g->columns * 4 - before_column};
}

/* Where the LANES channels from `at` of a size x size window lie, and the floats between its rows and columns; a window that
 * reaches out of the image is copied to `edge` with zeros outside. */
struct window {
    const float *p;
    int64_t row, column;
};

static inline struct window window(const struct winograd_tiles *g, struct corner o, int64_t at, int size, float *edge)
{
    const float *p = o.image + (o.row * g->w + o.column) * g->c + at;

    if (o.row >= 0 && o.column >= 0 && o.row + size <= g->h && o.column + size <= g->w)
        return (struct window){p, g->w * g->c, g->c};
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            int64_t row = o.row + i, column = o.column + j;
            bool inside = row >= 0 && row < g->h && column >= 0 && column < g->w;

            store(edge + (i * size + j) * LANES, inside ? load(p + (i * g->w + j) * g->c) : (vec){0});
        }
    return (struct window){edge, size * LANES, LANES};
}

/* The 36 points of a window of `size`, of which points_of makes six out of a line. */
#define TO_POINTS(name, size, points_of)                                                       \
    static inline void name(struct window w, float *to, int64_t step)                          \
    {                                                                                          \
        vec half[6][size];                                                                     \
                                                                                               \
        ALL for (int j = 0; j < (size); j++)                                                   \
        {                                                                                      \
            vec in[size], out[6];                                                              \
                                                                                               \
            ALL for (int i = 0; i < (size); i++) in[i] = load(w.p + i * w.row + j * w.column); \
            points_of(out, in);                                                                \
            ALL for (int i = 0; i < 6; i++) half[i][j] = out[i];                               \
        }                                                                                      \
        ALL for (int i = 0; i < 6; i++)                                                        \
        {                                                                                      \
            vec out[6];                                                                        \
                                                                                               \
            points_of(out, half[i]);                                                           \
            ALL for (int j = 0; j < 6; j++) store(to + (i * 6 + j) * step, out[j]);            \
        }                                                                                      \
    }
TO_POINTS(six_to_points, 6, points_of_six)
TO_POINTS(four_to_points, 4, points_of_four)
TO_POINTS(three_to_points, 3, points_of_three)

static void input(const struct winograd_tiles *g, const float *x, float *to, int64_t step, int64_t begin, int64_t end)
{
    float edge[36 * LANES];

    for (int64_t t = begin; t < end; t++, to += g->c)
        for (int64_t at = 0; at < g->c; at += LANES)
            six_to_points(window(g, corner_of(g, x, t, g->pad[0], g->pad[1]), at, 6, edge), to + at, step);
}

static inline vec sum_of_four(struct window w)
{
    vec sum[4];

    ALL for (int i = 0; i < 4; i++) sum[i] = (load(w.p + i * w.row) + load(w.p + i * w.row + w.column)) +
                                             (load(w.p + i * w.row + 2 * w.column) + load(w.p + i * w.row + 3 * w.column));
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void filter_of_gradient(const struct winograd_tiles *g, const float *dy, float *to, int64_t step, int64_t begin,
                               int64_t end)
{
    float edge[16 * LANES];

    for (int64_t t = begin; t < end; t++, to += g->c)
        for (int64_t at = 0; at < g->c; at += LANES) {
            struct window w = window(g, corner_of(g, dy, t, 0, 0), at, 4, edge);

            four_to_points(w, to + at, step);
            store(to + WINOGRAD_POINTS * step + at, sum_of_four(w));
        }
}

static void output(const struct winograd_tiles *g, const float *from, int64_t step, const float *bias, float *y, int64_t begin,
                   int64_t end)
{
    for (int64_t t = begin; t < end; t++, from += g->c) {
        struct corner o = corner_of(g, y, t, 0, 0);
        int64_t rows = g->h - o.row < 4 ? g->h - o.row : 4, columns = g->w - o.column < 4 ? g->w - o.column : 4;

        for (int64_t at = 0; at < g->c; at += LANES) {
            float *to = y + (o.image - y) + (o.row * g->w + o.column) * g->c + at;
            vec half[4][6], add = bias ? load(bias + at) : (vec){0};

            ALL for (int j = 0; j < 6; j++)
            {
                vec in[6], out[4];

                ALL for (int i = 0; i < 6; i++) in[i] = load(from + (i * 6 + j) * step + at);
                four_of_points(out, in);
                ALL for (int i = 0; i < 4; i++) half[i][j] = out[i];
            }
            ALL for (int i = 0; i < 4; i++)
            {
                vec out[4];

                four_of_points(out, half[i]);
                ALL for (int j = 0; j < 4; j++) if (i < rows && j < columns) store(to + (i * g->w + j) * g->c, out[j] + add);
            }
        }
    }
}

/* --- kernels (3, 3, c, f) ------------------------------------------------------------------------------------------------- */

static void kernel(const float *k, int64_t c, int64_t f, bool turned, float *to, int64_t step, int64_t begin, int64_t end)
{
    int64_t cell = turned ? -c * f : c * f;

    k += turned ? 8 * c * f : 0;
    for (int64_t in = begin; in < end; in++)
        for (int64_t at = 0; at < f; at += LANES)
            three_to_points((struct window){k + in * f + at, 3 * cell, cell}, to + in * f + at, step);
}

static void kernel_gradient(const float *from, int64_t step, int64_t c, int64_t f, float *dk, int64_t begin, int64_t end)
{
    for (int64_t in = begin; in < end; in++)
        for (int64_t at = 0; at < f; at += LANES) {
            vec half[3][6];

            ALL for (int j = 0; j < 6; j++)
            {
                vec x[6], out[3];

                ALL for (int i = 0; i < 6; i++) x[i] = load(from + (i * 6 + j) * step + in * f + at);
                three_of_points(out, x);
                ALL for (int i = 0; i < 3; i++) half[i][j] = out[i];
            }
            ALL for (int i = 0; i < 3; i++)
            {
                vec out[3];

                three_of_points(out, half[i]);
                ALL for (int j = 0; j < 3; j++) store(dk + ((i * 3 + j) * c + in) * f + at, out[j]);
            }
        }
}

static void transpose(float *to, const float *from, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16)
            for (int64_t a = i; a < i + 16; a++)
                for (int64_t b = j; b < j + 16; b++)
                    to[b * rows + a] = from[a * columns + b];
}

/* --- products ------------------------------------------------------------------------------------------------------------- */

/* A strip `wide` vectors of b's columns, in blocks of `tall` rows, then of 4, then of 1: c = or += a b, element (r, d) of a at
 * a[r a_row + d a_deep]. A macro, since only arrays of literal sizes are kept in registers. */
#define BLOCK(name, tall, wide)                                                                                              \
    static void name(int64_t depth, const float *a, int64_t a_row, int64_t a_deep, const float *b, int64_t ldb, float *c,    \
                     bool add)                                                                                               \
    {                                                                                                                        \
        vec sum[tall][wide];                                                                                                 \
                                                                                                                             \
        ALL for (int r = 0; r < (tall); r++) ALL for (int w = 0; w < (wide); w++) sum[r][w] =                                \
            add ? load(c + r * ldb + w * LANES) : (vec){0};                                                                  \
        for (int64_t d = 0; d < depth; d++, a += a_deep, b += ldb) {                                                         \
            vec right[wide];                                                                                                 \
                                                                                                                             \
            ALL for (int w = 0; w < (wide); w++) right[w] = load(b + w * LANES);                                             \
            ALL for (int r = 0; r < (tall); r++) ALL for (int w = 0; w < (wide); w++) sum[r][w] += a[r * a_row] * right[w];  \
        }                                                                                                                    \
        ALL for (int r = 0; r < (tall); r++) ALL for (int w = 0; w < (wide); w++) store(c + r * ldb + w * LANES, sum[r][w]); \
    }
#define STRIP(name, tall, wide)                                                                                               \
    BLOCK(name##_tall, tall, wide)                                                                                            \
    BLOCK(name##_short, 4, wide)                                                                                              \
    BLOCK(name##_row, 1, wide)                                                                                                \
    static void name(int64_t rows, int64_t depth, const float *a, int64_t a_row, int64_t a_deep, const float *b, int64_t ldb, \
                     float *c, bool add)                                                                                      \
    {                                                                                                                         \
        int64_t r = 0;                                                                                                        \
                                                                                                                              \
        for (; r + (tall) <= rows; r += (tall))                                                                               \
            name##_tall(depth, a + r * a_row, a_row, a_deep, b, ldb, c + r * ldb, add);                                       \
        for (; r + 4 <= rows; r += 4)                                                                                         \
            name##_short(depth, a + r * a_row, a_row, a_deep, b, ldb, c + r * ldb, add);                                      \
        for (; r < rows; r++)                                                                                                 \
            name##_row(depth, a + r * a_row, a_row, a_deep, b, ldb, c + r * ldb, add);                                        \
    }

#if LANES == 16 /* 32 registers */
STRIP(strip_4, 6, 4)
STRIP(strip_2, 12, 2)
STRIP(strip_1, 12, 1)
#else /* 16 registers; 16 columns are two or four vectors */
STRIP(strip_2, 6, 2)
#endif

static void product(int64_t rows, int64_t n, int64_t depth, const float *a, int64_t a_row, int64_t a_deep, const float *b,
                    float *c, bool add)
{
    int64_t at = 0;

#if LANES == 16
    for (; at + 64 <= n; at += 64)
        strip_4(rows, depth, a, a_row, a_deep, b + at, n, c + at, add);
    for (; at + 32 <= n; at += 32)
        strip_2(rows, depth, a, a_row, a_deep, b + at, n, c + at, add);
    for (; at < n; at += 16)
        strip_1(rows, depth, a, a_row, a_deep, b + at, n, c + at, add);
#else
    for (; at < n; at += 2 * LANES)
        strip_2(rows, depth, a, a_row, a_deep, b + at, n, c + at, add);
#endif
}

const struct simd_winograd SIMD(simd_winograd) = {input,           filter_of_gradient, output, kernel,
                                                  kernel_gradient, transpose,          product};
