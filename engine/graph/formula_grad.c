/* The gradient of a formula as a formula, by reverse sweep over its terms.
 *
 * With d_t = sum over the outputs o of dy_o * (d o / d t), each term adds to its operands by its rule:
 *
 *     a + b     d, d                      a - b    d, -d                 a b     d b, d a
 *     a / b = y d / b, -d y / b           a ^ b=y  d b a^(b-1), d y log a where a > 0
 *     max = y   d where y > b, else 0;  d where y <= b                   min     the same with > and <= turned round
 *     -a        -d        |a|  d sign a   sqrt = y  d / (2 y)            exp = y d y        log   d / a
 *     log1p     d / (1 + a)               tanh = y  d (1 - y y)          sigmoid = y  d y (1 - y)
 *     erf       d 2/sqrt(pi) exp(-a a)    select   to b where a, else to c
 *     comparisons, sign, floor, round, finite: 0
 *
 * "Where" is a SELECT and no product with 0 or 1, so that an infinite d elsewhere does not turn into NaN. Terms of f are
 * written into g when a rule asks for them. max compares y, not a, since y is what stays in memory. */
#include "engine/graph/formula.h"

#include <math.h>
#include <string.h>

#define NONE (-1)

struct sweep {
    const struct formula *f;
    struct formula *g;
    term x[MAX_FORMULA_IN], y[MAX_FORMULA_OUT];
    int value[MAX_TERMS];   /* term of g with the value of each term of f; NONE: not asked for yet */
    int d[MAX_TERMS];       /* term of g with the gradient of each term of f; NONE: no gradient */
    bool active[MAX_TERMS]; /* depends on an input whose gradient is needed */
};

static void mark_active(struct sweep *s, const bool *need)
{
    for (int i = 0; i < s->f->n_terms; i++) {
        const struct formula_term *t = &s->f->terms[i];
        int n = term_operands[t->code];

        if (t->code == TERM_IN)
            s->active[i] = need[t->a];
        else
            s->active[i] = (n > 0 && s->active[t->a]) || (n > 1 && s->active[t->b]) || (n > 2 && s->active[t->c]);
    }
}

/* The value of term i of f as a term of g: an output from y, all else from its operands. Depth is bounded by MAX_TERMS. */
static term value_of_term(struct sweep *s, term i)
{
    const struct formula_term *t = &s->f->terms[i];
    int n = term_operands[t->code];

    if (s->value[i] != NONE)
        return (term)s->value[i];
    if (t->code == TERM_IN) {
        s->value[i] = s->x[t->a];
    } else if (t->code == TERM_CONST) {
        s->value[i] = f_const(s->g, t->constant);
    } else {
        term a = value_of_term(s, t->a), b = n > 1 ? value_of_term(s, t->b) : 0, c = n > 2 ? value_of_term(s, t->c) : 0;

        s->value[i] = f_term(s->g, t->code, a, b, c);
    }
    return (term)s->value[i];
}

static bool is_zero(const struct formula *g, term t)
{
    return g->terms[t].code == TERM_CONST && g->terms[t].constant == 0;
}

/* d times k; a factor that is 0 by its form gives no gradient, as 0 x = 0 in the algebra of derivatives. */
static int times(struct formula *g, term d, term k)
{
    return is_zero(g, d) || is_zero(g, k) ? NONE : f_mul(g, d, k);
}

static int where(struct formula *g, term condition, term d, term otherwise)
{
    term t = f_select(g, condition, d, otherwise);

    return is_zero(g, t) ? NONE : t;
}

static void add(struct sweep *s, term to, int d)
{
    if (d == NONE || !s->active[to])
        return;
    s->d[to] = s->d[to] == NONE ? d : f_add(s->g, (term)s->d[to], (term)d);
}

static void term_grad_binary(struct sweep *s, const struct formula_term *t, term i, term d)
{
    struct formula *g = s->g;
    term zero = f_const(g, 0), y, a, b;

    switch (t->code) {
    case TERM_ADD:
        add(s, t->a, d);
        add(s, t->b, d);
        return;
    case TERM_SUB:
        add(s, t->a, d);
        if (s->active[t->b])
            add(s, t->b, f_neg(g, d));
        return;
    case TERM_MUL:
        if (s->active[t->a])
            add(s, t->a, times(g, d, value_of_term(s, t->b)));
        if (s->active[t->b])
            add(s, t->b, times(g, d, value_of_term(s, t->a)));
        return;
    case TERM_DIV:
        b = value_of_term(s, t->b);
        if (s->active[t->a])
            add(s, t->a, f_div(g, d, b));
        if (s->active[t->b])
            add(s, t->b, f_neg(g, f_div(g, f_mul(g, d, value_of_term(s, i)), b)));
        return;
    case TERM_MAX:
    case TERM_MIN:
        y = value_of_term(s, i);
        b = value_of_term(s, t->b);
        if (s->active[t->a])
            add(s, t->a, where(g, t->code == TERM_MAX ? f_lt(g, b, y) : f_lt(g, y, b), d, zero));
        if (s->active[t->b])
            add(s, t->b, where(g, t->code == TERM_MAX ? f_le(g, y, b) : f_le(g, b, y), d, zero));
        return;
    case TERM_POW:
        a = value_of_term(s, t->a);
        b = value_of_term(s, t->b);
        if (s->active[t->a])
            add(s, t->a, times(g, d, f_mul(g, b, f_pow(g, a, f_sub(g, b, f_const(g, 1))))));
        if (s->active[t->b]) {
            y = f_mul(g, f_mul(g, d, value_of_term(s, i)), f_log(g, a));
            add(s, t->b, where(g, f_lt(g, zero, a), y, zero));
        }
        return;
    default: /* comparisons are flat */
        return;
    }
}

