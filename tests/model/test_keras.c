/* Documents of all four dialects become models, and malformed ones are refused with a pointer into them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/documents.h"
#include "tests/test.h"

/* "name(inputs) ..." of all calls: "shared(a) shared(b) cat(0 1)"; numbers are calls, with .i behind for outputs past the first. */
static void calls_text(const struct model *m, struct text *t)
{
    for (int i = 0; i < m->n_calls; i++) {
        const struct model_call *c = &m->calls[i];
        text_printf(t, "%s%s(", i ? " " : "", m->layers[c->layer].name);
        for (int k = 0; k < c->n_in; k++) {
            if (k)
                text_add_char(t, ' ');
            if (c->in[k].call < 0)
                text_add(t, m->inputs[c->in[k].index].name);
            else
                text_printf(t, c->in[k].index ? "%d.%d" : "%d", c->in[k].call, c->in[k].index);
        }
        text_add_char(t, ')');
    }
    text_add(t, " ->");
    for (int i = 0; i < m->n_outputs; i++)
        text_printf(t, m->outputs[i].call < 0 ? " %s input %d" : " %s %d", m->output_names[i],
                    m->outputs[i].call < 0 ? m->outputs[i].index : m->outputs[i].call);
}

TEST(documents_of_every_dialect_become_models)
{
    static const struct {
        const char *file;
        enum dialect dialect;
        const char *name, *calls, *input; /* first input */
        int n_layers;
    } rows[] = {
        {"keras1_mlp", DIALECT_KERAS_1, "sequential_1",
         "dense_1(dense_input_1) dropout_1(0) dense_2(1) dropout_2(2) dense_3(3) -> dense_3 4", "dense_input_1 (None, 784)", 5},
        {"keras1_sequential_cnn", DIALECT_KERAS_1, "sequential_1",
         "convolution2d_1(convolution2d_input_1) maxpooling2d_1(0) flatten_1(1) dense_1(2) dropout_1(3) dense_2(4) -> dense_2 "
         "5",
         "convolution2d_input_1 (None, 1, 28, 28)", 6},
        {"keras1_functional_nested", DIALECT_KERAS_1, "model_1",
         "shared(a) shared(b) inner/inner_d(0) inner/inner_d(1) cat(2 3) out(4) -> out 5", "a (None, 8)", 4},
        {"keras1_nested_sequential", DIALECT_KERAS_1, "model_1", "seqq/d1(x) seqq/d1(0) -> seqq 1", "x (None, 5)", 1},
        {"keras1_merge_first", DIALECT_KERAS_1, "sequential_1",
         "sequential_2/dense_1(dense_input_1) sequential_3/dense_2(dense_input_2) merge_1(0 1) dense_3(2) -> dense_3 3",
         "dense_input_1 (None, 8)", 4},
        {"keras1_lstm", DIALECT_KERAS_1, "sequential_1", "embedding_1(embedding_input_1) lstm_1(0) dense_1(1) -> dense_1 2",
         "embedding_input_1 (None, None)", 3},
        {"keras2_list_mlp", DIALECT_KERAS_2, "sequential_1", "dense_1(dense_1_input) dense_2(0) -> dense_2 1",
         "dense_1_input (None, 20)", 2},
        {"keras2_sequential_cnn", DIALECT_KERAS_2_3, "sequential_1",
         "conv2d_1(conv2d_1_input) max_pooling2d_1(0) flatten_1(1) dense_1(2) -> dense_1 3", "conv2d_1_input (None, 28, 28, 1)",
         4},
        {"keras2_functional_nested", DIALECT_KERAS_2_3, "model_1",
         "shared(a) shared(b) inner/inner_d(0) inner/inner_d(1) cat(2 3) out(4) -> out 5", "a (None, 8)", 4},
        {"tf_keras_sequential", DIALECT_TF_KERAS, "sequential", "dense(dense_input) dense_1(0) -> dense_1 1",
         "dense_input (None, 8)", 2},
        {"tf_keras_functional_lstm", DIALECT_TF_KERAS, "model", "lstm(q h c) dense(0) add(0 1) -> add 2", "q (None, 7, 3)", 3},
        {"keras3_mlp", DIALECT_KERAS_3, "mnist_mlp",
         "dense(input_layer) dropout(0) dense_1(1) dropout_1(2) dense_2(3) -> dense_2 4", "input_layer (None, 784)", 5},
        {"keras3_sequential_cnn_reduced", DIALECT_KERAS_3, "sequential",
         "conv2d(input_layer) max_pooling2d(0) flatten(1) dense(2) -> dense 3", "input_layer (None, 28, 28, 1)", 4},
        {"keras3_lstm", DIALECT_KERAS_3, "sequential", "embedding(input_layer) lstm(0) dense(1) -> dense 2",
         "input_layer (None, 80)", 3},
        {"keras3_initial_state", DIALECT_KERAS_3, "functional", "rnn(q h c) -> rnn 0", "q (None, 7, 3)", 1},
        {"keras3_dict_io", DIALECT_KERAS_3, "functional", "mul(b1 a1) -> mul 0", "a1 (None, 4)", 1},
        {"keras3_unbuilt", DIALECT_KERAS_3, "sequential", "dense(input_layer) dense_1(0) -> dense_1 1", "input_layer ?", 2},
        {"keras3_functional_nested", DIALECT_KERAS_3, "m",
         "shared(a) shared(b) shared(a) inner/inner_d(0) inner/inner_d(1) inner/inner_d(2) cat(3 4) prod(3 4) out(6) plus(3 4) "
         "seq/sd(7) multiply(3 4) -> out 8 plus 9 inner 5 seq 10 multiply 11",
         "a (None, 4)", 8},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text t = text_make(4096);
        OWNED(model_free) struct model *m = model_file(rows[i].file);
        char input[200];

        calls_text(m, &t);
        snprintf(input, sizeof input, "%s %s", m->inputs[0].name,
                 m->inputs[0].shape.rank < 0 ? "?" : shape_text(&m->inputs[0].shape).s);
        CHECK_INT(m->dialect, rows[i].dialect);
        CHECK_TEXT(m->name, rows[i].name);
        CHECK_TEXT(t.s, rows[i].calls);
        CHECK_TEXT(input, rows[i].input);
        CHECK_INT(m->n_layers, rows[i].n_layers);
        CHECK_TEXT(m->warnings, "");
    }
}

