/* fit(): epochs, batches, validation, callbacks, checkpoints. evaluate() and bulk predict() are in infer.h.
 *
 * Runs in the lane's thread. The order of rows follows from (seed, epoch); a resumed run ends with the same bits as an
 * undisturbed one: snapshot.h lists what that needs. */
#ifndef HORN_RUN_TRAIN_H
#define HORN_RUN_TRAIN_H

#include "engine/run/program.h"
#include "engine/run/sink.h"

struct fit_setup {
    const struct model *model;
    struct weights *weights; /* laid out, or empty */
    const struct compile_spec *compile;
    const struct fit_spec *fit;
    const struct backend *backend;
    struct device *device;
    uint64_t seed;
    struct source *train;
    struct source *validation;    /* NULL: none, or split from train */
    const struct snapshot *start; /* NULL: fresh weights; else weights, slots and counters to go on from. With resume false
                                      * (a version to continue from): weights, slots, updates and, where compile says none, rate */
    bool resume;                  /* start is a checkpoint of this very job */
};

enum fit_end { FIT_DONE, FIT_CANCELLED, FIT_STOPPED /* checkpointed, to go on later */ };

/* result: called once at the end with the final state, before return, when the end is FIT_DONE (publish). */
enum status fit_run(const struct fit_setup *s, struct sink *sink,
                    enum status (*result)(void *context, const struct snapshot *last, struct problem *problem), void *context,
                    enum fit_end *end, struct problem *problem);

#endif
