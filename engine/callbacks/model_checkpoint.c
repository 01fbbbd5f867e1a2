/* ModelCheckpoint: writes a model file at the end of epochs, each or only when a value has improved.
 *
 * The epoch in the name counts from 0 in Keras 1, from 1 later. If the watched value is missing, Keras 1 and 2 write nothing,
 * Keras 3 writes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/callbacks/file_name.h"
#include "engine/callbacks/monitor.h"
#include "engine/model/dialect.h"

struct checkpoint {
    const char *filepath, *monitor;
    const struct json *save_freq, *options;
    int64_t verbose, period;
    double initial_value_threshold; /* NaN: none */
    int mode;
    bool save_best_only, save_weights_only;
};

struct checkpoint_state {
    struct best best;
    int64_t epochs_since;
};

static enum status checkpoint_check(const void *config, const char *pointer, struct problem *problem)
{
    const struct checkpoint *k = config;
    char where[256];

    snprintf(where, sizeof(where), "%s/save_freq", pointer);
    if (json_type(k->save_freq) > JSON_NULL && !json_is(k->save_freq, "epoch"))
        return fail(problem, ST_UNSUPPORTED, where,
                    "ModelCheckpoint writes at the end of epochs only: save_freq must be \"epoch\"");
    snprintf(where, sizeof(where), "%s/filepath", pointer);
    return file_name_check(k->filepath, where, problem);
}

static void checkpoint_begin(const void *config, void *state, struct fit_control *c)
{
    const struct checkpoint *k = config;

    (void)c;
    if (!isnan(k->initial_value_threshold))
        ((struct checkpoint_state *)state)->best = (struct best){k->initial_value_threshold, true};
}

static void write_file(const struct checkpoint *k, const struct callback_logs *logs, struct fit_control *c)
{
    char name[sizeof(c->file)];

    if (file_name_print(k->filepath, c->epoch + (c->dialect == DIALECT_KERAS_1 ? 0 : 1), logs, name, sizeof(name))) {
        snprintf(c->file, sizeof(c->file), "%s", name);
        c->file_weights_only = k->save_weights_only;
    } else {
        snprintf(c->note, sizeof(c->note), "epoch %d: ModelCheckpoint wrote nothing: %.180s", c->epoch + 1, name);
    }
}

static void checkpoint_epoch_end(const void *config, void *state, const struct callback_logs *logs, struct fit_control *c)
{
    const struct checkpoint *k = config;
    struct checkpoint_state *s = state;
    double value;

    if (++s->epochs_since < k->period)
        return;
    s->epochs_since = 0;
    if (k->save_best_only && !logs_find(logs, k->monitor, &value)) {
        monitor_missing("ModelCheckpoint", k->monitor, logs, c);
        if (c->dialect == DIALECT_KERAS_3)
            write_file(k, logs, c);
        return;
    }
    if (k->save_best_only) {
        if (!monitor_improves(&s->best, value, 0, monitor_larger(k->mode, k->monitor, c->dialect), c->dialect))
            return;
        s->best = (struct best){value, true};
    }
    write_file(k, logs, c);
}

static const struct field checkpoint_fields[] = {
    {"filepath", FIELD_TEXT, offsetof(struct checkpoint, filepath), .max = 1000, .flags = FIELD_REQUIRED,
     .doc = "name of the file, with {epoch:02d} or {val_loss:.4f} for values; a folder before it is dropped"},
    FIELD_MONITOR(checkpoint),
    FIELD_VERBOSE(checkpoint),
    {"save_best_only", FIELD_BOOL, offsetof(struct checkpoint, save_best_only),
     .doc = "whether a file is written only when the watched value has improved"},
    {"save_weights_only", FIELD_BOOL, offsetof(struct checkpoint, save_weights_only),
     .doc = "whether the file has the weights alone, without the model"},
    FIELD_MODE(checkpoint),
    {"period", FIELD_INT, offsetof(struct checkpoint, period), .preset = 1, .min = 1, .max = INT32_MAX,
     .doc = "epochs between files (Keras 1 and 2)"},
    {"save_freq", FIELD_JSON, offsetof(struct checkpoint, save_freq), .flags = FIELD_NULLABLE, .doc = "must be \"epoch\""},
    {"initial_value_threshold", FIELD_FLOAT, offsetof(struct checkpoint, initial_value_threshold), .preset = NAN,
     .flags = FIELD_NULLABLE, .doc = "value that the first file must beat; null: none"},
    {"options", FIELD_JSON, offsetof(struct checkpoint, options), .flags = FIELD_NULLABLE, .doc = "read and not used"},
    {0},
};

const struct callback callback_model_checkpoint = {
    .keras = "ModelCheckpoint",
    .config_size = sizeof(struct checkpoint),
    .fields = checkpoint_fields,
    .state_size = sizeof(struct checkpoint_state),
    .check = checkpoint_check,
    .begin = checkpoint_begin,
    .epoch_end = checkpoint_epoch_end,
};
