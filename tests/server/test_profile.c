/* GET /api/v1/jobs/{id}/profile, and the errands by which a lane makes one between two steps. */
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/lane.h"
#include "tests/server/support.h"

enum { ROWS = 256, LONG = 4000 /* epochs: a second, so that the training still runs when it is asked for */ };

static const char job_format[] =
    "{\"type\":\"fit\",\"model\":{\"name\":\"%s\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":{\"layers\":["
    "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,4],\"name\":\"in\"}},"
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"hidden\",\"units\":32,\"activation\":\"relu\"}},"
    "{\"class_name\":\"Dropout\",\"config\":{\"name\":\"drop\",\"rate\":0.2}},"
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1}}]}}},"
    "\"compile\":{\"optimizer\":\"adam\",\"loss\":\"mse\"},"
    "\"fit\":{\"x\":\"d/x\",\"y\":\"d/y\",\"batch_size\":16,\"epochs\":%d,\"validation_split\":0.1},\"seed\":3}";

static int64_t post(struct rig *r, const char *document)
{
    if (rig_post(r, "/api/v1/jobs", document) != 202)
        fail_msg("the job is refused: %s", r->reply.body.s);
    return (int64_t)rig_number(r, "id");
}

static int64_t post_fit(struct rig *r, const char *model, int epochs)
{
    char job[2000];

    snprintf(job, sizeof job, job_format, model, epochs);
    return post(r, job);
}

static void wait_running(struct rig *r, int64_t id)
{
    char target[64];

    snprintf(target, sizeof target, "/api/v1/jobs/%lld", (long long)id);
    for (int i = 0; i < 2000; i++) {
        CHECK_INT(rig_get(r, target), 200);
        if (strcmp(rig_text(r, "state"), "running") == 0 && json_type(rig_at(r, "progress")) == JSON_OBJECT)
            return;
        usleep(1000);
    }
    fail_msg("job %lld does not run: %s", (long long)id, r->reply.body.s);
}

/* The nodes and their shares; returns how many nodes have this kernel. */
static int check_profile(struct rig *r, const char *kernel)
{
    double shares = 0;
    int found = 0;

    CHECK(rig_number(r, "steps") >= 3);
    CHECK(rig_number(r, "step_seconds") > 0);
    CHECK(rig_number(r, "ceiling.flops_per_second") > 1e7);
    for (const struct json *l = json_first(rig_at(r, "layers")); l; l = json_next(l)) {
        shares += json_number(json_get(l, "share"));
        for (const struct json *n = json_first(json_get(l, "nodes")); n; n = json_next(n))
            found += json_is(json_get(n, "kernel"), kernel);
    }
    CHECK_NEAR(shares, 1, 1e-2);
    return found;
}

/* What the trained model says, with all digits. */
static char *answers(struct rig *r, const char *model)
{
    char target[64];

    snprintf(target, sizeof target, "/api/v1/models/%s/predict", model);
    CHECK_INT(rig_post(r, target, "{\"inputs\":[[0.1,0.2,0.3,0.4],[-1,0.5,0.25,2],[3,1,4,1]]}"), 200);
    return json_print(rig_at(r, "outputs"), 0);
}

TEST(a_running_training_is_profiled_and_ends_with_the_bits_of_an_undisturbed_one)
{
    struct rig r;
    char *calm, *asked;

    rig_open(&r, true, "--threads=2", NULL);
    rig_put_curve(&r, ROWS);
    CHECK_TEXT(rig_wait(&r, post_fit(&r, "calm", LONG)), "done");
    calm = answers(&r, "calm");
    int64_t id = post_fit(&r, "asked", LONG);
    wait_running(&r, id);
    if (rig_get(&r, "/api/v1/jobs/2/profile") != 200)
        fail_msg("no profile: %s", r.reply.body.s);
    CHECK_INT(rig_number(&r, "job"), 2);
    CHECK_TEXT(rig_text(&r, "type"), "fit");
    CHECK_TEXT(rig_text(&r, "model"), "asked");
    CHECK_INT(rig_number(&r, "batch_size"), 16);
    CHECK(check_profile(&r, "random.dropout") == 1);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/2"), 200);
    CHECK_TEXT(rig_text(&r, "state"), "running");
    CHECK_TEXT(rig_wait(&r, id), "done");
    asked = answers(&r, "asked");
    CHECK_TEXT(asked, calm);
    free(calm);
    free(asked);
    rig_close(&r);
}

