/* What compile(), fit(), evaluate() and predict() are given, read from JSON against a parsed model.
 *
 * Strict: unknown keys are ST_INVALID with their pointer; what Keras has and Horn has not yet is ST_UNSUPPORTED by name. Everything
 * is in the arena given; JSON pointers into the caller's document are kept for later messages. */
#ifndef HORN_RUN_REQUEST_H
#define HORN_RUN_REQUEST_H

#include "engine/callbacks/callback.h"
#include "engine/metrics/metric.h"
#include "engine/model/model.h"
#include "engine/optimizers/optimizer.h"
#include "engine/run/batch.h"

struct output_spec {
    const struct loss *loss; /* NULL: this output is not trained (loss null in a list or object) */
    const void *loss_config;
    double loss_weight;
    int n_metrics;
    const struct json **metrics; /* resolved by program.c once shapes are known */
    const char **metric_pointers;
    bool *metric_weighted;
};

struct compile_spec {
    struct optimizer_spec optimizer;
    struct output_spec *output; /* one per model output */
    struct json *canonical;     /* owned by the spec's user: compile_spec_done */
    const char *text;           /* the canonical JSON as text, in the arena */
};

/* compile: the "compile" object, or NULL where `loss_needed` is false (predict). */
enum status compile_parse(const struct json *compile, const char *pointer, const struct model *m, struct arena *mem,
                          struct compile_spec **ret, struct problem *problem);
void compile_spec_done(struct compile_spec *c);

struct data_spec { /* where arrays come from: each is a JSON text "set/array" or a nested array of numbers */
    int n_x, n_y, n_w;
    const struct json *x[MAX_ARRAYS], *y[MAX_ARRAYS], *w[MAX_ARRAYS]; /* in model order; w[i] NULL: output without weights */
    const char *x_pointer[MAX_ARRAYS], *y_pointer[MAX_ARRAYS], *w_pointer[MAX_ARRAYS];
};

struct fit_spec {
    struct data_spec data, validation;
    bool has_validation;
    double validation_split;
    int64_t batch_size, validation_batch_size, epochs, initial_epoch, validation_freq;
    bool shuffle;
    int n_class_weights;
    int64_t *class_ids;
    double *class_weights;
    int n_callbacks;
    struct object *callbacks; /* type is a struct callback */
    struct prepare **prepare; /* per model input, NULL: none; owned by the spec's user: fit_spec_done */
    int n_prepare;
    struct json *canonical; /* callbacks as rewritten, which their configurations borrow from; owned as prepare is */
};

/* What `type` is: "fit", "evaluate" or "predict"; j is that member of the job. */
enum status fit_parse(const struct json *j, const char *pointer, const char *type, const struct model *m, struct arena *mem,
                      struct fit_spec **ret, struct problem *problem);
void fit_spec_done(struct fit_spec *f);

#endif
