/* Checkpoints: Keras' .h5 and the group `horn` with all that the next step depends on. Written aside, synced, renamed. */
#ifndef HORN_STORAGE_CHECKPOINT_H
#define HORN_STORAGE_CHECKPOINT_H

#include "storage/db.h"
#include "storage/keras_h5.h"

/* Writes jobs/<job>/<n>.ckpt.h5 and returns its path relative to the folder; the row is the caller's (jobs_checkpoint). */
enum status checkpoint_save(struct db *db, int64_t job, int64_t number, const struct snapshot *now, char path[128],
                            struct problem *problem);

struct checkpoint { /* a snapshot that owns its memory */
    struct snapshot now;
    void *weights, *slots, *best, *callbacks;
    double *accumulators;
    size_t weight_bytes, slot_bytes, callback_bytes;
};
enum status checkpoint_load(struct db *db, const char *path, const struct model *m, const struct weights *layout,
                            const struct optimizer_spec *o, struct checkpoint **ret, struct problem *problem);
struct checkpoint *checkpoint_free(struct checkpoint *c);
DEFINE_OWNED(struct checkpoint, checkpoint_free)

#endif
