/* Every kernel of the CPU backend against the reference, node by node: forward and gradient nodes of every case, at every SIMD
 * level that this CPU has, with one thread and with four, in place and not, between guard zones.
 *
 * A node's inputs are what the reference computed, so that one kernel's rounding does not blur the next one's. */
#include "tests/ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/graph/plan.h"
#include "engine/ops/all.h"
#include "engine/ops/element.h"
#include "engine/run/backend.h"
#include "tests/test.h"

#define TOLERANCE 1e-5 /* of the largest element of a result, and at least of 1 */
#define MAX_OUT   16

static const struct op *const all_ops[] = {
#define X(name) &name,
#include "ops.inc"
#undef X
};

/* Ops whose sums run inside a library, which may cut them by the number of threads. */
static const char *const library_ops[] = {"matmul", "conv", "conv_dx", "conv_dw", "rnn_seq", "rnn_seq_dx"};

static struct tally {
    int kernels, in_place, references, checks, bfloat_products, bfloat_convolutions; /* the last two by oneDNN's units */
    bool ran[COUNT(all_ops)]; /* a kernel was chosen for the op at least once */
} tally;

static int op_number(const struct op *op)
{
    for (int i = 0; i < (int)COUNT(all_ops); i++)
        if (all_ops[i] == op)
            return i;
    abort();
}

static bool in_library(const struct op *op)
{
    for (size_t i = 0; i < COUNT(library_ops); i++)
        if (!strcmp(library_ops[i], op->name))
            return true;
    return false;
}

/* What one node works on: outputs of its own, which an effect finds as they were. */
struct work {
    const struct node *n;
    void *in[64], *out[MAX_OUT];
    size_t bytes[MAX_OUT];
};

static struct work work_new(const struct trial *t, const struct memory *m, uint32_t node)
{
    struct work w = {.n = &t->graph->nodes[node]};

    for (int i = 0; i < w.n->n_out; i++) {
        w.bytes[i] = value_bytes(&t->graph->values[w.n->out[i]]);
        w.out[i] = guarded_new(w.bytes[i]);
        if (w.n->op->flags & OP_EFFECT)
            memcpy(w.out[i], m->at[w.n->out[i]], w.bytes[i]);
    }
    for (int i = 0; i < w.n->n_in; i++) {
        w.in[i] = w.n->in[i] ? m->at[w.n->in[i]] : NULL;
        for (int k = 0; k < w.n->n_out; k++) /* an effect reads the leaf that it writes */
            if (w.n->in[i] && w.n->in[i] == w.n->out[k])
                w.in[i] = w.out[k];
    }
    return w;
}

static void work_done(struct work *w)
{
    for (int i = 0; i < w->n->n_out; i++)
        guarded_free(w->out[i]);
}

static void run_kernel(const struct trial *t, const struct plan_step *step, struct work *w)
{
    void *scratch = step->scratch_bytes ? guarded_new(step->scratch_bytes) : NULL;
    struct kernel_call call = {
        .node = w->n, .values = t->graph->values, .in = w->in, .out = w->out, .scratch = scratch, .prepared = step->prepared};

    step->kernel->run(&call);
    if (scratch && !guarded_intact(scratch, step->scratch_bytes))
        fail_msg("%s, %s: wrote outside its scratch", t->row->name, w->n->op->name);
    for (int i = 0; i < w->n->n_out; i++)
        if (!guarded_intact(w->out[i], w->bytes[i]))
            fail_msg("%s, %s: wrote outside output %d", t->row->name, w->n->op->name, i);
    guarded_free(scratch);
}

static double number(const void *p, enum dtype type, int64_t i)
{
    switch (type) {
    case F32:
        return ((const float *)p)[i];
    case F64:
        return ((const double *)p)[i];
    case I64:
        return (double)((const int64_t *)p)[i];
    case I32:
        return ((const int32_t *)p)[i];
    case U8:
    case BOOL:
        return ((const uint8_t *)p)[i];
    case BF16:
        return float_of_bfloat(((const uint16_t *)p)[i]);
    default:
        return ((const uint16_t *)p)[i];
    }
}

