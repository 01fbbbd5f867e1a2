/* See callback.h and monitor.h.
 *
 * A direction is guessed as Keras does: Keras 1 and 2 take "acc" anywhere in the name (or fmeasure in front) as
 * larger-is-better. Keras 3 asks the metric of that name; of those that Horn has, the accuracies go up and the losses
 * down: the same rule. */
#include "engine/callbacks/monitor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/model/dialect.h"

const char *const monitor_modes[] = {"auto", "min", "max", NULL};

/* Names that different versions of Keras have for one value. */
static const char *const same_values[][2] = {
    {"acc", "accuracy"},
    {"lr", "learning_rate"},
    {"mse", "mean_squared_error"},
    {"mae", "mean_absolute_error"},
    {"bce", "binary_crossentropy"},
};

static bool find_exact(const struct callback_logs *l, const char *name, double *ret)
{
    for (int i = 0; i < l->n; i++) {
        if (strcmp(l->names[i], name) == 0) {
            *ret = l->values[i];
            return true;
        }
    }
    return false;
}

/* `monitor` with its last word `from` replaced by `to`: val_acc becomes val_accuracy. */
static bool find_renamed(const struct callback_logs *l, const char *monitor, const char *from, const char *to, double *ret)
{
    size_t all = strlen(monitor), part = strlen(from);
    char name[512];

    if (part > all || strcmp(monitor + all - part, from) != 0 || (part < all && monitor[all - part - 1] != '_'))
        return false;
    if (snprintf(name, sizeof(name), "%.*s%s", (int)(all - part), monitor, to) >= (int)sizeof(name))
        return false;
    return find_exact(l, name, ret);
}

bool logs_find(const struct callback_logs *l, const char *monitor, double *ret)
{
    if (find_exact(l, monitor, ret))
        return true;
    for (size_t i = 0; i < COUNT(same_values); i++) {
        if (find_renamed(l, monitor, same_values[i][0], same_values[i][1], ret) ||
            find_renamed(l, monitor, same_values[i][1], same_values[i][0], ret))
            return true;
    }
    return false;
}

bool monitor_larger(int mode, const char *monitor, int dialect)
{
    (void)dialect;
    if (mode == MONITOR_MIN || mode == MONITOR_MAX)
        return mode == MONITOR_MAX;
    return strstr(monitor, "acc") || strncmp(monitor, "fmeasure", 8) == 0;
}

bool monitor_better(double value, double than, double min_delta, bool larger, int dialect)
{
    double moved = larger ? value - min_delta : value + min_delta;

    if (dialect == DIALECT_KERAS_3)
        return larger ? (float)moved > (float)than : (float)moved < (float)than;
    return larger ? moved > than : moved < than;
}

bool monitor_improves(const struct best *b, double value, double min_delta, bool larger, int dialect)
{
    return b->known ? monitor_better(value, b->value, min_delta, larger, dialect) : !isnan(value);
}

void monitor_missing(const char *callback, const char *monitor, const struct callback_logs *logs, struct fit_control *c)
{
    int at = snprintf(c->note, sizeof(c->note), "%s: there is no \"%s\" among", callback, monitor);

    for (int i = 0; i < logs->n && at > 0 && at < (int)sizeof(c->note); i++)
        at += snprintf(c->note + at, sizeof(c->note) - (size_t)at, "%s %s", i ? "," : "", logs->names[i]);
}
