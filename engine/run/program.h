/* From a model and compile() to a graph, a plan and a session for one mode and batch size.
 *
 *     program_build -> program_plan -> program_needs (of all) -> regions_grow -> program_start -> session_run
 *
 * Programs of one job share regions (weights, gradients, slots) and one arena, since they never run at once. State lies in the same
 * order in every program (updates, rate, seed, accumulators), so that two of the same job may share that too. */
#ifndef HORN_RUN_PROGRAM_H
#define HORN_RUN_PROGRAM_H

#include "engine/model/weights.h"
#include "engine/run/request.h"
#include "engine/run/session.h"

enum program_mode { PROGRAM_PREDICT, PROGRAM_TEST, PROGRAM_TRAIN };

struct array_shape { /* an array that a program is fed with: type and row shape of the source */
    enum dtype type;
    struct shape row;
};

struct program_request {
    const struct model *model;
    const struct compile_spec *compile; /* NULL for PREDICT */
    struct prepare *const *prepare;     /* per input, or NULL */
    enum program_mode mode;
    int64_t batch;
    const struct array_shape *x, *y; /* per input; per output (y NULL for PREDICT) */
    const struct array_shape *w;     /* per output, rank -1 in row: none; NULL: none at all */
    bool class_weights;              /* one more weight vector (batch) for output 0 */
    bool constants;                  /* PREDICT: what weights alone decide is worked out once, by session_constants() */
    struct weights *weights;
};

struct program {
    struct graph *graph;
    struct plan *plan;
    struct session *session;
    int64_t batch;
    enum program_mode mode;
    int n_x, n_y;
    value_id *x, *y, *w, class_weight;          /* AT_INPUT leaves; w[i] 0 where there are none */
    value_id *outputs;                          /* kept */
    value_id loss, ok;                          /* kept scalars; ok only in TRAIN */
    value_id updates, rate, seed, accumulators; /* AT_STATE leaves: I64, F32, I64, F64 (2 n_metrics) */
    int n_metrics;                              /* "loss" first, then "<output>_loss" with several outputs, then the metrics */
    const char **metric_names;
};

/* The graph alone, for validation without a device and for dry runs (plan and session NULL). ST_INVALID names the layer and both shapes,
 * the target and the output. */
enum status program_build(const struct program_request *r, struct program **ret, struct problem *problem);
/* Chooses kernels and places temporaries; the needs of several programs are then met by one set of regions and one arena. */
enum status program_plan(struct program *p, const struct backend *backend, struct device *device, struct problem *problem);
/* Raises needs (bytes of each region) and *arena_bytes to what `p` wants; before program_start. */
void program_needs(const struct program *p, size_t needs[N_REGIONS], size_t *arena_bytes);
/* Opens the session on regions and arena that are large enough (arena NULL: one of its own). */
enum status program_start(struct program *p, const struct regions *regions, void *arena, struct problem *problem);
struct program *program_free(struct program *p);
DEFINE_OWNED(struct program, program_free)

#endif