/* What the rounding of a result is measured by: its largest element, at least 1. A sum of many numbers of either sign may be
 * small beside them; it is measured by how far a random walk of as many steps goes. */
static double scale_of(const struct trial *t, const struct work *w, int out)
{
    const struct value *v = &t->graph->values[w->n->out[out]];
    int64_t n = shape_count(&v->shape);
    double scale = 1;

    for (int64_t k = 0; k < n; k++)
        scale = fmax(scale, fabs(number(w->out[out], v->type, k)));
    if (!strcmp(w->n->op->name, "reduce")) {
        const struct value *x = &t->graph->values[w->n->in[0]];
        int64_t m = shape_count(&x->shape);
        double largest = 0;

        for (int64_t k = 0; k < m; k++)
            largest = fmax(largest, fabs(number(w->in[0], x->type, k)));
        scale = fmax(scale, largest * sqrt((double)m / (double)n));
    }
    return scale;
}

/* Whole numbers are exact. Two sums that differ in float32 may be rounded to neighbouring bfloat16 numbers. */
static double tolerance_of(enum dtype type)
{
    return type == F32 ? TOLERANCE : type == F64 ? 1e-12 : type == BF16 ? 0x1p-8 : 0;
}

static void compare(const struct trial *t, const struct work *got, const struct work *want, const char *how)
{
    for (int i = 0; i < got->n->n_out; i++) {
        const struct value *v = &t->graph->values[got->n->out[i]];
        int64_t n = shape_count(&v->shape);
        double scale = scale_of(t, want, i), tolerance = tolerance_of(v->type);

        for (int64_t k = 0; k < n; k++) {
            double g = number(got->out[i], v->type, k), w = number(want->out[i], v->type, k);

            if (!(fabs(g - w) <= tolerance * scale) && !(isnan(g) && isnan(w)) && g != w)
                fail_msg("%s, %s (%s): output %d, element %lld is %.9g, the reference says %.9g", t->row->name,
                         got->n->op->name, how, i, (long long)k, g, w);
        }
        tally.checks++;
    }
}

static void same_bits(const struct trial *t, const struct work *a, const struct work *b, const char *how)
{
    for (int i = 0; i < a->n->n_out; i++)
        if (memcmp(a->out[i], b->out[i], a->bytes[i]))
            fail_msg("%s, %s: output %d has other bits %s", t->row->name, a->n->op->name, i, how);
}

static bool may_share(const struct trial *t, const struct node *n, int in)
{
    const struct value *x = &t->graph->values[n->in[in]], *y = &t->graph->values[n->out[0]];

    if (!(n->op->flags & OP_IN_PLACE) || !n->in[in] || x->type != y->type || value_bytes(x) != value_bytes(y))
        return false;
    for (int k = 0; k < n->n_in; k++) /* every use of the input must allow it */
        if (n->in[k] == n->in[in] && !(n->op->shares ? n->op->shares(n, k) : k == 0))
            return false;
    return true;
}

/* The output takes the place of each input that may be overwritten, in turn. step NULL: the reference kernel. */
static void check_in_place(const struct trial *t, const struct memory *m, uint32_t node, const struct plan_step *step,
                           const struct work *want)
{
    for (int in = 0; in < want->n->n_in; in++) {
        if (!may_share(t, want->n, in))
            continue;
        struct work w = work_new(t, m, node);

        memcpy(w.out[0], w.in[in], w.bytes[0]);
        for (int k = 0; k < w.n->n_in; k++)
            if (w.n->in[k] == w.n->in[in])
                w.in[k] = w.out[0];
        if (step)
            run_kernel(t, step, &w);
        else
            w.n->op->reference(&(struct kernel_call){.node = w.n, .values = t->graph->values, .in = w.in, .out = w.out});
        compare(t, &w, want, step ? "in place" : "reference, in place");
        tally.in_place++;
        work_done(&w);
    }
}

struct devices {
    struct device *one, *four; /* threads */
};

static struct plan_step choose(const struct trial *t, struct device *d, uint32_t node)
{
    struct plan_step step;
    struct problem problem;

