/* Running a plan: addresses are worked out once, then a step is a loop over kernel calls. */
#include "engine/run/session.h"

#include <math.h>
#include <string.h>

static const value_id *node_ids(const struct node *n, int i)
{
    return i < n->n_in ? &n->in[i] : &n->out[i - n->n_in];
}

void *session_address(const struct session *s, value_id v)
{
    const struct graph *g = s->plan->graph;

    if (!v)
        return NULL;
    if (g->values[v].view_of)
        v = g->values[v].view_of;
    const struct value *value = &g->values[v];
    size_t offset = value->at == AT_TEMP ? s->plan->temp_offset[v] : value->offset;

    return (char *)s->base[value->at] + offset;
}

static bool is_input(const struct session *s, const void *address)
{
    const char *begin = s->base[AT_INPUT];

    return (const char *)address >= begin && (const char *)address < begin + s->plan->graph->bytes[AT_INPUT];
}

enum status session_double(struct session *s, struct problem *problem)
{
    const struct plan *p = s->plan;
    size_t total = 0;

    if (s->spare || !p->graph->bytes[AT_INPUT])
        return ST_OK;
    TRY(p->backend->alloc(s->device, p->graph->bytes[AT_INPUT], &s->spare, problem));
    for (uint32_t i = 0; i < p->n_steps; i++)
        total += (size_t)s->calls[i].node->n_in + s->calls[i].node->n_out;
    s->inputs = must_alloc((total + 1) * sizeof *s->inputs);
    for (size_t i = 0; i < total; i++)
        if (is_input(s, s->pointers[i]))
            s->inputs[s->n_inputs++] = &s->pointers[i];
    return ST_OK;
}

void *session_spare(const struct session *s, value_id v)
{
    return (char *)s->spare + ((char *)session_address(s, v) - (char *)s->base[AT_INPUT]);
}

void session_swap(struct session *s)
{
    char *from = s->base[AT_INPUT], *to = s->spare;

    for (size_t i = 0; i < s->n_inputs; i++)
        *s->inputs[i] = to + ((char *)*s->inputs[i] - from);
    s->base[AT_INPUT] = to;
    s->spare = from;
}

enum status regions_grow(struct regions *r, struct device *d, const struct backend *b, const size_t bytes[N_REGIONS],
                         struct problem *problem)
{
    static const enum region grown[] = {AT_WEIGHT, AT_CONST, AT_GRAD, AT_SLOT, AT_STATE};

    for (size_t i = 0; i < COUNT(grown); i++) {
        enum region at = grown[i];

        if (r->bytes[at] >= bytes[at])
            continue;
        if (r->base[at])
            b->release(d, r->base[at], r->bytes[at]);
        r->base[at] = NULL;
        r->bytes[at] = 0;
        TRY(b->alloc(d, bytes[at], &r->base[at], problem));
        r->bytes[at] = bytes[at];
    }
    return ST_OK;
}

void regions_done(struct regions *r, struct device *d, const struct backend *b)
{
    for (int at = 0; at < N_REGIONS; at++)
        if (r->base[at] && r->bytes[at])
            b->release(d, r->base[at], r->bytes[at]);
    memset(r, 0, sizeof *r);
}

/* Fills pointers and calls: one array of addresses for all steps, in program order. */
static void wire(struct session *s)
{
    const struct plan *p = s->plan;
    const struct graph *g = p->graph;
    size_t total = 0, at = 0;

    for (uint32_t i = 0; i < p->n_steps; i++)
        total += (size_t)g->nodes[p->steps[i].node].n_in + g->nodes[p->steps[i].node].n_out;
    s->pointers = must_alloc((total + 1) * sizeof *s->pointers);
    s->calls = must_alloc((p->n_steps + 1) * sizeof *s->calls);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const struct plan_step *step = &p->steps[i];
        const struct node *n = &g->nodes[step->node];
        void **first = s->pointers + at;

        for (int k = 0; k < n->n_in + n->n_out; k++)
            s->pointers[at++] = session_address(s, *node_ids(n, k));
        s->calls[i] = (struct kernel_call){.node = n,
                                           .values = g->values,
                                           .in = first,
                                           .out = first + n->n_in,
                                           .scratch = s->scratch,
                                           .prepared = step->prepared,
                                           .stream = s->device};
    }
}

