/* See compare.h. */
#include "tests/cpu/compare.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/graph/plan.h"
#include "engine/ops/element.h"
#include "tests/test.h"

#define GUARD 64 /* bytes behind every buffer that must stay as they were */

static void *buffer(size_t bytes)
{
    char *p = aligned_alloc(64, (bytes + GUARD + 63) & ~(size_t)63);

    memset(p, 0x5a, (bytes + GUARD + 63) & ~(size_t)63);
    return p;
}

static void check_guard(const void *p, size_t bytes, const char *op)
{
    for (int i = 0; i < GUARD; i++)
        if (((const unsigned char *)p)[bytes + (size_t)i] != 0x5a)
            fail_msg("%s wrote %d bytes behind its output", op, i);
}

struct compare compare_make(void)
{
    struct compare c = {.g = graph_new(), .tolerance = 2e-6, .whole_below = 5, .seed = 1, .threads = 1};

    c.b = build_make(c.g);
    return c;
}

static void free_data(struct compare *c)
{
    for (uint32_t i = 0; i < c->n_data; i++)
        free(c->data[i]);
    free(c->data);
}

void compare_done(struct compare *c)
{
    free_data(c);
    for (uint32_t i = 0; c->given && i < c->g->n_values; i++)
        free(c->given[i]);
    free(c->given);
    c->g = graph_free(c->g);
}

value_id compare_input(struct compare *c, enum dtype type, struct shape shape)
{
    return input(&c->b, type, &shape);
}

void compare_put(struct compare *c, value_id v, const void *data)
{
    size_t bytes = value_bytes(&c->g->values[v]);

    if (!c->given)
        c->given = calloc(65536, sizeof *c->given);
    c->given[v] = malloc(bytes + 1);
    memcpy(c->given[v], data, bytes);
}

static void fill_leaf(struct compare *c, value_id v)
{
    const struct value *value = &c->g->values[v];
    int64_t n = shape_count(&value->shape);

    if (c->given && c->given[v]) {
        memcpy(c->data[v], c->given[v], value_bytes(value));
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        struct philox_words w = philox(c->seed, v, (uint64_t)i);
        double x, y;

        philox_normal(w.w[0], w.w[1], &x, &y);
        if (!is_float(value->type))
            x = w.w[2] % (uint32_t)(value->type == BOOL ? 2 : c->whole_below);
        element_put(c->data[v], value->type, i, x);
    }
}

static void check_output(struct compare *c, const struct node *n, int o, const void *got)
{
    const struct value *v = &c->g->values[n->out[o]];
    int64_t count = shape_count(&v->shape);
    double largest = 1, worst = 0, sum = 0;
    int64_t at = -1;

    for (int64_t i = 0; i < count; i++)
        if (fabs(element(c->data[n->out[o]], v->type, i)) > largest && isfinite(element(c->data[n->out[o]], v->type, i)))
            largest = fabs(element(c->data[n->out[o]], v->type, i));
    for (int64_t i = 0; i < count; i++) {
        double a = element(got, v->type, i), b = element(c->data[n->out[o]], v->type, i);
        double error = isnan(a) && isnan(b) ? 0 : a == b ? 0 : fabs(a - b) / largest;

        sum += error;
        if (isnan(error) || error > worst) {
            worst = error;
            at = i;
            if (isnan(error))
                break;
        }
    }
    if (o == 0 && c->n_errors < (int)COUNT(c->errors))
        c->errors[c->n_errors++] = (struct compare_error){n->op->name, worst, sum / (double)count};
    if (!(worst <= c->tolerance))
        fail_msg("%s, output %d of shape %s, element %lld: %.9g, the reference says %.9g (error %.2g of %.2g allowed)",
                 n->op->name, o, shape_text(&v->shape).s, (long long)at, element(got, v->type, at),
                 element(c->data[n->out[o]], v->type, at), worst, c->tolerance);
}

static uint64_t hash_bytes(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * 0x100000001b3u;
    return h;
}

/* The input over which the op may write out[0], or -1. */
static int shared_input(const struct compare *c, const struct node *n)
{
    if (!c->in_place || !(n->op->flags & OP_IN_PLACE))
        return -1;
    for (int i = n->n_in - 1; i >= 0; i--)
        if (n->in[i] && (n->op->shares ? n->op->shares(n, i) : i == 0) &&
            value_bytes(&c->g->values[n->in[i]]) == value_bytes(&c->g->values[n->out[0]])) {
            int uses = 0;

            for (int k = 0; k < n->n_in; k++)
                uses += n->in[k] == n->in[i];
            if (uses == 1)
                return i;
        }
    return -1;
}

/* The backend with only the last kernel of each op. */
static struct backend last_rows(struct kernel *rows, size_t room)
{
    struct backend b = *backend_cpu();
    size_t n = 0;

    for (const struct kernel *k = b.kernels; k->op; k++) {
        bool later = false;

        for (const struct kernel *other = k + 1; other->op; other++)
            later |= !strcmp(other->op, k->op);
        if (!later && n + 1 < room)
            rows[n++] = *k;
    }
    rows[n] = (struct kernel){0};
    b.kernels = rows;
    return b;
}

