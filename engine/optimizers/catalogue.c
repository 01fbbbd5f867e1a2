/* The list of optimizers, from the definition lines of this folder. */
#include "engine/optimizers/optimizer.h"

#define X(id) extern const struct optimizer id;
#include "optimizers.inc"
#undef X

static const struct class *const rows[] = {
#define X(id) (const struct class *)&id,
#include "optimizers.inc"
#undef X
    NULL,
};

const struct catalogue optimizer_catalogue = {"optimizer", rows, NULL};
