/* LSTM over (batch, time, features): Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000; columns i f c o.
 *
 * The input's mask skips steps; it goes on where sequences are returned. Further inputs are the first states h and c. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

#define BY_CLASS -2 /* an activation that the configuration does not mention: the class decides. null is linear */

struct lstm {
    int64_t units;
    int activation, recurrent_activation;
    bool use_bias, unit_forget_bias, return_sequences, return_state, go_backwards, stateful, unroll, zero_output_for_mask;
    double dropout, recurrent_dropout;
    const struct object *kernel_initializer, *recurrent_initializer, *bias_initializer;
    const struct object *kernel_regularizer, *recurrent_regularizer, *bias_regularizer, *activity_regularizer;
    const struct json *kernel_constraint, *recurrent_constraint, *bias_constraint;
    const struct json *seed, *implementation, *use_cudnn, *time_major;
};

static void lstm_check(struct build *b, const struct lstm *c, const struct tuple *in)
{
    struct shape s = shape_of(b, in->v[0]);

    refuse_constraint(b, "kernel_constraint", c->kernel_constraint);
    refuse_constraint(b, "recurrent_constraint", c->recurrent_constraint);
    refuse_constraint(b, "bias_constraint", c->bias_constraint);
    if (c->dropout != 0 || c->recurrent_dropout != 0)
        build_fail(b, ST_UNSUPPORTED, "%s inside of an LSTM is not supported; set it to 0, or put a Dropout layer before it",
                   c->dropout != 0 ? "dropout" : "recurrent_dropout");
    if (c->stateful)
        build_fail(b, ST_UNSUPPORTED, "stateful of an LSTM is not supported; set it to false");
    if (json_true(c->time_major))
        build_fail(b, ST_UNSUPPORTED, "time_major of an LSTM is not supported; set it to false");
    if (build_failed(b))
        return;
    if (s.rank != 3)
        build_fail(b, ST_INVALID, "needs sequences (batch, time, features), the input is %s", shape_text(&s).s);
    else if (in->n != 1 && in->n != 3)
        build_fail(b, ST_INVALID, "takes the sequences alone, or with the two states h and c; it is called with %d inputs",
                   in->n);
}

static int or_class(int activation, const char *class_default)
{
    return activation == BY_CLASS ? activation_find(class_default) : activation;
}

static value_id lstm_bias(struct build *b, const struct layer *l)
{
    const struct lstm *c = l->config;
    const struct object *init = c->bias_initializer ? c->bias_initializer : INIT_ZEROS;

    if (!c->use_bias)
        return 0;
    return weight(b, l, "bias", SHAPE(4 * c->units), c->unit_forget_bias ? init_lstm_bias(b, init) : init);
}

static struct tuple lstm_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct lstm *c = l->config;
    value_id x = in->v[0], w, u, bias, y;
    struct rnn how = {.kind = RNN_LSTM,
                      .reverse = c->go_backwards,
                      .activation = or_class(c->activation, "tanh"),
                      .recurrent_activation = or_class(c->recurrent_activation, "sigmoid"),
                      .zero_output_for_mask = c->zero_output_for_mask,
                      .training = b->training};
    struct rnn_out out;

    lstm_check(b, c, in);
    w = weight(b, l, "kernel", SHAPE(last_dim(b, x), 4 * c->units),
               c->kernel_initializer ? c->kernel_initializer : INIT_GLOROT_UNIFORM);
    u = weight(b, l, "recurrent_kernel", SHAPE(c->units, 4 * c->units),
               c->recurrent_initializer ? c->recurrent_initializer : INIT_ORTHOGONAL);
    bias = lstm_bias(b, l);
    regularize(b, w, c->kernel_regularizer);
    regularize(b, u, c->recurrent_regularizer);
    if (bias)
        regularize(b, bias, c->bias_regularizer);
    if (build_failed(b))
        return one(b, 0);
    out = emit_rnn(b, x, w, u, bias, in->n == 3 ? in->v[1] : 0, in->n == 3 ? in->v[2] : 0, in->mask[0], how);
    y = c->return_sequences ? out.sequence : out.h;
    regularize_activity(b, y, c->activity_regularizer);
    return tuple_make(b, c->return_state ? 3 : 1, (value_id[]){y, out.h, out.c},
                      (value_id[]){c->return_sequences ? in->mask[0] : 0, 0, 0});
}

