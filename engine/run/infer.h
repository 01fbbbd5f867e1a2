/* Inference: a loaded version that answers batches, and evaluate() and predict() over a source.
 *
 * A predictor keeps plans per batch bucket (1, 2, 4 ... 128) and is used by one thread at a time; several predictors may share the
 * read-only weights of one version. */
#ifndef HORN_RUN_INFER_H
#define HORN_RUN_INFER_H

#include "engine/run/program.h"
#include "engine/run/sink.h"

struct predictor;

/* weights: flat region of `layout` (which is only read) on the device, borrowed. prepare: per input or NULL; with it inputs have the raw shape. */
enum status predictor_new(const struct model *m, struct weights *layout, const void *weights, struct prepare *const *prepare,
                          const struct shape *raw_rows /* per input, where prepare is given */, const struct backend *backend,
                          struct device *device, struct predictor **ret, struct problem *problem);
struct predictor *predictor_free(struct predictor *p);
DEFINE_OWNED(struct predictor, predictor_free)
struct shape predictor_input(const struct predictor *p, int i);  /* row shape */
struct shape predictor_output(const struct predictor *p, int i); /* row shape */
/* x[i] (n, row...) float32; y[i] room for (n, row...) float32. Any n >= 1: done in pieces. */
enum status predictor_run(struct predictor *p, const float *const *x, int64_t n, float *const *y, struct problem *problem);
struct rows { /* of one caller */
    int64_t n;
    const float *x[MAX_ARRAYS];
    float *y[MAX_ARRAYS];
};
/* The same for several callers at once: their rows go together through the pieces, in order. */
enum status predictor_run_rows(struct predictor *p, const struct rows *of, int n_of, struct problem *problem);
double predictor_flops(const struct predictor *p); /* of one sample, for choosing where to run it */

struct evaluate_setup {
    const struct model *model;
    struct weights *weights;
    const void *values; /* flat weights on the host */
    const struct compile_spec *compile;
    const struct fit_spec *spec;
    const struct backend *backend;
    struct device *device;
    struct source *source;
};
/* names and values: room for 64; *n is set; the names are in the model's arena. CANCELLED and stop by the sink's poll: ST_CANCELLED, *stopped true on a stop. */
enum status evaluate_run(const struct evaluate_setup *s, struct sink *sink, int *n, const char **names, double *values,
                         bool *stopped, struct problem *problem);
/* Bulk predict: `take` gets each finished batch of output i in row order. */
enum status predict_run(const struct evaluate_setup *s, struct sink *sink,
                        enum status (*take)(void *context, int output, const float *rows, int64_t n, struct problem *problem),
                        void *context, bool *stopped, struct problem *problem);

#endif
