/* Keras' .h5 files: those that Keras and make_data.py wrote are read right, ours come back with the same bits.
 *
 * HORN_H5_OUT=folder also leaves the written files there, for tests/interop/test_keras_files.py to open with Keras;
 * HORN_H5_IN=folder reads more files of make_data.py's kind. Pattern values are a function of a tag ("dense/kernel") and the
 * index, so that the other side can work them out. */
#include "storage/keras_h5.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/run/request.h"
#include "tests/storage/models.h"
#include "tests/storage/scratch.h"
#include "tests/test.h"

/* --- files of make_data.py
 * ---------------------------------------------------------------------------------------------------- */

static void check_sums(const char *file, const char *what, const struct json *want, const float *x, int64_t n)
{
    double sum = 0, weighted = 0, size = 1e-30;

    if (!want)
        fail_msg("%s: %s is not among the expected", file, what);
    for (int64_t i = 0; i < n; i++) {
        sum += x[i];
        weighted += (double)(i + 1) * x[i];
        size += (double)(i + 1) * fabs(x[i]);
    }
    if (!(fabs(sum - json_number(json_at(want, 0))) <= 1e-12 * size) ||
        !(fabs(weighted - json_number(json_at(want, 1))) <= 1e-12 * size))
        fail_msg("%s: %s has the sums %.9g, %.9g, it must have %.9g, %.9g", file, what, sum, weighted,
                 json_number(json_at(want, 0)), json_number(json_at(want, 1)));
}

static void check_weights(const char *file, struct built *b, struct h5 *f, const struct json *want)
{
    struct problem problem;

    CHECK_OK(keras_h5_read_weights(f, b->model, b->layout, b->weights, &problem));
    for (int i = 0; i < b->layout->n; i++) {
        const struct weight_entry *e = &b->layout->entry[i];
        check_sums(file, e->path, json_get(want, e->path), (float *)((char *)b->weights + e->offset), shape_count(&e->shape));
    }
    CHECK_INT(b->layout->n, json_count(want));
}

static void check_slots(const char *file, struct built *b, struct h5 *f, const struct json *want)
{
    const struct optimizer_spec *o = &b->compile->optimizer;
    struct problem problem;
    char note[256];
    int64_t updates = -1, iterations = 0;
    double rate = -1;
    bool found;

    built_slots(b);
    CHECK_OK(keras_h5_read_optimizer(f, b->model, b->layout, o, b->slots, &updates, &rate, &found, note, &problem));
    if (json_get(want, "note")) {
        CHECK(!found);
        CHECK_CONTAINS(note, json_text(json_get(want, "note")));
        return;
    }
    if (!json_get(want, "slots"))
        return;
    if (!found)
        fail_msg("%s: the optimizer state was not found: %s", file, note);
    CHECK(json_int(json_get(want, "iterations"), &iterations));
    CHECK_INT(updates, iterations);
    CHECK_NEAR(rate, json_number(json_get(want, "rate")), 1e-12);
    CHECK_NEAR(o->common.learning_rate, rate, 1e-7);
    int n = 0;
    for (int k = 0; k < o->n_slots; k++)
        for (int i = 0; i < b->layout->n; i++) {
            const struct weight_entry *e = &b->layout->entry[i];
            char path[300];
            if (!e->trainable)
                continue;
            snprintf(path, sizeof path, "%s/%s", e->path, o->type->slots[o->slot[k]].name);
            check_sums(file, path, json_get(json_get(want, "slots"), path),
                       (float *)((char *)b->slots + (size_t)k * b->layout->trainable_bytes + e->offset),
                       shape_count(&e->shape));
            n++;
        }
    CHECK_INT(n, json_count(json_get(want, "slots")));
}

