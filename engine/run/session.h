/* A session: a plan being run by one thread. It owns the temporaries, the inputs and the scratch; weights, gradients, slots and
 * state belong to whoever made the regions, so that a training and an evaluation session share them.
 *
 *     session_put(s, x, batch, bytes);
 *     TRY(session_run(s, problem));
 *     session_get(s, loss, &value, 4);
 */
#ifndef HORN_RUN_SESSION_H
#define HORN_RUN_SESSION_H

#include "engine/graph/plan.h"
#include "engine/run/backend.h"

struct session {
    const struct plan *plan;
    struct device *device;
    void *base[N_REGIONS]; /* TEMP and INPUT are owned; the others are the caller's regions */
    void *scratch;
    bool owns_arena;
    void **pointers; /* in and out addresses of every step, worked out once */
    void *spare;     /* a second AT_INPUT, owned; NULL before session_double() */
    void ***inputs;  /* those of the pointers that lead into AT_INPUT */
    size_t n_inputs;
    struct kernel_call *calls;
};

struct regions { /* flat buffers on the device, shared by the sessions of one job or version */
    void *base[N_REGIONS];
    size_t bytes[N_REGIONS];
};

/* Buffers for the regions WEIGHT, CONST, GRAD, SLOT and STATE, each at least `bytes`; ones that are there and large enough stay. */
enum status regions_grow(struct regions *r, struct device *d, const struct backend *b, const size_t bytes[N_REGIONS],
                         struct problem *problem);
void regions_done(struct regions *r, struct device *d, const struct backend *b);

/* arena: TEMP memory shared between sessions that never run at the same time, or NULL for an own one of plan->arena_bytes. */
enum status session_new(const struct plan *p, const struct regions *r, void *arena, struct session **ret,
                        struct problem *problem);
struct session *session_free(struct session *s);
DEFINE_OWNED(struct session, session_free)

void *session_address(const struct session *s, value_id v);
/* Two sets of inputs, so that the next batch can be written while a step reads its own: session_spare() is the place of an input in
 * the set that the steps do not read, session_swap() makes the sets change places. Writing the spare set is another thread's to
 * do; swapping is not, nor while that thread writes. */
enum status session_double(struct session *s, struct problem *problem); /* once; later calls do nothing */
void *session_spare(const struct session *s, value_id v);
void session_swap(struct session *s);
void session_put(struct session *s, value_id v, const void *host, size_t bytes);
void session_get(struct session *s, value_id v, void *host, size_t bytes);
/* What the plan works out of the weights alone, into the region CONST: once, before the first session_run. */
enum status session_constants(struct session *s, struct problem *problem);
enum status session_run(struct session *s, struct problem *problem);

/* Runs the step by reference kernels, node by node (or by the plan's kernels with `kernels`), looking at every float output.
 * first_bad: the first node with a NaN or Inf, 0 if none. Effects are not run once a bad value was found. Only for a device whose
 * memory the host can read. */
enum status session_check(struct session *s, bool kernels, uint32_t *first_bad, struct problem *problem);

#endif
