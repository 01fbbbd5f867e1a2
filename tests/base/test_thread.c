#include "tests/test.h"

#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "engine/base/scope.h"
#include "engine/base/thread.h"

struct seen {
    char name[32];
    int blocks_term, nice, flushed;
};

static void *look(void *arg)
{
    struct seen *seen = arg;
    sigset_t mask;
    volatile float tiny = 1e-38f, scale = 1e-4f;

    pthread_getname_np(pthread_self(), seen->name, sizeof seen->name);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    seen->blocks_term = sigismember(&mask, SIGTERM);
    thread_nice(5);
    seen->nice = getpriority(PRIO_PROCESS, (id_t)gettid());
    thread_compute_mode();
    seen->flushed = tiny * scale == 0;
    return NULL;
}

TEST(a_thread_has_a_name_no_signals_and_its_own_priority_and_float_mode)
{
    struct seen seen = {0};
    volatile float tiny = 1e-38f, scale = 1e-4f;
    int before = getpriority(PRIO_PROCESS, 0);
    sigset_t mask;
    pthread_t t;

    thread_start(&t, "lane", look, &seen);
    pthread_join(t, NULL);
    CHECK_INT(seen.blocks_term, 1);
    CHECK(seen.nice >= 5);
    CHECK_INT(getpriority(PRIO_PROCESS, 0), before);
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    CHECK_INT(sigismember(&mask, SIGTERM), 0);
    CHECK(tiny * scale != 0);
#ifdef __SSE2__
    CHECK_INT(seen.flushed, 1);
#endif
}

static void *own_name(void *arg)
{
    wake_wait(arg, 10); /* until the starter has set the name */
    return NULL;
}

TEST(a_thread_name_is_cut_to_what_the_kernel_keeps)
{
    struct wake go;
    char name[32];
    pthread_t t;

    wake_init(&go);
    thread_start(&t, "a very long thread name", own_name, &go);
    CHECK_INT(pthread_getname_np(t, name, sizeof name), 0);
    CHECK_TEXT(name, "a very long thr");
    wake_signal(&go);
    pthread_join(t, NULL);
    wake_done(&go);
}

TEST(a_signal_before_the_wait_is_not_lost)
{
    CLEAN(wake_done) struct wake w;

    wake_init(&w);
    wake_signal(&w);
    wake_signal(&w);
    CHECK(wake_wait(&w, -1));
    CHECK(!wake_wait(&w, 0)); /* cleared */
}

TEST(a_wait_ends_after_its_time)
{
    CLEAN(wake_done) struct wake w;
    double start = clock_seconds(), took;

    wake_init(&w);
    CHECK(!wake_wait(&w, 0.03));
    took = clock_seconds() - start;
    CHECK(took >= 0.029 && took < 5);
}

static void *signal_soon(void *arg)
{
    usleep(10000);
    wake_signal(arg);
    return NULL;
}

TEST(a_waiting_thread_is_woken)
{
    CLEAN(wake_done) struct wake w;
    double start = clock_seconds();
    pthread_t t;

    wake_init(&w);
    thread_start(&t, "waker", signal_soon, &w);
    CHECK(wake_wait(&w, 1e300)); /* no overflow of the clock */
    CHECK(clock_seconds() - start < 10);
    pthread_join(t, NULL);
}

TEST(clocks_advance_and_know_the_century)
{
    double a = clock_seconds();
    int64_t ms = clock_unix_ms();

    usleep(2000);
    CHECK(clock_seconds() > a);
    CHECK(clock_unix_ms() >= ms + 1);
    CHECK(ms > 1600000000000 && ms < 4000000000000);
}

TEST(cpu_count_follows_the_affinity_of_the_process)
{
    cpu_set_t before, one;
    int first = 0;

    CHECK(cpu_count() >= 1 && cpu_count() <= sysconf(_SC_NPROCESSORS_CONF));
    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    while (!CPU_ISSET(first, &before))
        first++;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0);
    CHECK_INT(cpu_count(), 1);
    CHECK_INT(sched_setaffinity(0, sizeof before, &before), 0);
}

TEST(memory_is_at_most_that_of_the_machine)
{
    uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

    CHECK(memory_bytes() <= machine);
    CHECK(memory_bytes() >= 1 << 20);
}
