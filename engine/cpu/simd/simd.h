/* Own loops of the CPU backend. Every .c file of this folder is compiled once per SIMD level (x86-64-v2, v3, v4; elsewhere
 * "base") with SIMD_LEVEL defined.
 *
 * SIMD(name) is name_v3 and so on: every function with external linkage in this folder is called so. A level's functions are
 * reached through its struct simd (level.c); engine/cpu/cpu.c chooses one at start, by what the CPU has or by HORN_SIMD.
 * A function here works on the range it is given, in the calling thread; engine/cpu splits the work over the team. */
#ifndef HORN_CPU_SIMD_SIMD_H
#define HORN_CPU_SIMD_SIMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIMD_JOIN_(name, level) name##_##level
#define SIMD_JOIN(name, level)  SIMD_JOIN_(name, level)
#define SIMD_TEXT_(level)       #level
#define SIMD_TEXT(level)        SIMD_TEXT_(level)

#define SUM_BLOCK 256 /* elements summed in float before they join a double: fixed, so that no split changes a bit */
#define ROW_BLOCK 64  /* the same for rows that are summed down columns, where each block is a chain of additions */

/* --- formulas (formula.c): code compiled by engine/cpu/formula.c ------------------------------------------------------ */

#define FORMULA_BLOCK   256   /* elements per instruction: all of a formula's streams stay in L1 while memory is read ahead */
#define FORMULA_FLOATS  16384 /* room of all slots of a block, on the stack: 64 KiB */
#define FORMULA_PLACES  160   /* slots, then inputs read where they lie, then outputs written where they lie */
#define FORMULA_SCALARS 112   /* values that are the same for all elements */

enum formula_extra {                    /* codes that follow enum term_code */
                     CODE_MUL_ADD = 64, /* a b + c */
                     CODE_MUL_SUB,      /* a b - c */
                     CODE_SUB_MUL,      /* c - a b */
                     CODE_SUB_DIV,      /* c - a / b */
                     CODE_MIX,          /* c + (a - c) b */
                     CODE_SQRT_ADD,     /* sqrt(a) + b */
                     CODE_LOAD,         /* input a, converted or stretched, into place `to` */
                     CODE_STORE,        /* place or scalar a into place `to` */
                     CODE_NARROW        /* the same, rounded to bfloat16 */
};

struct formula_code {
    uint8_t code, scalars; /* bit i of scalars: operand i is a scalar */
    uint8_t to, a, b, c;
};

struct formula_input { /* one that is not read where it lies */
    uint8_t type;      /* enum dtype */
    uint8_t rank;      /* of the loops below; 0: the same index as the output */
    int64_t dim[8], stride[8];
};

/* A direct input of which some rows are given; the others are zeros. */
struct formula_rows {
    int in;               /* of the direct inputs; the input's own pointer is not read */
    const int32_t *where; /* row of `given` for each row, or -1; NULL: no such input */
    const float *given;   // (any, width)
    int64_t width;
    bool rests;         /* a block without a given row stays as it is where all of these are zeros (+0): */
    int n_resting;      /* direct inputs, */
    uint8_t resting[8]; /* none at all: always */
};

struct formula_run {
    struct formula_rows rows;
    const struct formula_code *code;
    int n_code, n_slots, block;
    int n_direct_in, n_direct_out, out_bytes; /* of an element of the outputs: 4, or 2 where CODE_NARROW writes them */
    const float *direct_in[16];
    void *direct_out[8];
    const struct formula_input *inputs; /* what CODE_LOAD names */
    const void *input_data[16];
    float scalar[FORMULA_SCALARS];
};

struct simd_formulas {
    void (*run)(const struct formula_run *r, int64_t begin, int64_t end);
    void (*scalar)(const struct formula_code *c, float *s);         /* one instruction on scalars: s[to] = code(s[a], ...) */
    void (*load)(float *to, const void *from, int type, int64_t n); /* any element type to float */
    void (*fill)(float *to, float value, int64_t n);
    void (*narrow)(uint16_t *to, const float *from, int64_t n); /* to bfloat16, half to even; a NaN stays one */
};

