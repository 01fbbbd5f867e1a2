/* Optimizers: reading compile()'s optimizer, and steps against the equations written out (Keras 3's numbers are in
 * tests/golden; here stand the forms of Keras 1 and 2, and what clips and decays). */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "engine/optimizers/optimizer.h"
#include "tests/model/runner.h"

#define N 3

struct bench { /* one flat vector of N weights in two parts, 2 and 1, and its optimizer */
    struct runner *r;
    struct optimizer_spec spec;
    value_id w, g, slots[MAX_SLOTS], rate, updates;
};

static void bench_done(struct bench *t)
{
    runner_free(t->r);
}

static struct bench bench_make(const char *json)
{
    struct bench t = {.r = runner_new(DIALECT_KERAS_3, true)};
    struct graph *g = t.r->graph;
    struct problem problem;
    value_id parts[2];

    CHECK_OK(optimizer_parse(runner_json(t.r, json), t.r->mem, "/compile/optimizer", &t.spec, &problem));
    t.w = graph_leaf(g, AT_WEIGHT, F32, &SHAPE(N));
    t.g = graph_leaf(g, AT_GRAD, F32, &SHAPE(N));
    parts[0] = graph_leaf_at(g, AT_GRAD, F32, &SHAPE(2), 0);
    parts[1] = graph_leaf_at(g, AT_GRAD, F32, &SHAPE(1), 2 * sizeof(float));
    for (int k = 0; k < t.spec.n_slots; k++)
        t.slots[k] = graph_leaf(g, AT_SLOT, F32, &SHAPE(N));
    t.rate = graph_leaf(g, AT_STATE, F32, &SCALAR);
    t.updates = graph_leaf(g, AT_STATE, I64, &SCALAR);
    struct parameter_group group = {.w = t.w, .g = t.g, .parts = parts, .n_parts = 2};

    memcpy(group.slots, t.slots, sizeof group.slots);
    optimizer_step(&t.r->b, &t.spec, &group, 1, t.rate, t.updates);
    emit_step_next(&t.r->b, t.updates);
    runner_start(t.r);
    *runner_floats(t.r, t.rate) = (float)t.spec.common.learning_rate;
    return t;
}

static void step(struct bench *t, const float *g)
{
    memcpy(runner_floats(t->r, t->g), g, N * sizeof(float));
    runner_run(t->r);
}

static enum status parse(const char *json, struct optimizer_spec *spec, struct problem *problem)
{
    static struct runner *r; /* keeps what the last specification borrows */

    runner_free(r);
    r = runner_new(DIALECT_KERAS_3, true);
    return optimizer_parse(runner_json(r, json), r->mem, "/compile/optimizer", spec, problem);
}

TEST(a_name_gives_the_defaults_of_keras)
{
    struct optimizer_spec o;
    struct problem problem;

    CHECK_OK(parse("\"adam\"", &o, &problem));
    CHECK_TEXT(o.type->keras, "Adam");
    CHECK_NEAR(o.common.learning_rate, 0.001, 1e-12);
    CHECK(isnan(o.common.clipnorm) && isnan(o.common.weight_decay) && o.common.decay == 0);
    CHECK_INT(o.n_slots, 2);
    CHECK_OK(parse("\"SGD\"", &o, &problem));
    CHECK_NEAR(o.common.learning_rate, 0.01, 1e-12);
    CHECK_INT(o.n_slots, 0);
    CHECK_OK(parse("\"rmsprop\"", &o, &problem));
    CHECK_TEXT(o.type->keras, "RMSprop");
}

TEST(slots_in_use_follow_the_configuration)
{
    struct optimizer_spec o;
    struct problem problem;

    CHECK_OK(parse("{\"class_name\": \"RMSprop\", \"config\": {\"centered\": true}}", &o, &problem));
    CHECK_INT(o.n_slots, 2);
    CHECK_TEXT(o.type->slots[o.slot[1]].name, "average_gradient");
    CHECK_OK(parse("{\"class_name\": \"Adam\", \"config\": {\"amsgrad\": true}}", &o, &problem));
    CHECK_INT(o.n_slots, 3);
    CHECK(o.type->slots[o.slot[2]].at_the_end);
    CHECK_OK(parse("{\"class_name\": \"Adagrad\", \"config\": {\"initial_accumulator_value\": 0.5}}", &o, &problem));
    CHECK_NEAR(o.type->initial(o.config, 0), 0.5, 1e-12);
}

TEST(the_configuration_that_keras_3_prints_is_read)
{
    struct optimizer_spec o;
    struct problem problem;

    CHECK_OK(
        parse("{\"class_name\": \"Adam\", \"config\": {\"name\": \"adam\", \"learning_rate\": 0.0010000000474974513, "
              "\"weight_decay\": null, \"clipnorm\": null, \"global_clipnorm\": null, \"clipvalue\": null, \"use_ema\": false, "
              "\"ema_momentum\": 0.99, \"ema_overwrite_frequency\": null, \"loss_scale_factor\": null, "
              "\"gradient_accumulation_steps\": null, \"beta_1\": 0.9, \"beta_2\": 0.999, \"epsilon\": 1e-07, "
              "\"amsgrad\": false}}",
              &o, &problem));
    CHECK_NEAR(o.common.learning_rate, 0.0010000000474974513, 1e-12);
}

