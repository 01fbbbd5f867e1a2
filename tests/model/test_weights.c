/* The layout of weights: trainable first, aligned, the same in later builds; sharing, refusals, first values. */
#include "tests/test.h"

#include <stdio.h>
#include <string.h>

#include "tests/model/runner.h"

static struct layer dense = {NULL, "inner/dense", NULL, true, F32}, frozen = {NULL, "frozen", NULL, false, F32};

TEST(trainable_weights_come_first_and_each_begins_at_an_aligned_offset)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    value_id kernel = weight(&r->b, &frozen, "kernel", SHAPE(3, 5), INIT_ONES);
    value_id mean = weight_fixed(&r->b, &dense, "moving_mean", SHAPE(5), INIT_ZEROS);
    value_id w = weight(&r->b, &dense, "kernel", SHAPE(5, 5), INIT_GLOROT_UNIFORM);
    value_id bias = weight(&r->b, &dense, "bias", SHAPE(5), INIT_ZEROS);

    weights_layout(r->weights, &r->b);
    CHECK_INT(r->graph->values[w].offset, 0);
    CHECK_INT(r->graph->values[bias].offset, 128); /* 100 bytes rounded up to two times 64 */
    CHECK_INT(r->weights->trainable_bytes, 192);
    CHECK_INT(r->graph->values[kernel].offset, 192);
    CHECK_INT(r->graph->values[mean].offset, 256);
    CHECK_INT(r->weights->bytes, 320);
    CHECK_INT(r->graph->bytes[AT_WEIGHT], 320);
    CHECK_INT(weights_count(r->weights, true), 30);
    CHECK_INT(weights_count(r->weights, false), 50);
    CHECK_TEXT(weights_find(r->weights, "inner/dense", "bias")->path, "inner/dense/bias");
    CHECK(!weights_find(r->weights, "inner/dense", "gamma"));
}

TEST(each_of_many_weights_is_found_by_its_name)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    static struct layer many[300];
    static char names[300][32];

    for (int i = 0; i < 300; i++) {
        snprintf(names[i], sizeof names[i], "layer_%d", i);
        many[i] = (struct layer){NULL, names[i], NULL, true, F32};
        (void)weight(&r->b, &many[i], "kernel", SHAPE(2, 3), INIT_ONES);
        (void)weight(&r->b, &many[i], "bias", SHAPE(3), INIT_ZEROS);
        CHECK(!weights_find(r->weights, names[i], "gamma"));
    }
    CHECK_INT(r->weights->n, 600);
    for (int i = 0; i < 300; i++) {
        CHECK(weights_find(r->weights, names[i], "kernel") == &r->weights->entry[2 * i]);
        CHECK(weights_find(r->weights, names[i], "bias") == &r->weights->entry[2 * i + 1]);
    }
}

TEST(a_second_build_finds_the_same_places)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    OWNED(graph_free) struct graph *again = graph_new();
    struct build b = build_make(again);

    weight_fixed(&r->b, &dense, "moving_mean", SHAPE(5), INIT_ZEROS);
    weight(&r->b, &dense, "kernel", SHAPE(5, 5), INIT_GLOROT_UNIFORM);
    weights_layout(r->weights, &r->b);
    b.weights = r->weights;
    weights_begin(r->weights);
    value_id kernel = weight(&b, &dense, "kernel", SHAPE(5, 5), INIT_GLOROT_UNIFORM);
    value_id mean = weight_fixed(&b, &dense, "moving_mean", SHAPE(5), INIT_ZEROS);

    weights_layout(r->weights, &b);
    CHECK_INT(again->values[kernel].offset, 0);
    CHECK_INT(again->values[mean].offset, 128);
    CHECK_INT(weight(&b, &dense, "kernel", SHAPE(5, 5), INIT_GLOROT_UNIFORM), kernel);
    CHECK_INT(weight(&b, &dense, "new", SHAPE(2), INIT_ZEROS), 0);
    CHECK_INT(b.problem.status, ST_INTERNAL);
}

