/* Losses: scalars by each dialect's rule, matching of ranks, logits behind activations, refusals. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "engine/losses/loss.h"
#include "tests/model/runner.h"

/* loss_scalar of s (4) or (2, 2) with weights and mask (NULL: none) by the dialect. */
static double scalar_of(int dialect, struct shape s, const float *values, struct shape w, const float *weights,
                        const float *mask)
{
    OWNED(runner_free) struct runner *r = runner_new(dialect, true);
    value_id v = runner_input(r, F32, s, values);
    value_id weight = weights ? runner_input(r, F32, w, weights) : 0, m = mask ? runner_input(r, F32, s, mask) : 0;
    value_id loss = loss_scalar(&r->b, v, weight, m);

    runner_keep(r, loss);
    runner_start(r);
    runner_run(r);
    return (double)*runner_floats(r, loss);
}

static const int dialects[] = {DIALECT_KERAS_1, DIALECT_KERAS_2, DIALECT_KERAS_2_3, DIALECT_TF_KERAS, DIALECT_KERAS_3};

TEST(sample_weights_of_zero_leave_the_mean_in_keras_1_and_2_and_not_later)
{
    static const double want[] = {3, 3, 1.5, 1.5, 1.5}; /* values 1 3 5 7, weights 1 0 1 0 -> 6 / 2 or 6 / 4 */

    for (size_t i = 0; i < COUNT(dialects); i++)
        CHECK_NEAR(scalar_of(dialects[i], SHAPE(4), (float[]){1, 3, 5, 7}, SHAPE(4), (float[]){1, 0, 1, 0}, NULL), want[i],
                   1e-6);
}

TEST(a_mask_is_a_mean_over_what_is_valid_but_for_keras_2_3)
{
    static const double want[] = {3, 3, 1.5, 3, 3};

    for (size_t i = 0; i < COUNT(dialects); i++)
        CHECK_NEAR(scalar_of(dialects[i], SHAPE(4), (float[]){1, 3, 5, 7}, SCALAR, NULL, (float[]){1, 0, 1, 0}), want[i], 1e-6);
}

TEST(weights_and_mask_together_follow_the_dialect)
{
    /* values 1 3 5 7, mask 1 1 0 1, weights 2 0 1 1. Keras 1: s = (4/3, 4, 0, 28/3), times w / (3/4), mean
     * (2 * 4/3 + 28/3) / 0.75 / 4 = 4; 2.3: (2 + 7) / 4; later: (2 + 7) / 3 */
    static const double want[] = {4, 4, 2.25, 3, 3};

    for (size_t i = 0; i < COUNT(dialects); i++)
        CHECK_NEAR(
            scalar_of(dialects[i], SHAPE(4), (float[]){1, 3, 5, 7}, SHAPE(4), (float[]){2, 0, 1, 1}, (float[]){1, 1, 0, 1}),
            want[i], 1e-6);
}

TEST(weights_per_sample_count_for_every_step_of_a_sample)
{
    for (size_t i = 0; i < COUNT(dialects); i++)
        CHECK_NEAR(scalar_of(dialects[i], SHAPE(2, 2), (float[]){1, 3, 5, 7}, SHAPE(2), (float[]){2, 1}, NULL), 5, 1e-6);
}

TEST(a_batch_that_is_all_masked_has_loss_zero)
{
    for (size_t i = 0; i < COUNT(dialects); i++)
        CHECK_NEAR(scalar_of(dialects[i], SHAPE(2), (float[]){1, 3}, SCALAR, NULL, (float[]){0, 0}), 0, 0);
}

TEST(weights_that_fit_no_prefix_are_refused_with_both_shapes)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
    float x[12] = {0};
    value_id s = runner_input(r, F32, SHAPE(4, 3), x), w = runner_input(r, F32, SHAPE(3), x);

    CHECK_INT(loss_scalar(&r->b, s, w, 0), 0);
    CHECK_CONTAINS(r->b.problem.detail, "(3,) do not fit the values per sample, which have the shape (4, 3)");
}

static const struct loss *loss_of(struct runner *r, const char *name, const char *config, const void **ret)
{
    const struct object *o = runner_object(r, &loss_catalogue, name, config);

    *ret = o->config;
    return (const struct loss *)o->type;
}

