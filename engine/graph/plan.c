/* Kernels chosen, lifetimes found, temporaries placed.
 *
 * Memory belongs to the root of a chain of views. A root lives from its producer to the last node that reads it or a view of it
 * (making a view counts as reading); a kept one, or one with a kept view, lives to the end. The placement walks the program
 * once:
 *
 *     for each node:  its outputs get a place (or take over the place of an input that dies here)
 *                     what was read for the last time here, and outputs that nobody reads, give theirs back
 *
 * Inputs are given back after the outputs were placed, so an output never lies over an input except in place. */
#include "engine/graph/plan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/graph/op.h"
#include "engine/graph/place.h"
#include "engine/run/backend.h"

struct placing {
    const struct graph *g;
    struct plan *plan;
    struct places places;
    uint32_t *last; /* by root: the last node that reads it; its producer when there is none; UINT32_MAX: kept */
    size_t *bytes;  /* by root: bytes of its place; 0: it has none, or another value took it over */
    size_t peak;
};

static size_t align_up(size_t bytes)
{
    return (bytes + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
}

static const char *node_where(const struct node *n)
{
    return n->origin && n->origin[0] ? n->origin : n->op->name;
}

static value_id root_of(const struct graph *g, value_id v)
{
    return g->values[v].view_of ? g->values[v].view_of : v;
}

/* The root of v if its memory is placed here, else 0. */
static value_id temp_root(const struct graph *g, value_id v)
{
    value_id root = root_of(g, v);

    return v && g->values[root].at == AT_TEMP ? root : 0;
}

static enum status check_values(const struct graph *g, const struct node *n, const value_id *ids, int count,
                                struct problem *problem)
{
    for (int i = 0; i < count; i++) {
        const struct value *v = &g->values[ids[i]];

        if (!shape_known(&v->shape))
            return fail(problem, ST_INVALID, node_where(n), "%s has the shape %s; every dimension must be known to run it",
                        n->op->name, shape_text(&v->shape).s);
        if (ids[i] && v->at == AT_TEMP && v->producer == 0)
            return fail(problem, ST_INTERNAL, node_where(n), "%s uses value %u, which no node makes", n->op->name, ids[i]);
    }
    return ST_OK;
}

static enum status choose_kernels(struct plan *p, struct problem *problem)
{
    const struct graph *g = p->graph;

    for (uint32_t i = 1; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];
        struct plan_step *step = &p->steps[p->n_steps];

        TRY(check_values(g, n, n->in, n->n_in, problem));
        TRY(check_values(g, n, n->out, n->n_out, problem));
        if (n->op->flags & OP_VIEW)
            continue;
        step->node = i;
        if (p->backend)
            TRY(backend_choose(p->backend, p->device, g, i, step, problem));
        p->n_steps++;
        p->n_constant += i < g->n_constant;
        if (!step->kernel && !n->op->reference)
            return fail(problem, ST_UNSUPPORTED, node_where(n), "%s cannot run on %s", n->op->name,
                        p->backend ? p->backend->name : "the reference");
        if (!step->kernel)
            p->report.fallbacks++;
        if (step->scratch_bytes > p->scratch_bytes)
            p->scratch_bytes = step->scratch_bytes;
        if (i >= g->n_constant)
            p->report.flops += node_flops(n, g->values);
    }
    return ST_OK;
}

static void find_lifetimes(struct placing *w)
{
    const struct graph *g = w->g;

    for (uint32_t i = 1; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_in + n->n_out; k++) {
            value_id v = k < n->n_in ? n->in[k] : n->out[k - n->n_in];
            value_id root = temp_root(g, v);

            if (!root)
                continue;
            if (g->values[v].keep)
                w->last[root] = UINT32_MAX;
            else if (w->last[root] != UINT32_MAX)
                w->last[root] = i;
        }
    }
}

/* May out[0] of node n lie over input i? Every input in the same memory must allow it. */
static bool fits_in_place(const struct placing *w, uint32_t node, int i)
{
    const struct graph *g = w->g;
    const struct node *n = &g->nodes[node];
    value_id root = temp_root(g, n->in[i]);

    if (!root || w->last[root] != node || w->bytes[root] == 0)
        return false;
    /* Equal bytes of another type would be a broadcast of wider elements: (b, 1) of int64 under (b, 2) of float32. */
    if (value_bytes(&g->values[root]) != value_bytes(&g->values[n->out[0]]) ||
        g->values[root].type != g->values[n->out[0]].type)
        return false;
    for (int k = 0; k < n->n_in; k++) {
        if (temp_root(g, n->in[k]) == root && !(n->op->shares ? n->op->shares(n, k) : k == 0))
            return false;
    }
    return true;
}