/* --- sums (sums.c) ---------------------------------------------------------------------------------------------------- */

struct simd_sums {
    void (*add)(float *y, const float *x, int64_t n);                     /* y += x */
    void (*add_row)(float *y, const float *row, int64_t rows, int64_t n); /* y (rows, n) += row (n) */
    double (*sum)(const float *x, int64_t n);
    double (*sum_squares)(const float *x, int64_t n);
    float (*largest)(const float *x, int64_t n); /* n >= 1; NaN if there is one */
    /* y (n) = sums over the rows of x (rows, n), in blocks of ROW_BLOCK rows. */
    void (*sum_rows)(double *y, const float *x, int64_t rows, int64_t n, bool squares);
    void (*largest_rows)(float *y, const float *x, int64_t rows, int64_t n);
};

/* --- rows (rows.c) ---------------------------------------------------------------------------------------------------- */

struct simd_rows {
    void (*softmax)(float *y, const float *x, int64_t rows, int64_t n);
    void (*softmax_dx)(float *dx, const float *y, const float *dy, int64_t rows, int64_t n);
    /* p = softmax(x); loss (rows) = sum_k t_k (logsumexp(x) - x_k). x, p, t (rows, n). */
    void (*cross_entropy)(float *loss, float *p, const float *x, const float *t, int64_t rows, int64_t n);
    /* The same with one class per row, -1 for one that does not exist: NaN. */
    void (*cross_entropy_sparse)(float *loss, float *p, const float *x, const int32_t *classes, int64_t rows, int64_t n);
    /* dx = (p sum(t) - t) d, d (rows); dx may be p. */
    void (*cross_entropy_dx)(float *dx, const float *p, const float *t, const float *d, int64_t rows, int64_t n);
    void (*cross_entropy_sparse_dx)(float *dx, const float *p, const int32_t *classes, const float *d, int64_t rows, int64_t n);
};

/* --- random (random.c) ------------------------------------------------------------------------------------------------ */

struct simd_random {
    /* y = kept ? x scale : 0 for elements begin .. end, begin a multiple of 4. Element i takes word i % 4 of
     * philox(key, high, i / 4) and is kept where its upper 24 bits reach `threshold`. x may be y. */
    void (*dropout)(float *y, const float *x, uint64_t key, uint64_t high, uint32_t threshold, float scale, int64_t begin,
                    int64_t end);
};

/* --- products (few.c) --------------------------------------------------------------------------------------------------- */

struct simd_products {
    /* y (m, n) = x (m, k) w (k, n), or y + that with `add`. A row's bits depend neither on m nor on how n is cut. */
    void (*few_rows)(int64_t m, int64_t n, int64_t k, const float *x, int64_t ldx, const float *w, int64_t ldw, bool add,
                     float *y, int64_t ldy);
};

/* --- pooling (window.c) ----------------------------------------------------------------------------------------------- */

struct pool_shape {
    int64_t h, w, c, oh, ow, size[2], stride[2], pad[2]; /* pad: before */
    bool max;
};

struct simd_windows {
    /* Rows begin .. end of all images' output rows. place: number of the window's element, NULL for none. */
    void (*pool)(const struct pool_shape *g, const float *x, float *y, uint8_t *place, int64_t begin, int64_t end);
    void (*pool_dx)(const struct pool_shape *g, float *dx, const float *dy, const uint8_t *place, int64_t begin,
                    int64_t end); /* images begin .. end */
};

/* --- batch normalisation (norm.c), rows of n channels ----------------------------------------------------------------- */

struct simd_norms {
    void (*squares_around)(double *y, const float *x, const float *mean, int64_t rows, int64_t n); /* sums of (x - mean)^2 */
    /* dbeta = sums of dy, dgamma = sums of dy (x - mean) */
    void (*gradient_sums)(double *dbeta, double *dgamma, const float *dy, const float *x, const float *mean, int64_t rows,
                          int64_t n);
    /* y = (x - mean) scale + shift */
    void (*line)(float *y, const float *x, const float *mean, const float *scale, const float *shift, int64_t rows, int64_t n);
    /* dx = of_dy dy + of_x (x - mean) + shift */
    void (*plane)(float *dx, const float *dy, const float *x, const float *mean, const float *of_dy, const float *of_x,
                  const float *shift, int64_t rows, int64_t n);
};

