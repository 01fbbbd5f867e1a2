/* What the callbacks that watch a value share: the best so far, and what to say when the value is missing. */
#ifndef HORN_CALLBACKS_MONITOR_H
#define HORN_CALLBACKS_MONITOR_H

#include "engine/callbacks/callback.h"

struct best { /* part of a callback's state: plain bytes */
    double value;
    bool known;
};

/* Whether value beats `than` by more than min_delta in the direction; NaN never does. Keras 3 compares as float32. */
bool monitor_better(double value, double than, double min_delta, bool larger, int dialect);
/* Whether value beats the best so far; the first one always does. */
bool monitor_improves(const struct best *b, double value, double min_delta, bool larger, int dialect);
/* A note that names the missing log and those that are there. */
void monitor_missing(const char *callback, const char *monitor, const struct callback_logs *logs, struct fit_control *c);

#define FIELD_MONITOR(type)                                                                                                  \
    {                                                                                                                        \
        "monitor", FIELD_TEXT, offsetof(struct type, monitor), .preset_text = "val_loss", .max = 255,                        \
                                                               .doc = "name of the value that is watched, as in the history" \
    }
#define FIELD_MODE(type)                                                              \
    {                                                                                 \
        "mode", FIELD_CHOICE, offsetof(struct type, mode),                            \
            .choices = monitor_modes, .preset = MONITOR_AUTO,                         \
            .doc = "whether smaller or larger is better; auto: larger for accuracies" \
    }
#define FIELD_VERBOSE(type)                                                                                  \
    {                                                                                                        \
        "verbose", FIELD_INT, offsetof(struct type, verbose), .min = 0, .max = 2, .doc = "read and not used" \
    }

#endif
