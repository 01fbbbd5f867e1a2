/* Embedding: row `index` of a table (input_dim, output_dim). mask_zero: index 0 is padding, and the mask says so.
 *
 * An index outside of the table gives a row of NaN, as Keras on JAX does; training then reports the layer. */
#include "engine/layers/layer.h"
#include "engine/ops/ops.h"

struct embedding {
    int64_t input_dim, output_dim;
    const struct object *embeddings_initializer, *embeddings_regularizer, *activity_regularizer;
    const struct json *embeddings_constraint, *input_length;
    bool mask_zero;
};

static value_id not_zero(struct build *b, value_id x)
{
    struct formula f = {0};
    term v = f_in(&f);

    f_out(&f, f_sub(&f, f_const(&f, 1), f_eq(&f, v, f_const(&f, 0))));
    return emit_formula(b, &f, &x);
}

static struct tuple embedding_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct embedding *c = l->config;
    value_id table, y;

    refuse_constraint(b, "embeddings_constraint", c->embeddings_constraint);
    table = weight(b, l, "embeddings", SHAPE(c->input_dim, c->output_dim),
                   c->embeddings_initializer ? c->embeddings_initializer : INIT_UNIFORM);
    regularize(b, table, c->embeddings_regularizer);
    y = emit_gather(b, table, in->v[0]);
    regularize_activity(b, y, c->activity_regularizer);
    return one_masked(b, y, c->mask_zero ? not_zero(b, in->v[0]) : 0);
}

static const struct field embedding_fields[] = {
    {"input_dim", FIELD_INT, offsetof(struct embedding, input_dim), .min = 1, .max = INT32_MAX, .flags = FIELD_REQUIRED,
     .doc = "number of rows: the largest index is one less"},
    {"output_dim", FIELD_INT, offsetof(struct embedding, output_dim), .min = 1, .max = 1 << 24, .flags = FIELD_REQUIRED,
     .doc = "length of a row"},
    FIELD_INITIALIZER(embedding, embeddings_initializer, "RandomUniform"),
    FIELD_REGULARIZER(embedding, embeddings_regularizer),
    FIELD_REGULARIZER(embedding, activity_regularizer),
    FIELD_CONSTRAINT(embedding, embeddings_constraint),
    {"mask_zero", FIELD_BOOL, offsetof(struct embedding, mask_zero),
     .doc = "whether index 0 is padding that later layers skip"},
    {"input_length", FIELD_JSON, offsetof(struct embedding, input_length), .flags = FIELD_NULLABLE, .doc = "read and not used"},
    {0},
};

const struct layer_type layer_embedding = {"Embedding", sizeof(struct embedding), embedding_fields, embedding_call};
