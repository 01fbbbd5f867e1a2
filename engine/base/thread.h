/* Small tools around pthreads: named threads, a clock, a wake-up flag. */
#ifndef HORN_BASE_THREAD_H
#define HORN_BASE_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* Signals are blocked in it, but for SIGBUS; a failure ends the process. */
void thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg);
void thread_compute_mode(void); /* flush-to-zero, denormals-are-zero in the calling thread (no-op off x86) */
void thread_nice(int nice);     /* priority of the calling thread alone */
double clock_seconds(void);     /* monotonic */
int64_t clock_unix_ms(void);
int cpu_count(void);         /* CPUs this process may use: affinity and cgroup quota */
uint64_t memory_bytes(void); /* of the cgroup, else of the machine */

/* A sticky event: signal() before wait() is not lost. */
struct wake {
    pthread_mutex_t lock;
    pthread_cond_t cond; /* CLOCK_MONOTONIC */
    bool set;            /* guarded by lock */
};
void wake_init(struct wake *w);
void wake_done(struct wake *w);
void wake_signal(struct wake *w);
bool wake_wait(struct wake *w, double seconds); /* true if it was signalled; clears it. seconds < 0: for ever */

#endif
