/* A Keras model as structs: layers, and the calls of them in order. Parsed once, immutable, in one arena; may be shared.
 *
 * Nested models are flattened: their layers are listed as leaves named "outer/inner", their calls stand in line. `top` of a leaf
 * is the entry of the outermost model that it belongs to, since Keras' files group weights by that.
 *
 *     TRY(model_parse(json, "/model/architecture", &m, problem));
 *     struct tuple in = ..., out;
 *     TRY(model_build(m, &b, &in, &out, problem)); */
#ifndef HORN_MODEL_MODEL_H
#define HORN_MODEL_MODEL_H

#include "engine/graph/build.h"
#include "engine/layers/layer.h"
#include "engine/model/dialect.h"

struct model_tensor { /* output `index` of call `call`; call -1: model input `index` */
    int call, index;
};

struct model_call {
    int layer; /* index into layers */
    int n_in;
    const struct model_tensor *in;
};

struct model_input {
    const char *name;
    struct shape shape; /* with the batch axis, -1. rank -1: a Sequential that does not say it takes the data's row shape */
    enum dtype type;    /* as declared: float32, int32 ... */
};

struct model {
    struct arena *mem; /* owned */
    enum dialect dialect;
    const char *name;
    bool sequential;
    struct layer *layers; /* leaves, in file order */
    int *top;             /* per leaf: index into tops */
    int n_layers;
    const char **tops; /* names of the outermost entries, in file order, InputLayers excluded */
    int n_tops;
    struct model_call *calls;
    int n_calls;
    struct model_input *inputs;
    int n_inputs;
    const char **output_names; /* layer that makes each output */
    struct model_tensor *outputs;
    int n_outputs;
    struct json *canonical; /* owned; what files carry as model_config */
    const char *warnings;   /* lines, "" if none */
    int64_t n_nodes_limit;
};

/* Parses architecture (any dialect). Unknown layers are ST_UNSUPPORTED by name and pointer; a name twice, a cycle, a reference to
 * nothing ST_INVALID; keys unknown in a layer's config are named in warnings. */
enum status model_parse(const struct json *architecture, const char *pointer, struct model **ret, struct problem *problem);
struct model *model_free(struct model *m);
DEFINE_OWNED(struct model, model_free)

/* A list of stateless layers put in front of an input: "preprocess" (Rescaling, Flatten, Reshape ...). A Sequential without input. */
struct prepare {
    struct arena *mem;
    struct layer *layers;
    int n_layers;
    const char *json;       /* as posted */
    struct json *canonical; /* owned; the layers' configurations borrow from it */
};
enum status prepare_parse(const struct json *list, const char *pointer, struct prepare **ret, struct problem *problem);
struct prepare *prepare_free(struct prepare *p);
DEFINE_OWNED(struct prepare, prepare_free)
value_id prepare_build(const struct prepare *p, struct build *b, value_id x); /* NULL: x */

/* Calls every layer in order: `in` holds one value per model input (batch bound), out gets one per output. b->weights must be set (the
 * first build with an empty one lays the weights out). Problem: the layer's name and both shapes. */
enum status model_build(const struct model *m, struct build *b, const struct tuple *in, struct tuple *out,
                        struct problem *problem);

/* Index of the input (output) of that name; -1. */
int model_input_find(const struct model *m, const char *name);
int model_output_find(const struct model *m, const char *name);

#endif
