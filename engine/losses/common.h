/* What the files of losses and metrics share beyond loss.h. */
#ifndef HORN_LOSSES_COMMON_H
#define HORN_LOSSES_COMMON_H

#include "engine/losses/loss.h"

enum reduction { REDUCTION_MEAN_BATCH, REDUCTION_AUTO, REDUCTION_MEAN, REDUCTION_SUM, REDUCTION_NONE };
extern const char *const loss_reductions[];

struct loss_options { /* keys of every loss object; the first member of each loss's configuration */
    const char *name;
    const struct json *dtype;
    int reduction;
    int64_t axis; /* -1 where the loss has no such key */
};

/* ST_UNSUPPORTED for a reduction or an axis that Horn does not have; false after a problem. */
bool loss_options_fit(struct build *b, const struct loss_options *o, value_id p);
/* squeeze_pair, then both shapes must be equal: ST_INVALID with both, false. */
bool pair_fits(struct build *b, value_id *y, value_id *p);
/* Whether weights or a mask are a prefix of the values' shape; part 0 fits. */
bool prefix_fits(struct build *b, value_id part, value_id s, const char *what);
/* Means over the axes of s that weights do not have. */
value_id values_meet_weights(struct build *b, value_id s, value_id weights);

#define FIELDS_LOSS(type)                                                                                                 \
    {                                                                                                                     \
        "name",                                                                                                           \
        FIELD_TEXT,                                                                                                       \
        offsetof(struct type, options.name),                                                                              \
        .max = 255,                                                                                                       \
        .flags = FIELD_NULLABLE,                                                                                          \
        .doc = "read and not used"},                                                                                      \
        {"dtype", FIELD_JSON, offsetof(struct type, options.dtype), .flags = FIELD_NULLABLE, .doc = "read and not used"}, \
    {                                                                                                                     \
        "reduction", FIELD_CHOICE, offsetof(struct type, options.reduction),                                              \
            .choices = loss_reductions, .doc = "from values per sample to the loss; only means are supported"             \
    }
#define FIELD_LOSS_AXIS(type)                                                                                        \
    {                                                                                                                \
        "axis", FIELD_INT, offsetof(struct type, options.axis), .preset = -1, .min = -MAX_RANK, .max = MAX_RANK - 1, \
                                                                .doc = "axis of the classes; must be the last"       \
    }

#endif