TEST(every_layer_of_the_catalogue_is_read_without_a_warning)
{
    OWNED(model_free) struct model *m = model_file("keras3_all_layers");

    CHECK_INT(m->n_layers, 14);
    CHECK_TEXT(m->warnings, "");
}

/* Horn's private members must not reach files, and what is kept must read as the same model. */
TEST(a_canonical_document_is_clean_and_reads_as_itself)
{
    static const char *const files[] = {"keras1_functional_nested", "keras1_merge_first",  "keras1_nested_sequential",
                                        "keras2_functional_nested", "keras3_dict_io",      "keras3_functional_nested",
                                        "tf_keras_functional_lstm", "keras3_initial_state"};

    for (size_t i = 0; i < COUNT(files); i++) {
        CLEAN(text_done) struct text once = text_make(4096), again = text_make(4096);
        OWNED(model_free) struct model *m = model_file(files[i]);
        OWNED(free) char *text = json_print(m->canonical, 0);
        OWNED(model_free) struct model *second = model_text(text);
        OWNED(free) char *second_text = json_print(second->canonical, 0);

        CHECK(!strstr(text, "horn_"));
        CHECK_TEXT(second_text, text);
        calls_text(m, &once);
        calls_text(second, &again);
        CHECK_TEXT(again.s, once.s);
    }
}

