/* Layers where versions of Keras differ, and what they refuse. What Keras 3 computes is in tests/golden. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "tests/model/runner.h"

static const int dialects[] = {DIALECT_KERAS_1, DIALECT_KERAS_2, DIALECT_KERAS_2_3, DIALECT_TF_KERAS, DIALECT_KERAS_3};

/* moving_variance after one training step with momentum 0 on the values 0 2 4 6 (variance 5); NaN: it is not assigned. */
static double moving_variance(int dialect, bool trainable, struct shape shape)
{
    OWNED(runner_free) struct runner *r = runner_new(dialect, true);
    float x[] = {0, 2, 4, 6};
    struct tuple in = one(&r->b, runner_input(r, F32, shape, x));
    struct weight_entry *e;

    runner_layer(r, "BatchNormalization", "{\"momentum\": 0, \"epsilon\": 0.5}", "n", trainable, in);
    e = weights_find(r->weights, "n", "moving_variance");
    if (e->current == e->leaf_value)
        return NAN;
    value_id v = e->current;

    runner_keep(r, v);
    runner_start(r);
    runner_run(r);
    return (double)*runner_floats(r, v);
}

TEST(the_variance_that_moves_is_scaled_as_each_version_does)
{
    static const double vector[] = {5, 5 * 4 / 2.5, 5 * 4 / 2.5, 5, 5}, image[] = {5, 8, 8, 5 * 4 / 3.0, 5};

    for (size_t i = 0; i < COUNT(dialects); i++) {
        CHECK_NEAR(moving_variance(dialects[i], true, SHAPE(4, 1)), vector[i], 1e-6);
        CHECK_NEAR(moving_variance(dialects[i], true, SHAPE(1, 2, 2, 1)), image[i], 1e-6);
    }
}

TEST(a_frozen_batch_normalization_moves_in_keras_1_alone_and_uses_the_batch_before_tf_keras)
{
    for (size_t i = 0; i < COUNT(dialects); i++) {
        OWNED(runner_free) struct runner *r = runner_new(dialects[i], true);
        float x[] = {0, 2, 4, 6};
        struct tuple in = one(&r->b, runner_input(r, F32, SHAPE(4, 1), x));
        value_id y = runner_layer(r, "BatchNormalization", "{\"epsilon\": 0}", "n", false, in).v[0];

        runner_keep(r, y);
        runner_start(r);
        runner_run(r);
        CHECK_NEAR((double)runner_floats(r, y)[3], dialects[i] < DIALECT_TF_KERAS ? 3 / sqrt(5) : 6, 1e-5);
        CHECK_INT(isnan(moving_variance(dialects[i], false, SHAPE(4, 1))), dialects[i] != DIALECT_KERAS_1);
    }
}

/* The mask behind a merge of two (2, 2, 1) inputs; second NULL: the second input has none. Returns whether there is one. */
static bool merged_mask(int dialect, const char *class_name, const char *config, const float *first, const float *second, int n,
                        float *to)
{
    OWNED(runner_free) struct runner *r = runner_new(dialect, false);
    float x[] = {1, 2, 3, 4};
    value_id v[2] = {runner_input(r, F32, SHAPE(2, 2, 1), x), runner_input(r, F32, SHAPE(2, 2, 1), x)};
    value_id mask[2] = {runner_input(r, F32, SHAPE(2, 2), first), second ? runner_input(r, F32, SHAPE(2, 2), second) : 0};
    struct tuple in = tuple_make(&r->b, 2, v, mask), out = runner_layer(r, class_name, config, "m", true, in);

    if (!out.mask[0])
        return false;
    value_id m = emit_copy(&r->b, out.mask[0]);

    runner_keep(r, m);
    runner_start(r);
    runner_run(r);
    memcpy(to, runner_floats(r, m), (size_t)n * sizeof(float));
    return true;
}

