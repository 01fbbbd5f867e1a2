/* Metrics: how "accuracy" is resolved by each dialect, labels, and the two sums with weights and masks. */
#include "tests/test.h"

#include <string.h>

#include "engine/metrics/metric.h"
#include "tests/model/runner.h"

static enum status parse(struct runner *r, const char *json, int dialect, const char *loss, struct shape y, struct shape p,
                         struct metric_spec *ret, struct problem *problem)
{
    const struct loss *l = loss ? (const struct loss *)catalogue_find(&loss_catalogue, loss) : NULL;

    return metric_parse(runner_json(r, json), r->mem, "/compile/metrics/0", dialect, l, &y, &p, ret, problem);
}

TEST(accuracy_is_resolved_by_the_rule_of_the_dialect)
{
    static const struct {
        int dialect;
        const char *loss;
        struct shape y, p;
        const char *want;
    } rows[] = {
        {DIALECT_KERAS_1, "binary_crossentropy", SHAPE(8, 4), SHAPE(8, 4), "BinaryAccuracy"},
        {DIALECT_KERAS_2_3, "binary_crossentropy", SHAPE(8, 4), SHAPE(8, 4), "BinaryAccuracy"},
        {DIALECT_TF_KERAS, "binary_crossentropy", SHAPE(8, 4), SHAPE(8, 4), "CategoricalAccuracy"},
        {DIALECT_KERAS_3, "binary_crossentropy", SHAPE(8, 4), SHAPE(8, 4), "CategoricalAccuracy"},
        {DIALECT_KERAS_1, "mse", SHAPE(8, 1), SHAPE(8, 1), "BinaryAccuracy"},
        {DIALECT_KERAS_3, "mse", SHAPE(8, 1), SHAPE(8, 1), "BinaryAccuracy"},
        {DIALECT_KERAS_1, "sparse_categorical_crossentropy", SHAPE(8, 1), SHAPE(8, 4), "SparseCategoricalAccuracy"},
        {DIALECT_KERAS_2, "mse", SHAPE(8, 4), SHAPE(8, 4), "CategoricalAccuracy"},
        {DIALECT_KERAS_3, "mse", SHAPE(8), SHAPE(8, 4), "SparseCategoricalAccuracy"},
        {DIALECT_KERAS_3, "mse", SHAPE(8, 1), SHAPE(8, 4), "SparseCategoricalAccuracy"},
        {DIALECT_KERAS_3, "categorical_crossentropy", SHAPE(8, 4), SHAPE(8, 4), "CategoricalAccuracy"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(runner_free) struct runner *r = runner_new(rows[i].dialect, false);
        struct metric_spec m;
        struct problem problem;

        CHECK_OK(
            parse(r, i % 2 ? "\"acc\"" : "\"accuracy\"", rows[i].dialect, rows[i].loss, rows[i].y, rows[i].p, &m, &problem));
        CHECK_TEXT(m.metric->keras, rows[i].want);
        CHECK_TEXT(m.label, i % 2 ? "acc" : "accuracy");
    }
}

TEST(the_label_is_what_the_user_typed_or_the_objects_name)
{
    static const char *const rows[][2] = {
        {"\"mse\"", "mse"},
        {"\"mean_squared_error\"", "mean_squared_error"},
        {"{\"class_name\": \"BinaryAccuracy\", \"config\": {\"name\": \"hits\", \"threshold\": 0.7}}", "hits"},
        {"{\"class_name\": \"SparseCategoricalAccuracy\", \"config\": {}}", "sparse_categorical_accuracy"},
        {"{\"class_name\": \"CategoricalCrossentropy\", \"config\": {\"from_logits\": true}}", "categorical_crossentropy"},
    };
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct metric_spec m;
        struct problem problem;

        CHECK_OK(parse(r, rows[i][0], DIALECT_KERAS_3, "mse", SHAPE(8, 4), SHAPE(8, 4), &m, &problem));
        CHECK_TEXT(m.label, rows[i][1]);
        CHECK(!m.weighted && (m.metric != NULL) != (m.loss != NULL));
    }
}

