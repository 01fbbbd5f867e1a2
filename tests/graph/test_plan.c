/* Plans: no two live values share memory unless meant to, the result is that of a run without sharing, and the report is true.
 *
 * The ops here are made for it: each reads its inputs in an order that shows at once when an output lies over them unasked. */
#include <stdlib.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/graph/build.h"
#include "engine/graph/place.h"
#include "engine/run/backend.h"
#include "tests/graph/machine.h"
#include "tests/test.h"

static enum status like_first(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)problem;
    for (int i = 0; i < n->n_out; i++)
        out[i].shape = in[0].shape;
    return ST_OK;
}

static enum status sized_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)in, (void)problem;
    out[0].shape = SHAPE(*(const int64_t *)n->attr);
    return ST_OK;
}

static enum status flat_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    out[0].shape = SHAPE(shape_count(&in[0].shape), 1);
    return ST_OK;
}

static int64_t count(const struct kernel_call *c, int i)
{
    return shape_count(&IN_VALUE(c, i)->shape);
}

/* y[i] = sum_k (k + 1) x_k[i mod n_k]: element by element where sizes agree */
static void blend_run(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape);

    for (int64_t i = 0; i < n; i++) {
        float sum = 0.25f;

        for (int k = 0; k < c->node->n_in; k++)
            sum += 0.3f * (float)(k + 1) * ((const float *)c->in[k])[i % count(c, k)];
        ((float *)c->out[0])[i] = sum;
    }
}

/* Reads backwards, so the output must not lie over the input. */
static void turn_run(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape), m = count(c, 0);

    for (int64_t i = 0; i < n; i++)
        ((float *)c->out[0])[i] = 0.5f * ((const float *)c->in[0])[(m - 1 - i % m)] + 0.01f * (float)(i % 7);
}

/* The first input element by element, the second turned round: only the first may be overwritten. */
static void first_run(const struct kernel_call *c)
{
    int64_t n = count(c, 0), m = count(c, 1);

    for (int64_t i = 0; i < n; i++)
        ((float *)c->out[0])[i] = ((const float *)c->in[0])[i] - 0.5f * ((const float *)c->in[1])[(m - 1 - i % m)];
}

static void pair_run(const struct kernel_call *c)
{
    for (int64_t i = 0, n = count(c, 0); i < n; i++) {
        ((float *)c->out[0])[i] = ((const float *)c->in[0])[n - 1 - i] + 1;
        ((float *)c->out[1])[i] = ((const float *)c->in[0])[i] * 0.5f;
    }
}

static void store_run(const struct kernel_call *c)
{
    memcpy(c->out[0], c->in[0], value_bytes(IN_VALUE(c, 0)));
}

static bool any_of_its_size(const struct node *n, int in)
{
    (void)n, (void)in;
    return true;
}

static const struct op blend = {
    .name = "blend", .flags = OP_IN_PLACE, .infer = like_first, .reference = blend_run, .shares = any_of_its_size};
static const struct op turn = {.name = "turn", .attr_size = 8, .infer = sized_infer, .reference = turn_run};
static const struct op first = {.name = "first", .flags = OP_IN_PLACE, .infer = like_first, .reference = first_run};
static const struct op pair = {.name = "pair", .infer = like_first, .reference = pair_run};
static const struct op flat = {.name = "flat", .flags = OP_VIEW, .infer = flat_infer};
static const struct op store = {.name = "store", .flags = OP_EFFECT, .infer = like_first, .reference = store_run};
static const struct op nothing = {.name = "nothing", .infer = like_first};

static value_id emit_turn(struct build *b, value_id x, int64_t n)
{
    return emit(b, &turn, &n, &x, 1, 1);
}
static value_id emit_blend(struct build *b, value_id x, value_id y)
{
    return emit(b, &blend, NULL, (value_id[]){x, y}, 2, 1);
}
static value_id emit_flat(struct build *b, value_id x)
{
    return emit(b, &flat, NULL, &x, 1, 1);
}