static bool take_over(struct placing *w, uint32_t node)
{
    const struct graph *g = w->g;
    const struct node *n = &g->nodes[node];

    if (!(n->op->flags & OP_IN_PLACE) || n->n_out == 0 || g->values[n->out[0]].at != AT_TEMP)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        if (fits_in_place(w, node, i)) {
            value_id from = temp_root(g, n->in[i]), to = n->out[0];

            w->plan->temp_offset[to] = w->plan->temp_offset[from];
            w->bytes[to] = w->bytes[from];
            w->bytes[from] = 0;
            w->plan->report.in_place++;
            return true;
        }
    }
    return false;
}

static void give_back(struct placing *w, uint32_t node, value_id v)
{
    value_id root = temp_root(w->g, v);

    if (root && w->last[root] == node && w->bytes[root]) {
        places_give(&w->places, w->plan->temp_offset[root], w->bytes[root]);
        w->bytes[root] = 0;
    }
}

static void place_node(struct placing *w, uint32_t node)
{
    const struct graph *g = w->g;
    const struct node *n = &g->nodes[node];
    struct plan *p = w->plan;

    if (n->op->flags & OP_VIEW) {
        value_id root = temp_root(g, n->out[0]);

        p->temp_offset[n->out[0]] = root ? p->temp_offset[root] : 0;
    } else {
        bool taken = take_over(w, node);

        for (int i = 0; i < n->n_out; i++) {
            value_id v = n->out[i];
            size_t bytes;

            if (!temp_root(g, v))
                continue;
            bytes = align_up(value_bytes(&g->values[v]));
            bytes = bytes ? bytes : REGION_ALIGN;
            p->report.unshared_bytes += bytes;
            if (i == 0 && taken)
                continue;
            w->bytes[v] = bytes;
            p->temp_offset[v] = places_take(&w->places, bytes);
        }
    }
    if (w->places.live > p->report.live_bytes) {
        p->report.live_bytes = w->places.live;
        p->report.peak_node = node;
    }
    for (int i = 0; i < n->n_in; i++)
        give_back(w, node, n->in[i]);
    for (int i = 0; i < n->n_out; i++)
        give_back(w, node, n->out[i]);
}

static void place_all(struct plan *p)
{
    const struct graph *g = p->graph;
    OWNED(free) uint32_t *last = must_alloc(sizeof(*last) * g->n_values);
    OWNED(free) size_t *bytes = must_alloc(sizeof(*bytes) * g->n_values);
    struct placing w = {.g = g, .plan = p, .last = last, .bytes = bytes};

    find_lifetimes(&w);
    for (uint32_t i = 1; i < g->n_nodes; i++)
        place_node(&w, i);
    p->arena_bytes = w.places.end;
    places_done(&w.places);
}

enum status plan_make(const struct graph *g, const struct backend *backend, struct device *device, size_t limit,
                      struct plan **ret, struct problem *problem)
{
    OWNED(plan_free) struct plan *p = must_alloc(sizeof(*p));

    p->graph = g;
    p->backend = backend;
    p->device = device;
    p->steps = must_alloc(sizeof(*p->steps) * g->n_nodes);
    p->temp_offset = must_alloc(sizeof(*p->temp_offset) * g->n_values);
    TRY(choose_kernels(p, problem));
    place_all(p);
    if (limit && p->arena_bytes > limit) {
        const struct node *n = &g->nodes[p->report.peak_node];

        return fail(problem, ST_NO_MEMORY, node_where(n),
                    "this needs %zu bytes for temporaries (%zu in use at its fullest, at this layer's %s), %zu are allowed; a "
                    "smaller batch needs less",
                    p->arena_bytes, p->report.live_bytes, n->op->name, limit);
    }
    *ret = STEAL(p);
    return ST_OK;
}

struct plan *plan_free(struct plan *p)
{
    if (!p)
        return NULL;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const struct plan_step *s = &p->steps[i];

        if (s->kernel && s->kernel->release && s->prepared)
            s->kernel->release(s->prepared);
    }
    free(p->steps);
    free(p->temp_offset);
    free(p);
    return NULL;
}