TEST(masks_of_merged_inputs_are_joined_by_and_before_keras_3_and_by_or_there)
{
    static const char *const classes[] = {"Add", "Multiply", "Concatenate"};
    static const float a[] = {1, 1, 0, 0}, c[] = {1, 0, 1, 0};
    float got[8];

    for (size_t k = 0; k < COUNT(classes); k++) {
        for (size_t i = 0; i < COUNT(dialects); i++) {
            CHECK(merged_mask(dialects[i], classes[k], NULL, a, c, 4, got));
            CHECK_FLOATS(got, dialects[i] == DIALECT_KERAS_3 ? ((float[]){1, 1, 1, 0}) : ((float[]){1, 0, 0, 0}), 4, 0);
        }
    }
}

TEST(a_missing_mask_counts_as_ones_before_keras_3_and_ends_masking_there)
{
    static const float a[] = {1, 0, 0, 1};
    float got[8];

    for (size_t i = 0; i < COUNT(dialects); i++) {
        CHECK_INT(merged_mask(dialects[i], "Add", NULL, a, NULL, 4, got), dialects[i] != DIALECT_KERAS_3);
        CHECK_INT(merged_mask(dialects[i], "Concatenate", NULL, a, NULL, 4, got), dialects[i] != DIALECT_KERAS_3);
        CHECK(merged_mask(dialects[i], "Concatenate", "{\"axis\": 1}", a, NULL, 8, got));
        CHECK_FLOATS(got, ((float[]){1, 0, 1, 1, 0, 1, 1, 1}), 8, 0);
    }
}

TEST(multiply_takes_masked_elements_as_ones_in_keras_3_alone)
{
    static const float a[] = {2, 3, 4, 5}, m[] = {1, 0, 1, 0}, k[] = {1, 1, 0, 0};

    for (size_t i = 0; i < COUNT(dialects); i++) {
        OWNED(runner_free) struct runner *r = runner_new(dialects[i], false);
        value_id v[2] = {runner_input(r, F32, SHAPE(1, 4, 1), a), runner_input(r, F32, SHAPE(1, 4, 1), a)};
        value_id mask[2] = {runner_input(r, F32, SHAPE(1, 4), m), runner_input(r, F32, SHAPE(1, 4), k)};
        value_id y = runner_layer(r, "Multiply", NULL, "m", true, tuple_make(&r->b, 2, v, mask)).v[0];

        runner_keep(r, y);
        runner_start(r);
        runner_run(r);
        CHECK_FLOATS(runner_floats(r, y), dialects[i] == DIALECT_KERAS_3 ? ((float[]){4, 3, 4, 0}) : ((float[]){4, 9, 16, 25}),
                     4, 0);
    }
}

TEST(masks_pass_or_end_as_keras_has_it)
{
    static const struct {
        const char *class_name, *config;
        bool passes;
    } rows[] = {
        {"Dense", "{\"units\": 2}", true},
        {"Activation", "{\"activation\": \"tanh\"}", true},
        {"Dropout", "{\"rate\": 0.5}", true},
        {"BatchNormalization", "{}", true},
        {"LeakyReLU", "{}", true},
        {"ReLU", "{}", true},
        {"Rescaling", "{\"scale\": 2}", true},
        {"Flatten", "{}", false},
        {"Reshape", "{\"target_shape\": [3, 2]}", false},
        {"LSTM", "{\"units\": 2}", false},
        {"LSTM", "{\"units\": 2, \"return_sequences\": true}", true},
    };
    float x[12] = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
        struct tuple in = one_masked(&r->b, runner_input(r, F32, SHAPE(2, 3, 2), x), runner_input(r, F32, SHAPE(2, 3), x));
        struct tuple out = runner_layer(r, rows[i].class_name, rows[i].config, "l", true, in);

        CHECK_INT(r->b.problem.status, ST_OK);
        CHECK_INT(out.mask[0] != 0, rows[i].passes);
    }
}