TEST(a_canonical_document_that_says_its_dialect_keeps_it)
{
    OWNED(model_free) struct model *m = model_file("keras1_lstm");
    OWNED(json_free) struct json *j = json_copy(m->canonical);
    struct problem problem = {0};
    OWNED(model_free) struct model *second = NULL;

    json_put(j, "horn_dialect", json_new_text("Keras 1"));
    CHECK_OK(model_parse(j, "", &second, &problem));
    CHECK_INT(second->dialect, DIALECT_KERAS_1);
    OWNED(free) char *text = json_print(m->canonical, 0), *again = json_print(second->canonical, 0);
    CHECK_TEXT(again, text);
}

TEST(leaves_of_a_nested_model_belong_to_its_entry)
{
    OWNED(model_free) struct model *m = model_file("keras1_functional_nested");

    CHECK_INT(m->n_tops, 4);
    CHECK_TEXT(m->layers[1].name, "inner/inner_d");
    CHECK_TEXT(m->tops[m->top[1]], "inner");
    CHECK_TEXT(m->tops[m->top[3]], "out");
}

TEST(input_types_are_kept)
{
    OWNED(model_free) struct model *three = model_file("keras3_lstm"), *one = model_file("keras1_lstm");

    CHECK_INT(three->inputs[0].type, I32);
    CHECK_INT(one->inputs[0].type, I32);
}

#define SEQUENTIAL(layers) "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" layers "]}}"
#define INPUT              "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,4],\"name\":\"in\"}}"
#define DENSE(name)        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"" name "\",\"units\":2}}"

TEST(an_unknown_key_of_a_layer_is_named_in_a_warning)
{
    OWNED(model_free)
    struct model *m =
        model_text(SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":2,\"foo\":1,\"lora_rank\":null}}"));

    CHECK_TEXT(m->warnings, "layer dense: unknown key \"foo\" ignored\n");
    OWNED(free) char *text = json_print(m->canonical, 0);
    CHECK(!strstr(text, "foo"));
}

TEST(a_fixed_batch_size_is_given_up_with_a_warning)
{
    OWNED(model_free)
    struct model *m = model_text(SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[32,4]}}," DENSE("a")));

    CHECK_CONTAINS(m->warnings, "batch_shape: the fixed batch size 32 is not kept");
    CHECK_INT(m->inputs[0].shape.dim[0], -1);
}

TEST(a_frozen_model_freezes_its_layers)
{
    OWNED(model_free)
    struct model *m = model_text(
        SEQUENTIAL(INPUT ",{\"class_name\":\"Sequential\",\"config\":{\"name\":\"s\",\"trainable\":false,\"layers\":[" DENSE(
            "a") "]}}," DENSE("b")));

    CHECK_TEXT(m->layers[0].name, "s/a");
    CHECK(!m->layers[0].trainable);
    CHECK(m->layers[1].trainable);
}

#define FUNCTIONAL(layers, in, out)                                                                          \
    "{\"class_name\":\"Functional\",\"config\":{\"name\":\"f\",\"layers\":[" layers "],\"input_layers\":" in \
    ",\"output_layers\":" out "}}"
#define F_INPUT "{\"class_name\":\"InputLayer\",\"name\":\"x\",\"config\":{\"batch_shape\":[null,4]},\"inbound_nodes\":[]}"
#define F_DENSE(name, nodes) \
    "{\"class_name\":\"Dense\",\"name\":\"" name "\",\"config\":{\"units\":4},\"inbound_nodes\":[" nodes "]}"

TEST(what_leads_to_no_output_is_left_out_with_a_warning)
{
    OWNED(model_free)
    struct model *m = model_text(
        FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",0,0]]") "," F_DENSE("b", "[[\"x\",0,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"));

    CHECK_INT(m->n_layers, 1);
    CHECK_CONTAINS(m->warnings, "layer b: leads to no output");
}

TEST(layers_may_stand_before_those_they_read)
{
    CLEAN(text_done) struct text t = text_make(4096);
    OWNED(model_free)
    struct model *m = model_text(FUNCTIONAL(F_DENSE("b", "[[\"a\",0,0]]") "," F_DENSE("a", "[[\"x\",0,0]]") "," F_INPUT,
                                            "[[\"x\",0,0]]", "[[\"b\",0,0],[\"b\",0,0]]"));

    calls_text(m, &t);
    CHECK_TEXT(t.s, "a(x) b(0) -> b 1 b_1 1");
}

