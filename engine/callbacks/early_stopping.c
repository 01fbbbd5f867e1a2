/* EarlyStopping: ends training when a value has not improved for `patience` epochs.
 *
 * Versions differ: Keras 1 compares its counter before counting, so it waits one epoch more; from
 * tf.keras on the first epoch never stops, epochs before start_from_epoch are not looked at, and with a baseline the
 * counter is reset only by a value that beats the baseline too, while Keras 2 starts from the baseline as the best. Best
 * weights come back at the stop; in Keras 3 at the end of training in any case. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/callbacks/monitor.h"
#include "engine/model/dialect.h"

struct early_stopping {
    const char *monitor;
    double min_delta, baseline; /* NaN: none */
    int64_t patience, verbose, start_from_epoch;
    int mode;
    bool restore_best_weights;
};

struct early_state {
    struct best best;
    int64_t wait;
    int best_epoch;
    bool kept; /* best weights have been copied */
};

static void early_begin(const void *config, void *state, struct fit_control *c)
{
    const struct early_stopping *e = config;
    struct early_state *s = state;

    if (c->dialect < DIALECT_TF_KERAS && !isnan(e->baseline))
        s->best = (struct best){e->baseline, true};
}

static void keep_best(const struct early_stopping *e, struct early_state *s, struct fit_control *c)
{
    s->best_epoch = c->epoch;
    if (e->restore_best_weights)
        c->keep_best = s->kept = true;
}

static void stop(const struct early_stopping *e, const struct early_state *s, struct fit_control *c)
{
    c->stop = true;
    if (s->best.known)
        snprintf(c->note, sizeof(c->note), "epoch %d: early stopping, \"%s\" was best in epoch %d with %.6g", c->epoch + 1,
                 e->monitor, s->best_epoch + 1, s->best.value);
    else
        snprintf(c->note, sizeof(c->note), "epoch %d: early stopping, \"%s\" never had a value", c->epoch + 1, e->monitor);
    if (e->restore_best_weights && s->kept)
        c->restore_best = true;
}

/* Keras 1 and 2 */
static void judge_old(const struct early_stopping *e, struct early_state *s, double value, bool larger, struct fit_control *c)
{
    bool early = c->dialect == DIALECT_KERAS_1;

    if (monitor_improves(&s->best, value, e->min_delta, larger, c->dialect)) {
        s->best = (struct best){value, true};
        s->wait = 0;
        keep_best(e, s, c);
        return;
    }
    s->wait += !early;
    if (s->wait >= e->patience)
        stop(e, s, c);
    s->wait += early;
}

/* tf.keras and Keras 3 */
static void judge_new(const struct early_stopping *e, struct early_state *s, double value, bool larger, struct fit_control *c)
{
    double delta = fabs(e->min_delta);

    if (e->restore_best_weights && !s->kept)
        keep_best(e, s, c);
    s->wait++;
    if (monitor_improves(&s->best, value, delta, larger, c->dialect)) {
        s->best = (struct best){value, true};
        keep_best(e, s, c);
        if (isnan(e->baseline) || monitor_better(value, e->baseline, delta, larger, c->dialect))
            s->wait = 0;
        return;
    }
    if (s->wait >= e->patience && c->epoch > 0)
        stop(e, s, c);
}

static void early_epoch_end(const void *config, void *state, const struct callback_logs *logs, struct fit_control *c)
{
    const struct early_stopping *e = config;
    bool larger = monitor_larger(e->mode, e->monitor, c->dialect);
    double value;

    if (!logs_find(logs, e->monitor, &value)) {
        monitor_missing("EarlyStopping", e->monitor, logs, c);
        return;
    }
    if (c->dialect < DIALECT_TF_KERAS)
        judge_old(e, state, value, larger, c);
    else if (c->epoch >= e->start_from_epoch)
        judge_new(e, state, value, larger, c);
}

static void early_train_end(const void *config, void *state, struct fit_control *c)
{
    const struct early_stopping *e = config;

    if (c->dialect == DIALECT_KERAS_3 && e->restore_best_weights && ((const struct early_state *)state)->kept)
        c->restore_best = true;
}

static const struct field early_fields[] = {
    FIELD_MONITOR(early_stopping),
    {"min_delta", FIELD_FLOAT, offsetof(struct early_stopping, min_delta), .min = -1e30, .max = 1e30,
     .doc = "smallest change that counts as an improvement"},
    {"patience", FIELD_INT, offsetof(struct early_stopping, patience), .min = 0, .max = INT32_MAX,
     .doc = "epochs without an improvement before training ends"},
    FIELD_VERBOSE(early_stopping),
    FIELD_MODE(early_stopping),
    {"baseline", FIELD_FLOAT, offsetof(struct early_stopping, baseline), .preset = NAN, .flags = FIELD_NULLABLE,
     .doc = "value that must be beaten; null: none"},
    {"restore_best_weights", FIELD_BOOL, offsetof(struct early_stopping, restore_best_weights),
     .doc = "whether the weights of the best epoch are put back at the end"},
    {"start_from_epoch", FIELD_INT, offsetof(struct early_stopping, start_from_epoch), .min = 0, .max = INT32_MAX,
     .doc = "epochs at the beginning that are not looked at"},
    {0},
};

const struct callback callback_early_stopping = {
    .keras = "EarlyStopping",
    .config_size = sizeof(struct early_stopping),
    .fields = early_fields,
    .state_size = sizeof(struct early_state),
    .begin = early_begin,
    .epoch_end = early_epoch_end,
    .train_end = early_train_end,
};
