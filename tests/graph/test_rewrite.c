/* Rewrites: what is fused, cancelled and dropped, what must stay, and that kept values come out with the same bits. */
#include <string.h>

#include "engine/base/philox.h"
#include "engine/ops/ops.h"
#include "tests/graph/machine.h"
#include "tests/test.h"

static uint32_t nodes_named(const struct graph *g, const char *name)
{
    uint32_t n = 0;

    for (uint32_t i = 1; i < g->n_nodes; i++)
        n += strcmp(g->nodes[i].op->name, name) == 0;
    return n;
}

static void fill_leaves(struct machine *m)
{
    for (int r = AT_INPUT; r < N_REGIONS; r++) {
        for (size_t i = 0; i < m->g->bytes[r] / 4; i++) {
            float x = philox_unit(philox(3, (uint64_t)r, i).w[0]) + 0.25f;

            memcpy(m->base[r] + 4 * i, &x, 4);
        }
    }
}

/* Runs g as it is, rewrites it, runs it planned, and compares every kept value and every flat region bit by bit. */
static void check_rewrite(struct graph *g)
{
    OWNED(machine_free) struct machine *before = machine_new(g, NULL), *after = NULL;
    OWNED(plan_free) struct plan *p = NULL;
    struct problem problem;

    fill_leaves(before);
    machine_run(before);
    unsigned char *kept[g->n_values];
    for (value_id v = 1; v < g->n_values; v++) {
        kept[v] = NULL;
        if (g->values[v].keep) {
            kept[v] = must_alloc(value_bytes(&g->values[v]) + 1);
            memcpy(kept[v], machine_at(before, v), value_bytes(&g->values[v]));
        }
    }
    graph_rewrite(g);
    CHECK_OK(plan_make(g, NULL, NULL, 0, &p, &problem));
    after = machine_new(g, p);
    fill_leaves(after);
    machine_run(after);
    for (value_id v = 1; v < g->n_values; v++) {
        if (kept[v] && memcmp(kept[v], machine_at(after, v), value_bytes(&g->values[v])) != 0)
            fail_msg("kept value %u is another after the rewrite", v);
        free_null(kept[v]);
    }
    for (int r = AT_WEIGHT; r < N_REGIONS; r++) {
        if (memcmp(before->base[r], after->base[r], g->bytes[r]) != 0)
            fail_msg("region %d is another after the rewrite", r);
    }
}

static value_id leaf(struct graph *g, enum region at, struct shape s)
{
    return graph_leaf(g, at, F32, &s);
}

TEST(a_chain_of_formulas_becomes_one)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(4, 6)), w = leaf(g, AT_INPUT, SHAPE(6)), k = leaf(g, AT_INPUT, SHAPE(4, 1));
    value_id y = emit_sigmoid(&b, emit_mul(&b, emit_add(&b, emit_scale(&b, x, 2), w), k));

    keep(&b, y);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "pointwise"), 1);
    CHECK_INT(g->nodes[1].n_in, 3);
    CHECK_INT(g->values[y].producer, 1);
}

TEST(a_producer_read_twice_by_its_only_reader_is_taken_in_once)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(7)), s = emit_sigmoid(&b, x), y = emit_mul(&b, s, s);

    keep(&b, y);
    check_rewrite(g);
    CHECK_INT(g->n_nodes, 2);
    CHECK_INT(g->nodes[1].n_in, 1);
}

TEST(what_others_read_what_is_kept_and_what_has_another_shape_stays)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(3, 5)), row = leaf(g, AT_INPUT, SHAPE(5));
    value_id shared = emit_sigmoid(&b, x), asked = emit_scale(&b, shared, 3), small = emit_scale(&b, row, 2);
    value_id y = emit_add(&b, emit_add(&b, asked, shared), small), viewed = emit_scale(&b, x, 5);
    struct shape flat = SHAPE(15);
    value_id z = emit_scale(&b, emit_reshape(&b, viewed, &flat), 2);

    keep(&b, asked);
    keep(&b, y);
    keep(&b, z);
    check_rewrite(g);
    CHECK(g->values[shared].producer != 0);
    CHECK(g->values[asked].producer != 0);
    CHECK(g->values[small].producer != 0); /* its five elements would be worked out three times */
    CHECK(g->values[viewed].producer != 0);
    CHECK_INT(nodes_named(g, "pointwise"), 6);
}

