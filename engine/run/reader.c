/* See reader.h. */
#include "engine/run/reader.h"

#include "engine/base/arena.h"
#include "engine/base/thread.h"

struct reader {
    pthread_t thread;
    void (*task)(void *context);
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool runs, leave; /* guarded by lock: a task is wanted or runs; the thread is to end */
};

static void *reader_run(void *arg)
{
    struct reader *r = arg;

    thread_compute_mode();
    pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->runs && !r->leave)
            pthread_cond_wait(&r->changed, &r->lock);
        if (r->leave)
            break;
        pthread_mutex_unlock(&r->lock);
        r->task(r->context);
        pthread_mutex_lock(&r->lock);
        r->runs = false;
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

struct reader *reader_new(void (*task)(void *context), void *context)
{
    struct reader *r = must_alloc(sizeof *r);

    r->task = task;
    r->context = context;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    thread_start(&r->thread, "horn-reader", reader_run, r);
    return r;
}

void reader_start(struct reader *r)
{
    pthread_mutex_lock(&r->lock);
    r->runs = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void reader_wait(struct reader *r)
{
    pthread_mutex_lock(&r->lock);
    while (r->runs)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

struct reader *reader_free(struct reader *r)
{
    if (!r)
        return NULL;
    reader_wait(r);
    pthread_mutex_lock(&r->lock);
    r->leave = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    (void)pthread_join(r->thread, NULL);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->changed);
    return free_null(r);
}