static uint64_t run_node(struct compare *c, struct device *d, uint32_t node, bool want_kernel, bool check, uint64_t hash)
{
    const struct node *n = &c->g->nodes[node];
    struct plan_step step = {0};
    struct problem problem = {0};
    void *in[64], *out[64], *got[64], *kernel_in[64];
    struct kernel rows[100];
    struct backend b = c->last_rows ? last_rows(rows, COUNT(rows)) : *backend_cpu();
    int shared;

    assert_true(n->n_in <= 64 && n->n_out <= 64);
    for (int i = 0; i < n->n_in; i++)
        in[i] = kernel_in[i] = n->in[i] ? c->data[n->in[i]] : NULL;
    for (int o = 0; o < n->n_out; o++)
        out[o] = n->out[o] ? c->data[n->out[o]] : NULL;
    if (n->op->flags & OP_VIEW) {
        memcpy(out[0], in[0], value_bytes(&c->g->values[n->out[0]]));
        return hash;
    }
    CHECK_OK(backend_choose(&b, d, c->g, node, &step, &problem));
    if (!step.kernel && want_kernel)
        fail_msg("%s with a result of %s has no kernel", n->op->name, shape_text(&c->g->values[n->out[0]].shape).s);
    if (step.kernel) {
        void *scratch = buffer(step.scratch_bytes);

        c->n_kernels++;
        shared = shared_input(c, n);
        for (int o = 0; o < n->n_out; o++) {
            size_t bytes = n->out[o] ? value_bytes(&c->g->values[n->out[o]]) : 0;

            got[o] = n->out[o] ? buffer(bytes) : NULL;
            if (n->out[o] && n->op->flags & OP_EFFECT) {
                memcpy(got[o], out[o], bytes);
                for (int i = 0; i < n->n_in; i++)
                    if (n->in[i] == n->out[o])
                        kernel_in[i] = got[o];
            }
        }
        if (shared >= 0) {
            memcpy(got[0], in[shared], value_bytes(&c->g->values[n->out[0]]));
            kernel_in[shared] = got[0];
        }
        struct kernel_call call = {.node = n,
                                   .values = c->g->values,
                                   .in = kernel_in,
                                   .out = got,
                                   .scratch = scratch,
                                   .prepared = step.prepared,
                                   .stream = d};

        step.kernel->run(&call);
        check_guard(scratch, step.scratch_bytes, n->op->name);
        free(scratch);
        for (int o = 0; o < n->n_out; o++)
            if (n->out[o]) {
                check_guard(got[o], value_bytes(&c->g->values[n->out[o]]), n->op->name);
                hash = hash_bytes(hash, got[o], value_bytes(&c->g->values[n->out[o]]));
            }
        if (step.kernel->release)
            step.kernel->release(step.prepared);
    } else {
        c->n_references++;
    }
    if (check || !step.kernel) {
        struct kernel_call call = {.node = n, .values = c->g->values, .in = in, .out = out, .stream = d};

        n->op->reference(&call);
        for (int o = 0; step.kernel && o < n->n_out; o++)
            if (n->out[o])
                check_output(c, n, o, got[o]);
    } else {
        for (int o = 0; o < n->n_out; o++)
            if (n->out[o])
                memcpy(out[o], got[o], value_bytes(&c->g->values[n->out[o]]));
    }
    for (int o = 0; step.kernel && o < n->n_out; o++)
        free(got[o]);
    return hash;
}

static uint64_t run_all(struct compare *c, bool want_kernel, bool check)
{
    struct problem problem = {0};
    struct device *d;
    uint64_t hash = 0xcbf29ce484222325u;

    if (build_failed(&c->b))
        fail_msg("the graph could not be built: %s: %s", c->b.problem.where, c->b.problem.detail);
    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = c->threads, .simd = c->simd}, &d, &problem));
    backend_cpu()->enter(d);
    free_data(c);
    c->n_data = c->g->n_values;
    c->data = calloc(c->g->n_values, sizeof *c->data);
    for (uint32_t i = 1; i < c->g->n_values; i++) {
        c->data[i] = buffer(value_bytes(&c->g->values[i]));
        if (!c->g->values[i].producer || c->g->values[i].at != AT_TEMP)
            fill_leaf(c, i);
    }
    c->n_kernels = c->n_references = 0;
    for (uint32_t i = 1; i < c->g->n_nodes; i++)
        hash = run_node(c, d, i, want_kernel, check, hash);
    (void)backend_cpu()->close(d);
    return hash;
}

void compare_run(struct compare *c, bool want_kernel)
{
    (void)run_all(c, want_kernel, true);
}

uint64_t compare_bits(struct compare *c)
{
    return run_all(c, false, false);
}

const float *compare_floats(const struct compare *c, value_id v)
{
    return c->data[v];
}

struct compare_error compare_error(const struct compare *c, const char *op)
{
    struct compare_error found = {op, NAN, NAN};

    for (int i = 0; i < c->n_errors; i++)
        if (!strcmp(c->errors[i].op, op))
            found = c->errors[i];
    return found;
}

const char *compare_level(int i)
{
    static const char *const names[] = {"v2", "v3", "v4", "base"};
    int found = 0;

    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        struct problem problem;
        struct device *d;

        if (backend_cpu()->open(0, &(struct device_options){.threads = 1, .simd = names[k]}, &d, &problem) != ST_OK)
            continue;
        (void)backend_cpu()->close(d);
        if (found++ == i)
            return names[k];
    }
    return NULL;
}