#define K3_TENSOR(layer)                                                                                                    \
    "{\"class_name\":\"__keras_tensor__\",\"config\":{\"shape\":[null,4],\"dtype\":\"float32\",\"keras_history\":[\"" layer \
    "\",0,0]}}"

TEST(operations_that_only_make_masks_are_left_out_where_a_file_names_no_modules)
{
    CLEAN(text_done) struct text t = text_make(4096);
    OWNED(model_free)
    struct model *m = model_text(FUNCTIONAL(
        F_INPUT
        ",{\"class_name\":\"Embedding\",\"name\":\"e\",\"config\":{\"input_dim\":9,\"output_dim\":4,\"mask_zero\":true},"
        "\"inbound_nodes\":[{\"args\":[" K3_TENSOR(
            "x") "],\"kwargs\":{}}]}"
                 ",{\"class_name\":\"NotEqual\",\"name\":\"n\",\"config\":{\"name\":\"n\"},"
                 "\"inbound_nodes\":[{\"args\":[" K3_TENSOR(
                     "x") ",0],\"kwargs\":{}}]}"
                          ",{\"class_name\":\"LSTM\",\"name\":\"l\",\"config\":{\"units\":4},"
                          "\"inbound_nodes\":[{\"args\":[" K3_TENSOR("e") "],\"kwargs\":{\"mask\":" K3_TENSOR("n") "}}]}",
        "[\"x\",0,0]", "[\"l\",0,0]"));

    calls_text(m, &t);
    CHECK_TEXT(t.s, "e(x) l(0) -> l 1");
}

TEST(a_list_of_masks_among_the_named_arguments_of_a_call_is_not_read)
{
    CLEAN(text_done) struct text t = text_make(4096);
    OWNED(model_free)
    struct model *m = model_text(FUNCTIONAL(
        F_INPUT ",{\"class_name\":\"Dense\",\"name\":\"a\",\"config\":{\"units\":4},"
                "\"inbound_nodes\":[{\"args\":[" K3_TENSOR("x") "],\"kwargs\":{\"mask\":[null," K3_TENSOR("x") "]}}]}",
        "[\"x\",0,0]", "[\"a\",0,0]"));

    calls_text(m, &t);
    CHECK_TEXT(t.s, "a(x) -> a 0");
}

struct refusal {
    const char *text;
    enum status status;
    const char *where, *detail;
};

