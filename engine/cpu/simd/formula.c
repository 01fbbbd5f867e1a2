/* Runs a compiled formula: block by block, and inside a block one plain loop per instruction.
 *
 * A block is short enough for its slots to stay in L1, so a long formula (Adam: ten instructions) costs one pass over memory.
 * Operands are blocks or scalars: each code has one loop per combination, all of them vector code. A loop may write where it
 * reads (same address), never overlapping otherwise.
 *
 * One input may be given by rows. A block is then computed as any other, its rows put together or a block of zeros in their
 * place, so that the results are those of the whole input; a block that would stay as it is (see update_rows.c) is passed over. */
#include "engine/cpu/simd/simd.h"

#include <math.h>
#include <string.h>

#include "engine/cpu/simd/vmath.h"
#include "engine/graph/formula.h"
#include "engine/graph/shape.h"

/* --- inputs that are converted or stretched --------------------------------------------------------------------------- */

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    float f = v_from_bits((rest << 13) + 0x38000000u);

    if (rest >= 0x7c00u) /* inf, NaN */
        f = v_from_bits((rest << 13) | 0x7f800000u);
    else if (rest < 0x0400u) /* denormal: the integer times 2^-24 */
        f = (float)rest * 0x1p-24f;
    return v_from_bits(v_bits(f) | sign);
}

static void load(float *to, const void *from, int type, int64_t n)
{
#define LOAD(ctype, value)              \
    do {                                \
        const ctype *x = from;          \
        for (int64_t i = 0; i < n; i++) \
            to[i] = (value);            \
    } while (0)
    switch ((enum dtype)type) {
    case F32:
        memcpy(to, from, (size_t)n * sizeof *to);
        break;
    case F16:
        LOAD(uint16_t, half_to_float(x[i]));
        break;
    case BF16:
        LOAD(uint16_t, v_from_bits((uint32_t)x[i] << 16));
        break;
    case F64:
        LOAD(double, (float)x[i]);
        break;
    case I64:
        LOAD(int64_t, (float)x[i]);
        break;
    case I32:
        LOAD(int32_t, (float)x[i]);
        break;
    case U8:
        LOAD(uint8_t, (float)x[i]);
        break;
    case BOOL:
        LOAD(uint8_t, x[i] ? 1.0f : 0.0f);
        break;
    case N_DTYPES:
        break;
    }
#undef LOAD
}

static uint16_t narrowed(float x)
{
    uint32_t bits = v_bits(x), even = bits + 0x7fffu + (bits >> 16 & 1), nan = bits | 0x400000u;

    return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? nan : even) >> 16);
}

static void narrow(uint16_t *to, const float *from, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        to[i] = narrowed(from[i]);
}

static void spread(float *to, float value, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = value;
}

static const int type_bytes[N_DTYPES] = {
    [F32] = 4, [F16] = 2, [BF16] = 2, [F64] = 8, [I64] = 8, [I32] = 4, [U8] = 1, [BOOL] = 1};

/* Elements at .. at + n of the stretched input: the innermost loop is a run (stride 1) or one value repeated (stride 0). */
static void load_input(const struct formula_input *in, const char *data, float *to, int64_t at, int64_t n)
{
    int64_t index[8] = {0}, offset = 0, bytes = type_bytes[in->type];

    if (!in->rank) {
        load(to, data + at * bytes, in->type, n);
        return;
    }
    int last = in->rank - 1;

    for (int d = last; d >= 0; d--) {
        index[d] = at % in->dim[d];
        at /= in->dim[d];
        offset += index[d] * in->stride[d];
    }
    while (n > 0) {
        int64_t run = in->dim[last] - index[last];

        run = run < n ? run : n;
        if (in->stride[last]) {
            if (in->type == F32 && run < 16)
                for (int64_t i = 0; i < run; i++)
                    to[i] = ((const float *)data)[offset + i];
            else
                load(to, data + offset * bytes, in->type, run);
        } else {
            float value;

            load(&value, data + offset * bytes, in->type, 1);
            spread(to, value, run);
        }
        to += run;
        n -= run;
        offset -= index[last] * in->stride[last];
        index[last] = 0;
        for (int d = last - 1; d >= 0; d--) {
            offset += in->stride[d];
            if (++index[d] < in->dim[d])
                break;
            offset -= index[d] * in->stride[d];
            index[d] = 0;
        }
    }
}

/* --- one instruction over a block ------------------------------------------------------------------------------------- */

/* A whole block has a loop of its own, whose length the compiler knows. */
#define EACH(expression)                                                                      \
    do {                                                                                      \
        if (n == FORMULA_BLOCK) {                                                             \
            _Pragma("omp simd") for (int i = 0; i < FORMULA_BLOCK; i++) to[i] = (expression); \
        } else {                                                                              \
            _Pragma("omp simd") for (int i = 0; i < n; i++) to[i] = (expression);             \
        }                                                                                     \
    } while (0)