static struct plan *plan_of(const struct graph *g)
{
    struct problem problem;
    struct plan *p = NULL;

    CHECK_OK(plan_make(g, NULL, NULL, 0, &p, &problem));
    return p;
}

/* --- places ----------------------------------------------------------------------------------------------------------- */

TEST(the_smallest_hole_that_fits_is_taken)
{
    CLEAN(places_done) struct places p = {0};
    size_t a = places_take(&p, 512), b = places_take(&p, 64), c = places_take(&p, 256), d = places_take(&p, 64);

    places_give(&p, a, 512);
    places_give(&p, c, 256);
    CHECK_INT(p.n_holes, 2);
    CHECK_INT(places_take(&p, 192), c);
    CHECK_INT(places_take(&p, 384), a);
    CHECK_INT(p.end, 896);
    CHECK_INT(b, 512);
    CHECK_INT(d, 832);
}

TEST(neighbouring_holes_join_and_the_last_one_grows)
{
    CLEAN(places_done) struct places p = {0};
    size_t a = places_take(&p, 64), b = places_take(&p, 64), c = places_take(&p, 64);

    places_give(&p, a, 64);
    places_give(&p, c, 64);
    CHECK_INT(p.n_holes, 2);
    places_give(&p, b, 64);
    CHECK_INT(p.n_holes, 1);
    CHECK_INT(p.live, 0);
    CHECK_INT(places_take(&p, 256), 0);
    CHECK_INT(p.end, 256);
    CHECK_INT(p.n_holes, 0);
}

/* --- lifetimes -------------------------------------------------------------------------------------------------------- */

TEST(a_chain_needs_two_places)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s);

    for (int i = 0; i < 20; i++)
        x = emit_turn(&b, x, 16);
    keep(&b, x);
    p = plan_of(g);
    CHECK_INT(p->arena_bytes, 128);
    CHECK_INT(p->report.unshared_bytes, 20 * 64);
    CHECK_INT(p->report.live_bytes, 128);
    CHECK_INT(p->report.in_place, 0);
    CHECK_INT(p->n_steps, 20);
    CHECK_INT(p->report.fallbacks, 20);
}

TEST(an_op_that_may_work_in_place_does_so_when_its_input_ends_there)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_turn(&b, x, 16), z = emit_blend(&b, x, y), w = emit_blend(&b, z, z);
    value_id late = emit_blend(&b, z, w);

    keep(&b, late);
    p = plan_of(g);
    CHECK_INT(p->temp_offset[y], p->temp_offset[z]); /* y ends at z */
    CHECK(p->temp_offset[w] != p->temp_offset[z]);   /* z is read again */
    CHECK_INT(p->report.in_place, 2);
}

TEST(an_input_is_not_overwritten_while_it_is_read_by_another_slot)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_turn(&b, x, 16), z = emit(&b, &first, NULL, (value_id[]){y, y}, 2, 1);

    keep(&b, z);
    p = plan_of(g);
    CHECK(p->temp_offset[y] != p->temp_offset[z]);
}

TEST(kept_values_inputs_and_leaves_are_never_overwritten)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_turn(&b, x, 16), z = emit_blend(&b, y, y), v = emit_turn(&b, x, 16);
    value_id fv = emit_flat(&b, v), w = emit_blend(&b, v, v), u = emit_blend(&b, x, x);

    keep(&b, y);
    keep(&b, fv);
    keep(&b, z);
    keep(&b, w);
    keep(&b, u);
    p = plan_of(g);
    CHECK_INT(p->report.in_place, 0);
    CHECK_INT(p->arena_bytes, 5 * 64);
}

