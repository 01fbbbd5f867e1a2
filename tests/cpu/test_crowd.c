/* A team beside other programs: when it becomes impatient, and that the library is told. */
#include "tests/test.h"

#include <dirent.h>
#include <sched.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "engine/cpu/cpu.h"
#include "engine/cpu/crowd.h"
#include "engine/run/backend.h"

TEST(a_team_that_gets_its_cores_stays_patient)
{
    struct crowd_state s = {0};

    for (int i = 0; i < 100; i++)
        crowd_judge(&s, i * 0.05, 0.05, 0.005); /* a tenth of the time */
    CHECK(!s.crowded);
}

TEST(a_team_that_waits_is_crowded_for_a_second_and_then_tried_without)
{
    struct crowd_state s = {0};

    crowd_judge(&s, 10, 0.05, 0.04);
    CHECK(s.crowded);
    crowd_judge(&s, 10.9, 0.05, 0); /* sleeping threads do not wait: that says nothing yet */
    CHECK(s.crowded);
    crowd_judge(&s, 11.1, 0.05, 0);
    CHECK(!s.crowded);
    crowd_judge(&s, 11.2, 0.05, 0);
    CHECK(!s.crowded && !s.trial);
}

TEST(a_neighbour_that_stays_is_tried_less_and_less_often)
{
    struct crowd_state s = {0};
    double now = 0, stays = 0;
    int trials = 0;

    for (; now < 100; now += 0.05) {
        crowd_judge(&s, now, 0.05, s.crowded ? 0 : 0.05);
        trials += !s.crowded;
        stays = s.stay;
    }
    CHECK(stays == 30);
    CHECK(trials >= 5 && trials <= 8); /* after 1, 2, 4, 8, 16 and 30 seconds */
}

static int threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int n = 0;

    while (tasks && readdir(tasks))
        n++;
    if (tasks)
        (void)closedir(tasks);
    return n;
}

static void some_work(const void *context, int64_t begin, int64_t end)
{
    volatile double sum = 0;

    (void)context;
    for (int64_t i = begin; i < end; i++)
        sum = sum + (double)i;
}

TEST(two_threads_on_one_core_are_given_a_crowd)
{
    const struct backend *cpu = backend_cpu();
    struct device *device = NULL;
    struct problem problem = {0};
    cpu_set_t before, one;
    double until;
    int n;

    CHECK_INT(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    CHECK_INT(sched_setaffinity(0, sizeof one, &one), 0); /* before the team's second thread starts: it inherits that */
    CHECK_INT(cpu->open(0, &(struct device_options){.threads = 2}, &device, &problem), ST_OK);
    cpu->enter(device);
    n = threads();
    until = clock_seconds() + 10;
    while (threads() == n && clock_seconds() < until)
        for (int i = 0; i < 20; i++)
            team_run(device, 1 << 20, 1, some_work, NULL);
#if defined(_OPENMP) && defined(__GNUC__) && !defined(__clang__)
    if (access("/proc/self/schedstat", R_OK) == 0)
        CHECK(threads() > n);
#endif
    cpu->close(device);
    CHECK_INT(sched_setaffinity(0, sizeof before, &before), 0);
}
