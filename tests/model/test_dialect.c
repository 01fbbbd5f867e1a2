/* Old spellings in, Keras 3's out: versions told apart, tables applied, node numbers made alike. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/model/dialect.h"
#include "tests/test.h"

static struct json *parsed(const char *text)
{
    struct problem problem;
    struct json *j = NULL;

    CHECK_OK(json_parse(text, strlen(text), NULL, JSON_NAN, &j, &problem));
    return j;
}

/* Configuration of layer `i` of a canonical document, as text; the caller frees. */
static char *config_text(const char *document, int i, enum dialect want)
{
    CLEAN(text_done) struct text warnings = text_make(4096);
    struct problem problem;
    OWNED(json_free) struct json *j = parsed(document);
    OWNED(json_free) struct json *made = NULL;

    CHECK_INT(dialect_of(j), want);
    CHECK_OK(dialect_canonical(j, "", dialect_of(j), &made, &warnings, &problem));
    return json_print(json_get(json_at(json_get(json_get(made, "config"), "layers"), i), "config"), 0);
}

TEST(versions_are_told_apart_by_their_marks)
{
    static const struct {
        const char *text;
        enum dialect dialect;
    } rows[] = {
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[]}", DIALECT_KERAS_1},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.1.6\",\"backend\":\"tensorflow\",\"config\":[]}",
         DIALECT_KERAS_2},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.3.1\",\"backend\":\"theano\",\"config\":{}}", DIALECT_KERAS_2_3},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.2.4-tf\",\"backend\":\"tensorflow\",\"config\":{}}",
         DIALECT_TF_KERAS},
        {"{\"class_name\":\"Functional\",\"keras_version\":\"2.15.0\",\"backend\":\"tensorflow\",\"config\":{}}",
         DIALECT_TF_KERAS},
        {"{\"module\":\"keras\",\"class_name\":\"Sequential\",\"config\":{},\"registered_name\":null}", DIALECT_KERAS_3},
        {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"Dense\",\"config\":{\"units\":1}}]}}",
         DIALECT_KERAS_3},
        {"{\"class_name\":\"Sequential\",\"config\":[{\"class_name\":\"Dense\",\"config\":{\"output_dim\":1}}]}",
         DIALECT_KERAS_1},
        {"{\"class_name\":\"Sequential\",\"config\":[{\"class_name\":\"Conv2D\",\"config\":{\"border_mode\":\"same\"}}]}",
         DIALECT_KERAS_1},
        {"{\"class_name\":\"Sequential\",\"config\":[{\"class_name\":\"Dense\",\"config\":{\"units\":1}}]}", DIALECT_KERAS_2},
        {"{\"class_name\":\"Sequential\",\"config\":[{\"class_name\":\"Embedding\",\"config\":{\"output_dim\":1}}]}",
         DIALECT_KERAS_2},
        {"{\"class_name\":\"Functional\",\"config\":{\"layers\":[{\"config\":{\"batch_input_shape\":[null,1]}}]}}",
         DIALECT_TF_KERAS},
        {"7", DIALECT_KERAS_3},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(json_free) struct json *j = parsed(rows[i].text);
        if (dialect_of(j) != rows[i].dialect)
            fail_msg("%s is %s, not %s", rows[i].text, dialect_name(dialect_of(j)), dialect_name(rows[i].dialect));
    }
}

#define K1_LAYER(class, config)                                                                                                \
    "{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[{\"class_name\":\"" class "\",\"config\":{" config \
                                                                                                      "}}]}"
#define K23_LAYER(class, config)                                                                                              \
    "{\"class_name\":\"Sequential\",\"keras_version\":\"2.3.1\",\"backend\":\"tensorflow\",\"config\":{\"layers\":[{\"class_" \
    "name\":\"" class "\",\"config\":{" config "}}]}}"
