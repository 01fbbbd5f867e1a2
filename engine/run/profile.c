/* See profile.h.
 *
 * The clock is read once between two kernels, so a node's time is the difference of two readings less the cost of one. A device
 * that works on its own is waited for after each kernel (sync), which a CPU need not be. */
#include "engine/run/profile.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/base/thread.h"
#include "engine/run/feed.h"

#define WARM_STEPS   2
#define LEAST_STEPS  3
#define MAX_STEPS    64
#define STEP_SECONDS 0.5 /* for all steps together, once LEAST_STEPS are done */

struct profiling {
    const struct profile_setup *s;
    struct problem *problem;
    struct feed feed;
    struct regions regions;
    void *arena;
    size_t arena_bytes;
    int64_t *order; /* rows of all steps */
    int steps;
    double whole[MAX_STEPS], fed[MAX_STEPS];
    double *node; // (plan's steps, MAX_STEPS)
};

/* --- the program beside the real one ------------------------------------------------------------------------------------------ */

/* Rows as a shuffled epoch brings them, anywhere in the source; else the first ones each time. */
static void draw_rows(struct profiling *w)
{
    uint64_t key = w->s->seed ^ text_hash("profile");
    bool shuffle = w->s->mode == PROGRAM_TRAIN && w->s->spec->shuffle;

    for (int64_t i = 0; i < w->feed.rows; i++) {
        struct philox_words r = philox(key, 0, (uint64_t)i);
        uint64_t word = (uint64_t)r.w[0] << 32 | r.w[1];

        w->order[i] = shuffle ? (int64_t)(word % (uint64_t)w->feed.source->rows) : i % w->feed.batch;
    }
}

static void choose_rows(struct profiling *w)
{
    const struct fit_spec *spec = w->s->spec;
    struct source *source = w->s->source;
    int64_t rows = source->rows;

    if (w->s->mode == PROGRAM_TRAIN && !spec->has_validation && spec->validation_split > 0)
        rows = (int64_t)floor((double)rows * (1 - spec->validation_split));
    if (rows > spec->batch_size)
        rows = spec->batch_size;
    w->feed = (struct feed){
        .source = source, .spec = spec, .data = &spec->data, .rows = rows * (WARM_STEPS + MAX_STEPS), .batch = rows};
    w->order = must_alloc(sizeof *w->order * (size_t)w->feed.rows);
    draw_rows(w);
}

static enum status put_weights(struct profiling *w)
{
    const struct profile_setup *s = w->s;
    size_t bytes = s->weights->bytes;
    void *host = NULL;
    enum status status;

    TRY(try_alloc(bytes, "the weights", &host, w->problem));
    status = weights_init(s->weights, s->seed, host, w->problem);
    if (status == ST_OK)
        s->backend->put(s->device, w->regions.base[AT_WEIGHT], host, bytes);
    if (status == ST_OK)
        status = s->backend->sync(s->device, w->problem);
    big_free(host, bytes);
    return status;
}

static enum status put_slots(struct profiling *w, const struct program *p)
{
    const struct profile_setup *s = w->s;
    const struct optimizer_spec *o = &s->compile->optimizer;
    size_t bytes = (size_t)o->n_slots * s->weights->trainable_bytes;
    float rate = (float)o->common.learning_rate;
    void *host = NULL;
    enum status status;

    session_put(p->session, p->rate, &rate, sizeof rate);
    if (!bytes)
        return s->backend->sync(s->device, w->problem);
    TRY(try_alloc(bytes, "the optimizer's slots", &host, w->problem));
    optimizer_first_slots(o, s->weights->trainable_bytes / sizeof(float), host);
    s->backend->put(s->device, w->regions.base[AT_SLOT], host, bytes);
    status = s->backend->sync(s->device, w->problem);
    big_free(host, bytes);
    return status;
}

static enum status open_program(struct profiling *w)
{
    const struct profile_setup *s = w->s;
    size_t needs[N_REGIONS] = {0};