TEST(a_base_lives_as_long_as_its_views)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_turn(&b, x, 16), f = emit_flat(&b, y), a = emit_turn(&b, x, 16);
    value_id c = emit_turn(&b, a, 16), d = emit_blend(&b, c, f);

    keep(&b, d);
    p = plan_of(g);
    CHECK_INT(p->temp_offset[f], p->temp_offset[y]);
    CHECK(p->temp_offset[a] != p->temp_offset[y]);
    CHECK(p->temp_offset[c] != p->temp_offset[y]);
    CHECK_INT(p->n_steps, 4);
}

TEST(an_output_that_nobody_reads_has_room_while_its_node_runs)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit(&b, &pair, NULL, &x, 1, 2), z = emit_turn(&b, y, 16);

    keep(&b, z);
    p = plan_of(g);
    CHECK(p->temp_offset[y] != p->temp_offset[y + 1]);
    CHECK_INT(p->temp_offset[z], p->temp_offset[y + 1]);
    CHECK_INT(p->arena_bytes, 128);
}

/* --- problems --------------------------------------------------------------------------------------------------------- */

TEST(too_little_memory_names_the_bytes_and_the_layer_at_the_peak)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct problem problem;
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s);

    b.origin = "conv_1";
    x = emit_turn(&b, x, 1000);
    b.origin = "conv_2";
    x = emit_turn(&b, x, 2000);
    b.origin = "dense";
    x = emit_turn(&b, x, 10);
    keep(&b, x);
    CHECK_INT(plan_make(g, NULL, NULL, 12032, &p, &problem), ST_OK);
    p = plan_free(p);
    CHECK_INT(plan_make(g, NULL, NULL, 12031, &p, &problem), ST_NO_MEMORY);
    CHECK_TEXT(problem.where, "conv_2");
    CHECK_CONTAINS(problem.detail, "needs 12032 bytes");
    CHECK_CONTAINS(problem.detail, "12031 are allowed");
}

TEST(unknown_shapes_and_ops_without_a_kernel_are_refused)
{
    OWNED(graph_free) struct graph *g = graph_new(), *h = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g), c = build_make(h);
    struct problem problem;
    struct shape s = SHAPE(-1, 3), t = SHAPE(4);
    value_id x = input(&b, F32, &s), y = input(&c, F32, &t);

    b.origin = "lstm";
    emit(&b, &pair, NULL, &x, 1, 2);
    CHECK_INT(plan_make(g, NULL, NULL, 0, &p, &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "lstm");
    CHECK_CONTAINS(problem.detail, "(None, 3)");
    emit(&c, &nothing, NULL, &y, 1, 1);
    CHECK_INT(plan_make(h, NULL, NULL, 0, &p, &problem), ST_UNSUPPORTED);
    CHECK_CONTAINS(problem.detail, "nothing cannot run");
}

static int prepared, refuse_from;

static enum status count_prepare(struct device *d, const struct node *n, const struct value *values, void **ret,
                                 size_t *scratch, struct problem *problem)
{
    (void)d, (void)values;
    if (prepared == refuse_from)
        return fail(problem, ST_NO_MEMORY, "", "no room for %s", n->op->name);
    prepared++;
    *ret = must_text(n->op->name);
    *scratch = 100u * n->n_in;
    return ST_OK;
}

static enum status decline(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch,
                           struct problem *problem)
{
    (void)d, (void)n, (void)values, (void)ret, (void)scratch;
    return fail(problem, ST_UNSUPPORTED, "", "not this one");
}

static void count_release(void *p)
{
    prepared--;
    free_null(p);
}

static const struct kernel fake_kernels[] = {
    {.op = "blend", .prepare = decline, .run = blend_run},
    {.op = "blend", .prepare = count_prepare, .run = blend_run, .release = count_release},
    {.op = "pair", .prepare = count_prepare, .run = pair_run, .release = count_release},
    {0}};
static const struct backend fake = {.abi = BACKEND_ABI, .name = "fake", .kernels = fake_kernels, .reference_ok = true};