#define K2_LAYER(class, config)                                                                                          \
    "{\"class_name\":\"Sequential\",\"keras_version\":\"2.1.6\",\"backend\":\"tensorflow\",\"config\":[{\"class_name\":" \
    "\"" class "\",\"config\":{" config "}}]}"
#define K3_LAYER(class, config)                                                                                             \
    "{\"module\":\"keras\",\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"" class "\",\"config\":" \
                                                                                                           "{" config "}}]}}"

TEST(configurations_become_those_of_keras_3)
{
    static const struct {
        const char *document;
        enum dialect dialect;
        const char *parts[6]; /* all of them are in the canonical configuration */
        const char *absent;
    } rows[] = {
        {K1_LAYER("Dense", "\"output_dim\":3,\"init\":\"he_normal\",\"activation\":\"hard_sigmoid\",\"bias\":false,"
                           "\"W_regularizer\":{\"name\":\"L1L2Regularizer\",\"l1\":0.0,\"l2\":0.25},\"input_dim\":7"),
         DIALECT_KERAS_1,
         {"\"units\":3", "\"activation\":\"keras1_hard_sigmoid\"", "\"use_bias\":false",
          "\"kernel_initializer\":{\"class_name\":\"VarianceScaling\",\"config\":{\"scale\":2,\"mode\":\"fan_in\","
          "\"distribution\":\"untruncated_normal\"}}",
          "\"kernel_regularizer\":{\"class_name\":\"L1L2\",\"config\":{\"l1\":0,\"l2\":0.25}}"},
         "input_dim"},
        {K1_LAYER("Convolution2D", "\"nb_filter\":8,\"nb_row\":3,\"nb_col\":5,\"border_mode\":\"same\",\"subsample\":[2,1],"
                                   "\"dim_ordering\":\"th\",\"init\":\"orthogonal\""),
         DIALECT_KERAS_1,
         {"\"filters\":8", "\"kernel_size\":[3,5]", "\"padding\":\"same\"", "\"strides\":[2,1]",
          "\"data_format\":\"channels_first\"",
          "\"kernel_initializer\":{\"class_name\":\"Orthogonal\",\"config\":{\"gain\":1.1}}"},
         "nb_col"},
        {K1_LAYER("Dropout", "\"p\":0.25"), DIALECT_KERAS_1, {"\"rate\":0.25"}, "\"p\""},
        {K1_LAYER("LSTM", "\"output_dim\":4,\"init\":\"glorot_uniform\",\"inner_init\":\"orthogonal\",\"consume_less\":\"cpu\","
                          "\"forget_bias_init\":\"one\",\"W_regularizer\":{\"name\":\"L1L2Regularizer\",\"l1\":0.5,\"l2\":0.0},"
                          "\"dropout_W\":0.0"),
         DIALECT_KERAS_1,
         {"\"recurrent_initializer\":{\"class_name\":\"GlorotUniform\",\"config\":{}}", "\"unit_forget_bias\":true",
          "\"recurrent_activation\":\"keras1_hard_sigmoid\"",
          "\"recurrent_regularizer\":{\"class_name\":\"L1L2\",\"config\":{\"l1\":0.5,\"l2\":0}}", "\"dropout\":0"},
         "consume_less"},
        {K1_LAYER("LSTM", "\"output_dim\":4,\"init\":\"uniform\",\"inner_init\":\"orthogonal\",\"consume_less\":\"gpu\","
                          "\"forget_bias_init\":\"zero\",\"inner_activation\":\"sigmoid\""),
         DIALECT_KERAS_1,
         {"\"recurrent_initializer\":{\"class_name\":\"Orthogonal\",\"config\":{\"gain\":1.1}}", "\"unit_forget_bias\":false",
          "\"recurrent_activation\":\"sigmoid\"",
          "\"kernel_initializer\":{\"class_name\":\"RandomUniform\",\"config\":{\"minval\":-0.05,\"maxval\":0.05}}"},
         "inner_init"},
        {K1_LAYER("ZeroPadding2D", "\"padding\":[1,2]"),
         DIALECT_KERAS_1,
         {"\"padding\":[[1,1],[2,2]]", "\"data_format\":\"channels_last\""},
         "th"},
        {K1_LAYER("ZeroPadding2D", "\"padding\":{\"top_pad\":1,\"right_pad\":4}"),
         DIALECT_KERAS_1,
         {"\"padding\":[[1,0],[0,4]]"},
         "_pad"},
        {K1_LAYER("ZeroPadding2D", "\"padding\":[1,2,3,4]"), DIALECT_KERAS_1, {"\"padding\":[[1,2],[3,4]]"}, "th"},
        {K1_LAYER("Merge", "\"mode\":\"concat\",\"mode_type\":\"raw\",\"concat_axis\":1,\"dot_axes\":-1,\"arguments\":{}"),
         DIALECT_KERAS_1,
         {"\"axis\":1"},
         "dot_axes"},
        {K1_LAYER("Embedding", "\"input_dim\":9,\"output_dim\":2,\"init\":\"uniform\",\"input_length\":5"),
         DIALECT_KERAS_1,
         {"\"input_dim\":9", "\"output_dim\":2", "\"embeddings_initializer\":{\"class_name\":\"RandomUniform\""},
         "input_length"},
        {K2_LAYER("LSTM", "\"units\":4"), DIALECT_KERAS_2, {"\"recurrent_activation\":\"keras1_hard_sigmoid\""}, "inner"},
        {K23_LAYER("LSTM", "\"units\":4"), DIALECT_KERAS_2_3, {"\"recurrent_activation\":\"sigmoid\""}, "inner"},
        {K23_LAYER("Dense", "\"units\":4,\"kernel_initializer\":{\"class_name\":\"VarianceScaling\",\"config\":{\"scale\":1.0,"
                            "\"mode\":\"fan_avg\",\"distribution\":\"normal\",\"seed\":null}}"),
         DIALECT_KERAS_2_3,
         {"\"distribution\":\"truncated_normal\""},
         "seed"},
        {K23_LAYER("LeakyReLU", "\"alpha\":{\"type\":\"ndarray\",\"value\":0.25}"),
         DIALECT_KERAS_2_3,
         {"\"negative_slope\":0.25"},
         "alpha"},
        {K23_LAYER("LeakyReLU", "\"trainable\":true"), DIALECT_KERAS_2_3, {"\"negative_slope\":0.3"}, "alpha"},
        {K23_LAYER("BatchNormalization", "\"axis\":-1"), DIALECT_KERAS_2_3, {"\"momentum\":0.99", "\"epsilon\":0.001"}, "mode"},
        {K3_LAYER("LSTM", "\"units\":4,\"time_major\":false"), DIALECT_KERAS_3, {"\"units\":4"}, "time_major"},
        {K3_LAYER("BatchNormalization", "\"axis\":[3]"), DIALECT_KERAS_3, {"\"axis\":3"}, "["},
        {K3_LAYER("Activation", "\"activation\":\"hard_sigmoid\""),
         DIALECT_KERAS_3,
         {"\"activation\":\"hard_sigmoid\""},
         "keras1"},
        {K3_LAYER("Activation", "\"activation\":{\"module\":\"builtins\",\"class_name\":\"function\",\"config\":\"gelu\"}"),
         DIALECT_KERAS_3,
         {"\"activation\":\"gelu\""},
         "builtins"},
        {K3_LAYER("Dense",
                  "\"units\":2,\"kernel_initializer\":{\"module\":\"keras.initializers\",\"class_name\":\"HeNormal\","
                  "\"config\":{\"seed\":null},\"registered_name\":null},\"activation\":null,\"dtype\":{\"module\":\"keras\","
                  "\"class_name\":\"DTypePolicy\",\"config\":{\"name\":\"float32\"},\"registered_name\":null}"),
         DIALECT_KERAS_3,
         {"\"kernel_initializer\":{\"class_name\":\"HeNormal\",\"config\":{}}", "\"activation\":\"linear\"",
          "\"dtype\":\"float32\""},
         "Policy"},
        {K3_LAYER("Dense", "\"units\":2,\"dtype\":{\"module\":\"keras\",\"class_name\":\"DTypePolicy\",\"config\":"
                           "{\"name\":\"mixed_bfloat16\"},\"registered_name\":null}"),
         DIALECT_KERAS_3,
         {"\"dtype\":\"mixed_bfloat16\""},
         "Policy"},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.12.0\",\"backend\":\"tensorflow\",\"config\":{\"layers\":["
         "{\"class_name\":\"Dense\",\"config\":{\"units\":2,\"dtype\":{\"class_name\":\"Policy\",\"config\":{\"name\":"
         "\"mixed_bfloat16\"}}}}]}}",
         DIALECT_TF_KERAS,
         {"\"dtype\":\"mixed_bfloat16\""},
         "Policy"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(free) char *text = NULL;
        /* a first layer without its shape gets no InputLayer, except where input_dim or input_length tell it */
        bool has_input = strstr(rows[i].document, "\"input_dim\":7") || strstr(rows[i].document, "input_length");
        text = config_text(rows[i].document, has_input, rows[i].dialect);
        for (size_t k = 0; k < COUNT(rows[i].parts) && rows[i].parts[k]; k++)
            if (!strstr(text, rows[i].parts[k]))
                fail_msg("%s\n gives %s\n without %s", rows[i].document, text, rows[i].parts[k]);
        if (strstr(text, rows[i].absent))
            fail_msg("%s\n gives %s\n with %s", rows[i].document, text, rows[i].absent);
    }
}

