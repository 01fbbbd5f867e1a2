/* Builds a small graph from layers, losses and optimizers and runs it on the CPU backend.
 *
 *     OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, true);
 *     value_id x = runner_input(r, F32, SHAPE(2, 3), data);
 *     struct tuple y = runner_layer(r, "Dense", "{\"units\": 4}", "d", true, one(&r->b, x));
 *     runner_keep(r, y.v[0]);
 *     runner_start(r);                      // weights by their initializers; runner_weight() to change them
 *     runner_run(r);
 *     CHECK_FLOATS(runner_floats(r, y.v[0]), want, 8, 1e-6);
 */
#ifndef HORN_TESTS_MODEL_RUNNER_H
#define HORN_TESTS_MODEL_RUNNER_H

#include "engine/graph/plan.h"
#include "engine/model/dialect.h"
#include "engine/model/weights.h"
#include "engine/ops/ops.h"
#include "engine/run/session.h"

struct runner {
    struct graph *graph;
    struct build b;
    struct weights *weights;
    struct arena *mem;
    struct json *parsed[64]; /* documents that configurations borrow from */
    int n_parsed, n_inputs;
    struct {
        value_id v;
        const void *data;
    } inputs[16];
    struct plan *plan;
    struct device *device;
    struct regions regions;
    struct session *session;
};

struct runner *runner_new(int dialect, bool training);
struct runner *runner_free(struct runner *r);
DEFINE_OWNED(struct runner, runner_free)
value_id runner_input(struct runner *r, enum dtype type, struct shape shape, const void *data); /* data is borrowed */
const struct json *runner_json(struct runner *r, const char *text);
const struct object *runner_object(struct runner *r, const struct catalogue *c, const char *class_name, const char *config);
struct tuple runner_layer(struct runner *r, const char *class_name, const char *config, const char *name, bool trainable,
                          struct tuple in);
void runner_keep(struct runner *r, value_id v);
void runner_start(struct runner *r); /* fails the test with the build's problem */
void runner_run(struct runner *r);
float *runner_floats(struct runner *r, value_id v); /* in the session's memory: may be written too */
float *runner_weight(struct runner *r, const char *layer, const char *name);

#endif
