/* Formulas: constructors that fold and share, the meaning of each operation, inlining and trimming.
 *
 * Every term goes through f_term(), which first tries to fold (all operands constant), then to simplify (only where the result
 * is the same for every float, NaN and infinities included, up to the sign of a zero), then looks for an equal term. So two
 * formulas that say the same thing mostly are the same bytes, and joining formulas never repeats work.
 *
 * The meaning of a code is stated once, in double; a float term is that value rounded. For + - * / and sqrt this is exactly
 * float arithmetic (double has more than 2 * 24 + 2 bits: Figueroa 1995, "When is double rounding innocuous?"). */
#include "engine/graph/formula.h"

#include <math.h>
#include <string.h>

const uint8_t term_operands[N_TERM_CODES] = {
#define X(name, n) n,
    TERM_MAP(X)
#undef X
};

static double meaning(enum term_code code, double a, double b, double c)
{
    switch (code) {
    case TERM_ADD:
        return a + b;
    case TERM_SUB:
        return a - b;
    case TERM_MUL:
        return a * b;
    case TERM_DIV:
        return a / b;
    case TERM_MAX:
        return a > b || a != a ? a : b;
    case TERM_MIN:
        return a < b || a != a ? a : b;
    case TERM_POW:
        return pow(a, b);
    case TERM_LT:
        return a < b;
    case TERM_LE:
        return a <= b;
    case TERM_EQ:
        return a == b;
    case TERM_NEG:
        return -a;
    case TERM_ABS:
        return fabs(a);
    case TERM_SIGN:
        return a > 0 ? 1 : a < 0 ? -1 : a;
    case TERM_SQRT:
        return sqrt(a);
    case TERM_EXP:
        return exp(a);
    case TERM_LOG:
        return log(a);
    case TERM_LOG1P:
        return log1p(a);
    case TERM_TANH:
        return tanh(a);
    case TERM_SIGMOID:
        return 1 / (1 + exp(-a));
    case TERM_ERF:
        return erf(a);
    case TERM_FLOOR:
        return floor(a);
    case TERM_ROUND:
        return nearbyint(a); /* the rounding mode is never changed: half to even */
    case TERM_FINITE:
        return isfinite(a);
    case TERM_SELECT:
        return a != 0 ? b : c;
    case TERM_IN:
    case TERM_CONST:
    case N_TERM_CODES:
        break;
    }
    return 0;
}

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof(a)) == 0;
}

static bool is_const(const struct formula *f, term t)
{
    return f->terms[t].code == TERM_CONST;
}

static bool is_value(const struct formula *f, term t, float x)
{
    return is_const(f, t) && f->terms[t].constant == x;
}

/* The term if there is an equal one, else a new one; 0 with `full` set when there is no room. */
static term append(struct formula *f, const struct formula_term *t)
{
    for (int i = 0; i < f->n_terms; i++) {
        const struct formula_term *o = &f->terms[i];

        if (o->code == t->code && o->a == t->a && o->b == t->b && o->c == t->c && same_bits(o->constant, t->constant))
            return (term)i;
    }
    if (f->n_terms == MAX_TERMS) {
        f->full = true;
        return 0;
    }
    f->terms[f->n_terms] = *t;
    return f->n_terms++;
}

/* An operand, or a shorter term, that always has the value of code(a, b, c). */
static bool simplify(struct formula *f, enum term_code code, term a, term b, term c, term *ret)
{
    switch (code) {
    case TERM_ADD:
        if (is_value(f, a, 0) || is_value(f, b, 0))
            return *ret = is_value(f, a, 0) ? b : a, true;
        return false;
    case TERM_SUB:
        if (is_value(f, a, 0))
            return *ret = f_neg(f, b), true;
        return *ret = a, is_value(f, b, 0);
    case TERM_MUL:
        if (is_value(f, a, 1) || is_value(f, b, 1))
            return *ret = is_value(f, a, 1) ? b : a, true;
        if (is_value(f, a, -1) || is_value(f, b, -1))
            return *ret = f_neg(f, is_value(f, a, -1) ? b : a), true;
        return false;
    case TERM_DIV:
        return *ret = a, is_value(f, b, 1);
    case TERM_POW:
        if (is_value(f, b, 0))
            return *ret = f_const(f, 1), true;
        if (is_value(f, b, 2))
            return *ret = f_mul(f, a, a), true;
        if (is_value(f, b, -1))
            return *ret = f_div(f, f_const(f, 1), a), true;
        return *ret = a, is_value(f, b, 1);
    case TERM_NEG:
    case TERM_ABS:
        if (f->terms[a].code == TERM_NEG)
            return *ret = code == TERM_NEG ? f->terms[a].a : f_abs(f, f->terms[a].a), true;
        return *ret = a, code == TERM_ABS && f->terms[a].code == TERM_ABS;
    case TERM_MAX:
    case TERM_MIN:
        return *ret = a, a == b;
    case TERM_SELECT:
        if (is_const(f, a))
            return *ret = f->terms[a].constant != 0 ? b : c, true;
        return *ret = b, b == c;
    default:
        return false;
    }
}