static void check_file(const char *folder, const char *name)
{
    char path[400];
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem;
    struct keras_h5 k;

    snprintf(path, sizeof path, "%s/%s.json", folder, name);
    OWNED(json_free) struct json *want = json_of_file(path);
    snprintf(path, sizeof path, "%s/%s.h5", folder, name);
    CHECK_OK(h5_open(path, name, &f, &problem));
    CHECK_OK(keras_h5_describe(f, mem, &k, &problem));
    CHECK(k.architecture);
    CLEAN(built_done) struct built b = built_make(k.architecture);
    if (json_get(want, "dialect"))
        CHECK_TEXT(dialect_name(b.model->dialect), json_text(json_get(want, "dialect")));
    check_weights(name, &b, f, json_get(want, "weights"));
    if (!k.training) {
        CHECK(!json_get(want, "slots"));
        return;
    }
    OWNED(json_free) struct json *compile = NULL;
    CHECK_OK(keras_h5_compile(&k, &compile, &problem));
    built_compile(&b, compile);
    check_slots(name, &b, f, want);
}

static int check_folder(const char *folder)
{
    DIR *d = opendir(folder);
    struct dirent *e;
    int n = 0;

    if (!d)
        fail_msg("%s cannot be opened: run from the root of the repository", folder);
    while ((e = readdir(d))) {
        char name[256];
        size_t length = strlen(e->d_name);
        if (length < 4 || strcmp(e->d_name + length - 3, ".h5") != 0)
            continue;
        snprintf(name, sizeof name, "%.*s", (int)length - 3, e->d_name);
        check_file(folder, name);
        n++;
    }
    closedir(d);
    return n;
}

TEST(files_of_keras_1_2_and_3_are_read_with_weights_compile_and_optimizer_state)
{
    CHECK(check_folder("tests/storage/data") >= 5);
    if (getenv("HORN_H5_IN"))
        CHECK(check_folder(getenv("HORN_H5_IN")) >= 1);
}

/* --- our own
 * -------------------------------------------------------------------------------------------------------------------- */

#define MSE "\"loss\":\"mean_squared_error\""
static const char *const compiles[] = {
    "{\"optimizer\":\"sgd\"," MSE "}",
    "{\"optimizer\":{\"class_name\":\"SGD\",\"config\":{\"learning_rate\":0.05,\"momentum\":0.9,\"nesterov\":true}}," MSE
    ",\"metrics\":[\"mae\"]}",
    "{\"optimizer\":{\"class_name\":\"RMSprop\",\"config\":{\"learning_rate\":0.002}},\"loss\":\"mse\",\"metrics\":["
    "\"accuracy\"]}",
    "{\"optimizer\":{\"class_name\":\"RMSprop\",\"config\":{\"momentum\":0.5,\"centered\":true,\"clipvalue\":0.5}}," MSE "}",
    "{\"optimizer\":\"adam\"," MSE "}",
    "{\"optimizer\":{\"class_name\":\"Adam\",\"config\":{\"amsgrad\":true,\"clipnorm\":1.0}},"
    "\"loss\":{\"class_name\":\"MeanSquaredError\",\"config\":{}}}",
    "{\"optimizer\":{\"class_name\":\"Adagrad\",\"config\":{\"learning_rate\":0.01}}," MSE "}",
};

#define DENSE(name, units, ...) \
    "{\"class_name\":\"Dense\",\"name\":\"" name "\",\"config\":{\"name\":\"" name "\",\"units\":" units "}" __VA_ARGS__ "}"
#define FROM_1(layer) ",\"inbound_nodes\":[[[\"" layer "\",0,0,{}]]]"
#define INPUT(name)                                                                     \
    "{\"class_name\":\"InputLayer\",\"name\":\"" name "\",\"config\":{\"name\":\"" name \
    "\",\"batch_shape\":[null,4]},\"inbound_nodes\":[]}"

