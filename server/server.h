/* What all parts of the daemon share, made by main (or a test) and handed to every request. */
#ifndef HORN_SERVER_SERVER_H
#define HORN_SERVER_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct db;
struct lanes;
struct registry;
struct settings;

struct server {
    const struct settings *settings;
    struct db *db;
    struct registry *registry; /* loaded models */
    struct lanes *lanes;       /* NULL in tests that only queue */
    int64_t started_ms;
    atomic_bool ready;    /* lanes and HTTP run */
    atomic_bool stopping; /* a signal came: nothing new is taken */
    atomic_bool ending;   /* and the time for what was under way is over */
};

#endif
