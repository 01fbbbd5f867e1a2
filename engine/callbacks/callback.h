/* What a callback is: fields, a plain-bytes state that checkpoints carry, and hooks.
 *
 * A line `const struct callback callback_x = {` puts a file into the list. State is a struct without pointers, zeroed before
 * `begin`; it is saved and restored as bytes, so a resumed job behaves as if it had never stopped. */
#ifndef HORN_CALLBACKS_CALLBACK_H
#define HORN_CALLBACKS_CALLBACK_H

#include "engine/base/field.h"

struct callback_logs { /* what fit knows at the end of an epoch */
    int n;
    const char *const *names; /* "loss", "accuracy", "val_loss" ... */
    const double *values;
};

struct fit_control { /* what a callback may do; owned by the training loop */
    int dialect;
    int epoch, epochs; /* 0-based */
    bool stop;         /* set: training ends after this epoch (or at once from step_end) */
    float rate;        /* learning rate; write to change it */
    bool keep_best;    /* set: the loop copies the weights as the best ones */
    bool restore_best; /* set: the loop puts the best weights back (at the end of training, or now with stop) */
    char file[256];    /* set to a name: the loop writes a model file of that name */
    bool file_weights_only;
    char note[256]; /* set: one log line */
};

struct callback {
    CLASS_MEMBERS
    size_t state_size;
    enum status (*check)(const void *config, const char *pointer, struct problem *problem); /* at parse; NULL: nothing */
    void (*begin)(const void *config, void *state, struct fit_control *c);
    void (*epoch_end)(const void *config, void *state, const struct callback_logs *logs, struct fit_control *c);
    void (*step_end)(const void *config, void *state, double loss, struct fit_control *c); /* loss may be NaN; NULL: nothing */
    void (*train_end)(const void *config, void *state, struct fit_control *c);
    bool survives_nan; /* TerminateOnNaN: a NaN loss ends training instead of failing the job */
};

extern const struct catalogue callback_catalogue;

/* The log called `monitor`, or the same metric under the dialect's own name (val_acc for val_accuracy and back). false:
 * not there. */
bool logs_find(const struct callback_logs *l, const char *monitor, double *ret);

enum monitor_mode { MONITOR_AUTO, MONITOR_MIN, MONITOR_MAX };
extern const char *const monitor_modes[]; /* "auto", "min", "max" */
/* true if larger is better: by mode, or by the dialect's auto rule for the monitored name. */
bool monitor_larger(int mode, const char *monitor, int dialect);

#endif
