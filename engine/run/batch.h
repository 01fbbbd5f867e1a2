/* What a data source must offer: rows of several arrays, by number. Storage implements it over dataset files.
 *
 * The order of training (shuffle) is the trainer's, by Philox from seed and epoch, so a source has no state that a resumed job
 * would need. */
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
    /* What will be gathered next: time to open the array and have the disk begin. One thread at a time, and none that gathers. NULL: of no
     * use to the source. ST_STORAGE, ST_MEMORY. */
    enum status (*expect)(struct source *s, int array, const int64_t *row, int64_t n, struct problem *problem);
    /* Copies the given rows, converted, to `to` (n * row bytes); rows that were expected, by any number of threads at once. ST_STORAGE
     * when the file cannot be read. */
    enum status (*gather)(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem);
    struct source *(*close)(struct source *s);
};

static inline enum status source_expect(struct source *s, int array, const int64_t *row, int64_t n, struct problem *problem)
{
    return s->expect ? s->expect(s, array, row, n, problem) : ST_OK;
}

static inline struct source *source_close(struct source *s)
{
    return s ? s->close(s) : NULL;
}
DEFINE_OWNED(struct source, source_close)

#endif