/* E(x, y) over the combinations of blocks and scalars. */
#define TWO(E)                                      \
    do {                                            \
        if (!(scalars & 3))                         \
            EACH(E(a[i], b[i]));                    \
        else if (scalars & 1 && !(scalars & 2)) {   \
            const float p = *a;                     \
            EACH(E(p, b[i]));                       \
        } else if (scalars & 2 && !(scalars & 1)) { \
            const float q = *b;                     \
            EACH(E(a[i], q));                       \
        } else {                                    \
            const float p = *a, q = *b;             \
            EACH(E(p, q));                          \
        }                                           \
    } while (0)
#define ONE(E) EACH(E(a[i]))
#define THREE(E)                            \
    do {                                    \
        const float p = *a, q = *b, r = *c; \
        switch (scalars & 7) {              \
        case 0:                             \
            EACH(E(a[i], b[i], c[i]));      \
            break;                          \
        case 1:                             \
            EACH(E(p, b[i], c[i]));         \
            break;                          \
        case 2:                             \
            EACH(E(a[i], q, c[i]));         \
            break;                          \
        case 3:                             \
            EACH(E(p, q, c[i]));            \
            break;                          \
        case 4:                             \
            EACH(E(a[i], b[i], r));         \
            break;                          \
        case 5:                             \
            EACH(E(p, b[i], r));            \
            break;                          \
        case 6:                             \
            EACH(E(a[i], q, r));            \
            break;                          \
        default:                            \
            EACH(E(p, q, r));               \
            break;                          \
        }                                   \
    } while (0)

#define E_ADD(x, y)        ((x) + (y))
#define E_SUB(x, y)        ((x) - (y))
#define E_MUL(x, y)        ((x) * (y))
#define E_DIV(x, y)        ((x) / (y))
#define E_MAX(x, y)        ((((x) > (y)) | ((x) != (x))) ? (x) : (y)) /* a NaN on either side stays */
#define E_MIN(x, y)        ((((x) < (y)) | ((x) != (x))) ? (x) : (y))
#define E_LT(x, y)         ((x) < (y) ? 1.0f : 0.0f)
#define E_LE(x, y)         ((x) <= (y) ? 1.0f : 0.0f)
#define E_EQ(x, y)         ((x) == (y) ? 1.0f : 0.0f)
#define E_POW(x, y)        powf((x), (y))
#define E_NEG(x)           (-(x))
#define E_ABS(x)           fabsf(x)
#define E_SIGN(x)          ((x) > 0.0f ? 1.0f : (x) < 0.0f ? -1.0f : (x))
#define E_SQRT(x)          sqrtf(x)
#define E_FLOOR(x)         floorf(x)
#define E_ROUND(x)         rintf(x)
#define E_FINITE(x)        (fabsf(x) <= FLT_MAX ? 1.0f : 0.0f)
#define E_SELECT(x, y, z)  ((x) != 0.0f ? (y) : (z))
#define E_MUL_ADD(x, y, z) ((x) * (y) + (z))
#define E_MUL_SUB(x, y, z) ((x) * (y) - (z))
#define E_SUB_MUL(x, y, z) ((z) - (x) * (y))
#define E_SUB_DIV(x, y, z) ((z) - (x) / (y))
#define E_MIX(x, y, z)     ((z) + ((x) - (z)) * (y))
#define E_SQRT_ADD(x, y)   (sqrtf(x) + (y))

static void instruction(int code, int scalars, float *to, const float *a, const float *b, const float *c, int n)
{
    switch (code) {
    case TERM_ADD:
        TWO(E_ADD);
        break;
    case TERM_SUB:
        TWO(E_SUB);
        break;
    case TERM_MUL:
        TWO(E_MUL);
        break;
    case TERM_DIV:
        TWO(E_DIV);
        break;
    case TERM_MAX:
        TWO(E_MAX);
        break;
    case TERM_MIN:
        TWO(E_MIN);
        break;
    case TERM_POW:
        TWO(E_POW);
        break;
    case TERM_LT:
        TWO(E_LT);
        break;
    case TERM_LE:
        TWO(E_LE);
        break;
    case TERM_EQ:
        TWO(E_EQ);
        break;
    case TERM_NEG:
        ONE(E_NEG);
        break;
    case TERM_ABS:
        ONE(E_ABS);
        break;
    case TERM_SIGN:
        ONE(E_SIGN);
        break;
    case TERM_SQRT:
        ONE(E_SQRT);
        break;
    case TERM_EXP:
        ONE(v_exp);
        break;
    case TERM_LOG:
        ONE(v_log);
        break;
    case TERM_LOG1P:
        ONE(v_log1p);
        break;
    case TERM_TANH:
        ONE(v_tanh);
        break;
    case TERM_SIGMOID:
        ONE(v_sigmoid);
        break;
    case TERM_ERF:
        ONE(v_erf);
        break;
    case TERM_FLOOR:
        ONE(E_FLOOR);
        break;
    case TERM_ROUND:
        ONE(E_ROUND);
        break;
    case TERM_FINITE:
        ONE(E_FINITE);
        break;
    case TERM_SELECT:
        THREE(E_SELECT);
        break;
    case CODE_MUL_ADD:
        THREE(E_MUL_ADD);
        break;
    case CODE_MUL_SUB:
        THREE(E_MUL_SUB);
        break;
    case CODE_SUB_MUL:
        THREE(E_SUB_MUL);
        break;
    case CODE_SUB_DIV:
        THREE(E_SUB_DIV);
        break;
    case CODE_MIX:
        THREE(E_MIX);
        break;
    case CODE_SQRT_ADD:
        TWO(E_SQRT_ADD);
        break;
    default:
        break;
    }
}

