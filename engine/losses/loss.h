/* What a loss is: a function of target and prediction that gives one value per sample.
 *
 * A line `const struct loss loss_x = {` puts a file into the list. per_sample reduces the last axis. Weights, masks and the
 * reduction to a scalar are common: loss_scalar(). A cross-entropy that follows a softmax or sigmoid takes its logits. */
#ifndef HORN_LOSSES_LOSS_H
#define HORN_LOSSES_LOSS_H

#include "engine/base/field.h"
#include "engine/ops/ops.h"

struct loss {
    CLASS_MEMBERS
    bool sparse; /* targets are class numbers: y has the prediction's shape without the last axis, or 1 there */
    value_id (*per_sample)(struct build *b, const void *config, value_id y, value_id p);
};

extern const struct catalogue loss_catalogue; /* aliases of every version: mse, MSE, mean_squared_error, bce ... */

/* If p was made by a softmax (sigmoid) op or activation, its logits; else 0. */
value_id logits_of_softmax(struct build *b, value_id p);
value_id logits_of_sigmoid(struct build *b, value_id p);

/* y and p of ranks that differ by one, the longer ending in 1: that axis dropped, or a y or p of rank 1 given one (Keras 3's
 * squeeze_or_expand_to_same_rank). */
void squeeze_pair(struct build *b, value_id *y, value_id *p);

/* s (batch, ...) per sample -> scalar by the dialect's rule: weights (batch) or (batch, time) or 0,
 * mask a prefix of s or 0.
 *   Keras 1, 2.0-2.2: s M / mean(M), then s w / mean(w != 0), then the mean;   2.3: sum(w s) / N, mask into w
 *   tf.keras, Keras 3: sum(w s) / N; with a mask sum(w s M) / sum(M) */
value_id loss_scalar(struct build *b, value_id s, value_id weights, value_id mask);

#endif