TEST(keras_1_layers_without_an_ordering_follow_their_neighbours)
{
    OWNED(free)
    char *text = config_text("{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":["
                             "{\"class_name\":\"ZeroPadding2D\",\"config\":{\"padding\":[1,1]}},"
                             "{\"class_name\":\"MaxPooling2D\",\"config\":{\"dim_ordering\":\"th\"}}]}",
                             0, DIALECT_KERAS_1);

    CHECK_CONTAINS(text, "\"data_format\":\"channels_first\"");
}

TEST(names_that_are_missing_are_made_as_each_keras_makes_them)
{
    static const struct {
        const char *document, *first, *second, *input;
    } rows[] = {
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"1.2.2\",\"config\":[{\"class_name\":\"Convolution2D\",\"config\":"
         "{\"batch_input_shape\":[null,8,8,1]}},{\"class_name\":\"Convolution2D\",\"config\":{}}]}",
         "convolution2d_1", "convolution2d_2", "convolution2d_input_1"},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.3.1\",\"backend\":\"tensorflow\",\"config\":{\"layers\":["
         "{\"class_name\":\"Conv2D\",\"config\":{\"batch_input_shape\":[null,8,8,1]}},{\"class_name\":\"Conv2D\",\"config\":{}}"
         "]}}",
         "conv2d_1", "conv2d_2", "conv2d_1_input"},
        {"{\"class_name\":\"Sequential\",\"keras_version\":\"2.12.0\",\"backend\":\"tensorflow\",\"config\":{\"layers\":["
         "{\"class_name\":\"Conv2D\",\"config\":{\"batch_input_shape\":[null,8,8,1]}},{\"class_name\":\"Conv2D\",\"config\":{}}"
         "]}}",
         "conv2d", "conv2d_1", "conv2d_input"},
        {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"BatchNormalization\",\"config\":"
         "{\"input_shape\":[8]}},{\"class_name\":\"BatchNormalization\",\"config\":{}}]}}",
         "batch_normalization", "batch_normalization_1", "input_layer"},
        {"{\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"Dense\",\"config\":{\"input_shape\":[8]}},"
         "{\"class_name\":\"Dense\",\"config\":{}},{\"class_name\":\"Dense\",\"config\":{\"name\":\"dense_1\"}}]}}",
         "dense", "dense_2", "input_layer"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text warnings = text_make(4096);
        struct problem problem;
        OWNED(json_free) struct json *j = parsed(rows[i].document), *made = NULL;
        CHECK_OK(dialect_canonical(j, "", dialect_of(j), &made, &warnings, &problem));
        const struct json *layers = json_get(json_get(made, "config"), "layers");
        CHECK_TEXT(json_text(json_get(json_at(layers, 0), "name")), rows[i].input);
        CHECK_TEXT(json_text(json_get(json_at(layers, 1), "name")), rows[i].first);
        CHECK_TEXT(json_text(json_get(json_at(layers, 2), "name")), rows[i].second);
    }
}