TEST(jobs_of_every_type_that_are_over_are_profiled_as_json_and_as_a_table)
{
    static const char *const later[] = {
        "{\"type\":\"evaluate\",\"model\":{\"name\":\"m\"},\"evaluate\":{\"x\":\"d/x\",\"y\":\"d/y\",\"batch_size\":64}}",
        "{\"type\":\"predict\",\"model\":{\"name\":\"m\"},\"predict\":{\"x\":\"d/x\",\"batch_size\":100}}",
    };
    static const int batches[] = {16, 64, 100};
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    CHECK_TEXT(rig_wait(&r, post_fit(&r, "m", 1)), "done");
    for (int i = 0; i < 2; i++)
        CHECK_TEXT(rig_wait(&r, post(&r, later[i])), "done");
    for (int id = 1; id <= 3; id++) {
        char target[64];

        snprintf(target, sizeof target, "/api/v1/jobs/%d/profile", id);
        CHECK_INT(rig_get(&r, target), 200);
        CHECK_TEXT(r.reply.content_type, "application/json");
        CHECK_INT(rig_number(&r, "batch_size"), batches[id - 1]);
        CHECK_INT(check_profile(&r, "pointwise.update") > 0, id == 1);
        CHECK_INT(rig_send(&r, "GET", target, "Accept: text/plain", NULL, 0), 200);
        CHECK_CONTAINS(r.reply.content_type, "text/plain");
        CHECK_CONTAINS(r.reply.body.s, "hidden");
        CHECK_CONTAINS(r.reply.body.s, "matmul.product");
    }
    rig_close(&r);
}

TEST(what_cannot_be_profiled_is_refused_in_words)
{
    struct rig r;

    rig_open(&r, false, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    (void)post_fit(&r, "m", 1);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile"), 503);
    rig_reopen(&r, true);
    CHECK_TEXT(rig_wait(&r, 1), "done");
    CHECK_INT(rig_get(&r, "/api/v1/jobs/7/profile"), 404);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile?format=xml"), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "\"xml\", it must be json or table");
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile?steps=3"), 422);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile?format=table"), 200);
    CHECK_CONTAINS(r.reply.body.s, "job 1: fit of m\n");
    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/datasets/d", NULL, NULL, 0), 204);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile"), 409);
    CHECK_CONTAINS(rig_text(&r, "detail"), "what the job used is not there any more");
    rig_close(&r);
}

/* --- errands -------------------------------------------------------------------------------------------------------------------- */

struct gate {
    struct rig *rig;
    sem_t begun, go;
    int calls;
    enum status status;
};

static enum status pass_gate(void *context, const struct backend *b, struct device *d, struct problem *problem)
{
    struct gate *g = context;

    CHECK(b != NULL && d != NULL);
    g->calls++;
    sem_post(&g->begun);
    sem_wait(&g->go);
    return fail(problem, ST_DEVICE, "gate", "as told");
}

static void *ask(void *context)
{
    struct gate *g = context;
    struct problem problem;

    g->status = lanes_errand(g->rig->server.lanes, 1, 10, pass_gate, g, &problem);
    return NULL;
}

TEST(one_errand_is_under_way_at_a_time_and_its_outcome_comes_back)
{
    struct rig r;
    struct gate g = {.rig = &r};
    pthread_t thread;

    sem_init(&g.begun, 0, 0);
    sem_init(&g.go, 0, 0);
    rig_open(&r, true, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    CHECK_TEXT(rig_wait(&r, post_fit(&r, "m", 1)), "done");
    pthread_create(&thread, NULL, ask, &g);
    sem_wait(&g.begun);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile"), 429);
    CHECK_INT(r.reply.retry_after, 1);
    sem_post(&g.go);
    pthread_join(thread, NULL);
    CHECK_INT(g.status, ST_DEVICE);
    CHECK_INT(g.calls, 1);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/profile"), 200);
    rig_close(&r);
    sem_destroy(&g.begun);
    sem_destroy(&g.go);
}

TEST(an_errand_that_the_lane_does_not_come_to_is_not_run)
{
    struct rig r;
    struct gate g = {0};
    struct problem problem;

    rig_open(&r, true, "--threads=1", NULL);
    rig_put_curve(&r, ROWS);
    int64_t id = post_fit(&r, "m", 100000);
    wait_running(&r, id);
    CHECK_INT(lanes_errand(r.server.lanes, id, 0, pass_gate, &g, &problem), ST_BUSY);
    CHECK_CONTAINS(problem.detail, "the lane cpu:0 did not come to it in time");
    CHECK_INT(g.calls, 0);
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 200);
    rig_close(&r);
}
