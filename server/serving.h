/* A predict call: the body's numbers into tensors, the model, the answer's text. Independent of HTTP. */
#ifndef HORN_SERVER_SERVING_H
#define HORN_SERVER_SERVING_H

#include <stdatomic.h>

#include "server/registry.h"
#include "server/reply.h"

struct prediction { /* tensors of one call */
    int64_t n;      /* samples */
    int n_x, n_y;
    float *x[MAX_ARRAYS], *y[MAX_ARRAYS];
    size_t x_bytes[MAX_ARRAYS], y_bytes[MAX_ARRAYS];
    bool borrowed;             /* x[0] lies in the body, which must live as long */
    const atomic_bool *ending; /* ends a long run, ST_BUSY; NULL: nothing does */
};
void prediction_done(struct prediction *p);

/* {"inputs": [...]} or {"inputs": {"name": [...], ...}} straight into x. ST_INVALID with both shapes; ST_MALFORMED: not JSON. */
enum status serving_read_json(const struct version *v, const char *body, size_t bytes, struct prediction *p,
                              struct problem *problem);
/* float32 that lies at a multiple of four is used where it lies. */
enum status serving_read_npy(const struct version *v, const char *body, size_t bytes, struct prediction *p,
                             struct problem *problem);
/* Makes room for y. ST_NO_MEMORY, ST_TOO_LARGE. */
enum status serving_outputs(const struct version *v, struct prediction *p, struct problem *problem);
/* Makes room where there is none yet, and runs. */
enum status serving_run(struct version *v, struct predictor *with, struct prediction *p, struct problem *problem);
void serving_print_json(const struct version *v, const struct prediction *p, struct text *t);
void serving_print_npy(const struct version *v, const struct prediction *p, struct text *t); /* of a model with one output */

/* Can an HTTP thread do this itself? n: samples, 1 while they are not known. */
bool serving_is_small(const struct version *v, size_t bytes, int64_t n);

#endif
