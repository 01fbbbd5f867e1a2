/* Compiles a formula for given shapes.
 *
 *  - What is the same for all elements (constants, scalar inputs and what follows from them alone, such as Adam's bias
 *    correction) is worked out once per run.
 *  - Float32 inputs of the output's shape are read where they lie; others are converted or stretched block by block.
 *  - Short idioms become one instruction: a b + c, a + (b - a) k, c - a / b, sqrt(a) + b.
 *  - Outputs of bfloat16 are computed in a slot and rounded into their place.
 *  - Results live in slots that are reused after their last reader; an output is computed where it lies unless an input that
 *    may lie in the same memory is still to be read. */
#include "engine/cpu/formula.h"

#include <string.h>

enum { NONE = -1 };
enum { PLACE_IN = 128, PLACE_OUT = 144 }; /* before the number of slots is known */

struct formula_program {
    int64_t n;
    int n_code, n_scalar_code, n_slots, block, out_bytes;
    int n_constants, n_scalar_in, n_direct_in, n_direct_out, n_inputs;
    int guard; /* scalar that must not be 0, or NONE */
    struct formula_code code[2 * MAX_TERMS + MAX_FORMULA_OUT], scalar_code[MAX_TERMS];
    struct constant {
        uint8_t to;
        float value;
    } constants[MAX_TERMS];
    struct scalar_in {
        uint8_t to, in, type;
    } scalar_in[MAX_FORMULA_IN];
    uint8_t direct_in[MAX_FORMULA_IN], direct_out[MAX_FORMULA_OUT]; /* which input, output */
    uint8_t input_of[MAX_FORMULA_IN];
    struct formula_input inputs[MAX_FORMULA_IN];
};

struct compiler {
    const struct formula *f;
    struct formula_program *p;
    const struct value *const *in;
    const struct shape *shape;
    bool needed[MAX_TERMS], uniform[MAX_TERMS], is_out[MAX_TERMS], direct[MAX_TERMS];
    int fused[MAX_TERMS];     /* product, quotient or root that this term takes in, or NONE */
    int mixed[MAX_TERMS];     /* difference that the product taken in takes in itself: a + (b - a) k, or NONE */
    bool absorbed[MAX_TERMS]; /* its reader takes it in */
    int uses[MAX_TERMS], last[MAX_TERMS], place[MAX_TERMS], out_term[MAX_FORMULA_OUT];
    bool used_slot[MAX_TERMS];
};

static int operands(const struct formula_term *t, int *ret)
{
    static const uint8_t n[N_TERM_CODES] = {
#define X(name, n) n,
        TERM_MAP(X)
#undef X
    };
    const term all[3] = {t->a, t->b, t->c};

    for (int i = 0; i < n[t->code]; i++)
        ret[i] = all[i];
    return n[t->code];
}

/* Whether the input is read where it lies: same elements in the same order. */
static bool lies_ready(const struct compiler *c, int in)
{
    return c->in[in]->type == F32 && shape_count(&c->in[in]->shape) == c->p->n;
}

/* All outputs are select(s, new, old leaf) with one scalar s: they become `new`, guarded by s. */
static int find_guard(struct compiler *c, const int *guard_of)
{
    int guard = NONE;

    for (int o = 0; o < c->f->n_out; o++) {
        const struct formula_term *t = &c->f->terms[c->f->out[o]];
        const struct formula_term *condition = &c->f->terms[t->a], *old = &c->f->terms[t->c];

        if (t->code != TERM_SELECT || condition->code != TERM_IN || shape_count(&c->in[condition->a]->shape) != 1 ||
            old->code != TERM_IN || guard_of[o] != old->a || (guard != NONE && guard != t->a))
            return NONE;
        guard = t->a;
    }
    for (int o = 0; o < c->f->n_out; o++)
        c->out_term[o] = c->f->terms[c->f->out[o]].b;
    return guard;
}