#define FIELD_FLAG(key, default_value, text)                                               \
    {                                                                                      \
#key, FIELD_BOOL, offsetof(struct lstm, key), .preset = default_value, .doc = text \
    }
#define FIELD_UNUSED(key)                                                                                 \
    {                                                                                                     \
#key, FIELD_JSON, offsetof(struct lstm, key), .flags = FIELD_NULLABLE, .doc = "read and not used" \
    }

static const struct field lstm_fields[] = {
    {"units", FIELD_INT, offsetof(struct lstm, units), .min = 1, .max = 1 << 20, .flags = FIELD_REQUIRED,
     .doc = "features of the output and of each state"},
    {"activation", FIELD_CHOICE, offsetof(struct lstm, activation), .choices = activation_names, .preset = BY_CLASS,
     .flags = FIELD_NULLABLE, .doc = "applied to candidate and cell state; tanh if absent"},
    {"recurrent_activation", FIELD_CHOICE, offsetof(struct lstm, recurrent_activation), .choices = activation_names,
     .preset = BY_CLASS, .flags = FIELD_NULLABLE, .doc = "applied to the gates; sigmoid if absent"},
    FIELD_FLAG(use_bias, 1, "whether a vector is added to the gates"),
    FIELD_FLAG(unit_forget_bias, 1, "whether the forget gate's bias begins at 1"),
    FIELD_FLAG(return_sequences, 0, "whether the output of every step is returned, not only the last"),
    FIELD_FLAG(return_state, 0, "whether the states h and c are returned behind the output"),
    FIELD_FLAG(go_backwards, 0, "whether the steps run from the last to the first; outputs stand in that order"),
    FIELD_FLAG(stateful, 0, "must be false"),
    FIELD_FLAG(unroll, 0, "read and not used: the result is the same"),
    FIELD_FLAG(zero_output_for_mask, 0, "whether the output of a masked step is 0, not that of the step before"),
    {"dropout", FIELD_FLOAT, offsetof(struct lstm, dropout), .min = 0, .max = 1, .doc = "must be 0"},
    {"recurrent_dropout", FIELD_FLOAT, offsetof(struct lstm, recurrent_dropout), .min = 0, .max = 1, .doc = "must be 0"},
    FIELD_INITIALIZER(lstm, kernel_initializer, "GlorotUniform"),
    FIELD_INITIALIZER(lstm, recurrent_initializer, "Orthogonal"),
    FIELD_INITIALIZER(lstm, bias_initializer, "Zeros"),
    FIELD_REGULARIZER(lstm, kernel_regularizer),
    FIELD_REGULARIZER(lstm, recurrent_regularizer),
    FIELD_REGULARIZER(lstm, bias_regularizer),
    FIELD_REGULARIZER(lstm, activity_regularizer),
    FIELD_CONSTRAINT(lstm, kernel_constraint),
    FIELD_CONSTRAINT(lstm, recurrent_constraint),
    FIELD_CONSTRAINT(lstm, bias_constraint),
    FIELD_UNUSED(seed),
    FIELD_UNUSED(implementation),
    FIELD_UNUSED(use_cudnn),
    {"time_major", FIELD_JSON, offsetof(struct lstm, time_major), .flags = FIELD_NULLABLE, .doc = "must be false"},
    {0},
};

const struct layer_type layer_lstm = {"LSTM", sizeof(struct lstm), lstm_fields, lstm_call};