/* Documents that Keras would print with their layers in another order, or would not read as they are. */
static const struct {
    const char *name, *json;
} own_models[] = {
    /* Keras lists deep_1 and deep_2 first, and flat, which the last sum reads first, after them. All kernels have one shape. */
    {"unordered",
     "{\"class_name\":\"Functional\",\"config\":{\"name\":\"m\",\"layers\":[" DENSE("flat", "4", FROM_1("in")) "," DENSE(
         "deep_2", "4",
         FROM_1(
             "deep_1")) "," DENSE("late", "4",
                                  FROM_1(
                                      "sum")) "," INPUT("in") ","
                                                              "{\"class_name\":\"Add\",\"name\":\"sum\",\"config\":{\"name\":"
                                                              "\"sum\"},\"inbound_nodes\":[[[\"flat\",0,0,{}],"
                                                              "[\"deep_2\",0,0,{}]]]}," DENSE(
                                                                  "deep_1", "4",
                                                                  FROM_1(
                                                                      "in")) "," DENSE("unused", "4",
                                                                                       FROM_1(
                                                                                           "in")) "],\"input_layers\":[[\"in\","
                                                                                                  "0,0]],\"output_layers\":[["
                                                                                                  "\"late\",0,0]]}}"},
    {"frozen",
     "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"m\",\"layers\":[" INPUT(
         "in") ","
               "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"inner\",\"trainable\":false,\"layers\":[" DENSE(
                   "still",
                   "4") ",{\"class_name\":\"BatchNormalization\",\"config\":{\"name\":\"norm\"}}]}}," DENSE("moving",
                                                                                                            "2") "]}}"},
    {"no_input",
     "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"m\",\"layers\":[{\"class_name\":\"Flatten\",\"config\":{}}," DENSE(
         "input_layer", "3") "," DENSE("last", "2") "]}}"},
};

/* The document of that name, as text on the heap. */
static char *architecture_of(const char *model)
{
    char source[300];

    for (size_t i = 0; i < COUNT(own_models); i++)
        if (!strcmp(own_models[i].name, model))
            return must_text(own_models[i].json);
    snprintf(source, sizeof source, "tests/model/json/%s.json", model);
    OWNED(json_free) struct json *architecture = json_of_file(source);
    return json_print(architecture, JSON_NAN);
}

static void written_file(const char *folder, const char *model, int optimizer, char path[400])
{
    struct problem problem;
    OWNED(free) char *text = architecture_of(model);
    CLEAN(built_done) struct built b = built_make(text);
    OWNED(json_free) struct json *compile = json_of_text(compiles[optimizer]);
    built_compile(&b, compile);
    built_patterns(&b);
    struct snapshot now = built_snapshot(&b);
    snprintf(path, 400, "%s/%s-%d.h5", folder, model, optimizer);
    CHECK_OK(keras_h5_write(path, &now, false, false, &problem));
}

/* The file says all that the model and its compile() said, and holds every bit of weights and slots. */
static void check_written(const char *path)
{
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    OWNED(json_free) struct json *compile = NULL;
    struct problem problem;
    struct keras_h5 k;
    int64_t updates;
    double rate;
    bool found;
    char note[256];

    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK_OK(keras_h5_describe(f, mem, &k, &problem));
    CHECK_OK(keras_h5_compile(&k, &compile, &problem));
    CLEAN(built_done) struct built want = built_make(k.architecture), b = built_make(k.architecture);
    built_compile(&b, compile);
    built_compile(&want, compile);
    built_slots(&b);
    built_patterns(&want);
    CHECK_OK(keras_h5_read_weights(f, b.model, b.layout, b.weights, &problem));
    CHECK(memcmp(b.weights, want.weights, b.layout->bytes) == 0);
    CHECK_OK(
        keras_h5_read_optimizer(f, b.model, b.layout, &b.compile->optimizer, b.slots, &updates, &rate, &found, note, &problem));
    if (!found)
        fail_msg("%s: %s", path, note);
    CHECK_INT(updates, PATTERN_UPDATES);
    CHECK((float)rate == PATTERN_RATE);
    CHECK((float)b.compile->optimizer.common.learning_rate == PATTERN_RATE);
    CHECK(memcmp(b.slots, want.slots, (size_t)b.compile->optimizer.n_slots * b.layout->trainable_bytes) == 0);
}

