/* Mean squared and mean absolute error over the last axis: mean (p - y)^2, mean |p - y|. */
#include "engine/losses/common.h"

struct regression {
    struct loss_options options;
};

static value_id error_mean(struct build *b, const void *config, value_id y, value_id p, bool square)
{
    struct loss_options options = ((const struct regression *)config)->options;
    struct formula f = {0};
    term target = f_in(&f), output = f_in(&f), e = f_sub(&f, output, target);

    options.axis = -1;
    if (!loss_options_fit(b, &options, p) || !pair_fits(b, &y, &p))
        return 0;
    f_out(&f, square ? f_square(&f, e) : f_abs(&f, e));
    return emit_reduce_last(b, emit_formula(b, &f, (value_id[]){y, p}), REDUCE_MEAN);
}

static value_id squared_error(struct build *b, const void *config, value_id y, value_id p)
{
    return error_mean(b, config, y, p, true);
}

static value_id absolute_error(struct build *b, const void *config, value_id y, value_id p)
{
    return error_mean(b, config, y, p, false);
}

static const struct field regression_fields[] = {FIELDS_LOSS(regression), {0}};

const struct loss loss_mean_squared_error = {"MeanSquaredError", sizeof(struct regression), regression_fields, false,
                                             squared_error};
const struct loss loss_mean_absolute_error = {"MeanAbsoluteError", sizeof(struct regression), regression_fields, false,
                                              absolute_error};