TEST(an_unknown_metric_is_refused_by_name_and_pointer)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    struct metric_spec m;
    struct problem problem;

    CHECK_INT(parse(r, "\"auc\"", DIALECT_KERAS_3, "mse", SHAPE(8), SHAPE(8), &m, &problem), ST_UNSUPPORTED);
    CHECK_TEXT(problem.where, "/compile/metrics/0");
    CHECK_CONTAINS(problem.detail, "auc");
    CHECK_INT(parse(r, "{\"class_name\": \"BinaryAccuracy\", \"config\": {\"treshold\": 1}}", DIALECT_KERAS_3, "mse", SHAPE(8),
                    SHAPE(8), &m, &problem),
              ST_INVALID);
    CHECK_CONTAINS(problem.where, "/compile/metrics/0/config/treshold");
    CHECK_INT(parse(r, "7", DIALECT_KERAS_3, "mse", SHAPE(8), SHAPE(8), &m, &problem), ST_INVALID);
}

/* total and count of binary accuracy or mse of y and p, each (4, 1) or (2, 2, 1). */
static void sums(int dialect, const char *json, bool weighted, struct shape s, const float *y, const float *p, struct shape w,
                 const float *weights, const float *mask, float ret[2])
{
    OWNED(runner_free) struct runner *r = runner_new(dialect, false);
    struct shape m = shape_without(&s, s.rank - 1);
    struct metric_spec spec;
    struct problem problem;
    value_id total, count;

    CHECK_OK(parse(r, json, dialect, "mse", s, s, &spec, &problem));
    spec.weighted = weighted;
    metric_emit(&r->b, &spec, runner_input(r, F32, s, y), runner_input(r, F32, s, p),
                weights ? runner_input(r, F32, w, weights) : 0, mask ? runner_input(r, F32, m, mask) : 0, &total, &count);
    runner_keep(r, total);
    runner_keep(r, count);
    runner_start(r);
    runner_run(r);
    ret[0] = *runner_floats(r, total);
    ret[1] = *runner_floats(r, count);
}

TEST(sums_count_weights_only_for_weighted_metrics_and_masks_from_tf_keras_on)
{
    static const float y[] = {1, 0, 1, 0}, p[] = {0.9f, 0.6f, 0.4f, 0.1f}, w[] = {1, 2, 4, 8}, mask[] = {1, 1, 0, 0};
    float got[2];

    sums(DIALECT_KERAS_3, "\"accuracy\"", false, SHAPE(4, 1), y, p, SHAPE(4), w, NULL, got);
    CHECK_FLOATS(got, ((float[]){2, 4}), 2, 0);
    sums(DIALECT_KERAS_3, "\"accuracy\"", true, SHAPE(4, 1), y, p, SHAPE(4), w, NULL, got);
    CHECK_FLOATS(got, ((float[]){9, 15}), 2, 0);
    sums(DIALECT_KERAS_3, "\"accuracy\"", false, SHAPE(4, 1), y, p, SHAPE(4), w, mask, got);
    CHECK_FLOATS(got, ((float[]){1, 2}), 2, 0);
    sums(DIALECT_KERAS_3, "\"accuracy\"", true, SHAPE(4, 1), y, p, SHAPE(4), w, mask, got);
    CHECK_FLOATS(got, ((float[]){1, 3}), 2, 0);
    sums(DIALECT_KERAS_2_3, "\"accuracy\"", false, SHAPE(4, 1), y, p, SHAPE(4), w, mask, got);
    CHECK_FLOATS(got, ((float[]){2, 4}), 2, 0);
}

TEST(weights_per_sample_meet_the_mean_over_the_steps_of_a_sample)
{
    static const float y[] = {0, 0, 0, 0}, p[] = {1, 3, 2, 4}, w[] = {1, 3};
    float got[2];

    sums(DIALECT_KERAS_3, "\"mse\"", true, SHAPE(2, 2, 1), y, p, SHAPE(2), w, NULL, got);
    CHECK_FLOATS(got, ((float[]){5 + 3 * 10, 4}), 2, 1e-6);
    sums(DIALECT_KERAS_3, "\"mse\"", false, SHAPE(2, 2, 1), y, p, SHAPE(2), w, NULL, got);
    CHECK_FLOATS(got, ((float[]){30, 4}), 2, 1e-6);
}

TEST(the_threshold_of_binary_accuracy_is_exclusive)
{
    static const float y[] = {1, 1, 0, 0}, p[] = {0.7f, 0.71f, 0.7f, 0.71f};
    float got[2];

    sums(DIALECT_KERAS_3, "{\"class_name\": \"BinaryAccuracy\", \"config\": {\"threshold\": 0.7}}", false, SHAPE(4, 1), y, p,
         SHAPE(4), NULL, NULL, got);
    CHECK_FLOATS(got, ((float[]){2, 4}), 2, 0);
}
