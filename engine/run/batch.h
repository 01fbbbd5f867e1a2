/* What a data source must offer: rows of several arrays, by number. Storage implements it over dataset files.
 *
 * The order of training (shuffle) is the trainer's, by Philox from seed and epoch, so a source has no state that a resumed job
 * would need. An array's first rows are asked for by one thread alone; from then on several may ask for rows of it at once. */
#ifndef HORN_RUN_BATCH_H
#define HORN_RUN_BATCH_H

#include "engine/base/scope.h"
#include "engine/graph/shape.h"

#define MAX_ARRAYS 64

struct source_array {
    const char *name; /* "mnist/x_train", for messages */
    enum dtype type;  /* as gather delivers it: F32 (also for stored float64), U8, I32 (also for int64, checked), BOOL as U8 */
    struct shape row; /* without the batch axis */
};

struct source {
    struct source_array array[MAX_ARRAYS]; /* inputs, then targets, then sample weights */
    int n_inputs, n_targets, n_weights;
    int64_t rows;
    /* Copies the given rows, converted, to `to` (n * row bytes). ST_STORAGE when the file cannot be read. */
    enum status (*gather)(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem);
    struct source *(*close)(struct source *s);
};

static inline struct source *source_close(struct source *s)
{
    return s ? s->close(s) : NULL;
}
DEFINE_OWNED(struct source, source_close)

#endif