TEST(kernels_are_prepared_once_and_released_with_the_plan)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct problem problem;
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_blend(&b, x, x), z = emit_turn(&b, y, 16), w = emit_flat(&b, z);

    emit(&b, &pair, NULL, &w, 1, 2);
    prepared = 0;
    refuse_from = -1;
    CHECK_OK(plan_make(g, &fake, NULL, 0, &p, &problem));
    CHECK_INT(prepared, 2);
    CHECK_INT(p->n_steps, 3);
    CHECK_INT(p->report.fallbacks, 1);
    CHECK(p->steps[0].kernel == &fake_kernels[1] && !p->steps[1].kernel);
    CHECK_TEXT(p->steps[2].prepared, "pair");
    CHECK_INT(p->scratch_bytes, 200);
    p = plan_free(p);
    CHECK_INT(prepared, 0);
}

TEST(a_kernel_that_cannot_be_prepared_fails_the_plan_and_frees_the_others)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    struct build b = build_make(g);
    struct problem problem;
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s);

    emit_blend(&b, x, x);
    emit(&b, &pair, NULL, &x, 1, 2);
    prepared = 0;
    refuse_from = 1;
    CHECK_INT(plan_make(g, &fake, NULL, 0, &p, &problem), ST_NO_MEMORY);
    CHECK_TEXT(problem.detail, "no room for pair");
    CHECK_INT(prepared, 0);
    CHECK(!p);
}

TEST(a_plan_prints_each_step_with_its_place)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(plan_free) struct plan *p = NULL;
    CLEAN(text_done) struct text t = text_make(4096);
    struct build b = build_make(g);
    struct shape s = SHAPE(16);
    value_id x = input(&b, F32, &s), y = emit_turn(&b, x, 16), z;

    b.origin = "act";
    z = emit_blend(&b, y, x);
    keep(&b, z);
    p = plan_of(g);
    plan_dump(p, &t);
    CHECK_CONTAINS(t.s, "2 steps, 1 in place, 2 by reference");
    CHECK_CONTAINS(t.s, "reference %2 = turn(%1) float32 (16,)  [0+64]\n");
    CHECK_CONTAINS(t.s, "reference %3 = blend(%2, %1) float32 (16,) kept  act  [0+64, in place]\n");
}

/* --- random graphs ---------------------------------------------------------------------------------------------------- */

struct dice {
    uint64_t key, at;
};

static uint32_t roll(struct dice *d, uint32_t sides)
{
    return philox(d->key, 0, d->at++).w[0] % sides;
}

static int64_t size_of(struct dice *d)
{
    return (int64_t[]){1, 3, 16, 17, 64, 257}[roll(d, 6)];
}

static struct graph *random_graph(struct dice *d)
{
    struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id made[512];
    uint32_t n = 0, steps = 5 + roll(d, 60);

    for (int i = 0; i < 3; i++) {
        struct shape s = SHAPE(size_of(d));

        made[n++] = input(&b, F32, &s);
    }
    for (uint32_t i = 0; i < steps; i++) {
        /* mostly recent values: long chains with some old readers */
        value_id x = made[roll(d, 3) ? n - 1 - roll(d, n < 4 ? n : 4) : roll(d, n)], y = made[roll(d, n)];
        struct shape s;

        switch (roll(d, 7)) {
        case 0:
        case 1:
            made[n++] = emit_blend(&b, x, y);
            break;
        case 2:
            made[n++] = emit_turn(&b, x, size_of(d));
            break;
        case 3:
            made[n++] = emit(&b, &first, NULL, (value_id[]){x, y}, 2, 1);
            break;
        case 4:
            made[n++] = emit(&b, &pair, NULL, &x, 1, 2);
            made[n] = made[n - 1] + 1;
            n += roll(d, 2);
            break;
        case 5:
            made[n++] = emit_flat(&b, x);
            break;
        default:
            s = shape_of(&b, x);
            y = graph_leaf(g, AT_STATE, F32, &s);
            emit_effect(&b, &store, NULL, &x, 1, &y, 1);
            made[n++] = y;
        }
        if (roll(d, 8) == 0)
            keep(&b, made[n - 1]);
    }
    keep(&b, made[n - 1]);
    CHECK_INT(b.problem.status, ST_OK);
    return g;
}