TEST(an_lstm_with_states_gives_three_values_and_takes_them)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    float x[12] = {0};
    value_id seq = runner_input(r, F32, SHAPE(2, 3, 2), x);
    struct tuple out = runner_layer(r, "LSTM", "{\"units\": 4, \"return_state\": true}", "l", true, one(&r->b, seq));
    struct shape s = shape_of(&r->b, out.v[2]);

    CHECK_INT(out.n, 3);
    CHECK(shape_equal(&s, &SHAPE(2, 4)));
    runner_layer(r, "LSTM", "{\"units\": 4}", "k", true, tuple_make(&r->b, 3, (value_id[]){seq, out.v[1], out.v[2]}, NULL));
    CHECK_INT(r->b.problem.status, ST_OK);
    runner_layer(r, "LSTM", "{\"units\": 4}", "j", true, tuple_make(&r->b, 2, (value_id[]){seq, out.v[1]}, NULL));
    CHECK_CONTAINS(r->b.problem.detail, "called with 2 inputs");
}

TEST(the_bias_of_an_lstm_begins_with_ones_at_the_forget_gate)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    float x[12] = {0};
    struct tuple out =
        runner_layer(r, "LSTM", "{\"units\": 2}", "l", true, one(&r->b, runner_input(r, F32, SHAPE(2, 3, 2), x)));

    runner_keep(r, out.v[0]);
    runner_start(r);
    CHECK_FLOATS(runner_weight(r, "l", "bias"), ((float[]){0, 0, 1, 1, 0, 0, 0, 0}), 8, 0);
}

TEST(padding_is_read_in_its_three_forms)
{
    static const struct {
        const char *config;
        struct shape want;
    } rows[] = {
        {"{\"padding\": 2}", SHAPE(1, 6, 6, 1)},
        {"{\"padding\": [1, 3]}", SHAPE(1, 4, 8, 1)},
        {"{\"padding\": [[1, 2], [0, 4]]}", SHAPE(1, 5, 6, 1)},
        {"{}", SHAPE(1, 4, 4, 1)},
    };
    float x[4] = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
        struct tuple in = one(&r->b, runner_input(r, F32, SHAPE(1, 2, 2, 1), x));
        struct shape s = shape_of(&r->b, runner_layer(r, "ZeroPadding2D", rows[i].config, "p", true, in).v[0]);

        CHECK_TEXT(shape_text(&s).s, shape_text(&rows[i].want).s);
    }
}

TEST(dropout_shares_its_decision_along_axes_of_one)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
    float x[2 * 8 * 4];
    int zeros = 0;

    for (size_t i = 0; i < COUNT(x); i++)
        x[i] = 1;
    r->b.seed = graph_leaf(r->graph, AT_STATE, I64, &SCALAR);
    r->b.step = graph_leaf(r->graph, AT_STATE, I64, &SCALAR);
    value_id y = runner_layer(r, "Dropout", "{\"rate\": 0.5, \"noise_shape\": [null, 8, 1]}", "d", true,
                              one(&r->b, runner_input(r, F32, SHAPE(2, 8, 4), x)))
                     .v[0];

    runner_keep(r, y);
    runner_start(r);
    runner_run(r);
    for (int row = 0; row < 16; row++) {
        const float *v = runner_floats(r, y) + 4 * row;

        CHECK(v[0] == 0 || v[0] == 2);
        CHECK(v[1] == v[0] && v[2] == v[0] && v[3] == v[0]);
        zeros += v[0] == 0;
    }
    CHECK(zeros > 1 && zeros < 15);
}

