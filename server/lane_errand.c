/* Errands: what a request wants done on a lane's device without another user of it, say a profile. See lane.h.
 *
 *     request thread:  asks ---------- waits ---------------------- reads the outcome
 *     lane:            step | step     | takes it, runs it, tells | step | step
 *
 * A lane looks for one where it also looks for a cancel, and when it has no job, by a plain load. One errand is under way in the
 * whole daemon, and a lane that trains gives at most a fifth of its time, so that asking in a loop stops no training.
 *
 * The errand lies on the asker's stack: it returns only when the lane is through with it, or has never seen it. All fields are
 * guarded by lanes->lock. */
#include "server/lane_parts.h"

#include <math.h>
#include <time.h>

#define REST_PER_SECOND 4.0 /* of an errand, before the next one interrupts a job */

struct errand {
    lane_errand_run *run;
    void *context;
    struct problem *problem;
    enum status status;
    enum { ERRAND_WAITS, ERRAND_RUNS, ERRAND_OVER } state;
};

void lane_errand(struct lane *l)
{
    struct lanes *all = l->lanes;
    struct errand *e;
    enum status status;
    double began;

    if (!atomic_load_explicit(&l->errand, memory_order_relaxed))
        return;
    pthread_mutex_lock(&all->lock);
    e = atomic_exchange(&l->errand, NULL);
    if (e)
        e->state = ERRAND_RUNS;
    pthread_mutex_unlock(&all->lock);
    if (!e)
        return;
    began = clock_seconds();
    status = e->run(e->context, all->backend, l->device, e->problem);
    pthread_mutex_lock(&all->lock);
    e->status = status;
    e->state = ERRAND_OVER;
    all->errand_next = clock_seconds() + REST_PER_SECOND * (clock_seconds() - began);
    pthread_cond_broadcast(&all->ended);
    pthread_mutex_unlock(&all->lock);
}

/* The lane that runs job `id`, else one without a job, else the first. Under the lock. */
static struct lane *choose_lane(struct lanes *all, int64_t id)
{
    struct lane *idle = NULL;

    for (int i = 0; i < all->n; i++) {
        if (all->lane[i].job == id)
            return &all->lane[i];
        if (!all->lane[i].job && !idle)
            idle = &all->lane[i];
    }
    return idle ? idle : &all->lane[0];
}

/* Under the lock, which is let go meanwhile. */
static void wait_until(struct lanes *all, double clock)
{
    struct timespec t = {.tv_sec = (time_t)clock, .tv_nsec = (long)(1e9 * (clock - floor(clock)))};

    (void)pthread_cond_timedwait(&all->ended, &all->lock, &t);
}

static bool too_late(struct lanes *all, double until)
{
    return atomic_load(&all->stop) || clock_seconds() >= until;
}

static enum status run_locked(struct lanes *all, int64_t id, double until, struct errand *e, struct problem *problem)
{
    struct lane *l = choose_lane(all, id);

    while (l->job && clock_seconds() < all->errand_next && !too_late(all, until)) {
        wait_until(all, all->errand_next < until ? all->errand_next : until);
        l = choose_lane(all, id);
    }
    if (!too_late(all, until)) {
        atomic_store(&l->errand, e);
        wake_signal(&l->wake);
    }
    while (e->state == ERRAND_RUNS || (e->state == ERRAND_WAITS && !too_late(all, until)))
        wait_until(all, e->state == ERRAND_RUNS ? clock_seconds() + 3600 : until);
    if (e->state == ERRAND_OVER)
        return e->status;
    atomic_store(&l->errand, NULL);
    if (atomic_load(&all->stop))
        return fail(problem, ST_BUSY, "", "the daemon is stopping");
    return fail(problem, ST_BUSY, "", "the lane %s did not come to it in time: it is within a long step or waits for the disk",
                l->name);
}

enum status lanes_errand(struct lanes *all, int64_t id, double seconds, lane_errand_run *run, void *context,
                         struct problem *problem)
{
    struct errand e = {.run = run, .context = context, .problem = problem};
    enum status status;

    pthread_mutex_lock(&all->lock);
    if (all->errand_under_way) {
        pthread_mutex_unlock(&all->lock);
        return fail(problem, ST_TOO_MANY, "", "another profile is being made; one is at a time");
    }
    all->errand_under_way = true;
    status = run_locked(all, id, clock_seconds() + seconds, &e, problem);
    all->errand_under_way = false;
    pthread_mutex_unlock(&all->lock);
    return status;
}