/* A term that only t reads, and that t can take in. */
static bool is_single(const struct compiler *c, int t, int code)
{
    return c->f->terms[t].code == code && c->uses[t] == 1 && !c->is_out[t] && !c->uniform[t];
}

/* What term t takes in: one pass over a block less for each. */
static void fuse(struct compiler *c, int t)
{
    const struct formula_term *k = &c->f->terms[t];
    const int sides[2] = {k->b, k->a};

    if (k->code != TERM_ADD && k->code != TERM_SUB)
        return;
    for (int i = 0; i < 2 && c->fused[t] == NONE; i++)
        if (is_single(c, sides[i], TERM_MUL))
            c->fused[t] = sides[i];
    for (int i = 0; i < 2 && c->fused[t] == NONE && k->code == TERM_ADD; i++)
        if (is_single(c, sides[i], TERM_SQRT))
            c->fused[t] = sides[i];
    if (c->fused[t] == NONE && k->code == TERM_SUB && is_single(c, k->b, TERM_DIV))
        c->fused[t] = k->b;
    if (c->fused[t] == NONE)
        return;
    c->absorbed[c->fused[t]] = true;
    const struct formula_term *m = &c->f->terms[c->fused[t]];
    const int factors[2] = {m->a, m->b}, other = k->b == c->fused[t] ? k->a : k->b;

    for (int i = 0; i < 2 && c->mixed[t] == NONE && k->code == TERM_ADD && m->code == TERM_MUL; i++)
        if (is_single(c, factors[i], TERM_SUB) && c->f->terms[factors[i]].b == other && c->fused[factors[i]] == NONE) {
            c->mixed[t] = factors[i];
            c->absorbed[factors[i]] = true;
        }
}

/* The instruction's code and the terms that it reads. */
static int reads(const struct compiler *c, int t, uint8_t *code, int *ret)
{
    const struct formula_term *k = &c->f->terms[t];
    int fused = c->fused[t];

    *code = k->code;
    if (fused == NONE)
        return operands(k, ret);
    const struct formula_term *m = &c->f->terms[fused];
    int other = k->b == fused ? k->a : k->b;

    ret[0] = m->a;
    ret[1] = m->b;
    ret[2] = other;
    if (c->mixed[t] != NONE) {
        *code = CODE_MIX;
        ret[0] = c->f->terms[c->mixed[t]].a;
        ret[1] = m->a == c->mixed[t] ? m->b : m->a;
        return 3;
    }
    if (m->code == TERM_SQRT) {
        *code = CODE_SQRT_ADD;
        ret[1] = other;
        return 2;
    }
    if (m->code == TERM_DIV)
        *code = CODE_SUB_DIV;
    else
        *code = k->code == TERM_ADD ? CODE_MUL_ADD : k->b == fused ? CODE_SUB_MUL : CODE_MUL_SUB;
    return 3;
}

static void look_over(struct compiler *c, int guard)
{
    const struct formula *f = c->f;
    int of[3];

    for (int o = 0; o < f->n_out; o++)
        c->needed[c->out_term[o]] = c->is_out[c->out_term[o]] = true;
    if (guard != NONE)
        c->needed[guard] = true;
    for (int t = f->n_terms - 1; t >= 0; t--)
        for (int i = 0, n = operands(&f->terms[t], of); i < n && c->needed[t]; i++)
            c->needed[of[i]] = true;
    for (int t = 0; t < f->n_terms; t++) {
        const struct formula_term *k = &f->terms[t];
        int n = operands(k, of);

        c->fused[t] = c->mixed[t] = c->place[t] = NONE;
        if (k->code == TERM_IN)
            c->uniform[t] = shape_count(&c->in[k->a]->shape) == 1;
        else
            c->uniform[t] = true;
        for (int i = 0; i < n; i++) {
            c->uniform[t] = c->uniform[t] && c->uniform[of[i]];
            c->uses[of[i]] += c->needed[t];
        }
    }
    for (int t = 0; t < f->n_terms; t++)
        if (c->needed[t] && !c->uniform[t])
            fuse(c, t);
    for (int t = 0; t < f->n_terms; t++) {
        uint8_t code;

        if (c->needed[t] && !c->uniform[t] && !c->absorbed[t])
            for (int i = 0, n = reads(c, t, &code, of); i < n; i++)
                c->last[of[i]] = t;
    }
    for (int o = 0; o < f->n_out; o++)
        c->last[c->out_term[o]] = f->n_terms;
}