TEST(fusing_stops_at_the_limits_of_a_formula)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id y = leaf(g, AT_INPUT, SHAPE(3));

    for (int i = 0; i < 2 * MAX_FORMULA_IN; i++)
        y = emit_add(&b, emit_sigmoid(&b, y), leaf(g, AT_INPUT, SHAPE(3)));
    for (int i = 0; i < 2 * MAX_TERMS; i++)
        y = emit_sigmoid(&b, y);
    keep(&b, y);
    check_rewrite(g);
    CHECK(nodes_named(g, "pointwise") >= 4);
    CHECK(nodes_named(g, "pointwise") <= 6);
    for (uint32_t i = 1; i < g->n_nodes; i++)
        CHECK_INT(g->nodes[i].n_in, ((const struct formula *)g->nodes[i].attr)->n_in);
}

TEST(a_fill_becomes_a_constant_and_an_expand_a_broadcast)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 3);
    value_id x = leaf(g, AT_INPUT, s), row = leaf(g, AT_INPUT, SHAPE(3)), w = leaf(g, AT_WEIGHT, s), dw;
    value_id y = emit_mul(&b, emit_add(&b, emit_fill(&b, &s, 2), x), row);
    value_id loss = emit_reduce_all(&b, emit_mul(&b, w, x), REDUCE_MEAN);

    keep(&b, y);
    keep(&b, loss);
    graph_grad(&b, loss, &w, 1, &dw);
    keep(&b, dw);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "fill"), 0);
    CHECK_INT(nodes_named(g, "expand"), 0);
    CHECK_INT(nodes_named(g, "pointwise"), 3); /* y, w x, and dw = x / 12 */
}

TEST(an_expanded_constant_is_one_fill)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id w = leaf(g, AT_WEIGHT, SHAPE(4, 3)), loss = emit_reduce_all(&b, w, REDUCE_MEAN), dw;

    keep(&b, loss);
    graph_grad(&b, loss, &w, 1, &dw);
    keep(&b, dw);
    check_rewrite(g);
    CHECK_INT(g->n_nodes, 3); /* the mean, and a fill with 1/12 */
    CHECK_INT(nodes_named(g, "fill"), 1);
}

TEST(a_fill_that_alone_gives_the_shape_stays)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 3);
    value_id row = leaf(g, AT_INPUT, SHAPE(3)), y = emit_mul(&b, emit_fill(&b, &s, 2), row);

    keep(&b, y);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "fill"), 1);
}

TEST(transposes_that_pair_cancel_and_others_join)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(2, 3, 4));
    struct shape flat = SHAPE(24);
    value_id s = emit_sigmoid(&b, x);
    value_id there = emit_transpose(&b, s, (int[]){2, 0, 1}), back = emit_transpose(&b, there, (int[]){1, 2, 0});
    value_id y = emit_scale(&b, back, 2), turned = emit_transpose(&b, there, (int[]){1, 0, 2});
    value_id z = emit_scale(&b, turned, 3), view = emit_reshape(&b, back, &flat), v = emit_scale(&b, view, 4);

    keep(&b, y);
    keep(&b, z);
    keep(&b, v);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "transpose"), 1);
    CHECK_INT(g->values[view].view_of, s);
}

TEST(a_transpose_that_is_asked_for_stays)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(2, 3));
    value_id y = emit_transpose(&b, emit_transpose(&b, x, (int[]){1, 0}), (int[]){1, 0});

    keep(&b, y);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "transpose"), 1);
    CHECK(g->values[y].producer != 0);
}

