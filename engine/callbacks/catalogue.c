/* The list of callbacks, from the definition lines of this folder. */
#include "engine/callbacks/callback.h"

#define X(id) extern const struct callback id;
#include "callbacks.inc"
#undef X

static const struct class *const rows[] = {
#define X(id) (const struct class *)&id,
#include "callbacks.inc"
#undef X
    NULL,
};

const struct catalogue callback_catalogue = {"callback", rows, NULL};
