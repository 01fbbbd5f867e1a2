/* Where a step's time goes: kernel by kernel, held against what the device reaches.
 *
 * A profile is made aside: a program of its own is built from the same model, arguments and rows, in memory of its own with fresh
 * weights, and its step is run some times without clocks and with one around every kernel. What goes on beside it keeps every
 * bit, and nothing is paid where none is asked for. Figures are medians over the steps.
 *
 *     TRY(profile_run(&setup, &p, problem));
 *     profile_table(p, &text);
 *
 * A node's share of the ceiling is the larger of its operations per second against those of a large product and of its bytes per
 * second against those of a large copy (backend.ceiling). It passes 1 where data lie in a cache nearer than the copy's, and
 * where an algorithm needs fewer operations than the plain one, which are those that are counted. */
#ifndef HORN_RUN_PROFILE_H
#define HORN_RUN_PROFILE_H

#include "engine/run/program.h"

struct profile_setup {
    const struct model *model;
    struct weights *weights;            /* laid out; nobody builds with it meanwhile */
    const struct compile_spec *compile; /* NULL for PREDICT */
    const struct fit_spec *spec;
    enum program_mode mode;
    const struct backend *backend;
    struct device *device; /* entered by the calling thread */
    uint64_t seed;
    struct source *source;
};

struct profile {
    struct arena *mem;
    const char *device; /* the backend's words on it */
    int64_t batch;
    int steps;                                 /* that the medians are of */
    double step_seconds;                       /* of a whole step, without clocks */
    double feed_seconds;                       /* gathering and converting a batch's rows, before the step */
    double clock_seconds;                      /* what reading the clock takes; already taken off the nodes' times */
    double flops_per_second, bytes_per_second; /* ceilings; 0: the backend does not say */
    double nodes_seconds;                      /* sum over the nodes */
    int n_layers, n_nodes;
    struct profile_layer {
        const char *name;
        double seconds;
        int first, n; /* its nodes: node[first .. first + n - 1] */
    } * layer;        /* longest first */
    struct profile_node {
        uint32_t number; /* in the program's order */
        const char *layer, *op;
        const char *kernel; /* "conv_onednn.dx" is a row of engine/cpu/conv_onednn.c; "reference": the op's own loop */
        enum dtype type;
        struct shape out; /* of its first output */
        double seconds, least_seconds, flops, bytes;
    } * node; /* by layer, longest first in each */
};

/* About a second: ceilings, two steps to warm up, then up to 64 within half a second, at least three, and the ceilings again. ST_NO_MEMORY where there is
 * no room for a second program beside what is held. */
enum status profile_run(const struct profile_setup *s, struct profile **ret, struct problem *problem);
struct profile *profile_free(struct profile *p);
DEFINE_OWNED(struct profile, profile_free)

/* Share of the ceiling, NaN where none is known or the time is 0; *by_flops: which of the two it is. */
double profile_of_ceiling(const struct profile *p, const struct profile_node *n, bool *by_flops);

void profile_json(const struct profile *p, struct json *to);  /* puts its members into an object */
void profile_table(const struct profile *p, struct text *to); /* for a terminal */

#endif
