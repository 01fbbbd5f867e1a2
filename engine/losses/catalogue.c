/* The list of losses, from the definition lines of this folder. */
#include "engine/losses/loss.h"

#define X(id) extern const struct loss id;
#include "losses.inc"
#undef X

static const struct class *const rows[] = {
#define X(id) (const struct class *)&id,
#include "losses.inc"
#undef X
    NULL,
};

static const char *const aliases[][2] = {
    {"mse", "MeanSquaredError"},
    {"mae", "MeanAbsoluteError"},
    {"bce", "BinaryCrossentropy"},
    {"mean_squared_error", "MeanSquaredError"},
    {"mean_absolute_error", "MeanAbsoluteError"},
    {NULL, NULL},
};

const struct catalogue loss_catalogue = {"loss", rows, aliases};
