/* What the files of keras_h5 share; nobody else includes this.
 *
 *   keras_h5_order.c    groups of weights in the order in which Keras numbers layers
 *   keras_h5_config.c   model_config and training_config, both ways
 *   keras_h5_write.c    the file
 *   keras_h5_read.c     weights and optimizer state out of it
 *   keras_h5_convert.c  one layer's arrays as other versions and backends stored them */
#ifndef HORN_STORAGE_KERAS_H5_PARTS_H
#define HORN_STORAGE_KERAS_H5_PARTS_H

#include "engine/model/model.h"
#include "storage/keras_h5.h"

/* One group of /model_weights: an outermost layer, or a leaf of it. Trainable entries stand first, then the others. */
struct weight_group {
    const char *name;
    int n;
    const struct weight_entry **entry;
};

/* All outermost layers, weightless ones too, in the order of Keras' model.layers (its map_graph), which need not be that of the
 * document: Keras matches weights and slots by it. In the arena. */
void weight_groups(const struct model *m, const struct weights *layout, struct arena *mem, struct weight_group **ret, int *n);
/* A group as one group for each of its leaves that have weights, in the order of `entry`. */
int weight_leaves(const struct model *m, const struct weight_group *g, struct arena *mem, struct weight_group **ret);

/* The model as Keras' own .h5 reader wants it; *exact (NULL if the first says all) is the same with what only Horn knows. Heap.
 * input: for a Sequential that does not say the shape of its input, weights.input. */
void config_of_model(const struct model *m, const struct shape *input, char **nearest, char **exact);
/* Likewise training_config, out of compile()'s canonical arguments. */
enum status config_of_compile(const char *compile, float rate, char **nearest, char **exact, struct problem *problem);

#define H5_CHECKPOINT_VERSION 1 /* of the group horn */
#define SLOT_PATH             "/optimizer_weights"
#define EXACT_MODEL           "horn_model_config"
#define EXACT_COMPILE         "horn_training_config"

/* Calls visit for each slot's part of each trainable weight in the order of Keras 3's optimizer.variables. `offset` is that of
 * the part in the flat slots. Stops at the first failure. */
typedef enum status (*slot_visit)(void *arg, const struct slot_type *slot, const struct weight_entry *e, size_t offset,
                                  struct problem *problem);
enum status each_slot(const struct optimizer_spec *o, const struct weights *layout, const struct weight_group *groups,
                      int n_groups, slot_visit visit, void *arg, struct problem *problem);

struct stored { /* an array of a group in the file */
    const char *path;
    struct shape shape;
};

struct origin { /* who wrote the weights */
    bool keras_1;
    bool theano; /* kernels of convolutions are turned by 180 degrees */
    const struct model *m;
};

/* How many of the arrays the group takes; -1: more than there are. */
int convert_count(const struct origin *from, const struct weight_group *g, const struct stored *a, int n);
/* Reads the group's arrays (convert_count has said that they are all) into the flat region `to`. */
enum status convert_read(struct h5 *f, const struct origin *from, const struct weight_group *g, const struct stored *a,
                         void *to, struct problem *problem);

#endif