/* An output is computed where it lies if no input that may share its memory is read later. */
static void place_outputs(struct compiler *c, const uint32_t *same)
{
    for (int o = 0; o < c->f->n_out; o++) {
        int t = c->out_term[o];
        bool free = c->f->type == F32 && !c->uniform[t] && !c->direct[t] && c->f->terms[t].code != TERM_IN;

        for (int k = 0; k < c->f->n_terms; k++)
            if (c->f->terms[k].code == TERM_IN && c->needed[k] && !c->uniform[k] && same[o] >> c->f->terms[k].a & 1 &&
                c->last[k] > t)
                free = false;
        if (!free)
            continue;
        c->direct[t] = true;
        c->place[t] = PLACE_OUT + o;
    }
}

static int slot_new(struct compiler *c)
{
    int s = 0;

    while (c->used_slot[s])
        s++;
    c->used_slot[s] = true;
    if (s >= c->p->n_slots)
        c->p->n_slots = s + 1;
    return s;
}

static void slot_drop(struct compiler *c, int t, int now)
{
    if (!c->uniform[t] && c->place[t] >= 0 && c->place[t] < PLACE_IN && c->last[t] <= now)
        c->used_slot[c->place[t]] = false;
}

/* Merges axes that stretch alike, and drops axes of 1. */
static void describe_input(struct formula_input *in, const struct value *v, const struct shape *shape)
{
    int64_t step = 1;
    int rank = 0;

    in->type = (uint8_t)v->type;
    if (shape_count(&v->shape) == shape_count(shape))
        return;                                  /* rank 0 */
    for (int d = shape->rank - 1; d >= 0; d--) { /* innermost first */
        int own = d - (shape->rank - v->shape.rank);
        int64_t dim = shape->dim[d], stride = own >= 0 && v->shape.dim[own] != 1 ? step : 0;

        if (dim == 1)
            continue;
        if (stride)
            step *= dim;
        if (rank && (in->stride[rank - 1] ? stride == in->stride[rank - 1] * in->dim[rank - 1] : !stride)) {
            in->dim[rank - 1] *= dim;
            continue;
        }
        in->dim[rank] = dim;
        in->stride[rank++] = stride;
    }
    for (int i = 0; i < rank / 2; i++) {
        int64_t d = in->dim[i], s = in->stride[i];

        in->dim[i] = in->dim[rank - 1 - i], in->stride[i] = in->stride[rank - 1 - i];
        in->dim[rank - 1 - i] = d, in->stride[rank - 1 - i] = s;
    }
    in->rank = (uint8_t)rank;
}

static void code_add(struct compiler *c, struct formula_code k)
{
    c->p->code[c->p->n_code++] = k;
}

static void input_term(struct compiler *c, int t)
{
    struct formula_program *p = c->p;
    int in = c->f->terms[t].a;

    if (lies_ready(c, in) && !c->is_out[t]) {
        c->place[t] = PLACE_IN + p->n_direct_in;
        p->direct_in[p->n_direct_in++] = (uint8_t)in;
        return;
    }
    c->place[t] = slot_new(c);
    describe_input(&p->inputs[p->n_inputs], c->in[in], c->shape);
    p->input_of[p->n_inputs] = (uint8_t)in;
    code_add(c, (struct formula_code){.code = CODE_LOAD, .to = (uint8_t)c->place[t], .a = (uint8_t)p->n_inputs++});
}

