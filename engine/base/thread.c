/* Threads, clocks, and what the machine lends us.
 *
 * cpu_count and memory_bytes answer for this process, not for the machine: a container with two of 64 CPUs that starts 64
 * threads is slower than with two. The kernel writes the limits into the files of the process's control group and of each
 * group above it; the smallest counts. In a container the path in /proc/self/cgroup may name a group that is not visible: what
 * cannot be read is passed over, up to the root of the mount, which is then the container's own group. */
#include "engine/base/thread.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#include "engine/base/arena.h"

static void must(int error, const char *what)
{
    if (!error)
        return;
    fprintf(stderr, "hornd: %s: %s\n", what, strerror(error));
    abort();
}

/* --- control groups ------------------------------------------------------------------------------------------------------- */

/* The group of this process for a controller of version 1, or of version 2 with controller NULL. */
static bool own_group(const char *controller, char *to, size_t room)
{
    char line[PATH_MAX + 64], *list, *path;
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "re");

    while (f && !found && fgets(line, sizeof line, f)) { /* number:controller,controller:/path */
        line[strcspn(line, "\n")] = 0;
        list = strchr(line, ':');
        path = list ? strchr(list + 1, ':') : NULL;
        if (!path)
            continue;
        *path++ = 0;
        list++;
        if (!controller) {
            found = *list == 0;
        } else {
            char *rest = NULL;

            for (char *name = strtok_r(list, ",", &rest); name && !found; name = strtok_r(NULL, ",", &rest))
                found = strcmp(name, controller) == 0;
        }
        if (found)
            snprintf(to, room, "%s", path);
    }
    if (f)
        fclose(f);
    return found;
}

/* A file's first line; false if it cannot be read. */
static bool first_line(const char *path, char *to, int room)
{
    FILE *f = fopen(path, "re");
    bool ok = f && fgets(to, room, f);

    if (f)
        fclose(f);
    return ok;
}