term f_term(struct formula *f, enum term_code code, term a, term b, term c)
{
    int n = term_operands[code];
    struct formula_term t = {.code = (uint8_t)code, .a = a, .b = b, .c = c};
    term simple;

    if (f->full)
        return 0;
    if (is_const(f, a) && (n < 2 || is_const(f, b)) && (n < 3 || is_const(f, c)))
        return f_const(f, meaning(code, f->terms[a].constant, f->terms[b].constant, f->terms[c].constant));
    if (simplify(f, code, a, b, c, &simple))
        return simple;
    if ((code == TERM_ADD || code == TERM_MUL || code == TERM_EQ) && a > b) {
        t.a = b; /* one order, so that b + a is found as a + b */
        t.b = a;
    }
    return append(f, &t);
}

static term unary(struct formula *f, enum term_code code, term a)
{
    return f_term(f, code, a, 0, 0);
}

term f_in(struct formula *f)
{
    struct formula_term t = {.code = TERM_IN, .a = f->n_in};

    if (f->full || f->n_in == MAX_FORMULA_IN) {
        f->full = true;
        return 0;
    }
    f->n_in++;
    return append(f, &t);
}

term f_const(struct formula *f, double x)
{
    struct formula_term t = {.code = TERM_CONST, .constant = (float)x};

    return f->full ? 0 : append(f, &t);
}

void f_out(struct formula *f, term t)
{
    if (f->full || f->n_out == MAX_FORMULA_OUT) {
        f->full = true;
        return;
    }
    f->out[f->n_out++] = t;
}

term f_add(struct formula *f, term a, term b)
{
    return f_term(f, TERM_ADD, a, b, 0);
}
term f_sub(struct formula *f, term a, term b)
{
    return f_term(f, TERM_SUB, a, b, 0);
}
term f_mul(struct formula *f, term a, term b)
{
    return f_term(f, TERM_MUL, a, b, 0);
}
term f_div(struct formula *f, term a, term b)
{
    return f_term(f, TERM_DIV, a, b, 0);
}
term f_max(struct formula *f, term a, term b)
{
    return f_term(f, TERM_MAX, a, b, 0);
}
term f_min(struct formula *f, term a, term b)
{
    return f_term(f, TERM_MIN, a, b, 0);
}
term f_pow(struct formula *f, term a, term b)
{
    return f_term(f, TERM_POW, a, b, 0);
}
term f_lt(struct formula *f, term a, term b)
{
    return f_term(f, TERM_LT, a, b, 0);
}
term f_le(struct formula *f, term a, term b)
{
    return f_term(f, TERM_LE, a, b, 0);
}
term f_eq(struct formula *f, term a, term b)
{
    return f_term(f, TERM_EQ, a, b, 0);
}
term f_neg(struct formula *f, term a)
{
    return unary(f, TERM_NEG, a);
}
term f_abs(struct formula *f, term a)
{
    return unary(f, TERM_ABS, a);
}
term f_sign(struct formula *f, term a)
{
    return unary(f, TERM_SIGN, a);
}
term f_sqrt(struct formula *f, term a)
{
    return unary(f, TERM_SQRT, a);
}
term f_exp(struct formula *f, term a)
{
    return unary(f, TERM_EXP, a);
}
term f_log(struct formula *f, term a)
{
    return unary(f, TERM_LOG, a);
}
term f_log1p(struct formula *f, term a)
{
    return unary(f, TERM_LOG1P, a);
}
term f_tanh(struct formula *f, term a)
{
    return unary(f, TERM_TANH, a);
}
term f_sigmoid(struct formula *f, term a)
{
    return unary(f, TERM_SIGMOID, a);
}
term f_erf(struct formula *f, term a)
{
    return unary(f, TERM_ERF, a);
}
term f_floor(struct formula *f, term a)
{
    return unary(f, TERM_FLOOR, a);
}
term f_round(struct formula *f, term a)
{
    return unary(f, TERM_ROUND, a);
}
term f_finite(struct formula *f, term a)
{
    return unary(f, TERM_FINITE, a);
}