TEST(a_read_does_not_move_past_a_write_of_the_same_memory)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(3, 4), half = SHAPE(4);
    value_id w = leaf(g, AT_WEIGHT, s), x = leaf(g, AT_INPUT, s), new_row = leaf(g, AT_INPUT, half);
    value_id row = graph_leaf_at(g, AT_WEIGHT, F32, &half, g->values[w].offset + 16);
    value_id old = emit_scale(&b, w, 2); /* of the weight before the store */
    value_id there = emit_transpose(&b, w, (int[]){1, 0}), back = emit_transpose(&b, there, (int[]){1, 0});

    emit_store(&b, row, new_row);
    value_id y = emit_add(&b, old, x), z = emit_add(&b, emit_add(&b, back, x), w);

    keep(&b, y);
    keep(&b, z);
    check_rewrite(g);
    CHECK(g->values[old].producer != 0);
    CHECK_INT(nodes_named(g, "transpose"), 1); /* the pair is one, by the identity, that copies in time */
}

TEST(a_read_moves_past_writes_elsewhere)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(3, 4);
    value_id w = leaf(g, AT_WEIGHT, s), other = leaf(g, AT_WEIGHT, s), x = leaf(g, AT_INPUT, s), old = emit_scale(&b, w, 2);

    emit_store(&b, other, x);
    keep(&b, emit_add(&b, old, x));
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "pointwise"), 1);
}

static void emit_step(struct build *b, value_id w, value_id g)
{
    struct formula f = {0};
    term w_ = f_in(&f), g_ = f_in(&f);

    f_out(&f, f_sub(&f, w_, f_mul(&f, g_, f_const(&f, 0.1))));
    emit_update(b, &f, (value_id[]){w, g}, &w);
}

TEST(formulas_of_the_same_shape_are_taken_into_an_update)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(12);
    value_id w = leaf(g, AT_WEIGHT, s), grad = leaf(g, AT_GRAD, s), ok;

    ok = emit_sigmoid(&b, leaf(g, AT_INPUT, SCALAR));
    b.ok = ok;
    emit_step(&b, w, emit_add(&b, grad, emit_scale(&b, w, 0.01))); /* weight decay reads w at its own place */
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "pointwise"), 1); /* ok, a scalar, stays by itself */
    CHECK_INT(nodes_named(g, "pointwise_update"), 1);
}

TEST(an_update_does_not_take_in_a_read_of_other_elements_that_it_writes)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 4), one_row = SHAPE(4);
    value_id w = leaf(g, AT_WEIGHT, s), grad = leaf(g, AT_GRAD, s);
    value_id row = graph_leaf_at(g, AT_WEIGHT, F32, &one_row, g->values[w].offset);
    value_id d = emit_add(&b, grad, row); /* every row of d reads the first row of w */

    emit_step(&b, w, d);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "pointwise"), 1);
}

TEST(a_gradient_placed_in_its_region_is_written_there_and_not_fused_away)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(12);
    value_id x = leaf(g, AT_INPUT, s), w = leaf(g, AT_WEIGHT, s), flat = leaf(g, AT_GRAD, s), d = emit_mul(&b, x, x);

    CHECK(graph_place(g, d, AT_GRAD, g->values[flat].offset));
    emit_step(&b, w, flat);
    check_rewrite(g);
    CHECK_INT(g->n_nodes, 3);
    CHECK_INT(g->values[d].at, AT_GRAD);
}

TEST(a_placed_value_that_an_effect_changes_is_read_where_it_was_read)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(12);
    value_id flat = leaf(g, AT_GRAD, s), x = leaf(g, AT_INPUT, s), d = emit_fill(&b, &s, 1);

    CHECK(graph_place(g, d, AT_GRAD, g->values[flat].offset));
    value_id early = emit_scale(&b, d, 3);
    emit_store(&b, flat, x);
    value_id y = emit_add(&b, d, x), z = emit_add(&b, early, x);

    keep(&b, y); /* 2 x: d is what lies in its place, not the 1 that it began as */
    keep(&b, z);
    check_rewrite(g);
}