static value_id root_of(const struct graph *g, value_id v)
{
    return g->values[v].view_of ? g->values[v].view_of : v;
}

struct life {
    uint32_t from, to;
};

static void find_lives(const struct graph *g, struct life *life)
{
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        const struct node *n = &g->nodes[i];

        for (int k = 0; k < n->n_out; k++) {
            if (!g->values[n->out[k]].view_of)
                life[n->out[k]] = (struct life){i, i};
        }
        for (int k = 0; k < n->n_in; k++)
            life[root_of(g, n->in[k])].to = i;
    }
    for (value_id v = 1; v < g->n_values; v++) {
        if (g->values[v].keep)
            life[root_of(g, v)].to = UINT32_MAX;
    }
}

/* Overlapping memory is right only if one ends at the node that makes the other in its very place. */
static void check_no_overlap(const struct graph *g, const struct plan *p)
{
    OWNED(free) struct life *life = must_alloc(sizeof(*life) * g->n_values);

    find_lives(g, life);
    for (value_id a = 1; a < g->n_values; a++) {
        for (value_id c = a + 1; c < g->n_values; c++) {
            const struct value *x = &g->values[a], *y = &g->values[c];
            size_t xo = p->temp_offset[a], yo = p->temp_offset[c];

            if (x->at != AT_TEMP || y->at != AT_TEMP || x->view_of || y->view_of)
                continue;
            if (life[a].from > life[c].to || life[c].from > life[a].to)
                continue;
            if (xo + value_bytes(x) <= yo || yo + value_bytes(y) <= xo)
                continue;
            if (xo != yo || life[a].to != life[c].from || life[a].from == life[c].from)
                fail_msg("values %u and %u overlap while both live", a, c);
        }
    }
    for (value_id v = 1; v < g->n_values; v++) {
        if (g->values[v].at == AT_TEMP) {
            CHECK(p->temp_offset[v] + value_bytes(&g->values[v]) <= p->arena_bytes);
            CHECK_INT(p->temp_offset[v] % REGION_ALIGN, 0);
        }
    }
}

static void check_same_results(const struct graph *g, const struct plan *p)
{
    OWNED(machine_free) struct machine *plain = machine_new(g, NULL), *planned = machine_new(g, p);

    for (size_t i = 0; i < g->bytes[AT_INPUT] / 4; i++) {
        float x = philox_unit(philox(7, 0, i).w[0]) - 0.5f;

        memcpy(plain->base[AT_INPUT] + 4 * i, &x, 4);
        memcpy(planned->base[AT_INPUT] + 4 * i, &x, 4);
    }
    machine_run(plain);
    machine_run(planned);
    for (value_id v = 1; v < g->n_values; v++) {
        if ((g->values[v].keep || g->values[v].at == AT_STATE) &&
            memcmp(machine_at(plain, v), machine_at(planned, v), value_bytes(&g->values[v])) != 0)
            fail_msg("value %u is another with the plan", v);
    }
}

TEST(random_graphs_run_the_same_planned_and_unplanned)
{
    uint32_t in_place = 0;
    size_t arena = 0, unshared = 0;

    for (uint64_t seed = 0; seed < 400; seed++) {
        struct dice d = {.key = seed};
        OWNED(graph_free) struct graph *g = random_graph(&d);
        OWNED(plan_free) struct plan *p = plan_of(g);

        check_no_overlap(g, p);
        check_same_results(g, p);
        in_place += p->report.in_place;
        arena += p->arena_bytes;
        unshared += p->report.unshared_bytes;
        CHECK(p->report.live_bytes <= p->arena_bytes);
    }
    CHECK(in_place > 400); /* the cases were there */
    CHECK(arena < unshared / 2);
}
