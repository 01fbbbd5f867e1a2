/* Lanes: stop and resume to the same bits, cancel, priorities, several lanes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/lane.h"
#include "tests/server/support.h"

enum { ROWS = 512, EPOCHS = 300 };

static const char job_format[] =
    "{\"type\":\"fit\",\"model\":{\"name\":\"%s\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":{\"layers\":["
    "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,4],\"name\":\"in\"}},"
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"hidden\",\"units\":32,\"activation\":\"relu\"}},"
    "{\"class_name\":\"Dropout\",\"config\":{\"name\":\"drop\",\"rate\":0.2}},"
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1}}]}}},"
    "\"compile\":{\"optimizer\":\"adam\",\"loss\":\"mse\",\"metrics\":[\"mae\"]},"
    "\"fit\":{\"x\":\"d/x\",\"y\":\"d/"
    "y\",\"batch_size\":16,\"epochs\":%d,\"validation_split\":0.1},\"seed\":3,\"priority\":%d}";

static int64_t post(struct rig *r, const char *model, int epochs, int priority)
{
    char job[2000];

    snprintf(job, sizeof job, job_format, model, epochs, priority);
    if (rig_post(r, "/api/v1/jobs", job) != 202)
        fail_msg("the job is refused: %s", r->reply.body.s);
    return (int64_t)rig_number(r, "id");
}

/* What the trained model says, with all digits. */
static char *answers(struct rig *r, const char *model)
{
    char target[64];

    snprintf(target, sizeof target, "/api/v1/models/%s/predict", model);
    CHECK_INT(rig_post(r, target, "{\"inputs\":[[0.1,0.2,0.3,0.4],[-1,0.5,0.25,2],[3,1,4,1]]}"), 200);
    return json_print(rig_at(r, "outputs"), 0);
}

static char *history(struct rig *r, int64_t id)
{
    char target[64];

    snprintf(target, sizeof target, "/api/v1/jobs/%lld/history", (long long)id);
    CHECK_INT(rig_get(r, target), 200);
    return json_print(r->json, 0);
}

TEST(a_training_that_was_stopped_and_resumed_ends_with_the_same_bits)
{
    struct rig r;
    char *undisturbed, *first_history, *disturbed, *second_history;
    int attempts = 0;

    rig_open(&r, true, "--threads=1", "--checkpoint-seconds=0.01", NULL);
    rig_put_curve(&r, ROWS);
    CHECK_TEXT(rig_wait(&r, post(&r, "calm", EPOCHS, 0)), "done");
    undisturbed = answers(&r, "calm");
    first_history = history(&r, 1);

    int64_t id = post(&r, "shaken", EPOCHS, 0);
    for (int i = 0; i < 8; i++) {
        usleep(15000 + 7000 * (unsigned)i);
        rig_reopen(&r, true);
    }
    CHECK_TEXT(rig_wait(&r, id), "done");
    attempts = (int)rig_number(&r, "attempt");
    CHECK(attempts > 1);
    CHECK(json_true(rig_at(&r, "reproducible")));
    disturbed = answers(&r, "shaken");
    second_history = history(&r, id);
    CHECK_TEXT(disturbed, undisturbed);
    CHECK_TEXT(second_history, first_history);
    free(undisturbed);
    free(first_history);
    free(disturbed);
    free(second_history);
    rig_close(&r);
}

TEST(a_running_job_is_cancelled_and_publishes_nothing)
{
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    int64_t id = post(&r, "long", 100000, 0);
    for (int i = 0; i < 1000; i++) {
        CHECK_INT(rig_get(&r, "/api/v1/jobs/1"), 200);
        if (strcmp(rig_text(&r, "state"), "running") == 0 && json_type(rig_at(&r, "progress")) == JSON_OBJECT)
            break;
        usleep(5000);
    }
    CHECK_TEXT(rig_text(&r, "state"), "running");
    CHECK(rig_number(&r, "progress.steps_per_epoch") == 29);
    CHECK_INT(rig_number(&r, "progress.epochs"), 100000);
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 200);
    CHECK_TEXT(rig_text(&r, "state"), "cancelled");
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 200);
    CHECK_TEXT(rig_wait(&r, id), "cancelled");
    CHECK_INT(rig_get(&r, "/api/v1/models/long"), 404);
    rig_close(&r);
}

TEST(higher_priority_goes_first_then_the_older)
{
    struct rig r;
    char started[4][32];
    static const int order[] = {3, 1, 2}; /* ids by expected start */

    rig_open(&r, false, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    (void)post(&r, "a", 1, 0);
    (void)post(&r, "b", 1, 0);
    (void)post(&r, "c", 1, 5);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/3"), 200);
    CHECK_INT(rig_number(&r, "queue_position"), 1);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/2"), 200);
    CHECK_INT(rig_number(&r, "queue_position"), 3);
    rig_reopen(&r, true);
    for (int id = 1; id <= 3; id++) {
        CHECK_TEXT(rig_wait(&r, id), "done");
        snprintf(started[id], sizeof started[id], "%s", rig_text(&r, "started_at"));
    }
    for (int i = 0; i < 2; i++)
        CHECK(strcmp(started[order[i]], started[order[i + 1]]) <= 0);
    rig_close(&r);
}

TEST(two_lanes_run_two_jobs_with_the_bits_of_one)
{
    struct rig r;
    char *first, *second;

    rig_open(&r, true, "--threads=2", "--lanes=2", NULL);
    rig_put_curve(&r, ROWS);
    int64_t a = post(&r, "a", 5, 0), b = post(&r, "b", 5, 0);
    CHECK_TEXT(rig_wait(&r, a), "done");
    CHECK_TEXT(rig_wait(&r, b), "done");
    first = answers(&r, "a");
    second = answers(&r, "b");
    CHECK_TEXT(second, first);
    free(first);
    free(second);
    rig_close(&r);
}

TEST(a_job_keeps_the_data_that_it_saw_when_it_was_posted)
{
    struct rig r;
    float other[ROWS] = {0};
    char *with_old, *alone;

    rig_open(&r, false, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    (void)post(&r, "kept", 3, 0);
    CHECK_INT(rig_put_floats(&r, "/api/v1/datasets/d/y", other, 2, (int64_t[]){ROWS, 1}), 201);
    rig_reopen(&r, true);
    CHECK_TEXT(rig_wait(&r, 1), "done");
    with_old = answers(&r, "kept");
    rig_put_curve(&r, ROWS);
    CHECK_TEXT(rig_wait(&r, post(&r, "again", 3, 0)), "done");
    alone = answers(&r, "again");
    CHECK_TEXT(with_old, alone);
    free(with_old);
    free(alone);
    rig_close(&r);
}

TEST(a_job_for_one_lane_waits_for_that_lane)
{
    static const char *const devices[] = {"cpu:1", "cpu:0"};
    struct rig r;
    char job[2000];

    rig_open(&r, true, "--threads=2", "--lanes=2", NULL);
    rig_put_curve(&r, ROWS);
    for (int i = 0; i < 2; i++) {
        snprintf(job, sizeof job, job_format, "m", 1, 0);
        job[strlen(job) - 1] = 0;
        snprintf(job + strlen(job), sizeof job - strlen(job), ",\"device\":\"%s\"}", devices[i]);
        CHECK_INT(rig_post(&r, "/api/v1/jobs", job), 202);
        CHECK_TEXT(rig_wait(&r, i + 1), "done");
        CHECK_TEXT(rig_text(&r, "device"), devices[i]);
    }
    rig_close(&r);
}