/* The place or scalar of an operand; an input is fetched at its first reader. */
static uint8_t operand(struct compiler *c, int t, int bit, struct formula_code *k)
{
    if (c->uniform[t]) {
        k->scalars |= (uint8_t)(1 << bit);
        return (uint8_t)t;
    }
    if (c->place[t] == NONE)
        input_term(c, t);
    return (uint8_t)c->place[t];
}

static void vector_term(struct compiler *c, int t)
{
    struct formula_code k = {0};
    int read[3], n = reads(c, t, &k.code, read);

    k.a = operand(c, read[0], 0, &k);
    if (n > 1)
        k.b = operand(c, read[1], 1, &k);
    else
        k.b = k.a, k.scalars |= (uint8_t)((k.scalars & 1) << 1);
    if (n > 2)
        k.c = operand(c, read[2], 2, &k);
    else
        k.c = k.a, k.scalars |= (uint8_t)((k.scalars & 1) << 2);
    for (int i = 0; i < n; i++)
        slot_drop(c, read[i], t);
    if (c->place[t] == NONE)
        c->place[t] = slot_new(c);
    k.to = (uint8_t)c->place[t];
    code_add(c, k);
}

/* A uniform term keeps its own number as the number of its scalar. */
static void scalar_term(struct compiler *c, int t)
{
    struct formula_program *p = c->p;
    const struct formula_term *s = &c->f->terms[t];

    if (s->code == TERM_CONST)
        p->constants[p->n_constants++] = (struct constant){(uint8_t)t, s->constant};
    else if (s->code == TERM_IN)
        p->scalar_in[p->n_scalar_in++] = (struct scalar_in){(uint8_t)t, s->a, (uint8_t)c->in[s->a]->type};
    else
        p->scalar_code[p->n_scalar_code++] =
            (struct formula_code){.code = s->code, .to = (uint8_t)t, .a = s->a, .b = s->b, .c = s->c};
}

static void store_outputs(struct compiler *c)
{
    for (int o = 0; o < c->f->n_out; o++) {
        int t = c->out_term[o];
        struct formula_code k = {.code = c->f->type == BF16 ? CODE_NARROW : CODE_STORE, .to = (uint8_t)(PLACE_OUT + o)};

        if (c->direct[t] && c->place[t] == PLACE_OUT + o)
            continue;
        k.a = operand(c, t, 0, &k);
        code_add(c, k);
    }
}

/* Slots, then inputs, then outputs, now that their numbers are known. */
static uint8_t final_place(const struct formula_program *p, uint8_t place)
{
    if (place >= PLACE_OUT)
        return (uint8_t)(p->n_slots + p->n_direct_in + place - PLACE_OUT);
    if (place >= PLACE_IN)
        return (uint8_t)(p->n_slots + place - PLACE_IN);
    return place;
}

static void number_places(struct formula_program *p)
{
    for (int i = 0; i < p->n_code; i++) {
        struct formula_code *k = &p->code[i];

        k->to = final_place(p, k->to);
        if (k->code == CODE_LOAD)
            continue;
        if (!(k->scalars & 1))
            k->a = final_place(p, k->a);
        if (!(k->scalars & 2))
            k->b = final_place(p, k->b);
        if (!(k->scalars & 4))
            k->c = final_place(p, k->c);
    }
}

struct formula_program *formula_compile(const struct formula *f, const struct value *const *in, const struct shape *out,
                                        const uint32_t *same, const int *guard_of)
{
    struct formula_program *p = must_alloc(sizeof *p);
    struct compiler c = {.f = f, .p = p, .in = in, .shape = out};

    p->n = shape_count(out);
    p->out_bytes = (int)dtype_bytes((enum dtype)f->type);
    p->guard = NONE;
    for (int o = 0; o < f->n_out; o++)
        c.out_term[o] = f->out[o];
    if (guard_of)
        p->guard = find_guard(&c, guard_of);
    look_over(&c, p->guard);
    place_outputs(&c, same);
    for (int t = 0; t < f->n_terms; t++) {
        if (!c.needed[t])
            continue;
        if (c.uniform[t])
            scalar_term(&c, t);
        else if (f->terms[t].code != TERM_IN && !c.absorbed[t])
            vector_term(&c, t);
        else if (f->terms[t].code == TERM_IN && c.is_out[t])
            input_term(&c, t);
    }
    store_outputs(&c);
    for (int o = 0; o < f->n_out; o++)
        p->direct_out[p->n_direct_out++] = (uint8_t)o;
    number_places(p);
    p->block = FORMULA_BLOCK;
    if (p->n_slots * p->block > FORMULA_FLOATS)
        p->block = FORMULA_FLOATS / p->n_slots & ~15;
    return p;
}

