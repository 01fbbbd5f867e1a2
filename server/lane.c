/* Lanes: devices, threads, claims, and what others may ask of them. See lane_job.c for the life of one job.
 *
 * Locking: lanes->claiming is held over a claim, which waits for the disk, so that a cancel that found the row running also finds
 * the lane. lanes->lock guards `job` of all lanes, lane->lock the snapshot; neither is held over anything slow, since HTTP threads
 * take them. Order: claiming, lanes->lock, lane->lock. */
#include "server/lane_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/log.h"

#define IDLE_SECONDS 1.0 /* between two looks at the queue without a notice */

/* --- the thread -------------------------------------------------------------------------------------------------------------------- */

static bool claim(struct lane *l, struct arena *mem)
{
    struct problem problem;
    enum status status;

    pthread_mutex_lock(&l->lanes->claiming);
    status = jobs_claim(lane_db(l), l->name, l->lanes->backend->describe(l->device), mem, &l->row, &problem);
    if (status == ST_OK) {
        pthread_mutex_lock(&l->lanes->lock);
        l->job = l->row.id;
        atomic_store(&l->wanted, false);
        pthread_mutex_unlock(&l->lanes->lock);
    }
    pthread_mutex_unlock(&l->lanes->claiming);
    if (status != ST_OK && status != ST_NOT_FOUND)
        log_problem(LOG_ERROR, 0, "no job can be claimed", &problem);
    return status == ST_OK;
}

static void let_go(struct lane *l)
{
    pthread_mutex_lock(&l->lanes->lock);
    l->job = 0;
    pthread_cond_broadcast(&l->lanes->ended);
    pthread_mutex_unlock(&l->lanes->lock);
    lane_show(l, NULL);
}

static void *lane_run(void *arg)
{
    struct lane *l = arg;

    thread_nice(19); /* predictions go first */
    thread_compute_mode();
    l->lanes->backend->enter(l->device);
    while (!atomic_load(&l->lanes->stop)) {
        OWNED(arena_free) struct arena *mem = arena_new();

        lane_errand(l);
        if (claim(l, mem)) {
            lane_run_job(l, mem);
            let_go(l);
        } else {
            (void)wake_wait(&l->wake, IDLE_SECONDS);
        }
    }
    return NULL;
}

static enum status open_lane(struct lanes *all, int i, struct problem *problem)
{
    const struct settings *s = all->server->settings;
    struct lane *l = &all->lane[i];
    struct device_options options = {.threads = (int)s->threads, .simd = settings_simd(s)};

    l->sink = lane_sink;
    l->lanes = all;
    snprintf(l->name, sizeof l->name, "%s:%d", all->backend->name, i);
    return all->backend->open(0, &options, &l->device, problem);
}

enum status lanes_start(struct server *s, struct lanes **ret, struct problem *problem)
{
    struct lanes *all = must_alloc(sizeof *all);
    int n = (int)s->settings->lanes;
    enum status status = ST_OK;

    all->server = s;
    all->backend = backend_cpu();
    all->lane = must_alloc(sizeof *all->lane * (size_t)n);
    pthread_mutex_init(&all->claiming, NULL);
    pthread_mutex_init(&all->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&all->ended, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (int i = 0; i < n && status == ST_OK; i++)
        status = open_lane(all, i, problem);
    for (int i = 0; i < n && status == ST_OK; i++) {
        char name[24];

        pthread_mutex_init(&all->lane[i].lock, NULL);
        wake_init(&all->lane[i].wake);
        snprintf(name, sizeof name, "lane-%d", i);
        all->n = i + 1;
        *ret = all; /* the thread may ask for it */
        thread_start(&all->lane[i].thread, name, lane_run, &all->lane[i]);
    }
    if (status == ST_OK)
        return ST_OK;
    for (int i = 0; i < n; i++) {
        if (all->lane[i].device)
            all->backend->close(all->lane[i].device);
    }
    pthread_cond_destroy(&all->ended);
    pthread_mutex_destroy(&all->claiming);
    pthread_mutex_destroy(&all->lock);
    free(all->lane);
    free(all);
    return status;
}

void lanes_stop(struct lanes *all)
{
    if (!all)
        return;
    atomic_store(&all->stop, true);
    pthread_mutex_lock(&all->lock);
    pthread_cond_broadcast(&all->ended); /* errands that wait */
    pthread_mutex_unlock(&all->lock);
    lanes_notify(all);
    for (int i = 0; i < all->n; i++) {
        pthread_join(all->lane[i].thread, NULL);
        all->backend->close(all->lane[i].device);
    }
}

void lanes_free(struct lanes *all)
{
    if (!all)
        return;
    for (int i = 0; i < all->n; i++) {
        json_free(all->lane[i].shown);
        wake_done(&all->lane[i].wake);
        pthread_mutex_destroy(&all->lane[i].lock);
    }
    pthread_cond_destroy(&all->ended);
    pthread_mutex_destroy(&all->claiming);
    pthread_mutex_destroy(&all->lock);
    free(all->lane);
    free(all);
}

void lanes_notify(struct lanes *all)
{
    for (int i = 0; i < all->n; i++)
        wake_signal(&all->lane[i].wake);
}

static bool runs(const struct lanes *all, int64_t id)
{
    for (int i = 0; i < all->n; i++) {
        if (all->lane[i].job == id)
            return true;
    }
    return false;
}

void lanes_cancel(struct lanes *all, int64_t id, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    pthread_mutex_lock(&all->claiming); /* a claim of it may be under way */
    pthread_mutex_unlock(&all->claiming);
    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++) {
        if (all->lane[i].job == id)
            atomic_store(&all->lane[i].wanted, true);
    }
    while (runs(all, id)) {
        if (pthread_cond_timedwait(&all->ended, &all->lock, &until) != 0)
            break;
    }
    pthread_mutex_unlock(&all->lock);
}

struct json *lanes_progress(struct lanes *all, int64_t id)
{
    struct json *found = NULL;

    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++) {
        struct lane *l = &all->lane[i];

        if (l->job != id)
            continue;
        pthread_mutex_lock(&l->lock);
        if (l->shown)
            found = json_copy(l->shown);
        pthread_mutex_unlock(&l->lock);
    }
    pthread_mutex_unlock(&all->lock);
    return found;
}

int lanes_count(const struct lanes *all)
{
    return all->n;
}

int lanes_busy(struct lanes *all)
{
    int n = 0;

    pthread_mutex_lock(&all->lock);
    for (int i = 0; i < all->n; i++)
        n += all->lane[i].job != 0;
    pthread_mutex_unlock(&all->lock);
    return n;
}

const char *lanes_device(const struct lanes *all, int i)
{
    return all->lane[i].name;
}

const char *lanes_describe(const struct lanes *all, int i)
{
    return all->backend->describe(all->lane[i].device);
}

int64_t lanes_job(struct lanes *all, int i)
{
    int64_t id;

    pthread_mutex_lock(&all->lock);
    id = all->lane[i].job;
    pthread_mutex_unlock(&all->lock);
    return id;
}