    CHECK_OK(backend_choose(backend_cpu(), d, t->graph, node, &step, &problem));
    return step;
}

static void release(struct plan_step *step)
{
    if (step->kernel && step->kernel->release)
        step->kernel->release(step->prepared);
}

static void check_node(const struct trial *t, struct memory *m, uint32_t node, const struct devices *d)
{
    struct work want = work_new(t, m, node), one, four;
    struct plan_step step = choose(t, d->one, node), team;

    want.n->op->reference(&(struct kernel_call){.node = want.n, .values = t->graph->values, .in = want.in, .out = want.out});
    if (!step.kernel) {
        tally.references++;
        check_in_place(t, m, node, NULL, &want);
    } else {
        tally.kernels++;
        if (t->graph->values[want.n->in[0]].type == BF16) {
            tally.bfloat_products += !strncmp(step.kernel->name, "matmul_onednn", 13);
            tally.bfloat_convolutions += !strncmp(step.kernel->name, "conv_onednn", 11);
        }
        tally.ran[op_number(want.n->op)] = true;
        one = work_new(t, m, node);
        backend_cpu()->enter(d->one);
        run_kernel(t, &step, &one);
        compare(t, &one, &want, "one thread");
        check_in_place(t, m, node, &step, &want);
        four = work_new(t, m, node);
        team = choose(t, d->four, node);
        CHECK(team.kernel == step.kernel);
        backend_cpu()->enter(d->four);
        run_kernel(t, &team, &four);
        compare(t, &four, &want, "four threads");
        if (!in_library(want.n->op))
            same_bits(t, &four, &one, "with four threads");
        for (int i = 0; i < four.n->n_out; i++) { /* again, from the same start */
            memset(four.out[i], 0xFF, four.bytes[i]);
            if (four.n->op->flags & OP_EFFECT)
                memcpy(four.out[i], m->at[four.n->out[i]], four.bytes[i]);
        }
        run_kernel(t, &team, &four);
        compare(t, &four, &want, "four threads, again");
        release(&team);
        work_done(&four);
        work_done(&one);
    }
    release(&step);
    for (int i = 0; i < want.n->n_out; i++)
        memcpy(m->at[want.n->out[i]], want.out[i], want.bytes[i]);
    work_done(&want);
}

static void check_level(const char *level, bool bfloat)
{
    struct problem problem = {0};
    struct devices d = {0};

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){1, level, bfloat}, &d.one, &problem));
    CHECK_OK(backend_cpu()->open(0, &(struct device_options){4, level, bfloat}, &d.four, &problem));
    tally = (struct tally){0};
    for (int i = 0; i < n_op_cases; i++) {
        OWNED(trial_free) struct trial *t = trial_new(&op_cases[i]);
        OWNED(memory_free) struct memory *m = memory_new(t->graph);

        trial_feed(t, m);
        for (uint32_t n = 1; n < t->graph->n_nodes; n++)
            if (!(t->graph->nodes[n].op->flags & OP_VIEW))
                check_node(t, m, n, &d);
    }
    printf("%s: %d nodes by kernels (%d times in place), %d by the reference, %d results compared\n",
           backend_cpu()->describe(d.one), tally.kernels, tally.in_place, tally.references, tally.checks);
    backend_cpu()->close(d.one);
    backend_cpu()->close(d.four);
}

static bool has_row(const char *op)
{
    for (const struct kernel *k = backend_cpu()->kernels; k->op; k++)
        if (!strcmp(k->op, op))
            return true;
    return false;
}

TEST(every_kernel_equals_the_reference_at_every_level)
{
    static const char *const levels[] = {"v2", "v3", "v4"};
    int n_levels = 0, expected = 0;

#ifdef __x86_64__
    expected = 1 + (__builtin_cpu_supports("avx2") != 0) + (__builtin_cpu_supports("avx512vl") != 0);
#endif
    for (size_t i = 0; i < COUNT(levels); i++) {
        struct problem problem = {0};
        struct device *d = NULL;

        if (backend_cpu()->open(0, &(struct device_options){.threads = 1, .simd = levels[i]}, &d, &problem) != ST_OK) {
            printf("level %s not run: %s\n", levels[i], problem.detail);
            continue;
        }
        backend_cpu()->close(d);
        check_level(levels[i], false);
        n_levels++;
    }
    if (n_levels == 0)
        check_level(NULL, false);
    CHECK_INT(n_levels, expected);
    for (size_t i = 0; i < COUNT(all_ops); i++)
        if (has_row(all_ops[i]->name) && !tally.ran[i])
            fail_msg("no case reaches the kernels of %s: all rows decline", all_ops[i]->name);
}