/* Calls `look` with the directory of the group and of each group above it, the mount's root last. */
static void each_group(const char *mount, const char *controller, void (*look)(const char *directory, double *least),
                       double *least)
{
    char group[PATH_MAX], directory[PATH_MAX + 64], *slash;

    if (!own_group(controller, group, sizeof group))
        return;
    for (;;) {
        snprintf(directory, sizeof directory, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
        look(directory, least);
        slash = strrchr(group, '/');
        if (!slash || (slash == group && group[1] == 0))
            return;
        slash[slash == group] = 0; /* "/a/b", "/a", "/" */
    }
}

static bool number_in(const char *directory, const char *file, double *ret)
{
    char path[PATH_MAX + 128], line[64];

    snprintf(path, sizeof path, "%s/%s", directory, file);
    if (!first_line(path, line, sizeof line) || (!isdigit((unsigned char)line[0])))
        return false;
    *ret = strtod(line, NULL);
    return true;
}

static void look_cpu_v2(const char *directory, double *least)
{
    char path[PATH_MAX + 128], line[64];
    double quota, period;

    snprintf(path, sizeof path, "%s/cpu.max", directory); /* "200000 100000" or "max 100000" */
    if (first_line(path, line, sizeof line) && sscanf(line, "%lf %lf", &quota, &period) == 2 && period > 0)
        *least = fmin(*least, quota / period);
}

static void look_cpu_v1(const char *directory, double *least)
{
    double quota, period;

    if (number_in(directory, "cpu.cfs_quota_us", &quota) && number_in(directory, "cpu.cfs_period_us", &period) && period > 0)
        *least = fmin(*least, quota / period); /* no quota is -1, which is no number here */
}

static void look_memory_v2(const char *directory, double *least)
{
    double bytes;

    if (number_in(directory, "memory.max", &bytes)) /* "max" is no number */
        *least = fmin(*least, bytes);
}

static void look_memory_v1(const char *directory, double *least)
{
    double bytes;

    if (number_in(directory, "memory.limit_in_bytes", &bytes)) /* without a limit: 2^63 less a page, above any machine */
        *least = fmin(*least, bytes);
}

/* CPUs in the affinity mask of this process. The mask's size is the kernel's, which says EINVAL to a smaller one. */
static int affinity(void)
{
    for (int room = 1024; room <= 1 << 20; room *= 2) {
        cpu_set_t *set = CPU_ALLOC((size_t)room);
        size_t bytes = CPU_ALLOC_SIZE((size_t)room);
        int n = -1, error;

        if (!set)
            break;
        error = sched_getaffinity(0, bytes, set) == 0 ? 0 : errno;
        if (!error)
            n = CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (!error)
            return n;
        if (error != EINVAL)
            break;
    }
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

int cpu_count(void)
{
    double quota = INFINITY;
    int n = affinity();

    each_group("/sys/fs/cgroup", NULL, look_cpu_v2, &quota);
    each_group("/sys/fs/cgroup/cpu", "cpu", look_cpu_v1, &quota);
    if (quota < n)
        n = (int)ceil(quota); /* 1.5 CPUs keep two threads busy most of the time */
    return n < 1 ? 1 : n;
}

uint64_t memory_bytes(void)
{
    double least = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);

    each_group("/sys/fs/cgroup", NULL, look_memory_v2, &least);
    each_group("/sys/fs/cgroup/memory", "memory", look_memory_v1, &least);
    return least < 1 ? 1 : (uint64_t)least;
}

/* --- threads -------------------------------------------------------------------------------------------------------------- */

void thread_start(pthread_t *ret, const char *name, void *(*run)(void *), void *arg)
{
    sigset_t all, before;
    char cut[16]; /* the kernel keeps 15 bytes */

    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* a fault, not a message: blocked, it could not be answered by who reads a mapped file */
    must(pthread_sigmask(SIG_SETMASK, &all, &before), "blocking signals");
    must(pthread_create(ret, NULL, run, arg), "starting a thread"); /* it inherits the mask */
    must(pthread_sigmask(SIG_SETMASK, &before, NULL), "restoring signals");
    snprintf(cut, sizeof cut, "%s", name);
    (void)pthread_setname_np(*ret, cut);
}

void thread_compute_mode(void)
{
#ifdef __SSE2__
    _mm_setcsr(_mm_getcsr() | 0x8040); /* bit 15: results flushed to zero, bit 6: denormal operands are zero */
#endif
}

void thread_nice(int nice)
{
    /* On Linux a thread has a priority of its own, whatever POSIX says. It is a wish: raising it takes a right. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), nice);
}

double clock_seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int64_t clock_unix_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* --- wake ----------------------------------------------------------------------------------------------------------------- */

void wake_init(struct wake *w)
{
    pthread_condattr_t how;

    w->set = false;
    must(pthread_mutex_init(&w->lock, NULL), "making a mutex");
    must(pthread_condattr_init(&how), "making a condition");
    must(pthread_condattr_setclock(&how, CLOCK_MONOTONIC), "choosing a clock");
    must(pthread_cond_init(&w->cond, &how), "making a condition");
    (void)pthread_condattr_destroy(&how);
}

void wake_done(struct wake *w)
{
    (void)pthread_cond_destroy(&w->cond);
    (void)pthread_mutex_destroy(&w->lock);
}

void wake_signal(struct wake *w)
{
    pthread_mutex_lock(&w->lock);
    w->set = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

bool wake_wait(struct wake *w, double seconds)
{
    struct timespec until;
    bool was_set;
    int error = 0;

    clock_gettime(CLOCK_MONOTONIC, &until);
    if (seconds >= 0) {
        double whole = floor(fmin(seconds, 1e9)); /* 30 years */

        until.tv_sec += (time_t)whole;
        until.tv_nsec += seconds < 1e9 ? (long)((seconds - whole) * 1e9) : 0;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
    }
    pthread_mutex_lock(&w->lock);
    while (!w->set && error != ETIMEDOUT)
        error = seconds < 0 ? pthread_cond_wait(&w->cond, &w->lock) : pthread_cond_timedwait(&w->cond, &w->lock, &until);
    was_set = w->set;
    w->set = false;
    pthread_mutex_unlock(&w->lock);
    return was_set;
}