static const struct {
    const char *model;
    int first, last; /* rows of compiles */
} written[] = {
    {"keras3_mlp", 0, 6},
    {"keras3_sequential_cnn_reduced", 4, 4},
    {"keras3_functional_nested", 5, 5},
    {"keras3_lstm", 1, 1},
    {"keras3_all_layers", 3, 3},
    {"keras3_initial_state", 6, 6},
    {"keras1_mlp", 2, 2},
    {"keras1_lstm", 4, 4},
    {"keras1_sequential_cnn", 6, 6},
    {"keras1_functional_nested", 3, 3},
    {"keras1_nested_sequential", 4, 4},
    {"keras1_merge_first", 4, 4},
    {"keras2_sequential_cnn", 2, 2},
    {"keras2_functional_nested", 5, 5},
    {"tf_keras_functional_lstm", 4, 4},
    {"tf_keras_sequential", 3, 3},
    {"keras3_dict_io", 4, 4},
    {"unordered", 5, 5},
    {"frozen", 4, 4},
    {"no_input", 1, 1},
};

TEST(what_is_written_is_read_with_the_same_bits_for_every_dialect_and_optimizer)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    const char *out = getenv("HORN_H5_OUT");
    char path[400];

    for (size_t i = 0; i < COUNT(written); i++)
        for (int o = written[i].first; o <= written[i].last; o++) {
            written_file(out ? out : s.folder, written[i].model, o, path);
            check_written(path);
        }
}

static void same_meaning(const char *model)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem;
    struct keras_h5 k;
    char path[400];
    OWNED(free) char *text = architecture_of(model);

    written_file(s.folder, model, 4, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK_OK(keras_h5_describe(f, mem, &k, &problem));
    CLEAN(built_done) struct built was = built_make(text), is = built_make(k.architecture);
    CHECK_INT(is.model->dialect, was.model->dialect);
    if (!json_same(is.model->canonical, was.model->canonical)) {
        OWNED(free) char *want = json_print(was.model->canonical, JSON_NAN), *got = json_print(is.model->canonical, JSON_NAN);
        CHECK_TEXT(got, want);
    }
}

TEST(a_model_of_any_version_comes_back_with_its_meaning)
{
    for (size_t i = 0; i < COUNT(written); i++)
        if (strcmp(written[i].model, "no_input") != 0 && strcmp(written[i].model, "frozen") != 0) /* say more than they did */
            same_meaning(written[i].model);
}

/* --- the rest of the contract
 * ---------------------------------------------------------------------------------------------------- */

static struct built own_model(const char *name, const char *compile)
{
    OWNED(free) char *text = architecture_of(name);
    struct built b = built_make(text);

    if (compile) {
        OWNED(json_free) struct json *j = json_of_text(compile);
        built_compile(&b, j);
    }
    built_patterns(&b);
    return b;
}

static void write_own(const struct scratch *s, const struct built *b, bool weights_only, char path[400])
{
    struct snapshot now = built_snapshot(b);
    struct problem problem;

    snprintf(path, 400, "%s/own.h5", s->folder);
    CHECK_OK(keras_h5_write(path, &now, weights_only, false, &problem));
}

TEST(groups_of_weights_stand_in_the_order_of_keras_not_of_the_document)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    CLEAN(built_done) struct built b = own_model("unordered", NULL);
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem;
    const char **names, *want[] = {"deep_1", "flat", "deep_2", "sum", "late"};
    char path[400];

    write_own(&s, &b, true, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK_INT(h5_texts(f, "/", "layer_names", mem, &names), COUNT(want));
    for (size_t i = 0; i < COUNT(want); i++)
        CHECK_TEXT(names[i], want[i]);
}

TEST(a_weights_only_file_has_its_groups_at_the_root_and_no_configuration)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    CLEAN(built_done) struct built b = own_model("frozen", compiles[4]);
    CLEAN(built_done) struct built other = own_model("frozen", NULL);
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    OWNED(json_free) struct json *compile = NULL;
    struct problem problem;
    struct keras_h5 k;
    char path[400];

    write_own(&s, &b, true, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK_OK(keras_h5_describe(f, mem, &k, &problem));
    CHECK(!k.architecture && !k.training);
    CHECK_INT(keras_h5_compile(&k, &compile, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "was not compiled");
    CHECK(!h5_exists(f, "/optimizer_weights") && h5_exists(f, "/inner/inner/still/kernel"));
    memset(other.weights, 1, other.layout->bytes);
    CHECK_OK(keras_h5_read_weights(f, other.model, other.layout, other.weights, &problem));
    CHECK(memcmp(other.weights, b.weights, b.layout->bytes) == 0);
}

static const struct {
    const char *architecture, *where, *detail;
} misfits[] = {
    {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" INPUT("in") "," DENSE("a", "5") "," DENSE("b", "2") "]}}", "a",
     "the weight \"kernel\" has the shape (6, 3) in the file, the model has (4, 5)"},
    {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" INPUT("in") "," DENSE("a", "5") "]}}", "layer_names",
     "the file has 2 layers with weights (the first is \"input_layer\"), the model has 1 (the first is \"a\")"},
    {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" INPUT(
         "in") ",{\"class_name\":\"BatchNormalization\",\"config\":{\"name\":\"n\"}}," DENSE("b", "2") "]}}",
     "n", "the layer has 4 weights, the file's group \"input_layer\" for it has 2 arrays"},
};