static const _Alignas(64) float zeros[FORMULA_BLOCK];

/* Elements at .. at + n of the input that is given by rows: put together in `line`, or zeros. */
static const float *given_rows(const struct formula_rows *rows, int64_t at, int n, float *line)
{
    int64_t row = at / rows->width, column = at % rows->width;
    const float *all = zeros;

    for (int done = 0, m; done < n; done += m, row++, column = 0) {
        const int32_t from = rows->where[row];

        m = (int)(rows->width - column < n - done ? rows->width - column : n - done);
        if (from >= 0) {
            if (all == zeros)
                memset(line, 0, (size_t)done * sizeof *line);
            memcpy(line + done, rows->given + from * rows->width + column, (size_t)m * sizeof *line);
            all = line;
        } else if (all == line) {
            memset(line + done, 0, (size_t)m * sizeof *line);
        }
    }
    return all;
}

/* All +0. The first element mostly says no; the whole is looked at without a branch, as vectors. */
static bool all_zero(const float *x, int n)
{
    uint32_t bits = v_bits(x[0]);

    if (bits)
        return false;
#pragma omp simd reduction(| : bits)
    for (int i = 0; i < n; i++)
        bits |= v_bits(x[i]);
    return !bits;
}

/* Whether a block without a given row is to be left alone. */
static bool is_resting(const struct formula_run *r, float *const *place, int n)
{
    bool rests = r->rows.rests;

    for (int i = 0; rests && i < r->rows.n_resting; i++)
        rests = all_zero(place[r->n_slots + r->rows.resting[i]], n);
    return rests;
}

static void formula(const struct formula_run *r, int64_t begin, int64_t end)
{
    _Alignas(64) float slots[FORMULA_FLOATS], line[FORMULA_BLOCK];
    float *place[FORMULA_PLACES] = {slots};

    for (int s = 0; s < r->n_slots; s++)
        place[s] = slots + (size_t)s * (size_t)r->block;
    for (int64_t at = begin; at < end; at += r->block) {
        int n = (int)(end - at < r->block ? end - at : r->block);

        for (int i = 0; i < r->n_direct_in; i++)
            place[r->n_slots + i] = (float *)r->direct_in[i] + at; /* only read */
        if (r->rows.where) {
            const float *given = given_rows(&r->rows, at, n, line);

            place[r->n_slots + r->rows.in] = (float *)given;
            if (given == zeros && is_resting(r, place, n))
                continue;
        }
        for (int i = 0; i < r->n_direct_out; i++)
            place[r->n_slots + r->n_direct_in + i] = (float *)((char *)r->direct_out[i] + at * r->out_bytes);
        for (const struct formula_code *k = r->code, *stop = k + r->n_code; k < stop; k++) {
            float *to = place[k->to];

            if (k->code == CODE_LOAD) {
                load_input(&r->inputs[k->a], r->input_data[k->a], to, at, n);
            } else if (k->code == CODE_STORE) {
                if (k->scalars & 1)
                    spread(to, r->scalar[k->a], n);
                else if (to != place[k->a])
                    memcpy(to, place[k->a], (size_t)n * sizeof *to);
            } else if (k->code == CODE_NARROW) {
                if (k->scalars & 1)
                    for (int i = 0; i < n; i++)
                        ((uint16_t *)to)[i] = narrowed(r->scalar[k->a]);
                else
                    narrow((uint16_t *)to, place[k->a], n);
            } else {
                const float *a = k->scalars & 1 ? &r->scalar[k->a] : place[k->a];
                const float *b = k->scalars & 2 ? &r->scalar[k->b] : place[k->b];
                const float *c = k->scalars & 4 ? &r->scalar[k->c] : place[k->c];

                instruction(k->code, k->scalars, to, a, b, c, n);
            }
        }
    }
}

static void formula_scalar(const struct formula_code *k, float *s)
{
    instruction(k->code, 0, &s[k->to], &s[k->a], &s[k->b], &s[k->c], 1);
}

const struct simd_formulas SIMD(simd_formulas) = {formula, formula_scalar, load, spread, narrow};
