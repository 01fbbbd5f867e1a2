/* The weights of a model: names, shapes and places in the flat region.
 *
 * Filled by the first build (each layer asks for its weights), laid out once by weights_layout: trainable first, then frozen, each at a
 * multiple of REGION_ALIGN, padding zero. Later builds find the same entries. The trainable part is one flat vector for the optimizer. */
#ifndef HORN_MODEL_WEIGHTS_H
#define HORN_MODEL_WEIGHTS_H

#include "engine/layers/layer.h"

struct weight_entry {
    const char *layer; /* leaf's name: "inner/dense_1" */
    const char *name;  /* "kernel" */
    const char *path;  /* "inner/dense_1/kernel": key of its random numbers */
    int leaf;          /* index of the leaf in model.layers; -1 if weights.layers is not set */
    struct shape shape;
    const struct object *init;
    bool trainable;
    size_t offset;                /* bytes into AT_WEIGHT once laid out */
    value_id leaf_value, current; /* of the build under way */
    bool regularized;             /* in the build under way: regularize() has added its penalty */
    uint64_t hash;                /* of the path, so that finding a weight compares numbers */
};

struct weights {
    struct arena *mem;
    struct weight_entry *entry;
    int n, room;
    int *slot, n_slots; /* open addressing by hash: index of an entry + 1, 0: free; at most half full */
    bool laid_out;
    size_t trainable_bytes, bytes; /* flat parts */
    const struct layer *layers;    /* model.layers, set by model_build before the first layer is called: gives entry.leaf */
    int n_layers;
    struct shape
        input; /* of the model's only input in the first build: what a Sequential that does not say it was given; rank 0: none */
};

struct weights *weights_new(void);
struct weights *weights_free(struct weights *w);
DEFINE_OWNED(struct weights, weights_free)

void weights_begin(struct weights *w); /* forget the values of the last build; call before each */
/* After the first build: fixes the offsets and patches the leaves of `b`'s graph. Later builds: nothing to do. */
void weights_layout(struct weights *w, struct build *b);
int64_t weights_count(const struct weights *w, bool trainable_only); /* elements without padding */
struct weight_entry *weights_find(struct weights *w, const char *layer, const char *name);

/* First values into the flat region `to` (w->bytes): each entry by its initializer, Philox keyed by (seed, path). */
enum status weights_init(const struct weights *w, uint64_t seed, void *to, struct problem *problem);

/* One initializer's values: shape, key; formulas in keras-features 6. ST_INVALID when the shape does not suit (identity of rank 3). */
struct initializer {
    CLASS_MEMBERS
    enum status (*fill)(const void *config, const struct shape *shape, uint64_t key, float *to, struct problem *problem);
};

#endif