TEST(weights_that_do_not_fit_are_refused_with_the_layer_and_both_sides)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    CLEAN(built_done) struct built b = own_model("no_input", NULL);
    OWNED(h5_free) struct h5 *f = NULL;
    struct problem problem;
    char path[400];

    write_own(&s, &b, false, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    for (size_t i = 0; i < COUNT(misfits); i++) {
        CLEAN(built_done) struct built other = built_make(misfits[i].architecture);
        CHECK_INT(keras_h5_read_weights(f, other.model, other.layout, other.weights, &problem), ST_INVALID);
        CHECK_TEXT(problem.where, misfits[i].where);
        CHECK_TEXT(problem.detail, misfits[i].detail);
    }
}

TEST(layers_of_other_names_get_their_weights_by_order)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    CLEAN(built_done) struct built b = own_model("no_input", NULL);
    CLEAN(built_done)
    struct built other =
        built_make("{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" DENSE("x", "3") "," DENSE("y", "2") "]}}");
    OWNED(h5_free) struct h5 *f = NULL;
    struct problem problem;
    char path[400];

    write_own(&s, &b, false, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK_OK(keras_h5_read_weights(f, other.model, other.layout, other.weights, &problem));
    CHECK(memcmp(other.weights, b.weights, b.layout->bytes) == 0);
}

TEST(optimizer_state_of_another_optimizer_is_left_with_a_note)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    CLEAN(built_done) struct built b = own_model("no_input", compiles[1]);
    CLEAN(built_done) struct built adam = own_model("no_input", compiles[4]);
    OWNED(h5_free) struct h5 *f = NULL;
    struct problem problem;
    int64_t updates = -7;
    double rate = -7;
    bool found = true;
    char note[256], path[400];

    write_own(&s, &b, false, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    memset(adam.slots, 0, adam.slot_bytes);
    CHECK_OK(keras_h5_read_optimizer(f, adam.model, adam.layout, &adam.compile->optimizer, adam.slots, &updates, &rate, &found,
                                     note, &problem));
    CHECK(!found && updates == -7 && rate == -7);
    CHECK_CONTAINS(note,
                   "array 3 of the file's optimizer state has the shape (3,), the velocity of input_layer/kernel has (6, 3)");
    for (size_t i = 0; i < adam.slot_bytes; i++)
        CHECK(((char *)adam.slots)[i] == 0);
}

TEST(what_keras_3_cannot_say_stands_in_attributes_of_our_own)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(h5_free) struct h5 *f = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem;
    char path[400];

    written_file(s.folder, "keras1_lstm", 2, path);
    CHECK_OK(h5_open(path, path, &f, &problem));
    CHECK(!strstr(h5_text(f, "/", "model_config", mem), "keras1_"));
    CHECK_CONTAINS(h5_text(f, "/", "model_config", mem), "\"hard_sigmoid\"");
    CHECK_CONTAINS(h5_text(f, "/", "horn_model_config", mem), "\"horn_dialect\":\"Keras 1\"");
    CHECK_CONTAINS(h5_text(f, "/", "horn_model_config", mem), "keras1_hard_sigmoid");
    CHECK(!strstr(h5_text(f, "/", "training_config", mem), "keras1_"));
    CHECK_CONTAINS(h5_text(f, "/", "horn_training_config", mem), "\"keras1_epsilon\":true");
}