TEST(what_a_layer_cannot_do_is_refused_by_name_with_both_sides)
{
    static const struct {
        const char *class_name, *config;
        struct shape in;
        enum status status;
        const char *detail;
    } rows[] = {
        {"Dense", "{\"units\": 2, \"kernel_constraint\": {\"class_name\": \"MaxNorm\", \"config\": {}}}", SHAPE(2, 3),
         ST_UNSUPPORTED, "kernel_constraint"},
        {"Dense", "{\"units\": 2}", SHAPE(2), ST_INVALID, "(batch, ..., features), it is (2,)"},
        {"LSTM", "{\"units\": 2, \"recurrent_dropout\": 0.5}", SHAPE(2, 3, 2), ST_UNSUPPORTED, "recurrent_dropout"},
        {"LSTM", "{\"units\": 2, \"stateful\": true}", SHAPE(2, 3, 2), ST_UNSUPPORTED, "stateful"},
        {"LSTM", "{\"units\": 2}", SHAPE(2, 3), ST_INVALID, "(batch, time, features), the input is (2, 3)"},
        {"Conv2D", "{\"filters\": 2, \"kernel_size\": 3}", SHAPE(2, 9, 9), ST_INVALID,
         "(batch, height, width, channels), the input is (2, 9, 9)"},
        {"Conv2D", "{\"filters\": 4, \"kernel_size\": 3, \"groups\": 2}", SHAPE(2, 9, 9, 3), ST_INVALID, "groups 2"},
        {"Conv2D", "{\"filters\": 4, \"kernel_size\": 3, \"strides\": 2, \"dilation_rate\": 2}", SHAPE(2, 9, 9, 3), ST_INVALID,
         "cannot be combined"},
        {"Conv2D", "{\"filters\": 4, \"kernel_size\": [5, 5]}", SHAPE(1, 3, 3, 8), ST_INVALID, "(3, 3)"},
        {"Reshape", "{\"target_shape\": [4, 2]}", SHAPE(2, 3, 2), ST_INVALID, "the input (2, 3, 2) has 6 elements per row"},
        {"Reshape", "{\"target_shape\": [-1, -1]}", SHAPE(2, 3, 2), ST_INVALID, "one -1"},
        {"ZeroPadding2D", "{\"padding\": [1, 2, 3]}", SHAPE(2, 3, 3, 1), ST_INVALID, "padding must be"},
        {"Softmax", "{\"axis\": 3}", SHAPE(2, 3, 2), ST_INVALID, "axis 3 is outside of the input (2, 3, 2)"},
        {"Softmax", "{\"axis\": [1, 2]}", SHAPE(2, 3, 2), ST_UNSUPPORTED, "several axes"},
        {"BatchNormalization", "{\"axis\": 0}", SHAPE(2, 3), ST_INVALID, "axis 0"},
        {"BatchNormalization", "{\"renorm\": true}", SHAPE(2, 3), ST_UNSUPPORTED, "renorm"},
        {"Concatenate", "{\"axis\": 0}", SHAPE(2, 3), ST_INVALID, "other than the batch"},
        {"Dropout", "{\"rate\": 0.5, \"noise_shape\": [2, 2]}", SHAPE(2, 3), ST_INVALID, "noise_shape[1]"},
        {"Rescaling", "{\"scale\": [1, \"x\"]}", SHAPE(2, 2), ST_INVALID, "scale[1] must be a number"},
    };
    float x[256] = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);

        runner_layer(r, rows[i].class_name, rows[i].config, "culprit", true, one(&r->b, runner_input(r, F32, rows[i].in, x)));
        CHECK_INT(r->b.problem.status, rows[i].status);
        CHECK_TEXT(r->b.problem.where, "culprit");
        CHECK_CONTAINS(r->b.problem.detail, rows[i].detail);
    }
}

TEST(every_key_of_every_catalogue_is_documented)
{
    static const struct catalogue *const all[] = {&layer_catalogue, &initializer_catalogue, &regularizer_catalogue};
    int keys = 0;

    for (size_t c = 0; c < COUNT(all); c++) {
        for (const struct class *const *row = all[c]->rows; *row; row++) {
            for (const struct field *f = (*row)->fields; f && f->key; f++, keys++) {
                if (!f->doc || !f->doc[0])
                    fail_msg("%s.%s has no doc", (*row)->keras, f->key);
            }
        }
    }
    CHECK(keys > 80);
}