enum status session_new(const struct plan *p, const struct regions *r, void *arena, struct session **ret,
                        struct problem *problem)
{
    OWNED(session_free) struct session *s = must_alloc(sizeof *s);

    s->plan = p;
    s->device = p->device;
    for (int at = 0; at < N_REGIONS; at++)
        s->base[at] = r->base[at];
    s->base[AT_TEMP] = arena;
    s->owns_arena = !arena;
    s->base[AT_INPUT] = NULL;
    if (!arena && p->arena_bytes)
        TRY(p->backend->alloc(p->device, p->arena_bytes, &s->base[AT_TEMP], problem));
    if (p->graph->bytes[AT_INPUT])
        TRY(p->backend->alloc(p->device, p->graph->bytes[AT_INPUT], &s->base[AT_INPUT], problem));
    if (p->scratch_bytes)
        TRY(p->backend->alloc(p->device, p->scratch_bytes, &s->scratch, problem));
    wire(s);
    *ret = STEAL(s);
    return ST_OK;
}

struct session *session_free(struct session *s)
{
    if (!s)
        return NULL;
    const struct plan *p = s->plan;

    if (s->owns_arena && s->base[AT_TEMP])
        p->backend->release(s->device, s->base[AT_TEMP], p->arena_bytes);
    if (s->base[AT_INPUT])
        p->backend->release(s->device, s->base[AT_INPUT], p->graph->bytes[AT_INPUT]);
    if (s->spare)
        p->backend->release(s->device, s->spare, p->graph->bytes[AT_INPUT]);
    if (s->scratch)
        p->backend->release(s->device, s->scratch, p->scratch_bytes);
    free_null(s->inputs);
    free_null(s->pointers);
    free_null(s->calls);
    return free_null(s);
}

void session_put(struct session *s, value_id v, const void *host, size_t bytes)
{
    s->plan->backend->put(s->device, session_address(s, v), host, bytes);
}

void session_get(struct session *s, value_id v, void *host, size_t bytes)
{
    s->plan->backend->get(s->device, host, session_address(s, v), bytes);
}

static enum status run_steps(struct session *s, uint32_t begin, uint32_t end, struct problem *problem)
{
    const struct plan *p = s->plan;

    for (uint32_t i = begin; i < end; i++) {
        const struct kernel *k = p->steps[i].kernel;

        if (k)
            k->run(&s->calls[i]);
        else
            s->calls[i].node->op->reference(&s->calls[i]);
    }
    return p->backend->sync(s->device, problem);
}

enum status session_constants(struct session *s, struct problem *problem)
{
    return run_steps(s, 0, s->plan->n_constant, problem);
}

enum status session_run(struct session *s, struct problem *problem)
{
    return run_steps(s, s->plan->n_constant, s->plan->n_steps, problem);
}

/* A NaN or Inf among the floats at `data`. Small blocks, so that a bad value is found without reading all. */
static bool has_bad_value(const struct value *v, const void *data)
{
    int64_t n = shape_count(&v->shape);

    for (int64_t i = 0; i < n; i++) {
        double x = v->type == F32 ? (double)((const float *)data)[i] : v->type == F64 ? ((const double *)data)[i] : 0;

        if (!isfinite(x))
            return true;
    }
    return false;
}

enum status session_check(struct session *s, bool kernels, uint32_t *first_bad, struct problem *problem)
{
    const struct plan *p = s->plan;
    const struct graph *g = p->graph;

    *first_bad = 0;
    for (uint32_t i = p->n_constant; i < p->n_steps; i++) {
        struct kernel_call *c = &s->calls[i];
        const struct kernel *k = kernels ? p->steps[i].kernel : NULL;

        if (*first_bad && (c->node->op->flags & OP_EFFECT))
            continue;
        if (k)
            k->run(c);
        else
            c->node->op->reference(c);
        TRY(p->backend->sync(s->device, problem));
        for (int o = 0; o < c->node->n_out && !*first_bad; o++)
            if (c->node->out[o] && has_bad_value(&g->values[c->node->out[o]], c->out[o]))
                *first_bad = p->steps[i].node;
    }
    return ST_OK;
}