    choose_rows(w);
    TRY(feed_plan(&w->feed, s->mode, s->model, s->compile, s->weights, s->backend, s->device, w->problem));
    feed_needs(&w->feed, needs, &w->arena_bytes);
    if (needs[AT_WEIGHT] < s->weights->bytes)
        needs[AT_WEIGHT] = s->weights->bytes;
    if (s->mode == PROGRAM_TRAIN && needs[AT_SLOT] < (size_t)s->compile->optimizer.n_slots * s->weights->trainable_bytes)
        needs[AT_SLOT] = (size_t)s->compile->optimizer.n_slots * s->weights->trainable_bytes;
    TRY(regions_grow(&w->regions, s->device, s->backend, needs, w->problem));
    if (w->arena_bytes)
        TRY(s->backend->alloc(s->device, w->arena_bytes, &w->arena, w->problem));
    TRY(feed_start(&w->feed, &w->regions, w->arena, w->problem));
    TRY(put_weights(w));
    return s->mode == PROGRAM_TRAIN ? put_slots(w, w->feed.program[0]) : ST_OK;
}

static void profiling_done(struct profiling *w)
{
    feed_done(&w->feed);
    if (w->arena)
        w->s->backend->release(w->s->device, w->arena, w->arena_bytes);
    regions_done(&w->regions, w->s->device, w->s->backend);
    free_null(w->order);
    free_null(w->node);
}

/* --- steps with and without clocks ------------------------------------------------------------------------------------------- */

static enum status clocked_step(struct profiling *w, struct session *s, int step)
{
    const struct plan *p = s->plan;
    double before = clock_seconds();

    for (uint32_t i = 0; i < p->n_steps; i++) {
        const struct kernel *k = p->steps[i].kernel;
        double now;

        if (k)
            k->run(&s->calls[i]);
        else
            s->calls[i].node->op->reference(&s->calls[i]);
        TRY(p->backend->sync(s->device, w->problem));
        now = clock_seconds();
        w->node[(size_t)i * MAX_STEPS + (size_t)step] = now - before;
        before = now;
    }
    return ST_OK;
}

static enum status run_steps(struct profiling *w)
{
    struct program *p = w->feed.program[0];
    double began = 0;

    w->node = must_alloc(sizeof *w->node * MAX_STEPS * (p->plan->n_steps + 1u));
    for (int i = -WARM_STEPS; i < MAX_STEPS; i++) {
        double start, fed, ran;

        if (i == 0)
            began = clock_seconds();
        if (i >= LEAST_STEPS && clock_seconds() - began > STEP_SECONDS)
            break;
        start = clock_seconds();
        TRY(feed_step(&w->feed, i + WARM_STEPS, w->order, &p, w->problem));
        fed = clock_seconds();
        TRY(session_run(p->session, w->problem));
        ran = clock_seconds();
        if (i < 0)
            continue;
        TRY(clocked_step(w, p->session, i));
        w->fed[i] = fed - start;
        w->whole[i] = ran - fed;
        w->steps = i + 1;
    }
    return ST_OK;
}

/* --- figures ------------------------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double sorted_median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

/* Of the best of some rounds: one in which the thread lost its core would take more off the nodes than they have. */
static double clock_cost(void)
{
    enum { ROUNDS = 20, READINGS = 50 };
    double best = 1;

    for (int round = 0; round < ROUNDS; round++) {
        double began = clock_seconds();

        for (int i = 0; i < READINGS; i++)
            (void)clock_seconds();
        best = fmin(best, (clock_seconds() - began) / READINGS);
    }
    return best;
}

static double without_clock(double seconds, double cost)
{
    return seconds > cost ? seconds - cost : 0;
}

static void take_node(struct profile *r, const struct plan *p, uint32_t i, double *seconds, int steps)
{
    const struct graph *g = p->graph;
    const struct node *n = &g->nodes[p->steps[i].node];
    const struct kernel *k = p->steps[i].kernel;
    struct profile_node *to = &r->node[i];

    to->number = p->steps[i].node;
    to->layer = arena_text(r->mem, n->origin && n->origin[0] ? n->origin : "(step)");
    to->op = n->op->name;
    to->kernel = k ? k->name : "reference";
    if (n->n_out && n->out[0]) {
        to->type = g->values[n->out[0]].type;
        to->out = g->values[n->out[0]].shape;
    }
    to->seconds = without_clock(sorted_median(seconds, steps), r->clock_seconds);
    to->least_seconds = without_clock(seconds[0], r->clock_seconds);
    to->flops = node_flops(n, g->values);
    to->bytes = node_bytes(n, g->values);
}

