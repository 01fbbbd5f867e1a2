/* Values, nodes, regions, and the builder with its first problem. */
#include <string.h>

#include "engine/graph/build.h"
#include "tests/test.h"

static enum status same_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n;
    if (in[0].shape.rank == 0)
        return fail(problem, ST_INVALID, "", "wants rank 1, the input is %s", shape_text(&in[0].shape).s);
    out[0].shape = in[0].shape;
    out[0].type = in[0].type;
    return ST_OK;
}

static enum status pair_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    out[0].shape = in[0].shape;
    out[1].shape = SHAPE(2);
    out[1].type = U8;
    return ST_OK;
}

static enum status huge_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)in, (void)problem;
    out[0].shape = SHAPE((int64_t)1 << 40, (int64_t)1 << 40);
    return ST_OK;
}

static enum status view_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)problem;
    out[0].shape = *(const struct shape *)n->attr;
    out[0].type = in[0].type;
    return ST_OK;
}

static enum status effect_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    (void)n, (void)problem;
    out[0].shape = in[0].shape;
    return ST_OK;
}

static const struct op same = {.name = "same", .infer = same_infer};
static const struct op pair = {.name = "pair", .infer = pair_infer};
static const struct op huge = {.name = "huge", .infer = huge_infer};
static const struct op view = {.name = "view", .flags = OP_VIEW, .attr_size = sizeof(struct shape), .infer = view_infer};
static const struct op store = {.name = "store", .flags = OP_EFFECT, .infer = effect_infer};

TEST(leaves_lie_in_order_at_multiples_of_64)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct shape s = SHAPE(17), t = SHAPE(3, 5);
    value_id a = graph_leaf(g, AT_WEIGHT, F32, &s), b = graph_leaf(g, AT_WEIGHT, F64, &t), c = graph_leaf(g, AT_INPUT, U8, &t);
    value_id d = graph_leaf_at(g, AT_WEIGHT, F32, &s, 64);

    CHECK_INT(g->values[a].offset, 0);
    CHECK_INT(g->values[b].offset, 128);
    CHECK_INT(g->values[c].offset, 0);
    CHECK_INT(g->values[d].offset, 64);
    CHECK_INT(g->bytes[AT_WEIGHT], 256);
    CHECK_INT(g->bytes[AT_INPUT], 64);
    CHECK_INT(value_bytes(&g->values[b]), 120);
}

TEST(a_leaf_at_a_place_grows_its_region)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct shape s = SHAPE(20);

    graph_leaf_at(g, AT_SLOT, F32, &s, 1024);
    CHECK_INT(g->bytes[AT_SLOT], 1024 + 128);
}

TEST(ids_stay_while_the_arrays_move)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4);
    value_id x = input(&b, F32, &s), v = x;

    for (int i = 0; i < 5000; i++)
        v = emit(&b, &same, NULL, &v, 1, 1);
    CHECK_INT(b.problem.status, ST_OK);
    CHECK_INT(g->n_nodes, 5001);
    CHECK_INT(v, x + 5000);
    CHECK_INT(g->values[v].producer, 5000);
    CHECK_INT(g->nodes[5000].in[0], v - 1);
    CHECK_INT(value_of(&b, v)->type, F32);
}

TEST(the_first_problem_stays_and_names_the_layer)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SCALAR;
    value_id x = input(&b, F32, &s), y;

    b.origin = "dense_1";
    y = emit(&b, &same, NULL, &x, 1, 1);
    CHECK_INT(y, 0);
    CHECK_INT(emit(&b, &same, NULL, &y, 1, 1), 0);
    b.origin = "dense_2";
    CHECK_INT(build_fail(&b, ST_UNSUPPORTED, "later"), 0);
    CHECK_INT(input(&b, F32, &s), 0);
    CHECK(build_failed(&b));
    CHECK_INT(b.problem.status, ST_INVALID);
    CHECK_TEXT(b.problem.where, "dense_1");
    CHECK_TEXT(b.problem.detail, "wants rank 1, the input is ()");
    CHECK_INT(g->n_nodes, 1);
    CHECK_INT(value_of(&b, y)->shape.rank, 0);
    CHECK_INT(last_dim(&b, y), 1);
    CHECK_INT(build_out(&b, 0, 3), 0);
}

TEST(a_problem_outside_of_layers_names_the_op)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SCALAR;
    value_id x = input(&b, F32, &s);

    emit(&b, &same, NULL, &x, 1, 1);
    CHECK_TEXT(b.problem.where, "same");
}

TEST(shapes_beyond_all_memory_are_refused_when_they_arise)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g), c = build_make(g);
    struct shape s = SHAPE((int64_t)1 << 50);

    b.origin = "upsampling";
    emit(&b, &huge, NULL, NULL, 0, 1);
    CHECK_INT(b.problem.status, ST_TOO_LARGE);
    CHECK_TEXT(b.problem.where, "upsampling");
    CHECK_INT(input(&c, F32, &s), 0);
    CHECK_INT(c.problem.status, ST_TOO_LARGE);
}

TEST(a_graph_has_a_largest_number_of_nodes)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4);
    value_id v = input(&b, F32, &s);

    g->max_nodes = 3;
    for (int i = 0; i < 5; i++)
        v = emit(&b, &same, NULL, &v, 1, 1);
    CHECK_INT(v, 0);
    CHECK_INT(b.problem.status, ST_TOO_LARGE);
    CHECK_INT(g->n_nodes, 4);
    CHECK_CONTAINS(b.problem.detail, "3 operations");
}

