/* The rows of the rewriting: what was called how in which version, and which defaults differ.
 *
 * Sources: keras 1.2.2 layers, keras 2.3.1 legacy/interfaces.py, keras 2.15 saving, keras 3 src/layers. A layer that is built
 * later adds its rows here and nowhere else. Rows of one layer stand before rows for every layer, since the first fitting one wins:
 * its key is gone when the next is asked. */
#include "engine/model/dialect_parts.h"

#define HE_NORMAL "{\"scale\":2.0,\"mode\":\"fan_in\",\"distribution\":\"untruncated_normal\"}"
#define UNIFORM   "{\"class_name\":\"RandomUniform\",\"config\":{\"minval\":-0.05,\"maxval\":0.05}}"

const struct class_row class_rows[] = {
    {EVERY, "Convolution2D", "Conv2D"},
    {EVERY, "AtrousConvolution2D", "Conv2D"},
    {EVERY, "AtrousConv2D", "Conv2D"},
    {EVERY, "MaxPool2D", "MaxPooling2D"},
    {EVERY, "AvgPool2D", "AveragePooling2D"},
    {EVERY, "GlobalAvgPool2D", "GlobalAveragePooling2D"},
    {EVERY, "GlobalMaxPool2D", "GlobalMaxPooling2D"},
    {EVERY, "Convolution1D", "Conv1D"},
    {EVERY, "Convolution3D", "Conv3D"},
    {EVERY, "AtrousConvolution1D", "Conv1D"},
    {EVERY, "Deconvolution2D", "Conv2DTranspose"},
    {EVERY, "SeparableConvolution2D", "SeparableConv2D"},
    {TFK, "BatchNormalizationV1", "BatchNormalization"},
    {TFK, "BatchNormalizationV2", "BatchNormalization"},
    {0},
};

/* mode of Keras 1's Merge -> class */
const struct class_row merge_rows[] = {
    {K1, "sum", "Add"},
    {K1, "mul", "Multiply"},
    {K1, "concat", "Concatenate"},
    {K1, "ave", "Average"},
    {K1, "max", "Maximum"},
    {K1, "dot", "Dot"},
    {K1, "cos", "Dot"},
    {0},
};

const struct key_row key_rows[] = {
    {K1, "LSTM", "consume_less", .convert = convert_consume_less, .always = true},
    {K1, "LSTM", "output_dim", .to = "units"},
    {K1, "LSTM", "forget_bias_init", .to = "unit_forget_bias", .convert = convert_forget_bias},
    {K1, "LSTM", "dropout_W", .to = "dropout"},
    {K1, "LSTM", "dropout_U", .to = "recurrent_dropout"},
    {K1, "Dense", "output_dim", .to = "units"},
    {K1, "Dropout", "p", .to = "rate"},
    {K1, "Embedding", "init", .to = "embeddings_initializer"},
    {K1, "Embedding", "W_regularizer", .to = "embeddings_regularizer"},
    {K1, "Embedding", "W_constraint", .to = "embeddings_constraint"},
    {K1, "BatchNormalization", "beta_init", .to = "beta_initializer"},
    {K1, "BatchNormalization", "gamma_init", .to = "gamma_initializer"},
    {K1, "Conv2D", "nb_filter", .to = "filters"},
    {K1, "Conv2D", "nb_row", .to = "kernel_size", .convert = convert_kernel_rows},
    {K1, "Conv2D", "subsample", .to = "strides"},
    {K1, "Conv2D", "atrous_rate", .to = "dilation_rate"},
    {K1, "Conv2D", "dim_ordering", .to = "data_format", .convert = convert_dim_ordering, .always = true},
    {K1, "MaxPooling2D", "dim_ordering", .to = "data_format", .convert = convert_dim_ordering, .always = true},
    {K1, "AveragePooling2D", "dim_ordering", .to = "data_format", .convert = convert_dim_ordering, .always = true},
    {K1, "GlobalAveragePooling2D", "dim_ordering", .to = "data_format", .convert = convert_dim_ordering, .always = true},
    {K1, "ZeroPadding2D", "dim_ordering", .to = "data_format", .convert = convert_dim_ordering, .always = true},
    {K1, "Concatenate", "concat_axis", .to = "axis"},
    {EVERY, "LSTM", "time_major", .convert = convert_off},
    {EVERY, "BatchNormalization", "axis", .to = "axis", .convert = convert_axis},
    {EVERY, "LeakyReLU", "alpha", .to = "negative_slope", .convert = convert_slope},
    {EVERY, "ZeroPadding2D", "padding", .to = "padding", .convert = convert_padding_2d},
    {K2 | TFK | K3, "Conv2D", "data_format", .to = "data_format", .convert = convert_data_format},
    {K2 | TFK | K3, "MaxPooling2D", "data_format", .to = "data_format", .convert = convert_data_format},
    {K2 | TFK | K3, "AveragePooling2D", "data_format", .to = "data_format", .convert = convert_data_format},
    {K2 | TFK | K3, "GlobalAveragePooling2D", "data_format", .to = "data_format", .convert = convert_data_format},
    {K2 | TFK | K3, "ZeroPadding2D", "data_format", .to = "data_format", .convert = convert_data_format},
    {K2 | TFK | K3, "Flatten", "data_format", .to = "data_format", .convert = convert_data_format},
    {K1, NULL, "border_mode", .to = "padding", .convert = convert_border_mode},
    {K1, NULL, "init", .to = "kernel_initializer"},
    {K1, NULL, "inner_init", .to = "recurrent_initializer"},
    {K1, NULL, "inner_activation", .to = "recurrent_activation"},
    {K1, NULL, "W_regularizer", .to = "kernel_regularizer"},
    {K1, NULL, "U_regularizer", .to = "recurrent_regularizer"},
    {K1, NULL, "b_regularizer", .to = "bias_regularizer"},
    {K1, NULL, "W_constraint", .to = "kernel_constraint"},
    {K1, NULL, "b_constraint", .to = "bias_constraint"},
    {K1, NULL, "bias", .to = "use_bias"},
    {0},
};

