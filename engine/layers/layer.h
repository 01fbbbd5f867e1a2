/* What a layer is: a class with fields and one function that emits its ops.
 *
 * One file per family in engine/layers; a line that begins `const struct layer_type layer_x = {` puts it into the list
 * that the build generates. Configurations arrive in canonical Keras 3 form: engine/model/dialect.c has already
 * rewritten older spellings and defaults. A layer never checks for errors: see build.h. */
#ifndef HORN_LAYERS_LAYER_H
#define HORN_LAYERS_LAYER_H

#include "engine/base/field.h"
#include "engine/graph/build.h"

struct layer_type;

struct layer {
    const struct layer_type *type;
    const char *name; /* as in the model; nested models prefix theirs: "inner/dense_1" */
    const void *config;
    bool trainable;
    enum dtype compute; /* what its inputs are cast to and its outputs are of: F32, or BF16 for Keras' mixed_bfloat16 */
};

struct layer_type {
    CLASS_MEMBERS
    /* Call arguments beyond the first tensor (initial_state) come in the tuple's tail. Masks: what is not passed on is dropped. */
    struct tuple (*call)(struct build *b, const struct layer *l, const struct tuple *in);
};

extern const struct catalogue layer_catalogue, initializer_catalogue, regularizer_catalogue;

/* The weight `name` of the layer, made at its first use in a build and shared by later calls of the layer: the current value.
 * Trainable unless the layer is not or weight_fixed is used (moving statistics). init borrowed for ever: a field or INIT_. */
value_id weight(struct build *b, const struct layer *l, const char *name, struct shape shape, const struct object *init);
value_id weight_fixed(struct build *b, const struct layer *l, const char *name, struct shape shape, const struct object *init);
/* v becomes the current value of the layer's weight for later readers in this build; stored at the end of the step. */
void weight_assign(struct build *b, const struct layer *l, const char *name, value_id v);
/* Adds the regularizer of w to the loss; NULL: nothing. Once per build and weight. */
void regularize(struct build *b, value_id w, const struct object *regularizer);
/* activity_regularizer: on the output, divided by the batch size in tf.keras and Keras 3. */
void regularize_activity(struct build *b, value_id y, const struct object *regularizer);

/* ST_UNSUPPORTED with the key's name unless value is NULL or null. */
void refuse_constraint(struct build *b, const char *key, const struct json *value);

/* Masks are a prefix of their value's shape: ones appended until it has x's rank, so that it broadcasts over x. 0 stays 0. */
value_id mask_like(struct build *b, value_id mask, value_id x);

extern const struct object init_zeros, init_ones, init_glorot_uniform, init_orthogonal, init_uniform;
#define INIT_ZEROS          (&init_zeros)
#define INIT_ONES           (&init_ones)
#define INIT_GLOROT_UNIFORM (&init_glorot_uniform)
#define INIT_ORTHOGONAL     (&init_orthogonal)
#define INIT_UNIFORM        (&init_uniform) /* Keras' RandomUniform(-0.05, 0.05) */

/* LSTM's bias with unit_forget_bias: `inner` (NULL: zeros) with ones over the forget gate's quarter. Lives as long as
 * b->weights. */
const struct object *init_lstm_bias(struct build *b, const struct object *inner);

/* Rows that many tables share. */
#define FIELD_ACTIVATION(type, member)                                                                              \
    {                                                                                                               \
#member, FIELD_CHOICE, offsetof(struct type, member), .choices = activation_names, .flags = FIELD_NULLABLE, \
                                                              .doc = "name of the function applied to the output"   \
    }
#define FIELD_INITIALIZER(type, member, default_class)                                                               \
    {                                                                                                                \
#member, FIELD_OBJECT, offsetof(struct type, member), .catalogue = &initializer_catalogue,                   \
                                                              .preset_text = default_class, .flags = FIELD_NULLABLE, \
                                                              .doc = "distribution of the first values"              \
    }
#define FIELD_REGULARIZER(type, member)                                                                                     \
    {                                                                                                                       \
#member, FIELD_OBJECT, offsetof(struct type, member), .catalogue = &regularizer_catalogue, .flags = FIELD_NULLABLE, \
                                                              .doc = "penalty added to the loss"                            \
    }
#define FIELD_CONSTRAINT(type, member)                                                                              \
    {                                                                                                               \
#member, FIELD_JSON, offsetof(struct type, member), .flags = FIELD_NULLABLE,                                \
                                                            .doc = "null: constraints on weights are not supported" \
    }

#endif
