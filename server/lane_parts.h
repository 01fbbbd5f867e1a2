/* What the files of a lane share: lane.c (threads and claims), lane_sink.c (what a training tells), lane_job.c (one job) and lane_errand.c
 * (what others have done on its device). Nobody else includes this. */
#ifndef HORN_SERVER_LANE_PARTS_H
#define HORN_SERVER_LANE_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "engine/base/thread.h"
#include "engine/run/backend.h"
#include "engine/run/sink.h"
#include "server/job.h"
#include "server/lane.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/jobs.h"

#define PATIENCE_SECONDS 10.0 /* for a write that fails because the disk is full */
#define NEWS_SECONDS     0.1  /* between two transactions that only store epochs */
#define NEWS_MAX         256  /* epochs that may wait for it */

struct errand;

struct lane {
    struct sink sink; /* first: the sink's calls get the lane by its address */
    struct lanes *lanes;
    pthread_t thread;
    struct wake wake;
    char name[32]; /* "cpu:0" */
    struct device *device;
    int64_t job;                   /* that runs now, 0: none; guarded by lanes->lock */
    atomic_bool wanted;            /* its cancelling; set under lanes->lock */
    struct errand *_Atomic errand; /* that waits; changed under lanes->lock */
    pthread_mutex_t lock;          /* guards shown */
    struct json *shown;            /* progress of the running job, NULL before the first */
    /* of the running job, the lane's thread alone */
    struct job_row row;
    struct work *work;
    double checkpointed; /* clock */
    int64_t checkpoint_number;
    int64_t rows_seen;      /* for the counter of samples */
    struct arena *news_mem; /* names and values of the epochs that wait to be stored */
    struct job_epoch news[NEWS_MAX];
    int n_news;
    double news_stored; /* clock */
    char *metrics;      /* JSON object of the last epoch, for the version */
};

struct lanes {
    struct server *server;
    const struct backend *backend;
    pthread_mutex_t claiming, lock;
    pthread_cond_t ended; /* a job or an errand ended */
    atomic_bool stop;
    bool errand_under_way; /* guarded by lock, as is the next */
    double errand_next;    /* clock from which on a job may be interrupted again */
    int n;
    struct lane *lane;
};

static inline struct db *lane_db(const struct lane *l)
{
    return l->lanes->server->db;
}

/* --- lane_sink.c --- */
extern const struct sink lane_sink;
void lane_show(struct lane *l, struct json *takes); /* what lanes_progress answers; NULL: nothing */
bool lane_may_pass(enum status s);                  /* a full disk: may be over soon */
void lane_pause(const struct lane *l);              /* half a second, less on a stop */
/* What is not stored yet, for whoever stores something of the job; `text` is freed by the caller. After that succeeded, or when it is of no
 * use any more: lane_news_over. */
struct job_news lane_news(struct lane *l, char **text);
void lane_news_over(struct lane *l);
/* A finished `.h5` under tmp/, the caller's to place or to remove. */
enum status lane_write_model(struct lane *l, const struct snapshot *now, bool weights_only, char path[512],
                             struct problem *problem);

/* expression: a call that stores something. Tried again while the disk is full, until `seconds` are over or the daemon stops. */
#define PATIENTLY(lane, seconds, expression)                                                                                   \
    ({                                                                                                                         \
        double until_ = clock_seconds() + (seconds);                                                                           \
        enum status tried_;                                                                                                    \
        while (tried_ = (expression), lane_may_pass(tried_) && clock_seconds() < until_ && !atomic_load(&(lane)->lanes->stop)) \
            lane_pause(lane);                                                                                                  \
        tried_;                                                                                                                \
    })

/* --- lane_errand.c --- */
void lane_errand(struct lane *l); /* does what waits for it, if anything does */

/* --- lane_job.c --- */
/* l->row was claimed; returns when it is done, failed, cancelled or queued again */
void lane_run_job(struct lane *l, struct arena *mem);

#endif