/* Per-sample values of a loss of y and p (both 2 rows); n results. */
static void values_of(const char *name, const char *config, struct shape ys, const float *y, struct shape ps, const float *p,
                      int n, float *to)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
    const void *c;
    const struct loss *l = loss_of(r, name, config, &c);
    value_id s = l->per_sample(&r->b, c, runner_input(r, F32, ys, y), runner_input(r, F32, ps, p));

    runner_keep(r, s);
    runner_start(r);
    CHECK_INT(shape_count(&value_of(&r->b, s)->shape), n);
    runner_run(r);
    memcpy(to, runner_floats(r, s), (size_t)n * sizeof(float));
}

TEST(every_spelling_of_every_version_names_its_loss)
{
    static const char *const rows[][2] = {
        {"mse", "MeanSquaredError"},
        {"MSE", "MeanSquaredError"},
        {"mean_squared_error", "MeanSquaredError"},
        {"MeanSquaredError", "MeanSquaredError"},
        {"mae", "MeanAbsoluteError"},
        {"MAE", "MeanAbsoluteError"},
        {"mean_absolute_error", "MeanAbsoluteError"},
        {"bce", "BinaryCrossentropy"},
        {"BCE", "BinaryCrossentropy"},
        {"binary_crossentropy", "BinaryCrossentropy"},
        {"categorical_crossentropy", "CategoricalCrossentropy"},
        {"sparse_categorical_crossentropy", "SparseCategoricalCrossentropy"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct class *c = catalogue_find(&loss_catalogue, rows[i][0]);

        CHECK_TEXT(c ? c->keras : rows[i][0], rows[i][1]);
    }
    CHECK(!catalogue_find(&loss_catalogue, "poisson"));
}

TEST(a_target_without_the_last_axis_of_one_fits_and_so_does_one_with_it)
{
    float got[2];

    values_of("mse", NULL, SHAPE(2), (float[]){1, 2}, SHAPE(2, 1), (float[]){3, 5}, 2, got);
    CHECK_FLOATS(got, ((float[]){4, 9}), 2, 1e-6);
    values_of("mse", NULL, SHAPE(2, 1), (float[]){1, 2}, SHAPE(2), (float[]){3, 5}, 2, got);
    CHECK_FLOATS(got, ((float[]){4, 9}), 2, 1e-6);
    values_of("mae", NULL, SHAPE(1, 2, 1), (float[]){1, 2}, SHAPE(1, 2), (float[]){3, 6}, 1, got);
    CHECK_FLOATS(got, ((float[]){3}), 1, 1e-6);
}

TEST(probabilities_are_divided_by_their_sum_and_clipped)
{
    float got[2];

    values_of("categorical_crossentropy", NULL, SHAPE(2, 2), (float[]){1, 0, 0, 1}, SHAPE(2, 2), (float[]){2, 6, 1, 0}, 2, got);
    CHECK_FLOATS(got, ((float[]){-logf(0.25f), -logf(1e-7f)}), 2, 1e-5);
    values_of("sparse_categorical_crossentropy", NULL, SHAPE(2), (float[]){0, 1}, SHAPE(2, 2), (float[]){2, 6, 1, 0}, 2, got);
    CHECK_FLOATS(got, ((float[]){-logf(0.25f), -logf(1e-7f)}), 2, 1e-5);
    values_of("binary_crossentropy", NULL, SHAPE(2, 1), (float[]){1, 0}, SHAPE(2, 1), (float[]){0, 0.25f}, 2, got);
    CHECK_FLOATS(got, ((float[]){-logf(1e-7f), -logf(0.75f)}), 2, 1e-5);
}

TEST(a_crossentropy_behind_a_softmax_is_exact_where_probabilities_would_be_clipped)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
    const void *c;
    const struct loss *l = loss_of(r, "categorical_crossentropy", NULL, &c);
    value_id z = runner_input(r, F32, SHAPE(1, 2), (float[]){0, 50}), y = runner_input(r, F32, SHAPE(1, 2), (float[]){1, 0});
    value_id s = l->per_sample(&r->b, c, y, emit_activation(&r->b, z, activation_find("softmax")));
    const struct loss *bce = loss_of(r, "bce", NULL, &c);
    value_id t = bce->per_sample(&r->b, c, y, emit_sigmoid(&r->b, z));

    runner_keep(r, s);
    runner_keep(r, t);
    runner_start(r);
    runner_run(r);
    CHECK_NEAR((double)*runner_floats(r, s), 50, 1e-6);
    CHECK_NEAR((double)*runner_floats(r, t), (log(2) + 50) / 2, 1e-6);
}