TEST(malformed_documents_are_refused_with_a_pointer)
{
#define D "/d" /* where the document stands */
    static const struct refusal rows[] = {
        {"3", ST_INVALID, D, "a number"},
        {"{}", ST_INVALID, D, "class_name"},
        {"{\"class_name\":7}", ST_INVALID, D "/class_name", "a number"},
        {"{\"class_name\":\"Dense\",\"config\":{}}", ST_UNSUPPORTED, D, "Sequential or a functional model"},
        {"{\"class_name\":\"Sequential\"}", ST_INVALID, D, "layers"},
        {"{\"class_name\":\"Sequential\",\"config\":3}", ST_INVALID, D "/config", "layers"},
        {"{\"class_name\":\"Sequential\",\"config\":[]}", ST_INVALID, D "/config", "an empty one"},
        {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":{}}}", ST_INVALID, D "/config/layers", "an object"},
        {"{\"name\":\"Sequential\",\"layers\":[]}", ST_UNSUPPORTED, D, "Keras 0.3"},
        {SEQUENTIAL(INPUT), ST_INVALID, D "/config/layers", "behind its InputLayer"},
        {SEQUENTIAL("7"), ST_INVALID, D "/config/layers/0", "a number"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\"}"), ST_INVALID, D "/config/layers/1", "needs a \"config\""},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":[]}"), ST_INVALID, D "/config/layers/1/config", "an array"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{}}"), ST_INVALID, D "/config/layers/1/config/units",
         "missing"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":0}}"), ST_INVALID,
         D "/config/layers/1/config/units", "layer \"dense\": must be"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":\"3\"}}"), ST_INVALID,
         D "/config/layers/1/config/units", "a text"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"name\":7}}"), ST_INVALID,
         D "/config/layers/1/config/name", "a number"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"name\":\"\"}}"), ST_INVALID,
         D "/config/layers/1/config/name", "empty"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"trainable\":\"yes\"}}"), ST_INVALID,
         D "/config/layers/1/config/trainable", "a text"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"activation\":\"rellu\"}}"), ST_INVALID,
         D "/config/layers/1/config/activation", "rellu"},
        {SEQUENTIAL(
             INPUT
             ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"activation\":{\"class_name\":\"PReLU\",\"config\":{}}}}"),
         ST_UNSUPPORTED, D "/config/layers/1/config/activation", "PReLU"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"kernel_initializer\":\"magic\"}}"),
         ST_UNSUPPORTED, D "/config/layers/1/config/kernel_initializer/class_name", "magic"},
        {SEQUENTIAL(INPUT
                    ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"kernel_constraint\":{\"class_name\":\"MaxNorm\"}}}"),
         ST_UNSUPPORTED, D "/config/layers/1/config/kernel_constraint", "constraints"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"lora_rank\":4}}"), ST_UNSUPPORTED,
         D "/config/layers/1/config/lora_rank", "not built yet"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"dtype\":\"bfloat16\"}}"), ST_UNSUPPORTED,
         D "/config/layers/1/config/dtype", "mixed_bfloat16"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Dense\",\"config\":{\"units\":3,\"dtype\":\"mixed_float16\"}}"), ST_UNSUPPORTED,
         D "/config/layers/1/config/dtype", "mixed_float16"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"GRU\",\"config\":{\"name\":\"gru_1\"}}"), ST_UNSUPPORTED,
         D "/config/layers/1/class_name", "layer \"GRU\" (gru_1) is not built yet"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Lambda\",\"config\":{\"name\":\"l\",\"function\":[\"abc\"]}}"), ST_UNSUPPORTED,
         D "/config/layers/1", "layer \"l\" is a Lambda"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"TFOpLambda\",\"config\":{\"name\":\"t\",\"function\":\"math.add\"}}"),
         ST_UNSUPPORTED, D "/config/layers/1", "math.add"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Foo\",\"config\":{},\"registered_name\":\"Custom>Foo\"}"), ST_UNSUPPORTED,
         D "/config/layers/1/class_name", "Custom>Foo"},
        {SEQUENTIAL(INPUT ",{\"class_name\":\"Foo\",\"config\":{},\"module\":\"my.layers\"}"), ST_UNSUPPORTED,
         D "/config/layers/1/class_name", "my.layers"},
        {SEQUENTIAL(INPUT "," DENSE("a") "," DENSE("a")), ST_INVALID, D "/config/layers/2", "two layers are called \"a\""},
        {SEQUENTIAL(DENSE("a") "," INPUT), ST_INVALID, D "/config/layers/1", "first"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{}}," DENSE("a")), ST_INVALID, D "/config/layers/0/config",
         "batch_shape"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,0]}}," DENSE("a")), ST_INVALID,
         D "/config/layers/0/config/batch_shape/1", "at least 1"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,-4]}}," DENSE("a")), ST_INVALID,
         D "/config/layers/0/config/batch_shape/1", "-4"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,1.5]}}," DENSE("a")), ST_INVALID,
         D "/config/layers/0/config/batch_shape/1", "a number"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,4000000000,4000000000,9]}}," DENSE("a")),
         ST_INVALID, D "/config/layers/0/config/batch_shape/2", "2^44"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[1,2,3,4,5,6,7,8,9]}}," DENSE("a")), ST_INVALID,
         D "/config/layers/0/config/batch_shape", "at most 8"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":\"big\"}}," DENSE("a")), ST_INVALID,
         D "/config/layers/0/config/batch_shape", "a text"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,1],\"dtype\":\"string\"}}," DENSE("a")),
         ST_UNSUPPORTED, D "/config/layers/0/config/dtype", "string"},
        {SEQUENTIAL("{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,1],\"sparse\":true}}," DENSE("a")),
         ST_UNSUPPORTED, D "/config/layers/0/config/sparse", "sparse"},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[{\"class_name\":\"Dense\",\"config\":{"
         "\"name\":\"d\","
         "\"batch_input_shape\":[null,4],\"output_dim\":0}}]}",
         ST_INVALID, D "/config/0/config/output_dim", "layer \"d\""},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[{\"class_name\":\"Merge\",\"config\":{"
         "\"name\":\"m\","
         "\"mode\":\"ave\"}}]}",
         ST_UNSUPPORTED, D "/config/0/class_name", "layer \"Average\" (m) is not built yet"},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[{\"class_name\":\"Merge\",\"config\":{"
         "\"name\":\"m\","
         "\"mode\":\"abc\",\"mode_type\":\"lambda\"}}]}",
         ST_UNSUPPORTED, D "/config/0/config/mode", "Python"},
        {"{\"class_name\":\"Functional\"}", ST_INVALID, D, "config"},
        {"{\"class_name\":\"Functional\",\"config\":{}}", ST_INVALID, D "/config", "layers"},
        {"{\"class_name\":\"Functional\",\"config\":{\"layers\":[" F_INPUT "]}}", ST_INVALID, D "/config", "input_layers"},
        {FUNCTIONAL(F_INPUT, "[\"x\",0,0]", "[]"), ST_INVALID, D "/config/output_layers", "no outputs"},
        {FUNCTIONAL(F_INPUT, "[\"x\",0,0]", "[\"x\",0,0]"), ST_INVALID, D, "no layer between"},
        {FUNCTIONAL(F_INPUT, "[\"x\",0,0]", "[\"y\",0,0]"), ST_INVALID, D "/config/output_layers", "no layer \"y\""},
        {FUNCTIONAL(F_INPUT, "[\"x\",0]", "[\"x\",0,0]"), ST_INVALID, D "/config/input_layers", "[layer, call, output]"},
        {FUNCTIONAL(F_INPUT, "3", "[\"x\",0,0]"), ST_INVALID, D "/config/input_layers", "a number"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",0,0]]"), "[\"a\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/input_layers", "not an InputLayer"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",0,0]]"), "[[\"x\",0,0],[\"x\",0,0]]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/0", "twice"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"z\",0,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/1/inbound_nodes/0/0", "no layer \"z\""},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",3,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/1/inbound_nodes/0/0", "call 3 of layer \"x\", which has 1"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",-1,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/1/inbound_nodes/0/0", "numbers from 0"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/1/inbound_nodes/0", "no input tensors"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",0,0,{\"training\":true}]]"), "[\"x\",0,0]", "[\"a\",0,0]"),
         ST_UNSUPPORTED, D "/config/layers/1/inbound_nodes/0/0/3/training", "training"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"_CONSTANT_VALUE\",-1,2.5,{}]]"), "[\"x\",0,0]", "[\"a\",0,0]"),
         ST_UNSUPPORTED, D "/config/layers/1/inbound_nodes/0/0", "constant"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "{\"args\":[2.5],\"kwargs\":{}}"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_UNSUPPORTED,
         D "/config/layers/1/inbound_nodes/0/args/0", "a number"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"b\",0,0]]") "," F_DENSE("b", "[[\"a\",0,0]]"), "[\"x\",0,0]", "[\"b\",0,0]"),
         ST_INVALID, D "/config/layers/2", "cycle"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"a\",0,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID, D "/config/layers/1",
         "cycle"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("a", "[[\"x\",0,0],[\"x\",0,0]]"), "[\"x\",0,0]", "[\"a\",0,0]"), ST_INVALID,
         D "/config/layers/1", "takes one input, a call gives it 2"},
        {FUNCTIONAL(F_INPUT "," F_DENSE("x", "[[\"x\",0,0]]"), "[\"x\",0,0]", "[\"x\",0,0]"), ST_INVALID, D "/config/layers/1",
         "two layers are called \"x\""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};
        struct model *m = NULL;
        OWNED(json_free) struct json *j = document(rows[i].text);
        enum status s = model_parse(j, D, &m, &problem);

        model_free(m);
        if (s != rows[i].status || strcmp(problem.where, rows[i].where) != 0 || !strstr(problem.detail, rows[i].detail))
            fail_msg("%s\n gives %s at %s: %s\n wanted %s at %s: %s", rows[i].text, status_name(s), problem.where,
                     problem.detail, status_name(rows[i].status), rows[i].where, rows[i].detail);
    }
}

