/* What the files of the dialect rewriting share; nobody else includes this, but keras.c and model.c for single layers.
 *
 *   dialect.c              which dialect; entries, automatic names, Sequential models
 *   dialect_functional.c   functional models: calls and their numbers
 *   dialect_masks.c        operations that Keras 3 prints for masks
 *   dialect_layer.c        one layer's class and configuration
 *   dialect_train.c        optimizers and callbacks
 *   dialect_tables.c       the rows: old class, old key, new key, conversion; defaults by version
 *
 * Canonical entries carry two private members until keras.c has read them: "horn_pointer", the JSON pointer of the entry in the
 * user's own document, and "horn_keys", {"units": "output_dim"} for renamed keys, so that messages name what the user wrote. */
#ifndef HORN_MODEL_DIALECT_PARTS_H
#define HORN_MODEL_DIALECT_PARTS_H

#include "engine/model/dialect.h"
#include "engine/model/names.h"

#define MAX_NESTING 32    /* models inside models */
#define MAX_LAYERS  10000 /* of a document, nested ones included */

#define IN(d)      (1u << (d))
#define K1         IN(DIALECT_KERAS_1)
#define K2         (IN(DIALECT_KERAS_2) | IN(DIALECT_KERAS_2_3))
#define TFK        IN(DIALECT_TF_KERAS)
#define K3         IN(DIALECT_KERAS_3)
#define EVERY      (K1 | K2 | TFK | K3)
#define N_DIALECTS 5

struct canon { /* one rewriting under way */
    enum dialect dialect;
    bool channels_first;  /* some layer of a Keras 1 document says "th": those that do not print it are taken alike */
    bool config_optional; /* a layer without config is fine (preprocess) */
    struct arena *mem;    /* pointers, names */
    struct names taken;   /* layer names that the document gives */
    struct names counts;  /* automatic names so far: "dense" -> 2 */
    struct text *warnings;
    struct problem *problem;
    int n_layers;
};

/* One conversion of a configuration value. Takes nothing; writes *ret (owned by the caller) or, to drop the key, leaves it NULL. */
struct conversion {
    struct canon *c;
    struct json *config;         /* the configuration as rewritten so far; may be changed */
    const struct json *value;    /* under the old key; NULL where a row with .always finds none */
    const char *layer, *pointer; /* name of the layer; JSON pointer of the value */
    struct json *ret;
};
typedef enum status convert_fn(struct conversion *v);

struct class_row {
    unsigned dialects;
    const char *from, *to;
};
struct key_row {
    unsigned dialects;
    const char *layer;     /* canonical class; NULL: every class */
    const char *from, *to; /* to NULL: dropped (after convert, if any) */
    convert_fn *convert;   /* NULL: the value as it is */
    bool always;           /* convert also where the key is absent */
};
struct default_row {
    const char *layer, *key;
    const char *json[N_DIALECTS]; /* by enum dialect; NULL: the layer's own preset */
};
struct object_row { /* an initializer or regularizer by name: what it means in canonical form */
    unsigned dialects;
    const char *from, *to;
    const char *config; /* JSON, NULL: the object's own configuration */
};

extern const struct class_row class_rows[], merge_rows[];
extern const struct key_row key_rows[];
extern const struct default_row default_rows[];
extern const struct object_row initializer_rows[], regularizer_rows[];

convert_fn convert_consume_less, convert_kernel_rows, convert_border_mode, convert_dim_ordering, convert_data_format,
    convert_forget_bias, convert_slope, convert_padding_2d, convert_axis, convert_off;

/* Class and configuration of one layer that is no model. `config` is changed in place; *class_name becomes the canonical one; keys
 * collects renamed keys. pointer: of the configuration. */
enum status canon_layer(struct canon *c, const char **class_name, struct json *config, const char *layer, const char *pointer,
                        struct json *keys);

/* What a layer configuration tells about the shape of its input: [null, ...] and a type, or NULL. pointer: of the configuration. */
enum status canon_input_hint(struct canon *c, const char *class_name, const struct json *config, const char *pointer,
                             struct json **shape, const char **dtype);
/* A batch shape as an array whose first element is null; a lone number counts as one axis behind the batch. */
enum status canon_shape(struct canon *c, const struct json *j, const char *pointer, struct json **ret);
/* Type name of "float32", {"class_name": "DTypePolicy", ...}; NULL and null give `preset`. float32 and mixed_bfloat16 compute; inputs may be any type. */
enum status canon_dtype(struct canon *c, const struct json *j, const char *pointer, const char *preset, bool is_input,
                        const char **ret);

/* One entry of a list of layers, a layer or a whole model at that depth. */
enum status canon_entry(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret);
/* By place in a functional model's list: the operations of Keras 3 that only masks need, which are left out. */
bool *canon_mask_operations(struct canon *c, const struct json *list, const struct json *outputs);
enum status canon_functional(struct canon *c, const struct json *entry, const char *pointer, int depth, struct json **ret);
/* The name that an entry gives itself (inside the configuration or, in functional lists, beside it), or an automatic one. */
enum status canon_entry_name(struct canon *c, const struct json *entry, const struct json *config, const char *class,
                             const char *pointer, const char **ret);
struct json *canon_new_entry(const char *module, const char *class, const char *registered, const char *name,
                             const char *pointer, struct json *config); /* takes config */
bool canon_is_model(const char *class);
bool canon_entry_is(const struct json *entry, const char *class);
#define CANON_MOST_BRANCHES 64
/* inbound_nodes with one call that reads the first output of the first call of each layer; n <= CANON_MOST_BRANCHES. */
struct json *canon_node(const char *const *layers, int n);
struct json *canon_end(const char *layer, int64_t node); /* [layer, node, 0] */

/* A list of layers (preprocess) as an array of canonical entries. A missing config is an empty one. */
enum status dialect_layers(const struct json *list, const char *pointer, enum dialect d, struct json **ret,
                           struct text *warnings, struct problem *problem);

/* Class name of an entry whose structure is right and whose code is Keras' own. what: "a layer", "an optimizer". */
enum status canon_class(const struct json *entry, const char *pointer, const char *what, const char **ret,
                        struct problem *problem);

#endif
