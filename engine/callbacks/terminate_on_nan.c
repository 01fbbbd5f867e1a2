/* TerminateOnNaN: a loss that is not a finite number ends training at once, and the job counts as done. Without this
 * callback it fails the job. */
#include <math.h>
#include <stdio.h>

#include "engine/callbacks/callback.h"

struct terminate {
    bool raise_error;
};

static enum status terminate_check(const void *config, const char *pointer, struct problem *problem)
{
    if (!((const struct terminate *)config)->raise_error)
        return ST_OK;
    return fail(problem, ST_UNSUPPORTED, pointer,
                "raise_error of TerminateOnNaN is not supported; without this callback a NaN loss fails the job");
}

static void terminate_step_end(const void *config, void *state, double loss, struct fit_control *c)
{
    (void)config, (void)state;
    if (isfinite(loss))
        return;
    c->stop = true;
    snprintf(c->note, sizeof(c->note), "epoch %d: the loss is %s, training ends (TerminateOnNaN)", c->epoch + 1,
             isnan(loss) ? "NaN" : "infinite");
}

static const struct field terminate_fields[] = {
    {"raise_error", FIELD_BOOL, offsetof(struct terminate, raise_error), .doc = "must be false"},
    {0},
};

const struct callback callback_terminate_on_nan = {
    .keras = "TerminateOnNaN",
    .config_size = sizeof(struct terminate),
    .fields = terminate_fields,
    .check = terminate_check,
    .step_end = terminate_step_end,
    .survives_nan = true,
};