static bool has_bfloat_units(void)
{
    bool cpu = false;

#ifdef __x86_64__
    cpu = __builtin_cpu_supports("avx512bf16");
#endif
    for (const struct kernel *k = backend_cpu()->kernels; k->op; k++)
        if (!strcmp(k->name, "matmul_onednn.bfloat"))
            return cpu;
    return false;
}

TEST(the_cpus_own_bfloat16_instructions_give_what_the_reference_gives)
{
    if (!has_bfloat_units()) {
        print_message("no oneDNN, or a CPU without instructions for bfloat16\n");
        skip();
    }
    check_level(NULL, true);
    CHECK(tally.bfloat_products > 0);
    CHECK(tally.bfloat_convolutions > 0);
}

TEST(every_op_has_a_case)
{
    bool seen[COUNT(all_ops)] = {false};

    for (int i = 0; i < n_op_cases; i++) {
        OWNED(trial_free) struct trial *t = trial_new(&op_cases[i]);

        for (uint32_t n = 1; n < t->graph->n_nodes; n++)
            seen[op_number(t->graph->nodes[n].op)] = true;
    }
    for (size_t i = 0; i < COUNT(all_ops); i++)
        if (!seen[i])
            fail_msg("the op %s is in no case of tests/ops/cases.c", all_ops[i]->name);
}

TEST(every_kernel_row_names_an_op)
{
    for (const struct kernel *k = backend_cpu()->kernels; k->op; k++) {
        bool found = false;

        for (size_t i = 0; i < COUNT(all_ops); i++)
            found |= !strcmp(all_ops[i]->name, k->op);
        if (!found)
            fail_msg("the backend has a kernel for %s, which is no op", k->op);
    }
}

/* Whether engine/cpu/FILE.c has the literal "FILE.ROW" for the name FILE.ROW. */
static bool in_its_file(const char *name)
{
    char path[256], literal[128], line[4096];
    bool found = false;

    snprintf(path, sizeof path, "engine/cpu/%.*s.c", (int)strcspn(name, "."), name);
    snprintf(literal, sizeof literal, "\"%s\"", name);
    FILE *f = fopen(path, "r");

    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, literal) != NULL;
    if (f)
        fclose(f);
    return found;
}

TEST(a_kernel_rows_name_says_its_file_and_is_its_own)
{
    for (const struct kernel *k = backend_cpu()->kernels; k->op; k++) {
        if (!k->name || !strchr(k->name, '.') || !in_its_file(k->name))
            fail_msg("the kernel \"%s\" of %s is not to be found in the file of engine/cpu that its name says; tests run in "
                     "the root of the sources",
                     k->name ? k->name : "", k->op);
        for (const struct kernel *other = backend_cpu()->kernels; other != k; other++)
            CHECK(strcmp(other->name, k->name) != 0);
    }
}

TEST(ops_without_a_kernel_are_those_on_the_list)
{
    char got[4096] = "", want[4096] = "";
    FILE *f = fopen("tests/ops/without_kernel.txt", "r");
    size_t n;

    if (!f)
        fail_msg("tests/ops/without_kernel.txt is not there; tests run in the root of the sources");
    n = fread(want, 1, sizeof want - 1, f);
    want[n] = 0;
    fclose(f);
    for (size_t i = 0; i < COUNT(all_ops); i++)
        if (!(all_ops[i]->flags & OP_VIEW) && !has_row(all_ops[i]->name)) {
            size_t at = strlen(got);

            snprintf(got + at, sizeof got - at, "%s cpu\n", all_ops[i]->name);
        }
    CHECK_TEXT(got, want);
}
