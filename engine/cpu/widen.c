/* Products and convolutions of bfloat16 by the kernels of float32: factors are widened into scratch, results rounded out of it.
 *
 * A product of two bfloat16 numbers is exact in float32, so the result is that of hardware for bfloat16, or nearer. Where that
 * hardware is AVX512_BF16 without AMX it is also the faster way: see bfloat_wanted() in cpu.c. With AMX the rows of oneDNN stand
 * before these and take what they can. */
#include "engine/cpu/cpu.h"

#include <string.h>

#include "engine/cpu/kernels.h"
#include "engine/graph/plan.h"

enum { MOST_VALUES = 8 };

struct widened {
    const struct device *device;
    struct plan_step step; /* the kernel of float32 */
    struct node node;      /* the node again, its values numbered from 1 */
    struct value values[MOST_VALUES + 1];
    value_id ids[MOST_VALUES];
    size_t at[MOST_VALUES]; /* where in scratch it is float32; 0: it lies ready */
    int64_t count[MOST_VALUES];
};

static void widen_release(void *prepared)
{
    struct widened *w = prepared;

    if (w->step.kernel && w->step.kernel->release)
        w->step.kernel->release(w->step.prepared);
    free_null(w);
}

static value_id id_of(const struct node *n, int i)
{
    return i < n->n_in ? n->in[i] : n->out[i - n->n_in];
}

static KERNEL_PREPARE(widen_prepare)
{
    int count = n->n_in + n->n_out;
    bool any = false;

    for (int i = 0; i < count; i++)
        any = any || values[id_of(n, i)].type == BF16;
    if (!any || count > MOST_VALUES)
        return fail(problem, ST_UNSUPPORTED, "", "nothing to widen");

    struct widened *w = must_alloc(sizeof *w);
    struct node nodes[2] = {{0}, *n};

    w->device = d;
    w->node = *n;
    for (int i = 0; i < count; i++) {
        w->values[i + 1] = values[id_of(n, i)];
        w->count[i] = shape_count(&w->values[i + 1].shape);
        w->ids[i] = id_of(n, i) ? (value_id)i + 1 : 0;
        if (w->values[i + 1].type == BF16)
            w->values[i + 1].type = F32;
    }
    w->node.in = w->ids;
    w->node.out = w->ids + n->n_in;
    nodes[1] = w->node;
    struct graph g = {.values = w->values, .nodes = nodes, .n_values = (uint32_t)count + 1, .n_nodes = 2};
    enum status s = backend_choose(backend_cpu(), d, &g, 1, &w->step, problem);

    if (s == ST_OK && !w->step.kernel)
        s = fail(problem, ST_UNSUPPORTED, "", "no kernel of float32 either");
    if (s != ST_OK) {
        widen_release(w);
        return s;
    }
    *scratch = (w->step.scratch_bytes + 127) & ~(size_t)63; /* no place is 0 */
    for (int i = 0; i < count; i++)
        if (values[id_of(n, i)].type == BF16) {
            w->at[i] = *scratch;
            *scratch += (value_bytes(&w->values[i + 1]) + 63) & ~(size_t)63;
        }
    *ret = w;
    return ST_OK;
}

struct conversion {
    const struct simd_formulas *simd;
    float *wide;
    uint16_t *narrow;
};

static void widen_some(const void *context, int64_t begin, int64_t end)
{
    const struct conversion *c = context;

    c->simd->load(c->wide + begin, c->narrow + begin, BF16, end - begin);
}

static void narrow_some(const void *context, int64_t begin, int64_t end)
{
    const struct conversion *c = context;

    c->simd->narrow(c->narrow + begin, c->wide + begin, end - begin);
}

static void widen_run(const struct kernel_call *c)
{
    const struct widened *w = c->prepared;
    int n_in = c->node->n_in, count = n_in + c->node->n_out;
    void *at[MOST_VALUES];
    struct kernel_call call = *c;

    for (int i = 0; i < count; i++) {
        void *data = i < n_in ? c->in[i] : c->out[i - n_in];

        at[i] = w->at[i] ? (char *)c->scratch + w->at[i] : data;
        if (i < n_in && w->at[i])
            team_run(w->device, w->count[i], 2 * TEAM_GRAIN, widen_some,
                     &(struct conversion){w->device->simd->formulas, at[i], data});
    }
    call.node = &w->node;
    call.values = w->values;
    call.in = at;
    call.out = at + n_in;
    call.prepared = w->step.prepared;
    w->step.kernel->run(&call);
    for (int i = n_in; i < count; i++)
        if (w->at[i])
            team_run(w->device, w->count[i], 2 * TEAM_GRAIN, narrow_some,
                     &(struct conversion){w->device->simd->formulas, at[i], c->out[i - n_in]});
}

const struct kernel kernel_widen_matmul = {"matmul", "widen.matmul", widen_prepare, widen_run, widen_release};
const struct kernel kernel_widen_conv = {"conv", "widen.conv", widen_prepare, widen_run, widen_release};
const struct kernel kernel_widen_conv_dx = {"conv_dx", "widen.conv_dx", widen_prepare, widen_run, widen_release};
const struct kernel kernel_widen_conv_dw = {"conv_dw", "widen.conv_dw", widen_prepare, widen_run, widen_release};
