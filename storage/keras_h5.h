/* Keras' whole-model `.h5` file, written and read (keras-hdf5-formats 2, 3, 6).
 *
 * Written so that Keras 3's load_model() opens it, optimizer state in Keras 3's order included. Checkpoints are the same file
 * plus one group `horn`. Keras itself (3.15.1) restores of a .h5 file the optimizer's counter and rate and leaves the slots
 * alone, of its own files too: it builds the optimizer for no variables before it sets them. */
#ifndef HORN_STORAGE_KERAS_H5_H
#define HORN_STORAGE_KERAS_H5_H

#include "engine/model/weights.h"
#include "engine/optimizers/optimizer.h"
#include "engine/run/sink.h"
#include "storage/hdf5.h"

/* Writes `now` to path (a temporary name). weights_only: the contents of /model_weights at the root. checkpoint: with the
 * group horn. */
enum status keras_h5_write(const char *path, const struct snapshot *now, bool weights_only, bool checkpoint,
                           struct problem *problem);

/* What a file says before its weights are read. Texts are in the arena. */
struct keras_h5 {
    const char *architecture;            /* JSON for model_parse, which finds the dialect in it; NULL: a weights-only file */
    const char *training;                /* training_config; NULL: not compiled */
    const char *keras_version, *backend; /* "" if absent */
};
enum status keras_h5_describe(struct h5 *f, struct arena *mem, struct keras_h5 *ret, struct problem *problem);

/* training_config as the "compile" object of a job: {"optimizer", "loss", "metrics", "weighted_metrics", "loss_weights"}. The
 * rate in it is that in use when the file was written. ST_INVALID: there is none. */
enum status keras_h5_compile(const struct keras_h5 *k, struct json **ret, struct problem *problem);

/* Weights into the flat region `to` (layout->bytes), matched over the layers that have weights: by name if both sides have the
 * same names, else by order. Converted between versions (K1's LSTM arrays, th kernels, Theano's flip) by the file's own marks.
 * ST_INVALID names layer and both shapes. */
enum status keras_h5_read_weights(struct h5 *f, const struct model *m, const struct weights *layout, void *to,
                                  struct problem *problem);
/* Optimizer state by order: *updates, *rate (NaN if the file has none) and the flat slots. *found false: the file has none that
 * fits; nothing is written then and `note` says why. */
enum status keras_h5_read_optimizer(struct h5 *f, const struct model *m, const struct weights *layout,
                                    const struct optimizer_spec *o, void *slots, int64_t *updates, double *rate, bool *found,
                                    char note[256], struct problem *problem);

#endif
