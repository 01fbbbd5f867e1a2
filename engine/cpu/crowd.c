/* A team beside other programs: how long its idle threads look for work before they sleep.
 *
 * libgomp's idle threads look for work 300,000 times, 4 to 20 ms, which is right while a team has its cores to itself: a wake-up
 * costs more than what lies between two regions of a step (sleeping at once: MLP 784-512-512-10 b128 from 46,000 to 29,000
 * samples/s, two threads; looking for 100 us: still 10 % less). When another program wants one of the cores, a thread that looks
 * for work uses up its slice and is off the core when the work comes, and everybody else waits for it at the region's end. Lanes
 * are nice 19: such a slice comes round once in some 70 of a program's at nice 0, and so the rate falls up to seventyfold. A
 * thread that sleeps instead keeps its claim, and the kernel wakes it where there is room.
 *
 * The library has no call for that, but a rule (its manual, GOMP_SPINCOUNT): when a process has more OpenMP threads than CPUs, idle
 * ones look only 1,000 times. So a team that does not get its cores is given a crowd: as many threads as CPUs and one, in a
 * parallel region in which they all sleep. How long the team's threads could have run and did not is what the kernel counts
 * (the second number of /proc/self/task/ID/schedstat).
 *
 *     calm --- waited most of the time ---> crowded (1 s) --- time is over ---> calm, on trial
 *      ^                                          ^                                   |
 *      |                                          '--- waits again: twice as long, at most 30 s
 *      '-------------------------------------- does not wait -------------------------'
 *
 * Without that file, or under another OpenMP library, nothing happens. */
#include "engine/cpu/crowd.h"

#ifdef _OPENMP
#include <omp.h>
#endif
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"

#define LOOK_SECONDS  0.05
#define STALE_SECONDS 1.0 /* between jobs nobody looks: such a stretch says nothing */
/* Of the time. A neighbour with a core of the team's makes 0.98; 0.2 was also reached without one, which halved a rate. */
#define MUCH         0.6
#define STAY_SECONDS 1.0
#define STAY_MAX     30.0

enum {
    WATCHED = 64 /* members of a team that are looked at */
};

void crowd_judge(struct crowd_state *s, double now, double seconds, double waited)
{
    bool much = waited > MUCH * seconds;

    if (s->crowded) {
        s->crowded = now < s->until;
        s->trial = !s->crowded;
    } else if (much) {
        s->stay = !s->trial ? STAY_SECONDS : s->stay * 2 < STAY_MAX ? s->stay * 2 : STAY_MAX;
        s->crowded = true;
        s->until = now + s->stay;
    } else {
        s->trial = false;
    }
}

#ifdef _OPENMP

/* --- the crowd ------------------------------------------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int wanted;    /* teams that want a crowd */
static bool standing; /* its thread has not ended yet */

static void sleep_while_wanted(void)
{
    pthread_mutex_lock(&lock);
    while (wanted)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
}

/* The library takes the crowd's threads down with the thread that started them. */
static void *crowd_run(void *arg)
{
    bool more = true;

    (void)arg;
    omp_set_dynamic(0);
    while (more) {
#pragma omp parallel num_threads(omp_get_num_procs() + 1)
        sleep_while_wanted();
        pthread_mutex_lock(&lock);
        more = standing = wanted > 0;
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void crowd_want(int more)
{
    pthread_t thread;
    bool start;

    pthread_mutex_lock(&lock);
    wanted += more;
    start = wanted && !standing;
    standing |= start;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (start) {
        thread_start(&thread, "horn-crowd", crowd_run, NULL);
        (void)pthread_detach(thread);
    }
}

/* --- a team's waiting ----------------------------------------------------------------------------------------------------- */

static _Thread_local struct {
    int members[WATCHED], n; /* the kernel's numbers of the team's threads */
    double looked, waited;   /* when last; seconds of waiting until then */
    struct crowd_state state;
} team;

/* Seconds that a thread of ours could have run and did not, since it began. */
static double waited_by(int thread)
{
    char path[64], text[96];
    uint64_t ns = 0;
    ssize_t n;
    int fd;

    snprintf(path, sizeof path, "/proc/self/task/%d/schedstat", thread); /* "ran waited slices" */
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[n > 0 ? n : 0] = 0;
    if (strchr(text, ' '))
        ns = strtoull(strchr(text, ' '), NULL, 10);
    return 1e-9 * (double)ns;
}

void crowd_enter(int threads)
{
    memset(team.members, 0, sizeof team.members);
    team.n = threads < 2 ? 0 : threads < WATCHED ? threads : WATCHED;
    team.looked = 0;
    int *members = team.members, n = team.n;
#pragma omp parallel num_threads(threads)
    if (omp_get_thread_num() < n)
        members[omp_get_thread_num()] = gettid();
}

void crowd_look(void)
{
    double now, waited = 0, seconds;
    bool before = team.state.crowded;

    if (!team.n)
        return;
    now = clock_seconds();
    seconds = now - team.looked;
    if (seconds < LOOK_SECONDS)
        return;
    for (int i = 0; i < team.n; i++)
        waited += waited_by(team.members[i]);
    if (seconds < STALE_SECONDS || before)
        crowd_judge(&team.state, now, seconds, waited - team.waited);
    team.looked = now;
    team.waited = waited;
    if (team.state.crowded != before)
        crowd_want(before ? -1 : 1);
}

#else

void crowd_enter(int threads)
{
    (void)threads;
}

void crowd_look(void) {}

#endif