/* A model in a model, n deep; each calls the inner one `calls` times in a row. */
static char *nested(int n, int calls)
{
    CLEAN(text_done) struct text t = text_make(8 << 20);

    for (int i = 0; i < n; i++)
        text_printf(&t, "{\"class_name\":\"Functional\",\"name\":\"m%d\",\"config\":{\"name\":\"m%d\",\"layers\":[" F_INPUT ",",
                    i, i);
    text_add(&t, F_DENSE("d", "[[\"x\",0,0]]"));
    for (int i = n - 1; i >= 0; i--) {
        text_add(&t, "],\"input_layers\":[\"x\",0,0],\"output_layers\":");
        if (i == n - 1)
            text_add(&t, "[\"d\",0,0]}");
        else
            text_printf(&t, "[\"m%d\",%d,0]}", i + 1, calls);
        if (i)
            text_add(&t, ",\"inbound_nodes\":[[[\"x\",0,0]]");
        for (int k = 1; i && k < calls; k++)
            text_printf(&t, ",[[\"m%d\",%d,0]]", i, k - 1);
        text_add(&t, i ? "]}" : "}");
    }
    return text_steal(&t);
}

static enum status parse_text(const char *text, struct problem *problem)
{
    const struct json_limits limits = {.depth = 1000};
    struct json *j = NULL;
    struct model *m = NULL;
    enum status s = json_parse(text, strlen(text), &limits, 0, &j, problem);