TEST(transposes_into_a_place_that_an_effect_changes_are_read_from_there)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape s = SHAPE(4, 4);
    value_id flat = leaf(g, AT_GRAD, s), second = leaf(g, AT_GRAD, s), x = leaf(g, AT_INPUT, s), other = leaf(g, AT_INPUT, s);
    value_id t = emit_transpose(&b, emit_sigmoid(&b, x), (int[]){1, 0}), u = emit_transpose(&b, x, (int[]){1, 0});
    value_id same = emit_transpose(&b, u, (int[]){1, 0});

    CHECK(graph_place(g, t, AT_GRAD, g->values[flat].offset));
    CHECK(graph_place(g, same, AT_GRAD, g->values[second].offset));
    emit_store(&b, flat, other);
    emit_store(&b, second, other);
    value_id y = emit_transpose(&b, t, (int[]){1, 0}), z = emit_scale(&b, same, 2);

    keep(&b, y);
    keep(&b, z);
    check_rewrite(g);
}

/* dropout(relu(x w)) and its gradient; with `also`, the ReLU's output goes to the loss beside the dropout, too. */
static struct graph *dropped_relu(double rate, double slope, bool also)
{
    struct graph *g = graph_new();
    struct build b = build_make(g);
    struct shape scalar = SCALAR;
    value_id x = leaf(g, AT_INPUT, SHAPE(6, 5)), w = leaf(g, AT_WEIGHT, SHAPE(5, 7)), dw;

    b.training = true;
    b.seed = graph_leaf(g, AT_INPUT, I64, &scalar);
    b.step = graph_leaf(g, AT_INPUT, I64, &scalar);
    value_id z = emit_add(&b, emit_matmul(&b, x, w, 0), emit_fill(&b, &SHAPE(6, 7), -2.2f));
    value_id h = emit_relu(&b, z, slope, __builtin_nan(""), 0), y = emit_dropout(&b, h, rate, NULL);
    value_id loss = emit_reduce_all(&b, emit_mul(&b, y, y), REDUCE_SUM);

    if (also)
        loss = emit_add(&b, loss, emit_reduce_all(&b, h, REDUCE_SUM));
    graph_grad(&b, loss, &w, 1, &dw);
    CHECK_INT(b.problem.status, ST_OK);
    g->values[loss].keep = g->values[dw].keep = true;
    return g;
}

TEST(the_mask_of_a_dropped_relu_is_read_from_its_output)
{
    static const struct {
        double rate, slope;
        bool also;
        uint32_t dropouts; /* that are left */
    } rows[] = {{0.4, 0, false, 1}, {0.9, 0, false, 1}, {1, 0, false, 2}, {0.4, 0.1, false, 2}, {0.4, 0, true, 2}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(graph_free) struct graph *g = dropped_relu(rows[i].rate, rows[i].slope, rows[i].also);

        CHECK_INT(nodes_named(g, "dropout"), 2);
        check_rewrite(g);
        CHECK_INT(nodes_named(g, "dropout"), rows[i].dropouts);
    }
}

TEST(nodes_without_readers_go_with_all_that_only_they_read)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(4, 4)), a = emit_matmul(&b, x, x, 0), unused = emit_reduce_all(&b, a, REDUCE_SUM);
    value_id state = leaf(g, AT_STATE, SHAPE(4, 4)), y = emit_matmul(&b, x, x, 0);

    emit_store(&b, state, emit_transpose(&b, x, (int[]){1, 0}));
    keep(&b, y);
    check_rewrite(g);
    CHECK_INT(nodes_named(g, "matmul"), 1);
    CHECK_INT(nodes_named(g, "transpose"), 1);
    CHECK_INT(nodes_named(g, "store"), 1);
    CHECK_INT(g->values[unused].producer, 0);
    CHECK_INT(g->values[a].producer, 0);
}

TEST(a_graph_with_unknown_dimensions_is_rewritten_as_far_as_it_is_known)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id x = leaf(g, AT_INPUT, SHAPE(-1, 3)), row = leaf(g, AT_WEIGHT, SHAPE(3)), state = leaf(g, AT_STATE, SHAPE(3));
    value_id y = emit_sigmoid(&b, emit_mul(&b, x, row)), z = emit_scale(&b, emit_shift(&b, row, 1), 2);

    emit_transpose(&b, emit_transpose(&b, y, (int[]){1, 0}), (int[]){1, 0});
    emit_store(&b, state, z);
    keep(&b, y);
    graph_rewrite(g);
    CHECK_INT(b.problem.status, ST_OK);
    CHECK_INT(nodes_named(g, "transpose"), 0);
    CHECK_INT(nodes_named(g, "pointwise"), 3);
    CHECK(g->values[y].producer != 0);
}