struct formula_program *formula_free(struct formula_program *p)
{
    return free_null(p);
}

struct part {
    const struct simd_formulas *simd;
    const struct formula_run *run;
};

static void run_part(const void *context, int64_t begin, int64_t end)
{
    const struct part *part = context;

    part->simd->run(part->run, begin, end);
}

/* `rows` with numbers of direct inputs in place of the formula's. An input that no term reads is not among them: without the one
 * by rows all blocks are alike. */
static struct formula_rows direct_rows(const struct formula_program *p, const struct formula_rows *rows)
{
    struct formula_rows ret = *rows;
    int direct[MAX_FORMULA_IN];

    for (int i = 0; i < MAX_FORMULA_IN; i++)
        direct[i] = NONE;
    for (int i = 0; i < p->n_direct_in; i++)
        direct[p->direct_in[i]] = i;
    if (direct[rows->in] == NONE)
        return (struct formula_rows){0};
    ret.in = direct[rows->in];
    for (int i = 0; i < rows->n_resting; i++) {
        ret.rests = ret.rests && direct[rows->resting[i]] != NONE;
        ret.resting[i] = (uint8_t)direct[rows->resting[i]];
    }
    return ret;
}

void formula_run_rows(const struct device *d, const struct formula_program *p, void *const *in, void *const *out,
                      const struct formula_rows *rows)
{
    const struct simd_formulas *simd = d->simd->formulas;
    struct formula_run r;

    for (int i = 0; i < p->n_constants; i++)
        r.scalar[p->constants[i].to] = p->constants[i].value;
    for (int i = 0; i < p->n_scalar_in; i++) {
        const struct scalar_in *s = &p->scalar_in[i];

        if (s->type == F32)
            r.scalar[s->to] = *(const float *)in[s->in];
        else
            simd->load(&r.scalar[s->to], in[s->in], s->type, 1);
    }
    if (p->guard != NONE && r.scalar[p->guard] == 0)
        return;
    for (int i = 0; i < p->n_scalar_code; i++)
        simd->scalar(&p->scalar_code[i], r.scalar);
    r.rows = rows && rows->where ? direct_rows(p, rows) : (struct formula_rows){0};
    r.code = p->code;
    r.n_code = p->n_code;
    r.n_slots = p->n_slots;
    r.block = p->block;
    r.out_bytes = p->out_bytes;
    r.n_direct_in = p->n_direct_in;
    r.n_direct_out = p->n_direct_out;
    r.inputs = p->inputs;
    for (int i = 0; i < p->n_direct_in; i++)
        r.direct_in[i] = rows && p->direct_in[i] == rows->in ? out[0] : in[p->direct_in[i]]; /* any whole one: it is not read */
    for (int i = 0; i < p->n_direct_out; i++)
        r.direct_out[i] = out[p->direct_out[i]];
    for (int i = 0; i < p->n_inputs; i++)
        r.input_data[i] = in[p->input_of[i]];
    /* a piece per thread of some TEAM_GRAIN elements of a simple formula, fewer of a long one */
    int64_t grain = TEAM_GRAIN / (1 + p->n_code / 8);

    team_run(d, p->n, grain, run_part, &(struct part){simd, &r});
}

void formula_run(const struct device *d, const struct formula_program *p, void *const *in, void *const *out)
{
    formula_run_rows(d, p, in, out, NULL);
}