static int by_layer_name(const void *a, const void *b)
{
    const struct profile_node *x = a, *y = b;
    int order = strcmp(x->layer, y->layer);

    if (order)
        return order;
    if (x->seconds != y->seconds)
        return x->seconds < y->seconds ? 1 : -1;
    return (x->number > y->number) - (x->number < y->number);
}

static int by_layer_time(const void *a, const void *b)
{
    const struct profile_layer *x = a, *y = b;

    return x->seconds != y->seconds ? (x->seconds < y->seconds ? 1 : -1) : strcmp(x->name, y->name);
}

static void group(struct profile *r)
{
    r->layer = ARENA_ARRAY(r->mem, struct profile_layer, r->n_nodes + 1);
    if (r->n_nodes)
        qsort(r->node, (size_t)r->n_nodes, sizeof *r->node, by_layer_name);
    for (int i = 0; i < r->n_nodes; i++) {
        struct profile_layer *last = r->n_layers ? &r->layer[r->n_layers - 1] : NULL;

        if (!last || strcmp(last->name, r->node[i].layer) != 0) {
            last = &r->layer[r->n_layers++];
            *last = (struct profile_layer){.name = r->node[i].layer, .first = i};
        }
        last->seconds += r->node[i].seconds;
        last->n++;
        r->nodes_seconds += r->node[i].seconds;
    }
    if (r->n_layers)
        qsort(r->layer, (size_t)r->n_layers, sizeof *r->layer, by_layer_time);
}

/* Before the steps and after them, since a neighbour may take half the machine for a tenth of a second. */
static enum status raise_ceilings(struct profiling *w, struct profile *r)
{
    double flops, bytes;

    if (!w->s->backend->ceiling)
        return ST_OK;
    TRY(w->s->backend->ceiling(w->s->device, &flops, &bytes, w->problem));
    r->flops_per_second = fmax(r->flops_per_second, flops);
    r->bytes_per_second = fmax(r->bytes_per_second, bytes);
    return ST_OK;
}

static void take_figures(struct profiling *w, struct profile *r)
{
    const struct plan *p = w->feed.program[0]->plan;

    r->device = arena_text(r->mem, w->s->backend->describe(w->s->device));
    r->batch = w->feed.batch;
    r->steps = w->steps;
    r->step_seconds = sorted_median(w->whole, w->steps);
    r->feed_seconds = sorted_median(w->fed, w->steps);
    r->clock_seconds = clock_cost();
    r->n_nodes = (int)p->n_steps;
    r->node = ARENA_ARRAY(r->mem, struct profile_node, p->n_steps + 1);
    for (uint32_t i = 0; i < p->n_steps; i++)
        take_node(r, p, i, w->node + (size_t)i * MAX_STEPS, w->steps);
    group(r);
}

enum status profile_run(const struct profile_setup *s, struct profile **ret, struct problem *problem)
{
    OWNED(profile_free) struct profile *r = must_alloc(sizeof *r);
    CLEAN(profiling_done) struct profiling w = {.s = s, .problem = problem};

    r->mem = arena_new();
    TRY(raise_ceilings(&w, r));
    TRY(open_program(&w));
    TRY(run_steps(&w));
    TRY(raise_ceilings(&w, r));
    take_figures(&w, r);
    *ret = STEAL(r);
    return ST_OK;
}

struct profile *profile_free(struct profile *p)
{
    if (!p)
        return NULL;
    arena_free(p->mem);
    return free_null(p);
}

double profile_of_ceiling(const struct profile *p, const struct profile_node *n, bool *by_flops)
{
    double flops = n->flops / p->flops_per_second, bytes = n->bytes / p->bytes_per_second;

    *by_flops = flops > bytes;
    if (!(p->flops_per_second > 0 && p->bytes_per_second > 0 && n->seconds > 0))
        return NAN;
    return (flops > bytes ? flops : bytes) / n->seconds;
}
