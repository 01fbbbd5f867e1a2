/* One JSON value for several inputs or outputs: Keras takes a list in the model's order, or an object by name. */
#ifndef HORN_RUN_SPREAD_H
#define HORN_RUN_SPREAD_H

#include "engine/base/arena.h"
#include "engine/base/json.h"
#include "engine/model/names.h" /* pointer_key */

struct spread {               /* what is spread over what */
    const char *what;         /* "x", "loss" */
    const char *side;         /* "input" or "output" */
    const char *const *names; /* of the model's inputs or outputs */
    int n;
    /* The value means one thing, and no list or object of things. */
    bool (*single)(const struct json *j, int n);
    bool to_all;   /* a single one counts for each; else it needs n = 1 */
    bool required; /* each of the n must get one */
};

/* to[i] and at[i] (JSON pointers) get the value for input or output i; NULL where there is none or null. A missing or null j leaves
 * all NULL. ST_INVALID: a list of another length, an unknown name, a value missing where all are required. */
enum status spread_json(const struct spread *s, const struct json *j, const char *pointer, struct arena *mem,
                        const struct json **to, const char **at, struct problem *problem);

#endif