/*   layer, key, then by version: Keras 1, 2, 2.3, tf.keras, 3 */
const struct default_row default_rows[] = {
    {"LSTM",
     "recurrent_activation",
     {"\"keras1_hard_sigmoid\"", "\"keras1_hard_sigmoid\"", "\"sigmoid\"", "\"sigmoid\"", "\"sigmoid\""}},
    {"LSTM", "unit_forget_bias", {"true", "true", "true", "true", "true"}},
    {"BatchNormalization", "momentum", {"0.99", "0.99", "0.99", "0.99", "0.99"}},
    {"BatchNormalization", "epsilon", {"0.001", "0.001", "0.001", "0.001", "0.001"}},
    {"LeakyReLU", "negative_slope", {"0.3", "0.3", "0.3", "0.3", "0.3"}},
    {"Embedding", "embeddings_initializer", {UNIFORM, UNIFORM, UNIFORM, UNIFORM, UNIFORM}},
    {"Conv2D", "data_format", {NULL, "\"channels_last\"", "\"channels_last\"", "\"channels_last\"", "\"channels_last\""}},
    {"ZeroPadding2D", "padding", {"[[1,1],[1,1]]", "[[1,1],[1,1]]", "[[1,1],[1,1]]", "[[1,1],[1,1]]", "[[1,1],[1,1]]"}},
    {0},
};

/* Keras 1 draws its normal initializers without cutting the tails, and scales orthogonal matrices by 1.1 (keras 1.2.2
 * initializations.py). "uniform" and "normal" have explicit bounds in all versions. */
const struct object_row initializer_rows[] = {
    {K1, "glorot_normal", "VarianceScaling", "{\"scale\":1.0,\"mode\":\"fan_avg\",\"distribution\":\"untruncated_normal\"}"},
    {K1, "he_normal", "VarianceScaling", HE_NORMAL},
    {K1, "orthogonal", "Orthogonal", "{\"gain\":1.1}"},
    {K1, "identity", "Identity", "{\"gain\":1.0}"},
    {K1, "zero", "Zeros", "{}"},
    {K1, "one", "Ones", "{}"},
    {K1, "uniform", "RandomUniform", "{\"minval\":-0.05,\"maxval\":0.05}"},
    {K1, "normal", "RandomNormal", "{\"mean\":0.0,\"stddev\":0.05}"},
    {EVERY, "zero", "Zeros", NULL},
    {EVERY, "one", "Ones", NULL},
    {EVERY, "uniform", "RandomUniform", NULL},
    {EVERY, "normal", "RandomNormal", NULL},
    {EVERY, "OrthogonalInitializer", "Orthogonal", NULL},
    {EVERY, "IdentityInitializer", "Identity", NULL},
    {0},
};

const struct object_row regularizer_rows[] = {
    {EVERY, "L1L2Regularizer", "L1L2", NULL}, /* Keras 1's class; its configuration has the same keys */
    {EVERY, "WeightRegularizer", "L1L2", NULL},
    {EVERY, "ActivityRegularizer", "L1L2", NULL},
    {K1, "l1", "L1L2", "{\"l1\":0.01,\"l2\":0.0}"},
    {K1, "l2", "L1L2", "{\"l1\":0.0,\"l2\":0.01}"},
    {K1, "l1l2", "L1L2", "{\"l1\":0.01,\"l2\":0.01}"},
    {K1, "activity_l1", "L1L2", "{\"l1\":0.01,\"l2\":0.0}"},
    {K1, "activity_l2", "L1L2", "{\"l1\":0.0,\"l2\":0.01}"},
    {K1, "activity_l1l2", "L1L2", "{\"l1\":0.01,\"l2\":0.01}"},
    {K2 | TFK, "l1_l2", "L1L2", "{\"l1\":0.01,\"l2\":0.01}"},
    {0},
};