TEST(what_is_wrong_or_not_supported_is_refused_with_its_pointer)
{
    static const struct {
        const char *json;
        enum status status;
        const char *where, *detail;
    } rows[] = {
        {"\"Ftrl\"", ST_UNSUPPORTED, "/compile/optimizer", "the optimizer \"Ftrl\" is not supported"},
        {"{\"class_name\": \"SGD\", \"config\": {\"momentun\": 0.9}}", ST_INVALID, "/compile/optimizer/config/momentun", ""},
        {"{\"class_name\": \"SGD\", \"config\": {\"momentum\": 1.5}}", ST_INVALID, "/compile/optimizer/config/momentum", "1"},
        {"{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": \"fast\"}}", ST_INVALID,
         "/compile/optimizer/config/learning_rate", "it is a text"},
        {"{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": {\"class_name\": \"ExponentialDecay\"}}}", ST_UNSUPPORTED,
         "/compile/optimizer/config/learning_rate", "schedules (\"ExponentialDecay\")"},
        {"{\"class_name\": \"SGD\", \"config\": {\"use_ema\": true}}", ST_UNSUPPORTED, "/compile/optimizer/config", "use_ema"},
        {"{\"class_name\": \"SGD\", \"config\": {\"gradient_accumulation_steps\": 2}}", ST_UNSUPPORTED,
         "/compile/optimizer/config", "gradient_accumulation_steps"},
        {"{\"config\": {}}", ST_INVALID, "/compile/optimizer", "a name or"},
        {"3", ST_INVALID, "/compile/optimizer", "this is a number"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct optimizer_spec o;
        struct problem problem = {0};

        CHECK_INT(parse(rows[i].json, &o, &problem), rows[i].status);
        CHECK_TEXT(problem.where, rows[i].where);
        CHECK_CONTAINS(problem.detail, rows[i].detail);
    }
}

TEST(the_decay_of_keras_1_divides_the_rate_by_updates_done)
{
    CLEAN(bench_done)
    struct bench t = bench_make("{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": 0.5, \"decay\": 1}}");

    step(&t, (float[]){1, 1, 1});
    CHECK_NEAR((double)runner_floats(t.r, t.w)[0], -0.5, 1e-6);
    step(&t, (float[]){1, 1, 1});
    CHECK_NEAR((double)runner_floats(t.r, t.w)[0], -0.75, 1e-6);
    CHECK_INT(*(int64_t *)runner_floats(t.r, t.updates), 2);
}

TEST(rmsprop_of_keras_1_has_epsilon_outside_of_the_root)
{
    CLEAN(bench_done)
    struct bench t = bench_make("{\"class_name\": \"RMSprop\", \"config\": {\"learning_rate\": 0.1, \"rho\": 0.75, "
                                "\"epsilon\": 0.5, \"keras1_epsilon\": true}}");

    step(&t, (float[]){2, -4, 0});
    CHECK_FLOATS(runner_floats(t.r, t.w), ((float[]){-0.1f * 2 / 1.5f, 0.1f * 4 / 2.5f, 0}), N, 1e-6);
}

TEST(adagrad_of_keras_1_begins_at_zero_with_epsilon_outside_of_the_root)
{
    CLEAN(bench_done)
    struct bench t =
        bench_make("{\"class_name\": \"Adagrad\", \"config\": {\"learning_rate\": 0.1, \"initial_accumulator_value\": 0, "
                   "\"epsilon\": 0.5, \"keras1_epsilon\": true}}");

    step(&t, (float[]){2, -4, 0});
    CHECK_FLOATS(runner_floats(t.r, t.w), ((float[]){-0.2f / 2.5f, 0.4f / 4.5f, 0}), N, 1e-6);
}

TEST(a_global_norm_is_clipped_before_values_as_keras_1_does_with_both)
{
    CLEAN(bench_done)
    struct bench t = bench_make("{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": 1, "
                                "\"global_clipnorm\": 2.5, \"clipvalue\": 1.2}}");

    step(&t, (float[]){3, 0, -4}); /* norm 5: halved, then cut */
    CHECK_FLOATS(runner_floats(t.r, t.w), ((float[]){-1.2f, 0, 1.2f}), N, 1e-6);
}

TEST(clipnorm_is_per_weight_and_leaves_small_gradients_alone)
{
    CLEAN(bench_done)
    struct bench t = bench_make("{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": 1, \"clipnorm\": 1}}");

    step(&t, (float[]){3, 4, 0.5f});
    CHECK_FLOATS(runner_floats(t.r, t.w), ((float[]){-0.6f, -0.8f, -0.5f}), N, 1e-6);
}

TEST(weight_decay_shrinks_the_weights_before_the_step)
{
    CLEAN(bench_done)
    struct bench t = bench_make("{\"class_name\": \"SGD\", \"config\": {\"learning_rate\": 0.5, \"weight_decay\": 0.1}}");

    memcpy(runner_floats(t.r, t.w), (float[]){2, 0, -4}, N * sizeof(float));
    step(&t, (float[]){1, 0, 0});
    CHECK_FLOATS(runner_floats(t.r, t.w), ((float[]){2 - 0.1f - 0.5f, 0, -3.8f}), N, 1e-6);
}

TEST(adam_goes_on_from_the_number_of_updates_that_it_is_given)
{
    CLEAN(bench_done) struct bench t = bench_make("{\"class_name\": \"Adam\", \"config\": {\"learning_rate\": 0.1}}");
    double m = 0.1 * 2, v = 0.001 * 4, w = 0, rate;

    *(int64_t *)runner_floats(t.r, t.updates) = 4;
    step(&t, (float[]){2, 2, 2});
    rate = 0.1 * sqrt(1 - pow(0.999, 5)) / (1 - pow(0.9, 5));
    w -= rate * m / (sqrt(v) + 1e-7);
    CHECK_NEAR((double)runner_floats(t.r, t.w)[1], w, 1e-4);
}