    if (s == ST_OK)
        s = model_parse(j, "", &m, problem);
    model_free(m);
    json_free(j);
    return s;
}

TEST(nesting_is_bounded)
{
    struct problem problem = {0};
    OWNED(free) char *fine = nested(20, 1), *deep = nested(60, 1), *many = nested(25, 2);

    CHECK_OK(parse_text(fine, &problem));
    CHECK_INT(parse_text(deep, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "nested more than 32 deep");
    CHECK_INT(parse_text(many, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "more than 100000 calls");
}

TEST(a_long_chain_is_read_without_recursion)
{
    CLEAN(text_done) struct text t = text_make(8 << 20);
    struct problem problem = {0};

    text_add(&t, "{\"class_name\":\"Functional\",\"config\":{\"name\":\"f\",\"layers\":[");
    for (int i = 9000; i > 0; i--)
        text_printf(
            &t, "{\"class_name\":\"Dense\",\"name\":\"d%d\",\"config\":{\"units\":4},\"inbound_nodes\":[[[\"%s%d\",0,0]]]},", i,
            i > 1 ? "d" : "x", i - 1);
    text_add(&t, "{\"class_name\":\"InputLayer\",\"name\":\"x0\",\"config\":{\"batch_shape\":[null,4]},\"inbound_nodes\":[]}],"
                 "\"input_layers\":[\"x0\",0,0],\"output_layers\":[\"d9000\",0,0]}}");
    CHECK_OK(parse_text(t.s, &problem));
}

TEST(too_many_layers_are_refused)
{
    CLEAN(text_done) struct text t = text_make(8 << 20);
    struct problem problem = {0};

    text_add(&t, "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[" DENSE("d"));
    for (int i = 0; i < 10000; i++)
        text_printf(&t, ",{\"class_name\":\"Flatten\",\"config\":{\"name\":\"f%d\"}}", i);
    text_add(&t, "]}}");
    CHECK_INT(parse_text(t.s, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "more than 10000 layers");
}