TEST(optimizers_get_the_defaults_of_their_version)
{
    static const struct {
        const char *given;
        enum dialect dialect;
        const char *want;
    } rows[] = {
        {"\"adam\"", DIALECT_KERAS_1, "{\"config\":{\"learning_rate\":0.001,\"epsilon\":1e-08},\"class_name\":\"Adam\"}"},
        {"\"sgd\"", DIALECT_KERAS_3, "{\"config\":{\"learning_rate\":0.01},\"class_name\":\"SGD\"}"},
        {"{\"class_name\":\"SGD\",\"config\":{\"lr\":0.1,\"clipnorm\":1,\"nesterov\":true}}", DIALECT_KERAS_2,
         "{\"config\":{\"learning_rate\":0.1,\"global_clipnorm\":1,\"nesterov\":true},\"class_name\":\"SGD\"}"},
        {"{\"class_name\":\"RMSprop\",\"config\":{\"epsilon\":null}}", DIALECT_KERAS_2_3,
         "{\"config\":{\"learning_rate\":0.001,\"epsilon\":1e-07,\"keras1_epsilon\":true},\"class_name\":\"RMSprop\"}"},
        {"\"adagrad\"", DIALECT_TF_KERAS,
         "{\"config\":{\"learning_rate\":0.001,\"epsilon\":1e-07,\"initial_accumulator_value\":0.1},\"class_name\":"
         "\"Adagrad\"}"},
        {"\"adagrad\"", DIALECT_KERAS_1,
         "{\"config\":{\"learning_rate\":0.01,\"epsilon\":1e-08,\"initial_accumulator_value\":0,\"keras1_epsilon\":true},"
         "\"class_name\":\"Adagrad\"}"},
        {"{\"class_name\":\"Adam\",\"config\":{\"learning_rate\":0.5,\"is_legacy_optimizer\":false,\"jit_compile\":false}}",
         DIALECT_TF_KERAS, "{\"config\":{\"learning_rate\":0.5,\"epsilon\":1e-07},\"class_name\":\"Adam\"}"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem;
        OWNED(json_free) struct json *j = parsed(rows[i].given), *made = NULL, *want = parsed(rows[i].want);
        CHECK_OK(dialect_optimizer(j, "/o", rows[i].dialect, &made, &problem));
        OWNED(free) char *got_text = json_print(made, 0), *want_text = json_print(want, 0);
        CHECK_TEXT(got_text, want_text);
    }
}

TEST(callbacks_get_the_defaults_of_their_version)
{
    struct problem problem;
    OWNED(json_free)
    struct json *j = parsed("{\"class_name\":\"ReduceLROnPlateau\",\"config\":{\"epsilon\":0.5}}"), *made = NULL;

    CHECK_OK(dialect_callback(j, "/c", DIALECT_KERAS_1, &made, &problem));
    CHECK_NEAR(json_number(json_get(json_get(made, "config"), "min_delta")), 0.5, 0);
    CHECK_NEAR(json_number(json_get(json_get(made, "config"), "patience")), 10, 0);
    CHECK(!json_get(json_get(made, "config"), "epsilon"));
    CHECK_TEXT(dialect_written_key(j, "min_delta"), "epsilon");
    CHECK_TEXT(dialect_written_key(j, "patience"), "patience");
}
