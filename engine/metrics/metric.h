/* What a metric is: per-sample values whose weighted mean over an epoch is reported.
 *
 * A line `const struct metric metric_x = {` puts a file into the list; every loss is a metric too, by metric_parse(). */
#ifndef HORN_METRICS_METRIC_H
#define HORN_METRICS_METRIC_H

#include "engine/losses/loss.h"

struct metric {
    CLASS_MEMBERS
    value_id (*per_sample)(struct build *b, const void *config, value_id y, value_id p); // values (batch, ...)
};

extern const struct catalogue metric_catalogue;

struct metric_spec {
    const char *label;           /* the key in history and replies: as the user typed it (or the object's "name") */
    const struct metric *metric; /* one of these two */
    const struct loss *loss;
    const void *config;
    bool weighted; /* weighted_metrics: sample weights count */
};

/* A name or {"class_name", "config"}. "accuracy" and "acc" are resolved by the dialect's rule from the loss and the shapes of y and p:
 *   Keras 1, 2: p's last axis 1 or loss binary_crossentropy: binary; loss sparse_...: sparse; else categorical
 *   tf.keras, Keras 3: p's last axis 1: binary; rank y < rank p or y's last axis 1: sparse; else categorical */
enum status metric_parse(const struct json *j, struct arena *mem, const char *pointer, int dialect, const struct loss *loss,
                         const struct shape *y, const struct shape *p, struct metric_spec *ret, struct problem *problem);

/* Two scalars for emit_accumulate: the sum of the values times their weights (weights, mask: 0 or as loss_scalar), and the sum
 * of the weights. */
void metric_emit(struct build *b, const struct metric_spec *m, value_id y, value_id p, value_id weights, value_id mask,
                 value_id *total, value_id *count);

#endif