TEST(a_view_of_a_weight_moves_with_it)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    value_id frozen_weight = weight(&r->b, &frozen, "kernel", SHAPE(4, 4), INIT_ONES);
    value_id view = emit_reshape(&r->b, frozen_weight, &SHAPE(16));
    value_id w = weight(&r->b, &dense, "kernel", SHAPE(4), INIT_ONES);

    CHECK_INT(r->graph->values[view].offset, 0);
    weights_layout(r->weights, &r->b);
    CHECK_INT(r->graph->values[w].offset, 0);
    CHECK_INT(r->graph->values[frozen_weight].offset, 64);
    CHECK_INT(r->graph->values[view].offset, 64);
}

TEST(another_shape_at_a_second_call_of_a_layer_is_refused_with_both_shapes)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);

    r->b.origin = "dense";
    weight(&r->b, &dense, "kernel", SHAPE(5, 4), INIT_ZEROS);
    CHECK_INT(weight(&r->b, &dense, "kernel", SHAPE(6, 4), INIT_ZEROS), 0);
    CHECK_INT(r->b.problem.status, ST_INVALID);
    CHECK_TEXT(r->b.problem.where, "dense");
    CHECK_CONTAINS(r->b.problem.detail, "\"kernel\" has the shape (5, 4), this call of the layer needs (6, 4)");
}

TEST(an_unknown_size_is_refused_and_so_is_a_weight_where_none_may_stand)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    struct build b = build_make(r->graph);

    CHECK_INT(weight(&r->b, &dense, "kernel", SHAPE(-1, 4), INIT_ZEROS), 0);
    CHECK_CONTAINS(r->b.problem.detail, "(None, 4)");
    CHECK_INT(weight(&b, &dense, "kernel", SHAPE(3, 4), INIT_ZEROS), 0);
    CHECK_CONTAINS(b.problem.detail, "only layers without weights may stand here");
}

TEST(an_assigned_value_is_what_later_calls_read_and_the_leaf_stays)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    value_id mean = weight_fixed(&r->b, &dense, "moving_mean", SHAPE(5), INIT_ZEROS);
    value_id next = emit_shift(&r->b, mean, 1);

    weight_assign(&r->b, &dense, "moving_mean", next);
    CHECK_INT(weight_fixed(&r->b, &dense, "moving_mean", SHAPE(5), INIT_ZEROS), next);
    CHECK_INT(r->weights->entry[0].leaf_value, mean);
    CHECK_INT(r->weights->entry[0].current, next);
}

TEST(first_values_follow_from_seed_and_path_and_padding_is_zero)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    float x[64], y[64], zeros[11] = {0};
    struct problem problem;

    weight(&r->b, &dense, "kernel", SHAPE(5), INIT_UNIFORM);
    weight(&r->b, &dense, "other", SHAPE(5), INIT_UNIFORM);
    weights_layout(r->weights, &r->b);
    memset(x, 0x55, sizeof(x));
    CHECK_OK(weights_init(r->weights, 42, x, &problem));
    CHECK_INT(memcmp(x + 5, zeros, sizeof(zeros)), 0);
    CHECK(memcmp(x, x + 16, 5 * sizeof(float)) != 0);
    CHECK_OK(weights_init(r->weights, 42, y, &problem));
    CHECK_INT(memcmp(x, y, 32 * sizeof(float)), 0);
    CHECK_OK(weights_init(r->weights, 43, y, &problem));
    CHECK(memcmp(x, y, 5 * sizeof(float)) != 0);
}

TEST(an_initializer_that_does_not_suit_is_reported_with_the_weights_path)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    struct problem problem;
    float x[16];

    weight(&r->b, &dense, "kernel", SHAPE(5), INIT_ORTHOGONAL);
    weights_layout(r->weights, &r->b);
    CHECK_INT(weights_init(r->weights, 1, x, &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "inner/dense/kernel");
    CHECK_CONTAINS(problem.detail, "Orthogonal: needs a weight of at least two dimensions");
}
