/* What training tells outside, and asks: progress, epochs, checkpoints, files; whether to stop. server/lane.c implements it with
 * storage. All calls come from the lane's thread. */
#ifndef HORN_RUN_SINK_H
#define HORN_RUN_SINK_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/status.h"

struct model;
struct weights;
struct optimizer_spec;

struct progress {
    int epoch, epochs;             /* 0-based epoch under way */
    int64_t step, steps_per_epoch; /* done in this epoch */
    double samples_per_second, eta_seconds;
    int n; /* running metrics of this epoch, and the last known validation ones */
    const char *const *names;
    const double *values;
};

/* Everything that the next step depends on, and nothing else. Pointers are borrowed for the call. */
struct snapshot {
    const struct model *model;
    const struct weights *layout;
    const void *weights; /* layout->bytes */
    const struct optimizer_spec *optimizer;
    const void *slots;   /* optimizer->n_slots * layout->trainable_bytes */
    const void *best;    /* callbacks' best weights, or NULL */
    const char *compile; /* canonical compile() arguments as JSON, for the file's training_config; NULL: none */
    int64_t updates;     /* optimizer steps done */
    float rate;
    int epoch;    /* epoch under way */
    int64_t step; /* steps done in it */
    uint64_t seed;
    const double *accumulators; /* metric sums of the epoch under way */
    int n_accumulators;
    const void *callbacks; /* states, one after the other */
    uint64_t callbacks_bytes;
};

enum poll { POLL_GO = 0, POLL_CHECKPOINT = 1, POLL_CANCEL = 2, POLL_STOP = 4 /* checkpoint, then leave the job queued */ };

struct sink {
    unsigned (*poll)(struct sink *s);                           /* bits of enum poll; called at every step, must be cheap */
    void (*progress)(struct sink *s, const struct progress *p); /* at most some ten times a second */
    /* History row of a finished epoch (0-based); rows at and beyond a resumed epoch replace what was there. */
    enum status (*epoch)(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                         struct problem *problem);
    enum status (*checkpoint)(struct sink *s, const struct snapshot *now, struct problem *problem);
    enum status (*file)(struct sink *s, const char *name, bool weights_only, const struct snapshot *now,
                        struct problem *problem);
    void (*note)(struct sink *s, const char *line);
};

#endif
