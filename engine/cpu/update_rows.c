/* The update of a table from a gradient by rows, with the results of the whole gradient to the bit.
 *
 * Every row is computed, since an optimizer's momentum moves rows that have no gradient in this step; what is saved is the
 * writing, summing and reading of a gradient that is mostly zeros. One pass over memory: w, m and v in and out.
 *
 * Rows that were never looked up rest. With a gradient of zero and slots of zero (+0) the new slots are zero again, and
 * w - 0 is w, whatever w is: such a block is neither computed nor written, and w is not even read. That needs no state: the
 * slots are looked at, of which the first element mostly says no. Whether an update is of that kind is seen in its formula,
 *
 *     every output is either   w - t   with w the leaf that it overwrites, and t free of w         (a)
 *                      or      u       over a leaf that must be zero for the block to rest         (b)
 *
 * where t and u depend on the gradient, on leaves of kind b and on scalars; and each step t and u are worked out once with zeros
 * and the step's scalars: all must be +0. So it is with Adam, RMSprop and plain SGD (whose rows always rest), not with
 * Adagrad, whose sums begin above zero. */
#include "engine/cpu/formula.h"

#include <string.h>

#include "engine/ops/element.h"

struct rest {
    bool possible;
    struct formula zero; /* its outputs, t and u of the head, must be +0 */
    int n;
    uint8_t inputs[MAX_FORMULA_OUT]; /* that must be zeros: kind b */
};

struct update_plan {
    const struct device *device;
    struct formula_program *program;
    struct rest rest;
};

static bool is_scalar(const struct value *values, value_id v)
{
    return count_of(values, v) == 1;
}

/* reads[t]: bits of the inputs that term t depends on. */
static void find_reads(const struct formula *f, uint32_t reads[MAX_TERMS])
{
    for (int t = 0; t < f->n_terms; t++) {
        const struct formula_term *k = &f->terms[t];
        const term of[3] = {k->a, k->b, k->c};

        reads[t] = k->code == TERM_IN ? 1u << k->a : 0;
        for (int i = 0; i < term_operands[k->code]; i++)
            reads[t] |= reads[of[i]];
    }
}

static bool is_input(const struct formula *f, term t, int in)
{
    return f->terms[t].code == TERM_IN && f->terms[t].a == in;
}

/* The new value of an output that is guarded by select(scalar, new, old), and any other output itself. */
static term behind_guard(const struct formula *f, term t, int old, uint32_t scalars, const uint32_t *reads)
{
    const struct formula_term *k = &f->terms[t];

    return k->code == TERM_SELECT && is_input(f, k->c, old) && !(reads[k->a] & ~scalars) ? k->b : t;
}

static struct rest find_rest(const struct update_rows *how, const struct node *n, const struct value *values)
{
    const struct formula *f = &how->formula;
    struct rest r = {.zero = *f};
    uint32_t reads[MAX_TERMS], scalars = 0, may = 1u << how->by_rows;

    find_reads(f, reads);
    for (int i = 0; i < f->n_in; i++)
        if (i != how->by_rows && is_scalar(values, n->in[i]))
            scalars |= 1u << i;
    r.zero.n_out = 0;
    for (int o = 0; o < f->n_out; o++) {
        int old = 0;

        while (old < f->n_in && n->in[old] != n->out[o])
            old++;
        if (old == f->n_in)
            return r;
        term t = behind_guard(f, f->out[o], old, scalars, reads);
        const struct formula_term *k = &f->terms[t];

        if (k->code == TERM_SUB && is_input(f, k->a, old) && !(reads[k->b] >> old & 1)) {
            f_out(&r.zero, k->b);
        } else {
            f_out(&r.zero, t);
            r.inputs[r.n++] = (uint8_t)old;
            may |= 1u << old;
        }
    }
    r.possible = true;
    for (int o = 0; o < r.zero.n_out; o++)
        r.possible = r.possible && !(reads[r.zero.out[o]] & ~(may | scalars));
    return r;
}

/* Whether rows rest in this step, by its scalars. */
static bool rests_now(const struct rest *r, const struct kernel_call *c)
{
    float in[MAX_FORMULA_IN] = {0}, out[MAX_FORMULA_OUT];
    static const float zero = 0;

    if (!r->possible)
        return false;
    for (int i = 0; i < r->zero.n_in; i++)
        if (is_scalar(c->values, c->node->in[i]))
            in[i] = (float)element(c->in[i], IN_VALUE(c, i)->type, 0);
    formula_value(&r->zero, in, out);
    for (int o = 0; o < r->zero.n_out; o++)
        if (memcmp(&out[o], &zero, sizeof zero) != 0)
            return false;
    return true;
}

static KERNEL_PREPARE(update_rows_prepare)
{
    const struct update_rows *how = n->attr;
    const struct formula *f = &how->formula;
    const struct value *in[MAX_FORMULA_IN], *out = &values[n->out[0]];
    struct value whole = {.shape = out->shape, .type = F32};

    (void)scratch;
    for (int o = 0; o < n->n_out; o++) {
        const struct formula_term *k = &f->terms[f->out[o]];

        if (is_input(f, f->out[o], how->by_rows) || (k->code == TERM_SELECT && is_input(f, k->b, how->by_rows)))
            return fail(problem, ST_UNSUPPORTED, "", "a gradient that is stored as it is");
    }
    if (shape_count(&out->shape) == 1 || values[n->in[how->by_rows]].type != F32)
        return fail(problem, ST_UNSUPPORTED, "", "a table of one element, or not float32");
    for (int i = 0; i < f->n_in; i++)
        in[i] = i == how->by_rows ? &whole : &values[n->in[i]];
    struct update_plan *p = must_alloc(sizeof *p);

    p->device = d;
    p->program = node_formula(f, in, n, values);
    p->rest = find_rest(how, n, values);
    *ret = p;
    return ST_OK;
}

static void update_rows_run(const struct kernel_call *c)
{
    const struct update_plan *p = c->prepared;
    const struct update_rows *how = c->node->attr;
    struct formula_rows rows = {.in = how->by_rows,
                                .where = c->in[how->formula.n_in],
                                .given = c->in[how->by_rows],
                                .width = IN_VALUE(c, how->by_rows)->shape.dim[1],
                                .rests = rests_now(&p->rest, c),
                                .n_resting = p->rest.n};

    memcpy(rows.resting, p->rest.inputs, sizeof p->rest.inputs);
    formula_run_rows(p->device, p->program, c->in, c->out, &rows);
}

static void update_rows_release(void *prepared)
{
    struct update_plan *p = prepared;

    (void)formula_free(p->program);
    free_null(p);
}

const struct kernel kernel_update_rows = {"update_rows", "update_rows.update", update_rows_prepare, update_rows_run,
                                          update_rows_release};
