/* ReduceLROnPlateau: multiplies the learning rate when a value has not improved for `patience` epochs.
 *
 * During a cooldown nothing is counted. Keras 1 compares its counter before counting and wants the rate a little above min_lr
 * (1.0001 times); from 2.1.6 on, and here for all of Keras 2, the counter goes first. */
#include <math.h>
#include <stdio.h>

#include "engine/callbacks/monitor.h"
#include "engine/model/dialect.h"

struct reduce_lr {
    const char *monitor;
    double factor, min_delta, min_lr;
    int64_t patience, verbose, cooldown;
    int mode;
};

struct reduce_state {
    struct best best;
    int64_t wait, cooldown_left;
};

static enum status reduce_check(const void *config, const char *pointer, struct problem *problem)
{
    const struct reduce_lr *r = config;
    char where[256];

    if (r->factor < 1)
        return ST_OK;
    snprintf(where, sizeof(where), "%s/factor", pointer);
    return fail(problem, ST_INVALID, where, "ReduceLROnPlateau needs a factor below 1, this is %g", r->factor);
}

static void reduce(const struct reduce_lr *r, struct reduce_state *s, struct fit_control *c)
{
    double lowest = c->dialect == DIALECT_KERAS_1 ? r->min_lr * 1.0001 : (double)(float)r->min_lr, old = (double)c->rate;

    if (!(old > lowest))
        return;
    c->rate = (float)fmax(old * r->factor, r->min_lr);
    s->cooldown_left = r->cooldown;
    s->wait = 0;
    snprintf(c->note, sizeof(c->note), "epoch %d: ReduceLROnPlateau lowers the learning rate from %g to %g", c->epoch + 1, old,
             (double)c->rate);
}

static void reduce_epoch_end(const void *config, void *state, const struct callback_logs *logs, struct fit_control *c)
{
    const struct reduce_lr *r = config;
    struct reduce_state *s = state;
    bool larger = monitor_larger(r->mode, r->monitor, c->dialect), early = c->dialect == DIALECT_KERAS_1;
    double value;

    if (!logs_find(logs, r->monitor, &value)) {
        monitor_missing("ReduceLROnPlateau", r->monitor, logs, c);
        return;
    }
    if (s->cooldown_left > 0) {
        s->cooldown_left--;
        s->wait = 0;
    }
    if (monitor_improves(&s->best, value, c->dialect == DIALECT_KERAS_3 ? fabs(r->min_delta) : r->min_delta, larger,
                         c->dialect)) {
        s->best = (struct best){value, true};
        s->wait = 0;
    } else if (s->cooldown_left == 0) {
        s->wait += !early;
        if (s->wait >= r->patience)
            reduce(r, s, c);
        s->wait += early;
    }
}

static const struct field reduce_fields[] = {
    FIELD_MONITOR(reduce_lr),
    {"factor", FIELD_FLOAT, offsetof(struct reduce_lr, factor), .preset = 0.1, .min = 0, .max = 1e30,
     .doc = "factor on the learning rate; below 1"},
    {"patience", FIELD_INT, offsetof(struct reduce_lr, patience), .preset = 10, .min = 0, .max = INT32_MAX,
     .doc = "epochs without an improvement before the rate is lowered"},
    FIELD_VERBOSE(reduce_lr),
    FIELD_MODE(reduce_lr),
    {"min_delta", FIELD_FLOAT, offsetof(struct reduce_lr, min_delta), .preset = 1e-4, .min = -1e30, .max = 1e30,
     .doc = "smallest change that counts as an improvement"},
    {"cooldown", FIELD_INT, offsetof(struct reduce_lr, cooldown), .min = 0, .max = INT32_MAX,
     .doc = "epochs after a lowering in which nothing is counted"},
    {"min_lr", FIELD_FLOAT, offsetof(struct reduce_lr, min_lr), .min = 0, .max = 1e30, .doc = "lowest learning rate"},
    {0},
};

const struct callback callback_reduce_lr_on_plateau = {
    .keras = "ReduceLROnPlateau",
    .config_size = sizeof(struct reduce_lr),
    .fields = reduce_fields,
    .state_size = sizeof(struct reduce_state),
    .check = reduce_check,
    .epoch_end = reduce_epoch_end,
};