TEST(logits_are_found_through_a_reshape_and_not_behind_other_layers)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
    float x[8] = {0};
    value_id z = runner_input(r, F32, SHAPE(2, 2, 2), x), p = emit_softmax(&r->b, z), q = emit_sigmoid(&r->b, z);
    value_id logits = logits_of_softmax(&r->b, emit_reshape(&r->b, p, &SHAPE(4, 2)));
    struct shape s = shape_of(&r->b, logits);

    CHECK(shape_equal(&s, &SHAPE(4, 2)));
    CHECK_INT(logits_of_softmax(&r->b, p), z);
    CHECK_INT(logits_of_softmax(&r->b, emit_reshape(&r->b, p, &SHAPE(2, 4))), 0);
    CHECK_INT(logits_of_softmax(&r->b, emit_scale(&r->b, p, 2)), 0);
    CHECK_INT(logits_of_softmax(&r->b, z), 0);
    CHECK_INT(logits_of_sigmoid(&r->b, q), z);
    CHECK(logits_of_sigmoid(&r->b, emit_reshape(&r->b, q, &SHAPE(8))) != 0);
    CHECK_INT(logits_of_sigmoid(&r->b, p), 0);
    CHECK_INT(logits_of_sigmoid(&r->b, emit_shift(&r->b, q, 1)), 0);
}

TEST(what_does_not_fit_or_is_not_supported_is_refused_with_both_sides)
{
    static const struct {
        const char *name, *config;
        struct shape y, p;
        enum status status;
        const char *detail;
    } rows[] = {
        {"mse", NULL, SHAPE(2, 3), SHAPE(2, 4), ST_INVALID, "the target has the shape (2, 3), the output (2, 4)"},
        {"bce", NULL, SHAPE(2), SHAPE(2, 3), ST_INVALID, "(2,), the output (2, 3)"},
        {"sparse_categorical_crossentropy", NULL, SHAPE(2, 3), SHAPE(2, 3), ST_INVALID, "class numbers without its last axis"},
        {"CategoricalCrossentropy", "{\"reduction\": \"sum\"}", SHAPE(2, 3), SHAPE(2, 3), ST_UNSUPPORTED, "\"sum\""},
        {"CategoricalCrossentropy", "{\"axis\": 0}", SHAPE(2, 3), SHAPE(2, 3), ST_UNSUPPORTED, "axis 0"},
        {"SparseCategoricalCrossentropy", "{\"ignore_class\": 1}", SHAPE(2), SHAPE(2, 3), ST_UNSUPPORTED, "ignore_class"},
    };
    float x[8] = {0};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
        const void *c;
        const struct loss *l = loss_of(r, rows[i].name, rows[i].config, &c);

        CHECK_INT(l->per_sample(&r->b, c, runner_input(r, F32, rows[i].y, x), runner_input(r, F32, rows[i].p, x)), 0);
        CHECK_INT(r->b.problem.status, rows[i].status);
        CHECK_CONTAINS(r->b.problem.detail, rows[i].detail);
    }
}

TEST(a_regularizer_counts_once_per_weight_and_an_activity_once_per_call)
{
    static const struct {
        int dialect;
        double penalties; /* kernel ones (2, 1): 2; outputs 2 rows of 2: sum of squares 8, per call */
    } rows[] = {{DIALECT_KERAS_2_3, 2 + 2 * 8}, {DIALECT_KERAS_3, 2 + 2 * 4}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(rows[i].dialect, true);
        float ones[4] = {1, 1, 1, 1};
        struct tuple x = one(&r->b, runner_input(r, F32, SHAPE(2, 2), ones));
        const char *config = "{\"units\": 1, \"use_bias\": false, \"kernel_initializer\": \"ones\", \"kernel_regularizer\": "
                             "{\"class_name\": \"L1\", \"config\": {\"l1\": 1}}, \"activity_regularizer\": "
                             "{\"class_name\": \"L2\", \"config\": {\"l2\": 1}}}";
        value_id sum = 0;

        runner_layer(r, "Dense", config, "d", true, x);
        runner_layer(r, "Dense", config, "d", true, x);
        CHECK_INT(r->b.n_penalties, 3);
        for (int k = 0; k < r->b.n_penalties; k++)
            sum = sum ? emit_add(&r->b, sum, r->b.penalties[k]) : r->b.penalties[k];
        runner_keep(r, sum);
        runner_start(r);
        runner_run(r);
        CHECK_NEAR((double)*runner_floats(r, sum), rows[i].penalties, 1e-6);
    }
}