/* --- random programs -------------------------------------------------------------------------------------------------- */

struct dice {
    uint64_t key, at;
};

static uint32_t roll(struct dice *d, uint32_t sides)
{
    return philox(d->key, 1, d->at++).w[0] % sides;
}

static void random_program(struct graph *g, struct dice *d)
{
    static const struct shape shapes[] = {{2, {3, 4}}, {2, {4, 3}}, {1, {4}}, {0, {0}}};
    struct build b = build_make(g);
    value_id made[256], placed = leaf(g, AT_GRAD, shapes[0]), w = leaf(g, AT_WEIGHT, SHAPE(3, 4));
    struct shape row = SHAPE(4);
    uint32_t n = 0, steps = 8 + roll(d, 40);
    bool is_placed = false;

    for (int i = 0; i < 4; i++)
        made[n++] = leaf(g, AT_INPUT, shapes[i]);
    made[n++] = w;
    made[n++] = graph_leaf_at(g, AT_WEIGHT, F32, &row, g->values[w].offset + 16);
    for (uint32_t i = 0; i < steps; i++) {
        value_id x = made[roll(d, 2) ? n - 1 - roll(d, 3) : roll(d, n)], y = made[roll(d, n)];
        struct shape sx = shape_of(&b, x), sy = shape_of(&b, y), s;

        switch (roll(d, 9)) {
        case 0:
        case 1:
            made[n++] = shape_broadcast(&sx, &sy, &s) ? emit_mul(&b, x, y) : emit_scale(&b, x, 0.5);
            break;
        case 2:
            made[n++] = shape_broadcast(&sx, &sy, &s) ? emit_add(&b, x, y) : emit_sigmoid(&b, x);
            break;
        case 3:
            made[n++] = emit_sigmoid(&b, x);
            break;
        case 4:
            made[n++] = sx.rank == 2 ? emit_transpose(&b, x, (int[]){1, 0}) : emit_fill(&b, &sx, 0.75f);
            break;
        case 5:
            s = SHAPE(2, 6);
            made[n] = sx.rank == 2 ? emit_reshape(&b, x, &s) : 0;
            made[n] = made[n] ? emit_scale(&b, made[n], 0.9) : emit_shift(&b, x, 0.1);
            n++;
            break;
        case 6:
            if (sx.rank == 1 && shape_equal(&sx, &row)) {
                emit_store(&b, made[5], x);
            } else if (shape_equal(&sx, &shapes[0])) {
                struct formula f = {0};
                term w_ = f_in(&f), x_ = f_in(&f);

                f_out(&f, f_add(&f, w_, f_mul(&f, x_, f_const(&f, 0.125))));
                emit_update(&b, &f, (value_id[]){w, x}, &w);
            }
            break;
        case 7:
            if (!is_placed && shape_equal(&sx, &shapes[0]))
                is_placed = graph_place(g, x, AT_GRAD, g->values[placed].offset);
            break;
        default:
            made[n++] = emit_reduce_all(&b, x, REDUCE_MEAN);
        }
        if (roll(d, 6) == 0)
            keep(&b, made[n - 1]);
    }
    keep(&b, made[n - 1]);
    CHECK_INT(b.problem.status, ST_OK);
}

TEST(random_programs_give_the_same_bits_after_rewriting_and_planning)
{
    uint32_t before = 0, after = 0;

    for (uint64_t seed = 0; seed < 600; seed++) {
        OWNED(graph_free) struct graph *g = graph_new();
        struct dice d = {.key = seed};

        random_program(g, &d);
        before += g->n_nodes;
        check_rewrite(g);
        after += g->n_nodes;
    }
    CHECK(after < before * 3 / 4); /* the rules were at work */
}
