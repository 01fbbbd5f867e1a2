/* compile(), fit(), evaluate() and predict() from JSON: what is read, what is the default, what is refused and where. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run/request.h"
#include "tests/test.h"

static const char mlp[] = "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"m\",\"layers\":["
                          "{\"class_name\":\"InputLayer\",\"config\":{\"name\":\"in\",\"batch_shape\":[null,4]}},"
                          "{\"class_name\":\"Dense\",\"config\":{\"name\":\"d\",\"units\":3,\"activation\":\"softmax\"}}]}}";
static const char mlp_keras1[] =
    "{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":["
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"d\",\"batch_input_shape\":[null,4],\"output_dim\":3}}]}";
#define TWO(extra)                                                                                                             \
    "{" extra "\"class_name\":\"Functional\",\"config\":{\"name\":\"m\",\"layers\":["                                          \
    "{\"class_name\":\"InputLayer\",\"name\":\"a\",\"config\":{\"name\":\"a\",\"batch_shape\":[null,4]},\"inbound_nodes\":[]}" \
    ","                                                                                                                        \
    "{\"class_name\":\"InputLayer\",\"name\":\"b\",\"config\":{\"name\":\"b\",\"batch_shape\":[null,4]},\"inbound_nodes\":[]}" \
    ","                                                                                                                        \
    "{\"class_name\":\"Dense\",\"name\":\"p\",\"config\":{\"name\":\"p\",\"units\":3},\"inbound_nodes\":[[[\"a\",0,0,{}]]]},"  \
    "{\"class_name\":\"Dense\",\"name\":\"q\",\"config\":{\"name\":\"q\",\"units\":1},\"inbound_nodes\":[[[\"b\",0,0,{}]]]}]," \
    "\"input_layers\":[[\"a\",0,0],[\"b\",0,0]],\"output_layers\":[[\"p\",0,0],[\"q\",0,0]]}}"
static const char two[] = TWO("\"module\":\"keras\","), two_keras2[] = TWO("\"keras_version\":\"2.12.0\",");

struct fixture {
    struct model *m;
    struct arena *mem;
    struct json *document;
    struct compile_spec *c;
    struct fit_spec *f;
    struct problem problem;
};

static struct json *parsed(const char *text)
{
    struct problem problem;
    struct json *j = NULL;

    CHECK_OK(json_parse(text, strlen(text), NULL, 0, &j, &problem));
    return j;
}

static struct fixture fixture_make(const char *architecture)
{
    struct fixture x = {.mem = arena_new()};
    struct problem problem;
    OWNED(json_free) struct json *j = parsed(architecture);

    CHECK_OK(model_parse(j, "", &x.m, &problem));
    return x;
}

static void fixture_clear(struct fixture *x)
{
    compile_spec_done(x->c);
    fit_spec_done(x->f);
    x->c = NULL;
    x->f = NULL;
    x->document = json_free(x->document);
    x->problem = (struct problem){0};
}

static void fixture_done(struct fixture *x)
{
    fixture_clear(x);
    model_free(x->m);
    arena_free(x->mem);
}

static enum status compiled(struct fixture *x, const char *text)
{
    fixture_clear(x);
    x->document = parsed(text);
    return compile_parse(x->document, "/compile", x->m, x->mem, &x->c, &x->problem);
}

static enum status read_as(struct fixture *x, const char *type, const char *text)
{
    char pointer[16];

    fixture_clear(x);
    x->document = parsed(text);
    snprintf(pointer, sizeof pointer, "/%s", type);
    return fit_parse(x->document, pointer, type, x->m, x->mem, &x->f, &x->problem);
}

#define READ_OK(call)                                              \
    do {                                                           \
        if ((call) != ST_OK)                                       \
            fail_msg("%s: %s", x.problem.where, x.problem.detail); \
    } while (0)

TEST(compile_reads_optimizer_loss_and_metrics)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(compiled(&x, "{\"optimizer\":{\"class_name\":\"Adam\",\"config\":{\"learning_rate\":0.01}},\"loss\":\"mse\","
                         "\"metrics\":[\"accuracy\",\"mae\"]}"));

    CHECK_TEXT(x.c->optimizer.type->keras, "Adam");
    CHECK_NEAR(x.c->optimizer.common.learning_rate, 0.01, 1e-12);
    CHECK_TEXT(x.c->output[0].loss->keras, "MeanSquaredError");
    CHECK_NEAR(x.c->output[0].loss_weight, 1, 0);
    CHECK_INT(x.c->output[0].n_metrics, 2);
    CHECK_TEXT(json_text(x.c->output[0].metrics[1]), "mae");
    CHECK_TEXT(x.c->output[0].metric_pointers[1], "/compile/metrics/1");
    CHECK_TEXT(x.c->text, "{\"optimizer\":{\"config\":{\"learning_rate\":0.01,\"epsilon\":1e-07},\"class_name\":\"Adam\"},"
                          "\"loss\":\"mean_squared_error\",\"loss_weights\":null,\"metrics\":[\"accuracy\",\"mae\"],"
                          "\"weighted_metrics\":null}");
}

TEST(compile_takes_rmsprop_when_no_optimizer_is_named)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(compiled(&x, "{\"loss\":\"mse\"}"));
    CHECK_TEXT(x.c->optimizer.type->keras, "RMSprop");
    CHECK_NEAR(x.c->optimizer.common.learning_rate, 0.001, 1e-12);
}

TEST(compile_keeps_the_defaults_of_keras_1)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp_keras1);

    READ_OK(compiled(&x, "{\"optimizer\":{\"class_name\":\"RMSprop\",\"config\":{\"lr\":0.002,\"clipnorm\":1.5}},"
                         "\"loss\":\"mse\"}"));
    CHECK_NEAR(x.c->optimizer.common.learning_rate, 0.002, 1e-12);
    CHECK_NEAR(x.c->optimizer.common.global_clipnorm, 1.5, 1e-12);
    CHECK_CONTAINS(x.c->text, "\"keras1_epsilon\":true");
    CHECK_CONTAINS(x.c->text, "\"epsilon\":1e-08");
}

TEST(a_canonical_compile_reads_as_itself)
{
    static const char *const models[] = {mlp, mlp_keras1, two, two_keras2};

    for (size_t i = 0; i < COUNT(models); i++) {
        CLEAN(fixture_done) struct fixture x = fixture_make(models[i]);

        READ_OK(compiled(&x, "{\"optimizer\":\"adagrad\",\"loss\":\"mse\",\"weighted_metrics\":\"mae\"}"));
        OWNED(free) char *first = must_text(x.c->text);
        READ_OK(compiled(&x, first));
        CHECK_TEXT(x.c->text, first);
    }
}

TEST(losses_go_to_outputs_by_order_or_name)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(two);

    READ_OK(compiled(&x, "{\"loss\":[\"categorical_crossentropy\",{\"class_name\":\"BinaryCrossentropy\",\"config\":"
                         "{\"from_logits\":true}}],\"loss_weights\":{\"q\":0.5},\"metrics\":{\"q\":[\"accuracy\"]}}"));
    CHECK_TEXT(x.c->output[0].loss->keras, "CategoricalCrossentropy");
    CHECK_TEXT(x.c->output[1].loss->keras, "BinaryCrossentropy");
    CHECK_NEAR(x.c->output[0].loss_weight, 1, 0);
    CHECK_NEAR(x.c->output[1].loss_weight, 0.5, 0);
    CHECK_INT(x.c->output[0].n_metrics, 0);
    CHECK_INT(x.c->output[1].n_metrics, 1);
    CHECK_TEXT(x.c->output[1].metric_pointers[0], "/compile/metrics/q/0");
    CHECK_CONTAINS(x.c->text, "\"loss\":[\"categorical_crossentropy\",{\"class_name\":\"BinaryCrossentropy\"");

    READ_OK(compiled(&x, "{\"loss\":{\"q\":\"mse\"}}"));
    CHECK(x.c->output[0].loss == NULL);
    CHECK_TEXT(x.c->output[1].loss->keras, "MeanSquaredError");
}

TEST(a_list_of_metrics_is_for_every_output_before_keras_3)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(two_keras2);

    READ_OK(compiled(&x, "{\"loss\":\"mse\",\"metrics\":[\"accuracy\"]}"));
    CHECK_INT(x.c->output[0].n_metrics, 1);
    CHECK_INT(x.c->output[1].n_metrics, 1);
    READ_OK(compiled(&x, "{\"loss\":\"mse\",\"metrics\":[[\"accuracy\",\"mae\"],[]]}"));
    CHECK_INT(x.c->output[0].n_metrics, 2);
    CHECK_INT(x.c->output[1].n_metrics, 0);
}

struct refusal {
    const char *text;
    enum status status;
    const char *where, *detail;
};

static void check_refusals(const char *architecture, const char *type, const struct refusal *rows, size_t n)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(architecture);

    for (size_t i = 0; i < n; i++) {
        enum status s = !strcmp(type, "compile") ? compiled(&x, rows[i].text) : read_as(&x, type, rows[i].text);
        if (s != rows[i].status || strcmp(x.problem.where, rows[i].where) != 0 || !strstr(x.problem.detail, rows[i].detail))
            fail_msg("%s\n gives %s at %s: %s\n wanted %s at %s: %s", rows[i].text, status_name(s), x.problem.where,
                     x.problem.detail, status_name(rows[i].status), rows[i].where, rows[i].detail);
    }
}

TEST(compile_refuses_with_a_pointer)
{
    static const struct refusal rows[] = {
        {"[]", ST_INVALID, "/compile", "an object"},
        {"{}", ST_INVALID, "/compile", "a loss is needed"},
        {"{\"loss\":null}", ST_INVALID, "/compile", "a loss is needed"},
        {"{\"loss\":\"mse\",\"optimiser\":\"sgd\"}", ST_INVALID, "/compile/optimiser", "optimizer"},
        {"{\"loss\":\"huber\"}", ST_UNSUPPORTED, "/compile/loss", "huber"},
        {"{\"loss\":7}", ST_INVALID, "/compile/loss", "a number"},
        {"{\"loss\":[\"mse\",\"mse\"]}", ST_INVALID, "/compile/loss", "has 2 entries, the model has 1 output"},
        {"{\"loss\":{\"e\":\"mse\"}}", ST_INVALID, "/compile/loss/e", "no output \"e\""},
        {"{\"loss\":\"mse\",\"optimizer\":\"lamb\"}", ST_UNSUPPORTED, "/compile/optimizer", "lamb"},
        {"{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"config\":{\"momentun\":0.9}}}", ST_INVALID,
         "/compile/optimizer/config/momentun", "momentum"},
        {"{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"config\":{\"learning_rate\":\"fast\"}}}", ST_INVALID,
         "/compile/optimizer/config/learning_rate", "number"},
        {"{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"confg\":{}}}", ST_INVALID, "/compile/optimizer/confg",
         "unknown key"},
        {"{\"loss\":\"mse\",\"optimizer\":7}", ST_INVALID, "/compile/optimizer", "a number"},
        {"{\"loss\":\"mse\",\"metrics\":[\"auc\"]}", ST_UNSUPPORTED, "/compile/metrics/0", "auc"},
        {"{\"loss\":\"mse\",\"metrics\":[3]}", ST_INVALID, "/compile/metrics/0", "a number"},
        {"{\"loss\":\"mse\",\"loss_weights\":[\"a\"]}", ST_INVALID, "/compile/loss_weights/0", "a text"},
        {"{\"loss\":\"mse\",\"loss_weights\":[1,2]}", ST_INVALID, "/compile/loss_weights", "2 entries"},
        {"{\"loss\":\"mse\",\"jit_compile\":true}", ST_UNSUPPORTED, "/compile/jit_compile", "jit_compile"},
        {"{\"loss\":\"mse\",\"run_eagerly\":true}", ST_UNSUPPORTED, "/compile/run_eagerly", "run_eagerly"},
        {"{\"loss\":\"mse\",\"steps_per_execution\":4}", ST_UNSUPPORTED, "/compile/steps_per_execution", "4"},
    };

    check_refusals(mlp, "compile", rows, COUNT(rows));
}

TEST(an_old_optimizer_key_is_named_as_it_was_written)
{
    static const struct refusal rows[] = {
        {"{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"config\":{\"lr\":-1}}}", ST_INVALID,
         "/compile/optimizer/config/lr", "number"},
        {"{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"config\":{\"lr\":1,\"learning_rate\":1}}}", ST_INVALID,
         "/compile/optimizer/config/lr", "mean the same"},
    };

    check_refusals(mlp_keras1, "compile", rows, COUNT(rows));
}

TEST(switches_of_keras_at_their_defaults_are_accepted)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(compiled(&x, "{\"loss\":\"mse\",\"run_eagerly\":false,\"jit_compile\":\"auto\",\"steps_per_execution\":1,"
                         "\"auto_scale_loss\":true,\"loss_weights\":null,\"metrics\":null,\"weighted_metrics\":null}"));
}

TEST(fit_has_the_defaults_of_its_keras)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp), old = fixture_make(mlp_keras1);

    READ_OK(read_as(&x, "fit", "{\"x\":\"mnist/x\",\"y\":\"mnist/y\"}"));
    CHECK_INT(x.f->batch_size, 32);
    CHECK_INT(x.f->epochs, 1);
    CHECK_INT(x.f->initial_epoch, 0);
    CHECK(x.f->shuffle);
    CHECK(!x.f->has_validation);
    CHECK_INT(x.f->data.n_x, 1);
    CHECK_INT(x.f->data.n_y, 1);
    CHECK_INT(x.f->data.n_w, 0);
    CHECK_TEXT(json_text(x.f->data.x[0]), "mnist/x");
    CHECK_TEXT(x.f->data.y_pointer[0], "/fit/y");
    CHECK_INT(read_as(&old, "fit", "{\"x\":\"mnist/x\",\"y\":\"mnist/y\"}"), ST_OK);
    CHECK_INT(old.f->epochs, 10);
    CHECK_INT(read_as(&old, "fit", "{\"x\":\"mnist/x\",\"y\":\"mnist/y\",\"nb_epoch\":3}"), ST_OK);
    CHECK_INT(old.f->epochs, 3);
}

TEST(fit_reads_all_its_arguments)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(read_as(&x, "fit",
                    "{\"x\":[[1,2,3,4],[5,6,7,8]],\"y\":[[1,0,0],[0,1,0]],\"batch_size\":2,\"epochs\":5,\"initial_epoch\":2,"
                    "\"shuffle\":false,\"validation_split\":0.5,\"class_weight\":{\"0\":1,\"2\":2.5},\"verbose\":1,"
                    "\"validation_freq\":2,\"validation_batch_size\":7}"));
    CHECK_INT(x.f->batch_size, 2);
    CHECK_INT(x.f->validation_batch_size, 7);
    CHECK_INT(x.f->validation_freq, 2);
    CHECK_INT(x.f->epochs, 5);
    CHECK_INT(x.f->initial_epoch, 2);
    CHECK(!x.f->shuffle);
    CHECK_NEAR(x.f->validation_split, 0.5, 0);
    CHECK_INT(x.f->n_class_weights, 2);
    CHECK_INT(x.f->class_ids[1], 2);
    CHECK_NEAR(x.f->class_weights[1], 2.5, 0);
    CHECK_INT(json_type(x.f->data.x[0]), JSON_ARRAY);

    READ_OK(read_as(&x, "fit",
                    "{\"x\":[\"s/x\"],\"y\":{\"d\":\"s/y\"},\"sample_weight\":\"s/w\",\"validation_split\":0.5,"
                    "\"validation_data\":[\"s/vx\",\"s/vy\",\"s/vw\"]}"));
    CHECK_TEXT(json_text(x.f->data.x[0]), "s/x");
    CHECK_TEXT(x.f->data.x_pointer[0], "/fit/x/0");
    CHECK_TEXT(x.f->data.y_pointer[0], "/fit/y/d");
    CHECK_INT(x.f->data.n_w, 1);
    CHECK(x.f->has_validation);
    CHECK_NEAR(x.f->validation_split, 0, 0);
    CHECK_TEXT(json_text(x.f->validation.w[0]), "s/vw");
    CHECK_TEXT(x.f->validation.x_pointer[0], "/fit/validation_data/0");

    READ_OK(read_as(&x, "fit", "{\"x\":\"s/x\",\"y\":\"s/y\",\"class_weight\":[1,2,3]}"));
    CHECK_INT(x.f->class_ids[2], 2);
}

TEST(several_inputs_and_outputs_come_as_lists_or_objects)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(two);

    READ_OK(read_as(&x, "fit",
                    "{\"x\":{\"b\":\"s/b\",\"a\":\"s/a\"},\"y\":[\"s/p\",\"s/q\"],\"sample_weight\":{\"q\":\"s/w\"},"
                    "\"validation_data\":{\"x\":[\"s/va\",\"s/vb\"],\"y\":{\"p\":\"s/vp\",\"q\":\"s/vq\"}}}"));
    CHECK_TEXT(json_text(x.f->data.x[0]), "s/a");
    CHECK_TEXT(json_text(x.f->data.x[1]), "s/b");
    CHECK_TEXT(json_text(x.f->data.y[1]), "s/q");
    CHECK_INT(x.f->data.n_w, 2);
    CHECK(x.f->data.w[0] == NULL);
    CHECK_TEXT(json_text(x.f->data.w[1]), "s/w");
    CHECK_TEXT(json_text(x.f->validation.x[1]), "s/vb");
    CHECK_TEXT(x.f->validation.y_pointer[1], "/fit/validation_data/y/q");
}

TEST(fit_reads_callbacks_and_preprocess)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(
        read_as(&x, "fit",
                "{\"x\":\"s/x\",\"y\":\"s/y\",\"callbacks\":[{\"class_name\":\"EarlyStopping\",\"config\":{\"monitor\":"
                "\"val_loss\",\"patience\":2}},\"TerminateOnNaN\"],\"preprocess\":[{\"class_name\":\"Rescaling\",\"config\":"
                "{\"scale\":0.5}},{\"class_name\":\"Flatten\"}]}"));
    CHECK_INT(x.f->n_callbacks, 2);
    CHECK_TEXT(x.f->callbacks[1].type->keras, "TerminateOnNaN");
    CHECK_INT(x.f->n_prepare, 1);
    CHECK_INT(x.f->prepare[0]->n_layers, 2);
    CHECK_TEXT(x.f->prepare[0]->layers[1].type->keras, "Flatten");
    READ_OK(read_as(&x, "fit", "{\"x\":\"s/x\",\"y\":\"s/y\",\"preprocess\":{\"in\":[{\"class_name\":\"Flatten\"}]}}"));
    CHECK_INT(x.f->prepare[0]->n_layers, 1);
}

TEST(evaluate_and_predict_have_fewer_arguments)
{
    CLEAN(fixture_done) struct fixture x = fixture_make(mlp);

    READ_OK(read_as(&x, "evaluate",
                    "{\"x\":\"s/x\",\"y\":\"s/y\",\"batch_size\":8,\"sample_weight\":\"s/w\",\"return_dict\":true}"));
    CHECK_INT(x.f->batch_size, 8);
    CHECK_INT(x.f->data.n_w, 1);
    READ_OK(read_as(&x, "predict", "{\"x\":\"s/x\"}"));
    CHECK_INT(x.f->data.n_y, 0);
    CHECK_INT(read_as(&x, "predict", "{\"x\":\"s/x\",\"y\":\"s/y\"}"), ST_INVALID);
    CHECK_TEXT(x.problem.where, "/predict/y");
    CHECK_INT(read_as(&x, "evaluate", "{\"x\":\"s/x\"}"), ST_INVALID);
    CHECK_TEXT(x.problem.where, "/evaluate/y");
}

#define XY "\"x\":\"s/x\",\"y\":\"s/y\","
TEST(fit_refuses_with_a_pointer)
{
    static const struct refusal rows[] = {
        {"3", ST_INVALID, "/fit", "an object"},
        {"{\"y\":\"s/y\"}", ST_INVALID, "/fit/x", "missing"},
        {"{\"x\":\"s/x\"}", ST_INVALID, "/fit/y", "missing"},
        {"{\"x\":7,\"y\":\"s/y\"}", ST_INVALID, "/fit/x", "a number"},
        {"{\"x\":[],\"y\":\"s/y\"}", ST_INVALID, "/fit/x", "empty"},
        {"{\"x\":\"nowhere\",\"y\":\"s/y\"}", ST_INVALID, "/fit/x", "dataset/array"},
        {"{\"x\":[\"s/a\",\"s/b\"],\"y\":\"s/y\"}", ST_INVALID, "/fit/x", "has 2 entries, the model has 1 input: \"in\""},
        {"{\"x\":{\"inn\":\"s/a\"},\"y\":\"s/y\"}", ST_INVALID, "/fit/x/inn", "its inputs are \"in\""},
        {"{" XY "\"epochs\":0}", ST_INVALID, "/fit/epochs", "0"},
        {"{" XY "\"epochs\":2,\"nb_epoch\":2}", ST_INVALID, "/fit/nb_epoch", "mean the same"},
        {"{" XY "\"epochs\":2,\"initial_epoch\":2}", ST_INVALID, "/fit/initial_epoch", "less than epochs (2)"},
        {"{" XY "\"initial_epoch\":-1}", ST_INVALID, "/fit/initial_epoch", "-1"},
        {"{" XY "\"batch_size\":0}", ST_INVALID, "/fit/batch_size", "0"},
        {"{" XY "\"batch_size\":1048577}", ST_INVALID, "/fit/batch_size", "1048577"},
        {"{" XY "\"batch_size\":1.5}", ST_INVALID, "/fit/batch_size", "1.5"},
        {"{" XY "\"batchsize\":1}", ST_INVALID, "/fit/batchsize", "batch_size"},
        {"{" XY "\"shuffle\":\"batch\"}", ST_UNSUPPORTED, "/fit/shuffle", "batch"},
        {"{" XY "\"shuffle\":1}", ST_INVALID, "/fit/shuffle", "a number"},
        {"{" XY "\"validation_split\":1}", ST_INVALID, "/fit/validation_split", "less than 1"},
        {"{" XY "\"validation_split\":-0.1}", ST_INVALID, "/fit/validation_split", "-0.1"},
        {"{" XY "\"validation_data\":\"s/v\"}", ST_INVALID, "/fit/validation_data", "[x, y]"},
        {"{" XY "\"validation_data\":[\"s/v\"]}", ST_INVALID, "/fit/validation_data", "1 entries"},
        {"{" XY "\"validation_data\":{\"x\":\"s/v\"}}", ST_INVALID, "/fit/validation_data/y", "missing"},
        {"{" XY "\"validation_data\":{\"x\":\"s/v\",\"z\":1}}", ST_INVALID, "/fit/validation_data/z", "unknown key"},
        {"{" XY "\"validation_freq\":[1,2]}", ST_UNSUPPORTED, "/fit/validation_freq", "list"},
        {"{" XY "\"class_weight\":{\"one\":1}}", ST_INVALID, "/fit/class_weight/one", "no class number"},
        {"{" XY "\"class_weight\":{\"1\":-1}}", ST_INVALID, "/fit/class_weight/1", "out of range"},
        {"{" XY "\"class_weight\":[1,\"a\"]}", ST_INVALID, "/fit/class_weight/1", "a text"},
        {"{" XY "\"class_weight\":{\"1\":1},\"sample_weight\":\"s/w\"}", ST_INVALID, "/fit/class_weight", "not both"},
        {"{" XY "\"steps_per_epoch\":5}", ST_UNSUPPORTED, "/fit/steps_per_epoch", "steps_per_epoch"},
        {"{" XY "\"callbacks\":{}}", ST_INVALID, "/fit/callbacks", "an array"},
        {"{" XY "\"callbacks\":[\"TensorBoard\"]}", ST_UNSUPPORTED, "/fit/callbacks/0", "TensorBoard"},
        {"{" XY "\"callbacks\":[{\"class_name\":\"EarlyStopping\",\"config\":{\"patients\":1}}]}", ST_INVALID,
         "/fit/callbacks/0/config/patients", "patience"},
        {"{" XY "\"preprocess\":[{\"class_name\":\"Rescaling\",\"config\":{\"skale\":1}}]}", ST_INVALID,
         "/fit/preprocess/0/config/skale", "skale"},
        {"{" XY "\"preprocess\":{\"z\":[]}}", ST_INVALID, "/fit/preprocess/z", "no input \"z\""},
        {"{" XY "\"preprocess\":[{\"class_name\":\"Lambda\",\"config\":{}}]}", ST_UNSUPPORTED, "/fit/preprocess/0", "Lambda"},
    };

    check_refusals(mlp, "fit", rows, COUNT(rows));
}