static void term_grad_unary(struct sweep *s, const struct formula_term *t, term i, term d)
{
    struct formula *g = s->g;
    term one = f_const(g, 1), v;

    switch (t->code) {
    case TERM_NEG:
        add(s, t->a, f_neg(g, d));
        return;
    case TERM_ABS:
        add(s, t->a, times(g, d, f_sign(g, value_of_term(s, t->a))));
        return;
    case TERM_SQRT:
        add(s, t->a, f_div(g, f_mul(g, d, f_const(g, 0.5)), value_of_term(s, i)));
        return;
    case TERM_EXP:
        add(s, t->a, f_mul(g, d, value_of_term(s, i)));
        return;
    case TERM_LOG:
        add(s, t->a, f_div(g, d, value_of_term(s, t->a)));
        return;
    case TERM_LOG1P:
        add(s, t->a, f_div(g, d, f_add(g, one, value_of_term(s, t->a))));
        return;
    case TERM_TANH:
        v = value_of_term(s, i);
        add(s, t->a, f_mul(g, d, f_sub(g, one, f_mul(g, v, v))));
        return;
    case TERM_SIGMOID:
        v = value_of_term(s, i);
        add(s, t->a, f_mul(g, d, f_mul(g, v, f_sub(g, one, v))));
        return;
    case TERM_ERF:
        v = value_of_term(s, t->a);
        v = f_mul(g, f_const(g, 2 / sqrt(M_PI)), f_exp(g, f_neg(g, f_mul(g, v, v))));
        add(s, t->a, f_mul(g, d, v));
        return;
    default: /* sign, floor, round and finite are flat */
        return;
    }
}

static void term_grad(struct sweep *s, term i)
{
    const struct formula_term *t = &s->f->terms[i];
    term d = (term)s->d[i], zero, condition;

    if (t->code == TERM_SELECT) {
        zero = f_const(s->g, 0);
        condition = value_of_term(s, t->a);
        if (s->active[t->b])
            add(s, t->b, where(s->g, condition, d, zero));
        if (s->active[t->c])
            add(s, t->c, where(s->g, condition, zero, d));
    } else if (term_operands[t->code] == 2) {
        term_grad_binary(s, t, i, d);
    } else if (term_operands[t->code] == 1) {
        term_grad_unary(s, t, i, d);
    }
}

/* Drops the terms that no output needs, the inputs keep their numbers. */
static void drop_unused(struct formula *g, bool *uses)
{
    struct formula r = {.n_in = 0};
    int kept[MAX_FORMULA_IN];
    term x[MAX_FORMULA_IN], in[MAX_FORMULA_IN], out[MAX_FORMULA_OUT];
    int n_in = g->n_in, n_out = g->n_out;

    formula_trim(g, kept);
    memset(uses, 0, sizeof(*uses) * (size_t)n_in);
    for (int i = 0; i < n_in; i++)
        x[i] = f_in(&r);
    for (int i = 0; i < g->n_in; i++) {
        uses[kept[i]] = true;
        in[i] = x[kept[i]];
    }
    formula_inline(&r, g, in, out);
    for (int i = 0; i < n_out; i++)
        f_out(&r, out[i]);
    *g = r;
}

bool formula_grad(const struct formula *f, const bool *need, struct formula *g, bool *uses)
{
    struct sweep s = {.f = f, .g = g};
    int d_in[MAX_FORMULA_IN];

    memset(g, 0, sizeof(*g));
    if (f->full || f->n_in + 2 * f->n_out > MAX_FORMULA_IN)
        return false;
    for (int i = 0; i < MAX_TERMS; i++)
        s.value[i] = s.d[i] = NONE;
    mark_active(&s, need);
    for (int i = 0; i < f->n_in; i++) {
        d_in[i] = NONE;
        s.x[i] = f_in(g);
    }
    for (int i = 0; i < f->n_out; i++)
        s.y[i] = f_in(g);
    for (int i = 0; i < f->n_out; i++) {
        term dy = f_in(g), o = f->out[i];

        if (f->terms[o].code != TERM_CONST && f->terms[o].code != TERM_IN)
            s.value[o] = s.y[i];
        add(&s, o, dy);
    }
    for (int i = f->n_terms - 1; i >= 0; i--) {
        if (s.d[i] == NONE)
            continue;
        if (f->terms[i].code == TERM_IN)
            d_in[f->terms[i].a] = s.d[i];
        else
            term_grad(&s, (term)i);
    }
    for (int i = 0; i < f->n_in; i++) {
        if (need[i])
            f_out(g, d_in[i] == NONE ? f_const(g, 0) : (term)d_in[i]);
    }
    if (g->full)
        return false;
    drop_unused(g, uses);
    return !g->full;
}