/* --- Winograd's convolution (winograd.c) ------------------------------------------------------------------------------ */

#define WINOGRAD_POINTS   36
#define WINOGRAD_CHANNELS 16 /* channels and filters are multiples of this */

struct winograd_tiles {    /* 4 x 4 tiles of an output, or the 6 x 6 windows that they read */
    int64_t h, w, c;       /* of the tensor that is read or written */
    int64_t rows, columns; /* of tiles in an image; tiles are numbered through all images */
    int64_t pad[2];        /* before, of windows */
};

/* Transformed tiles lie as (point, tile, channel), `step` floats from point to point, from tile `begin` on. */
struct simd_winograd {
    void (*input)(const struct winograd_tiles *g, const float *x, float *to, int64_t step, int64_t begin, int64_t end);
    /* and, behind the points, the sums of each tile of dy */
    void (*filter_of_gradient)(const struct winograd_tiles *g, const float *dy, float *to, int64_t step, int64_t begin,
                               int64_t end);
    /* bias (c) or NULL */
    void (*output)(const struct winograd_tiles *g, const float *from, int64_t step, const float *bias, float *y, int64_t begin,
                   int64_t end);
    /* k (3, 3, c, f) to (point, c, f), channels begin .. end; turned by 180 degrees for the gradient of the input */
    void (*kernel)(const float *k, int64_t c, int64_t f, bool turned, float *to, int64_t step, int64_t begin, int64_t end);
    void (*kernel_gradient)(const float *from, int64_t step, int64_t c, int64_t f, float *dk, int64_t begin, int64_t end);
    void (*transpose)(float *to, const float *from, int64_t rows, int64_t columns); /* multiples of 16 */
    /* c (rows, n) = or += a b: element (r, d) of a at a[r a_row + d a_deep], b (depth, n), n a multiple of 16 */
    void (*product)(int64_t rows, int64_t n, int64_t depth, const float *a, int64_t a_row, int64_t a_deep, const float *b,
                    float *c, bool add);
};

/* --- LSTM cell with tanh and sigmoid (lstm.c), one row ---------------------------------------------------------------- */

struct simd_cells {
    /* z (4 units) sums without bias; c in and out; h and y get the output, gates (4 units) i f g o. */
    void (*cell)(int64_t units, const float *z, const float *bias, float *c, float *h, float *y, float *gates);
    /* dc in and out; dz (4 units). c the state after the step, c_before before it. */
    void (*cell_dx)(int64_t units, const float *gates, const float *c, const float *c_before, const float *dh, float *dc,
                    float *dz);
};

struct simd {
    const char *name;
    const struct simd_formulas *formulas;
    const struct simd_sums *sums;
    const struct simd_rows *rows;
    const struct simd_random *random;
    const struct simd_windows *windows;
    const struct simd_norms *norms;
    const struct simd_winograd *winograd;
    const struct simd_cells *cells;
    const struct simd_products *products;
};

#ifdef SIMD_LEVEL
#define SIMD(name) SIMD_JOIN(name, SIMD_LEVEL)
#define SIMD_NAME  SIMD_TEXT(SIMD_LEVEL)
extern const struct simd_formulas SIMD(simd_formulas);
extern const struct simd_sums SIMD(simd_sums);
extern const struct simd_rows SIMD(simd_rows);
extern const struct simd_random SIMD(simd_random);
extern const struct simd_windows SIMD(simd_windows);
extern const struct simd_norms SIMD(simd_norms);
extern const struct simd_winograd SIMD(simd_winograd);
extern const struct simd_cells SIMD(simd_cells);
extern const struct simd_products SIMD(simd_products);
extern const struct simd SIMD(simd);
#endif

#endif
