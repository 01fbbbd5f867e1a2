/* Pairs of programs (whole batches, the ragged last one) and how rows of a source get into their inputs. Shared by training,
 * validation, evaluation and bulk prediction.
 *
 * Large batches are gathered ahead where there is a CPU that the steps leave free: while a step runs, a thread of the feed's own
 * brings the rows of the next one into the session's second set of inputs. A problem that it meets is told when that next step is
 * asked for. On CPUs that are all the team's, such a thread would take from it what it saves, and hold up who waits at a region's end:
 * there the team gathers, between two steps. */
#ifndef HORN_RUN_FEED_H
#define HORN_RUN_FEED_H

#include "engine/run/batch.h"
#include "engine/run/program.h"
#include "engine/run/reader.h"

struct feed {
    struct source *source;
    const struct fit_spec *spec;  /* class weights, which outputs have sample weights */
    const struct data_spec *data; /* of spec: training or validation arrays */
    struct program *program[2];   /* [0] batch rows, [1] the rest; either may be NULL */
    struct array_shape x[MAX_ARRAYS], y[MAX_ARRAYS], w[MAX_ARRAYS];
    int64_t first, rows, batch; /* rows first .. first + rows - 1 of the source */
    void *staging;              /* for devices whose memory the host cannot write; one input */
    size_t staging_bytes;
    float *class_weight; // (batch)
    struct feed_ahead {  /* the batch that the reader brings; the reader's alone while it runs */
        struct reader *reader;
        bool beside, asked; /* there is a CPU for it; it was started */
        int64_t step;
        const int64_t *order;
        enum status status;
        struct problem problem;
    } ahead;
};

/* Number of steps: whole batches and one more for a rest. */
int64_t feed_steps(const struct feed *f);
/* Builds and plans the programs for the rows first .. first + rows - 1; source, spec, data, first, rows and batch are set. */
enum status feed_plan(struct feed *f, enum program_mode mode, const struct model *model, const struct compile_spec *compile,
                      struct weights *weights, const struct backend *backend, struct device *device, struct problem *problem);
void feed_needs(const struct feed *f, size_t needs[N_REGIONS], size_t *arena_bytes);
enum status feed_start(struct feed *f, const struct regions *regions, void *arena, struct problem *problem);
/* Puts the rows order[step * batch ..] (order NULL: in file order) into the program of that step, which is returned in *ret. */
enum status feed_step(struct feed *f, int64_t step, const int64_t *order, struct program **ret, struct problem *problem);
/* Waits for a batch that is being gathered ahead, and forgets it. Before `order` is changed, and before others read the source. */
void feed_settle(struct feed *f);
void feed_done(struct feed *f); /* the source is not closed */

#endif
