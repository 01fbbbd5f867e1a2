/* Pointwise formulas: straight-line code over numbered terms. Activations, losses, merges and optimizers are
 * formulas; their gradients are derived by rule, and each backend runs them all with one engine.
 *
 *     struct formula f = {0};
 *     term x = f_in(&f), e = f_exp(&f, x);
 *     f_out(&f, f_div(&f, e, f_add(&f, e, f_const(&f, 1))));
 *     y = emit_formula(b, &f, (value_id[]){x_value});
 *
 * Terms are float32. Constructors fold constants (in double) and share equal terms, so writing a term twice costs nothing.
 * A comparison gives 1 or 0. Too many terms set `full`, and emit_formula reports it.
 *
 * What the codes mean where machines differ (every backend follows term_value; kernels that use maxps must look at operand a):
 *     MAX(a, b)   a > b or a is NaN ? a : b     NaN in either operand gives NaN; of equals (0, -0) it is b; MIN likewise
 *     SELECT      a != 0 ? b : c                a NaN counts as not 0
 *     ROUND       half to even                  FINITE 1 unless NaN or infinite; SIGN of 0 is 0, of NaN is NaN
 *     LT, LE, EQ  0 when an operand is NaN      SIGMOID 1 / (1 + exp(-a)), without overflow: 0 at -inf, 1 at inf */
#ifndef HORN_GRAPH_FORMULA_H
#define HORN_GRAPH_FORMULA_H

#include <stdbool.h>
#include <stdint.h>

#define MAX_TERMS       96
#define MAX_FORMULA_IN  16
#define MAX_FORMULA_OUT 8

typedef uint8_t term;

/* name, operands */
#define TERM_MAP(X) \
    X(IN, 0)        \
    X(CONST, 0)     \
    X(ADD, 2)       \
    X(SUB, 2)       \
    X(MUL, 2)       \
    X(DIV, 2)       \
    X(MAX, 2)       \
    X(MIN, 2)       \
    X(POW, 2)       \
    X(LT, 2)        \
    X(LE, 2)        \
    X(EQ, 2)        \
    X(NEG, 1)       \
    X(ABS, 1)       \
    X(SIGN, 1)      \
    X(SQRT, 1)      \
    X(EXP, 1)       \
    X(LOG, 1)       \
    X(LOG1P, 1)     \
    X(TANH, 1)      \
    X(SIGMOID, 1)   \
    X(ERF, 1)       \
    X(FLOOR, 1)     \
    X(ROUND, 1)     \
    X(FINITE, 1)    \
    X(SELECT, 3)

enum term_code {
#define X(name, n) TERM_##name,
    TERM_MAP(X)
#undef X
        N_TERM_CODES
};

struct formula {
    uint8_t n_in, n_terms, n_out;
    uint8_t type; /* enum dtype that the outputs are stored in: F32 (0) or BF16; terms are float32 all the same */
    bool full;
    term out[MAX_FORMULA_OUT];
    struct formula_term {
        uint8_t code, a, b, c; /* IN: a is the number of the input; SELECT: a ? b : c */
        float constant;
    } terms[MAX_TERMS];
};

term f_in(struct formula *f);
term f_const(struct formula *f, double x);
void f_out(struct formula *f, term t);

term f_add(struct formula *f, term a, term b);
term f_sub(struct formula *f, term a, term b);
term f_mul(struct formula *f, term a, term b);
term f_div(struct formula *f, term a, term b);
term f_max(struct formula *f, term a, term b);
term f_min(struct formula *f, term a, term b);
term f_pow(struct formula *f, term a, term b);
term f_lt(struct formula *f, term a, term b);
term f_le(struct formula *f, term a, term b);
term f_eq(struct formula *f, term a, term b);
term f_neg(struct formula *f, term a);
term f_abs(struct formula *f, term a);
term f_sign(struct formula *f, term a);
term f_sqrt(struct formula *f, term a);
term f_exp(struct formula *f, term a);
term f_log(struct formula *f, term a);
term f_log1p(struct formula *f, term a);
term f_tanh(struct formula *f, term a);
term f_sigmoid(struct formula *f, term a);
term f_erf(struct formula *f, term a);
term f_floor(struct formula *f, term a);
term f_round(struct formula *f, term a); /* half to even */
term f_finite(struct formula *f, term a);
term f_select(struct formula *f, term condition, term then, term otherwise);
term f_mix(struct formula *f, term a, term b, double k); /* a + (b - a) k */
term f_square(struct formula *f, term a);
term f_clip(struct formula *f, term a, double low, double high);
term f_softplus(struct formula *f, term a); /* max(x, 0) + log1p(exp(-|x|)); its derivative is sigmoid, at 0 too */

extern const uint8_t term_operands[N_TERM_CODES]; /* how many of a, b, c a code reads */
/* Any code with operands, as f_add and the others. */
term f_term(struct formula *f, enum term_code code, term a, term b, term c);
float term_value(enum term_code code, float a, float b, float c); /* one operation; the meaning of each code */
/* All outputs for one element. */
void formula_value(const struct formula *f, const float *in, float *out);

/* The gradient as a formula. Inputs of `g`: the inputs of f, then its outputs y, then one dy per output; outputs: one per input
 * i with need[i]. Terms that are outputs of f are taken from y, so that x may be overwritten (tanh, relu, sigmoid, exp).
 * uses[k] is set for each input k of g that is read. Kinks (relu at 0, abs at 0) have derivative 0; max(a, b) at a == b flows to b.
 * false: g has no room for the terms. */
bool formula_grad(const struct formula *f, const bool *need, struct formula *g, bool *uses);

/* Appends the terms of `inner` to `f`, its inputs being the given terms; outs gets its output terms. */
void formula_inline(struct formula *f, const struct formula *inner, const term *in, term *outs);
/* Drops terms that no output needs and renumbers inputs: kept[i] is the old number of new input i. */
void formula_trim(struct formula *f, int kept[MAX_FORMULA_IN]);

#endif