term f_select(struct formula *f, term condition, term then, term otherwise)
{
    return f_term(f, TERM_SELECT, condition, then, otherwise);
}

term f_mix(struct formula *f, term a, term b, double k)
{
    return f_add(f, a, f_mul(f, f_sub(f, b, a), f_const(f, k)));
}

term f_square(struct formula *f, term a)
{
    return f_mul(f, a, a);
}

term f_clip(struct formula *f, term a, double low, double high)
{
    return f_min(f, f_max(f, a, f_const(f, low)), f_const(f, high));
}

/* -|x| is written min(-x, x), whose derivative at 0 is 1 by the rule for ties; with abs it would be 0, and the derivative of
 * the whole at 0 would come out as 0 and not 1/2. */
term f_softplus(struct formula *f, term a)
{
    term tail = f_log1p(f, f_exp(f, f_min(f, f_neg(f, a), a)));

    return f_add(f, f_max(f, a, f_const(f, 0)), tail);
}

float term_value(enum term_code code, float a, float b, float c)
{
    return (float)meaning(code, a, b, c);
}

void formula_value(const struct formula *f, const float *in, float *out)
{
    float v[MAX_TERMS];

    for (int i = 0; i < f->n_terms; i++) {
        const struct formula_term *t = &f->terms[i];

        if (t->code == TERM_IN)
            v[i] = in[t->a];
        else if (t->code == TERM_CONST)
            v[i] = t->constant;
        else
            v[i] = term_value(t->code, v[t->a], term_operands[t->code] > 1 ? v[t->b] : 0,
                              term_operands[t->code] > 2 ? v[t->c] : 0);
    }
    for (int i = 0; i < f->n_out; i++)
        out[i] = v[f->out[i]];
}

void formula_inline(struct formula *f, const struct formula *inner, const term *in, term *outs)
{
    term map[MAX_TERMS] = {0};

    for (int i = 0; i < inner->n_terms; i++) {
        const struct formula_term *t = &inner->terms[i];

        if (t->code == TERM_IN)
            map[i] = in[t->a];
        else if (t->code == TERM_CONST)
            map[i] = f_const(f, t->constant);
        else
            map[i] = f_term(f, t->code, map[t->a], term_operands[t->code] > 1 ? map[t->b] : 0,
                            term_operands[t->code] > 2 ? map[t->c] : 0);
    }
    for (int i = 0; i < inner->n_out; i++)
        outs[i] = map[inner->out[i]];
    if (inner->full)
        f->full = true;
}

void formula_trim(struct formula *f, int kept[MAX_FORMULA_IN])
{
    struct formula r = {.n_out = f->n_out, .type = f->type, .full = f->full};
    bool needed[MAX_TERMS] = {false};
    term map[MAX_TERMS] = {0};

    for (int i = 0; i < f->n_out; i++)
        needed[f->out[i]] = true;
    for (int i = f->n_terms - 1; i >= 0; i--) {
        const struct formula_term *t = &f->terms[i];

        if (!needed[i])
            continue;
        if (term_operands[t->code] > 0)
            needed[t->a] = true;
        if (term_operands[t->code] > 1)
            needed[t->b] = true;
        if (term_operands[t->code] > 2)
            needed[t->c] = true;
    }
    for (int i = 0; i < f->n_terms; i++) {
        struct formula_term t = f->terms[i];

        if (!needed[i])
            continue;
        if (t.code == TERM_IN) {
            kept[r.n_in] = t.a;
            t.a = r.n_in++;
        }
        if (term_operands[t.code] > 0)
            t.a = map[t.a];
        if (term_operands[t.code] > 1)
            t.b = map[t.b];
        if (term_operands[t.code] > 2)
            t.c = map[t.c];
        map[i] = r.n_terms;
        r.terms[r.n_terms++] = t;
    }
    for (int i = 0; i < f->n_out; i++)
        r.out[i] = map[f->out[i]];
    *f = r;
}