TEST(all_outputs_of_a_node_are_found_from_its_first)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4);
    value_id x = input(&b, F32, &s), y = emit(&b, &pair, NULL, &x, 1, 2);

    CHECK_INT(build_out(&b, y, 0), y);
    CHECK_INT(build_out(&b, y, 1), y + 1);
    CHECK_INT(g->values[y + 1].type, U8);
    CHECK_INT(g->values[y + 1].producer, 1);
}

TEST(a_view_of_a_view_is_a_view_of_the_base)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 6), flat = SHAPE(24);
    value_id pad = graph_leaf(g, AT_WEIGHT, F32, &s), w = graph_leaf(g, AT_WEIGHT, F32, &s);
    value_id y = emit(&b, &same, NULL, &pad, 1, 1);
    value_id wv = emit(&b, &view, &flat, &w, 1, 1), wvv = emit(&b, &view, &s, &wv, 1, 1), yv = emit(&b, &view, &flat, &y, 1, 1);

    CHECK_INT(g->values[wvv].view_of, w);
    CHECK_INT(g->values[wvv].at, AT_WEIGHT);
    CHECK_INT(g->values[wvv].offset, g->values[w].offset);
    CHECK_INT(g->values[yv].view_of, y);
    CHECK_INT(g->values[yv].at, AT_TEMP);
}

TEST(a_temporary_and_its_views_can_be_placed_once_in_a_flat_region)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 6), flat = SHAPE(24);
    value_id x = input(&b, F32, &s), y = emit(&b, &same, NULL, &x, 1, 1), v = emit(&b, &view, &flat, &y, 1, 1);

    CHECK(!graph_place(g, x, AT_GRAD, 128));
    CHECK(!graph_place(g, v, AT_GRAD, 128));
    CHECK(!graph_place(g, 0, AT_GRAD, 128));
    CHECK(graph_place(g, y, AT_GRAD, 128));
    CHECK(!graph_place(g, y, AT_GRAD, 256));
    CHECK_INT(g->values[v].at, AT_GRAD);
    CHECK_INT(g->values[v].offset, 128);
    CHECK_INT(g->bytes[AT_GRAD], 128 + 128);
}

TEST(an_effect_writes_leaves_of_its_shape_only)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4), t = SHAPE(5);
    value_id x = input(&b, F32, &s), good = graph_leaf(g, AT_STATE, F32, &s), bad = graph_leaf(g, AT_STATE, F32, &t);

    emit_effect(&b, &store, NULL, &x, 1, &good, 1);
    CHECK_INT(b.problem.status, ST_OK);
    CHECK_INT(g->n_nodes, 2);
    CHECK_INT(g->values[good].producer, 0);
    emit_effect(&b, &store, NULL, &x, 1, &bad, 1);
    CHECK_INT(b.problem.status, ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "(4,)");
    CHECK_CONTAINS(b.problem.detail, "(5,)");
}

TEST(attributes_inputs_and_names_are_copied)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4), attr = SHAPE(2, 2);
    char name[] = "conv";
    value_id x = input(&b, F32, &s), in[1] = {x};

    b.origin = name;
    emit(&b, &view, &attr, in, 1, 1);
    attr.rank = 7;
    in[0] = 99;
    strcpy(name, "xxxx");
    CHECK_INT(((const struct shape *)g->nodes[1].attr)->rank, 2);
    CHECK_INT(g->nodes[1].in[0], x);
    CHECK_TEXT(g->nodes[1].origin, "conv");
}

TEST(tuples_and_penalties_are_copied_into_the_graph)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4);
    value_id x = input(&b, F32, &s), y = input(&b, F32, &s);
    struct tuple t = tuple_make(&b, 2, (value_id[]){x, y}, (value_id[]){0, x}), o = one(&b, y), m = one_masked(&b, x, y);

    CHECK_INT(t.n, 2);
    CHECK_INT(t.v[1], y);
    CHECK_INT(t.mask[0], 0);
    CHECK_INT(t.mask[1], x);
    CHECK_INT(o.v[0], y);
    CHECK_INT(o.mask[0], 0);
    CHECK_INT(m.mask[0], y);
    for (value_id i = 1; i <= 9; i++)
        penalty_add(&b, i);
    penalty_add(&b, 0);
    CHECK_INT(b.n_penalties, 9);
    for (value_id i = 1; i <= 9; i++)
        CHECK_INT(b.penalties[i - 1], i);
}

TEST(a_graph_prints_one_line_per_leaf_and_node)
{
    OWNED(graph_free) struct graph *g = graph_new();
    CLEAN(text_done) struct text t = text_make(4096);
    struct build b = build_make(g);
    struct shape s = SHAPE(128, 512);
    value_id x = input(&b, F32, &s), y;

    b.origin = "dense_1";
    y = emit(&b, &pair, NULL, (value_id[]){x, 0}, 2, 2);
    keep(&b, y);
    graph_dump(g, &t);
    CHECK_TEXT(t.s, "%1 = input float32 (128, 512) at 0\n"
                    "%2, %3 = pair(%1, -) float32 (128, 512) kept, uint8 (2,)  dense_1\n");
}
