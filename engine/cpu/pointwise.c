/* The ops made of formulas, and fill. */
#include "engine/cpu/formula.h"

#include "engine/ops/all.h"

struct pointwise_plan {
    const struct device *device;
    struct formula_program *program;
};

/* Bytes of their region that two leaves have in common. */
static bool leaves_overlap(const struct value *values, value_id a, value_id b)
{
    const struct value *x = &values[a], *y = &values[b];

    return x->at == y->at && x->offset < y->offset + value_bytes(y) && y->offset < x->offset + value_bytes(x);
}

struct formula_program *node_formula(const struct formula *f, const struct value *const *in, const struct node *n,
                                     const struct value *values)
{
    uint32_t same[MAX_FORMULA_OUT] = {0};
    int guard[MAX_FORMULA_OUT];
    bool update = n->op->flags & OP_EFFECT;

    for (int o = 0; o < f->n_out; o++) {
        guard[o] = -1;
        for (int i = 0; i < f->n_in; i++) {
            bool may = update ? values[n->in[i]].at != AT_TEMP && leaves_overlap(values, n->in[i], n->out[o]) : o == 0;

            same[o] |= (uint32_t)may << i;
            if (update && n->in[i] == n->out[o])
                guard[o] = i;
        }
    }
    return formula_compile(f, in, &values[n->out[0]].shape, same, update ? guard : NULL);
}

static KERNEL_PREPARE(pointwise_prepare)
{
    const struct formula *f = n->attr;
    const struct value *in[MAX_FORMULA_IN];

    (void)scratch;
    for (int o = 0; o < n->n_out; o++)
        if (values[n->out[o]].type != (enum dtype)f->type || count_of(values, n->out[o]) != count_of(values, n->out[0]))
            return fail(problem, ST_UNSUPPORTED, "", "outputs of several types or sizes");
    for (int i = 0; i < f->n_in; i++)
        in[i] = &values[n->in[i]];
    struct pointwise_plan *p = must_alloc(sizeof *p);

    p->device = d;
    p->program = node_formula(f, in, n, values);
    *ret = p;
    return ST_OK;
}

static void pointwise_run(const struct kernel_call *c)
{
    const struct pointwise_plan *p = c->prepared;

    formula_run(p->device, p->program, c->in, c->out);
}

static void pointwise_release(void *prepared)
{
    struct pointwise_plan *p = prepared;

    (void)formula_free(p->program);
    free_null(p);
}

/* A formula that says nothing but its input, stretched. */
static KERNEL_PREPARE(expand_prepare)
{
    const struct value *in = &values[n->in[0]];
    struct formula f = {0};
    uint32_t same = 0;

    (void)scratch;
    TRY(all_f32(n, values, problem));
    f_out(&f, f_in(&f));
    struct pointwise_plan *p = must_alloc(sizeof *p);

    p->device = d;
    p->program = formula_compile(&f, &in, &values[n->out[0]].shape, &same, NULL);
    *ret = p;
    return ST_OK;
}

struct fill_part {
    const struct simd *simd;
    float *y, value;
};

static void fill_some(const void *context, int64_t begin, int64_t end)
{
    const struct fill_part *c = context;

    c->simd->formulas->fill(c->y + begin, c->value, end - begin);
}

static void fill_run(const struct kernel_call *c)
{
    const struct fill *how = c->node->attr;
    const struct device *d = DEVICE(c);

    team_run(d, shape_count(&OUT_VALUE(c, 0)->shape), 4 * TEAM_GRAIN, fill_some,
             &(struct fill_part){d->simd, c->out[0], how->value});
}

const struct kernel kernel_pointwise = {"pointwise", "pointwise.formula", pointwise_prepare, pointwise_run, pointwise_release};
const struct kernel kernel_update = {"pointwise_update", "pointwise.update", pointwise_prepare, pointwise_run,
                                     pointwise_release};
const struct kernel kernel_expand = {"expand", "pointwise.expand", expand_prepare, pointwise_run, pointwise_release};
const struct kernel kernel_fill = {"fill", "pointwise.fill", prepare_plain, fill_run, release_plain};
