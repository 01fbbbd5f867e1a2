/* The API as a client sees it, without sockets: datasets, jobs, models, predict. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/npy.h"
#include "server/registry.h"
#include "tests/server/support.h"

#define ARCHITECTURE                                                                                   \
    "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"m\",\"layers\":["                           \
    "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,2],\"name\":\"in\"}},"           \
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"hidden\",\"units\":8,\"activation\":\"tanh\"}}," \
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1,\"activation\":\"sigmoid\"}}]}}"
#define MODEL   "\"model\":{\"name\":\"xor\",\"architecture\":" ARCHITECTURE "}"
#define COMPILE "\"compile\":{\"optimizer\":\"adam\",\"loss\":\"binary_crossentropy\",\"metrics\":[\"accuracy\"]}"
#define X       "\"x\":[[0,0],[0,1],[1,0],[1,1]]"
#define Y       "\"y\":[[0],[1],[1],[0]]"
#define FIT       \
    "\"fit\":{" X \
    "," Y ",\"batch_size\":4,\"epochs\":3}"
#define JOB "{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"seed\":5}"

static int64_t post_job(struct rig *r, const char *document)
{
    if (rig_post(r, "/api/v1/jobs", document) != 202)
        fail_msg("the job is refused: %s", r->reply.body.s);
    return (int64_t)rig_number(r, "id");
}

static void must_be_done(struct rig *r, int64_t id)
{
    if (strcmp(rig_wait(r, id), "done") != 0)
        fail_msg("job %lld did not end as done: %s", (long long)id, r->reply.body.s);
}

/* --- datasets ----------------------------------------------------------------------------------------------------------------- */

TEST(an_uploaded_array_is_described_listed_and_deleted)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_put_floats(&r, "/api/v1/datasets/d/x", (float[]){1, 2, 3, 6}, 2, (int64_t[]){2, 2}), 201);
    CHECK_TEXT(rig_text(&r, "name"), "d");
    CHECK_TEXT(rig_text(&r, "arrays.0.name"), "x");
    CHECK_TEXT(rig_text(&r, "arrays.0.dtype"), "float32");
    CHECK_INT(rig_number(&r, "arrays.0.shape.1"), 2);
    CHECK_NEAR(rig_number(&r, "arrays.0.mean"), 3, 1e-12);
    CHECK_TEXT(r.reply.location, "/api/v1/datasets/d");
    CHECK_INT(rig_get(&r, "/api/v1/datasets/d"), 200);
    CHECK_INT(rig_get(&r, "/api/v1/datasets"), 200);
    CHECK_TEXT(rig_text(&r, "datasets.0.name"), "d");
    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/datasets/d", NULL, NULL, 0), 204);
    CHECK_INT(rig_get(&r, "/api/v1/datasets/d"), 404);
    rig_close(&r);
}

TEST(an_upload_that_is_no_array_is_refused_and_nothing_is_stored)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/d/x", NULL, "\x93NUMPY\x01\x00\x76\x00{'descr'", 18), 422);
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/d/x", NULL, NULL, 0), 400);
    CHECK_CONTAINS(rig_text(&r, "detail"), "no body");
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/d/x?format=xls", NULL, "1", 1), 422);
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/d/x?form=npy", NULL, "1", 1), 422);
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/d/x", "Content-Type: image/png", "1", 1), 415);
    CHECK_INT(rig_get(&r, "/api/v1/datasets"), 200);
    CHECK_INT(json_count(rig_at(&r, "datasets")), 0);
    rig_close(&r);
}

TEST(a_dataset_that_a_waiting_job_uses_is_not_deleted)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_put_floats(&r, "/api/v1/datasets/d/x", (float[]){0, 0, 0, 1}, 2, (int64_t[]){2, 2}), 201);
    int64_t id = post_job(&r, "{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{\"x\":\"d/x\",\"y\":[[0],[1]]}}");
    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/datasets/d", NULL, NULL, 0), 409);
    char target[64];
    snprintf(target, sizeof target, "/api/v1/jobs/%lld/cancel", (long long)id);
    CHECK_INT(rig_post(&r, target, ""), 200);
    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/datasets/d", NULL, NULL, 0), 204);
    rig_close(&r);
}

/* --- what a job is refused for ----------------------------------------------------------------------------------------------------- */

TEST(a_wrong_job_is_refused_where_it_is_wrong)
{
    static const struct {
        const char *document;
        int status;
        const char *pointer, *detail;
    } rows[] = {
        {"{", 400, "", ""},
        {"[]", 422, "", "an array"},
        {"{}", 422, "/type", ""},
        {"{\"type\":\"fit\",\"type\":\"fit\"}", 400, "/type", "twice"},
        {"{\"type\":\"train\"}", 422, "/type", "fit"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"seed\":NaN}", 400, "/seed", "NaN"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"extra\":1}", 422, "/extra", "extra"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"seed\":-1}", 422, "/seed", ""},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"priority\":1001}", 422, "/priority", "1000"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"device\":\"cpu:7\"}", 422, "/device", "cpu:0"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"device\":\"cuda\"}", 501, "/device", "cuda"},
        {"{\"type\":\"fit\",\"model\":{\"name\":\"../x\",\"architecture\":" ARCHITECTURE "}," COMPILE "," FIT "}", 422,
         "/model/name", "no name"},
        {"{\"type\":\"fit\",\"model\":{\"architecture\":" ARCHITECTURE "}," COMPILE "," FIT "}", 422, "/model/name", ""},
        {"{\"type\":\"fit\",\"model\":{\"name\":\"x\",\"architecture\":" ARCHITECTURE ",\"version\":1}," COMPILE "," FIT "}",
         422, "/model", "one of both"},
        {"{\"type\":\"fit\",\"model\":{\"name\":\"x\",\"version\":1}," COMPILE "," FIT "}", 422, "/model", "architecture"},
        {"{\"type\":\"evaluate\"," MODEL "," COMPILE ",\"evaluate\":{" X "," Y "}}", 422, "/model/architecture", "trained"},
        {"{\"type\":\"fit\"," MODEL "," FIT "}", 422, "/compile", "missing"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "}", 422, "/fit", "missing"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"predict\":{}}", 422, "/predict", "does not belong"},
        {"{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{" X "}}", 422, "/fit/y", ""},
        {"{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{" X "," Y ",\"epochs\":0}}", 422, "/fit/epochs", ""},
        {"{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{" X "," Y ",\"batch\":1}}", 422, "/fit/batch", ""},
        {"{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{\"x\":\"none/x\"," Y "}}", 422, "/fit/x", "none"},
        {"{\"type\":\"fit\"," MODEL ",\"compile\":{\"loss\":\"nothing\"}," FIT "}", 501, "/compile/loss", "nothing"},
        {"{\"type\":\"fit\"," MODEL
         ",\"compile\":{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"Adam\",\"config\":{\"lrate\":1}}}," FIT "}",
         422, "/compile/optimizer/config/lrate", "lrate"},
    };
    struct rig r;

    rig_open(&r, false, NULL);
    for (size_t i = 0; i < COUNT(rows); i++) {
        int status = rig_post(&r, "/api/v1/jobs", rows[i].document);

        if (status != rows[i].status || strcmp(rig_text(&r, "pointer"), rows[i].pointer) != 0 ||
            !strstr(rig_text(&r, "detail"), rows[i].detail))
            fail_msg("row %zu: %d instead of %d at \"%s\": %s", i, status, rows[i].status, rows[i].pointer, r.reply.body.s);
    }
    CHECK_INT(rig_get(&r, "/api/v1/jobs"), 200);
    CHECK_INT(json_count(rig_at(&r, "jobs")), 0);
    rig_close(&r);
}

TEST(shapes_that_do_not_fit_the_model_are_refused_with_both)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs",
                       "{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{\"x\":[[1,2,3],[1,2,3]],\"y\":[[0],[1]]}}"),
              422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "3");
    CHECK_CONTAINS(rig_text(&r, "detail"), "2");
    CHECK_INT(rig_post(&r, "/api/v1/jobs", "{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{" X ",\"y\":[[0],[1]]}}"), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "4");
    CHECK_INT(rig_post(&r, "/api/v1/jobs",
                       "{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{" X ",\"y\":[[0,1],[1,0],[1,1],[0,0]]}}"),
              422);
    rig_close(&r);
}

TEST(integer_labels_for_categorical_crossentropy_are_refused_with_advice)
{
    static const char job[] =
        "{\"type\":\"fit\",\"model\":{\"name\":\"c\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":{\"layers\":["
        "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,2],\"name\":\"in\"}},"
        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":3,\"activation\":\"softmax\"}}]}}},"
        "\"compile\":{\"loss\":\"categorical_crossentropy\"},\"fit\":{" X
    ",\"y\":[0,1,2,0]}}";
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", job), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "sparse_categorical_crossentropy");
    CHECK_CONTAINS(rig_text(&r, "detail"), "one-hot");
    rig_close(&r);
}

/* --- what is taken -------------------------------------------------------------------------------------------------------------------- */

TEST(a_posted_job_is_queued_with_all_that_was_asked)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 202);
    CHECK_TEXT(r.reply.location, "/api/v1/jobs/1");
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1"), 200);
    CHECK_TEXT(rig_text(&r, "state"), "queued");
    CHECK_TEXT(rig_text(&r, "type"), "fit");
    CHECK_TEXT(rig_text(&r, "model"), "xor");
    CHECK_INT(rig_number(&r, "seed"), 5);
    CHECK_INT(rig_number(&r, "queue_position"), 1);
    CHECK_INT(json_type(rig_at(&r, "problem")), JSON_NULL);
    CHECK_INT(json_type(rig_at(&r, "started_at")), JSON_NULL);
    CHECK_INT(strlen(rig_text(&r, "created_at")), 24);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/2"), 404);
    rig_close(&r);
}

TEST(a_seed_is_drawn_when_none_is_given)
{
    static const char job[] = "{\"type\":\"fit\"," MODEL "," COMPILE "," FIT "}";
    struct rig r;
    int64_t first, second;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", job), 202);
    CHECK(json_int(rig_at(&r, "seed"), &first));
    CHECK_INT(rig_post(&r, "/api/v1/jobs", job), 202);
    CHECK(json_int(rig_at(&r, "seed"), &second));
    CHECK(first >= 0 && second >= 0 && first != second);
    rig_close(&r);
}

TEST(the_largest_seed_keeps_all_its_digits)
{
    struct rig r;
    int64_t seed;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", "{\"type\":\"fit\"," MODEL "," COMPILE "," FIT ",\"seed\":9223372036854775807}"),
              202);
    CHECK(json_int(rig_at(&r, "seed"), &seed));
    CHECK_INT(seed, INT64_MAX);
    rig_close(&r);
}

TEST(the_same_idempotency_key_gives_the_same_job)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_send(&r, "POST", "/api/v1/jobs", "Idempotency-Key: a", JOB, strlen(JOB)), 202);
    CHECK_INT(rig_send(&r, "POST", "/api/v1/jobs", "Idempotency-Key: a", JOB, strlen(JOB)), 202);
    CHECK_INT(rig_number(&r, "id"), 1);
    CHECK_INT(rig_send(&r, "POST", "/api/v1/jobs", "Idempotency-Key: b", JOB, strlen(JOB)), 202);
    CHECK_INT(rig_number(&r, "id"), 2);
    rig_close(&r);
}

TEST(beyond_the_queue_limit_jobs_are_429)
{
    struct rig r;

    rig_open(&r, false, "--queue-limit=2", NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 202);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 202);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 429);
    CHECK(r.reply.retry_after > 0);
    rig_close(&r);
}

TEST(jobs_are_listed_newest_first_in_pages)
{
    struct rig r;

    rig_open(&r, false, NULL);
    for (int i = 0; i < 3; i++)
        CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 202);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?limit=2"), 200);
    CHECK_INT(json_count(rig_at(&r, "jobs")), 2);
    CHECK_INT(rig_number(&r, "jobs.0.id"), 3);
    CHECK_INT(rig_number(&r, "cursor"), 2);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?limit=2&cursor=2"), 200);
    CHECK_INT(json_count(rig_at(&r, "jobs")), 1);
    CHECK_INT(json_type(rig_at(&r, "cursor")), JSON_NULL);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?state=running"), 200);
    CHECK_INT(json_count(rig_at(&r, "jobs")), 0);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?state=lazy"), 422);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?limit=0"), 422);
    CHECK_INT(rig_get(&r, "/api/v1/jobs?page=1"), 422);
    rig_close(&r);
}

TEST(a_queued_job_is_cancelled_at_once_and_again)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs", JOB), 202);
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 200);
    CHECK_TEXT(rig_text(&r, "state"), "cancelled");
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 200);
    CHECK_INT(rig_post(&r, "/api/v1/jobs/2/cancel", ""), 404);
    rig_close(&r);
}

TEST(a_dry_run_says_what_a_job_would_take_and_queues_nothing)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs?dry_run=true", JOB), 200);
    CHECK_INT(rig_number(&r, "parameters"), 2 * 8 + 8 + 8 + 1);
    CHECK_TEXT(rig_text(&r, "layers.0.name"), "hidden");
    CHECK_INT(rig_number(&r, "layers.0.output_shape.1"), 8);
    CHECK_INT(json_type(rig_at(&r, "layers.0.output_shape.0")), JSON_NULL);
    CHECK_INT(rig_number(&r, "layers.1.parameters"), 9);
    CHECK(rig_number(&r, "bytes.total") > 0);
    CHECK(rig_number(&r, "flops.step") > 0);
    CHECK(json_true(rig_at(&r, "fits")));
    CHECK_INT(rig_get(&r, "/api/v1/jobs"), 200);
    CHECK_INT(json_count(rig_at(&r, "jobs")), 0);
    CHECK_INT(rig_post(&r, "/api/v1/jobs?dry_run=maybe", JOB), 422);
    rig_close(&r);
}

TEST(a_model_that_the_machine_cannot_hold_is_described_but_not_taken)
{
    static const char job[] =
        "{\"type\":\"fit\",\"model\":{\"name\":\"big\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":{\"layers\":["
        "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,2],\"name\":\"in\"}},"
        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"wide\",\"units\":1000000}},"
        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"wider\",\"units\":1000000}},"
        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1}}]}}},"
        "\"compile\":{\"loss\":\"mse\"},\"fit\":{" X
    "," Y "}}";
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs?dry_run=true", job), 200);
    CHECK(!json_true(rig_at(&r, "fits")));
    CHECK_CONTAINS(rig_text(&r, "note"), "cannot hold it");
    CHECK_INT(rig_post(&r, "/api/v1/jobs", job), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "memory_limit");
    rig_close(&r);
}

/* --- the whole way ---------------------------------------------------------------------------------------------------------------------- */

TEST(a_job_trains_and_its_model_answers)
{
    struct rig r;
    int64_t version;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, JOB));
    CHECK(json_int(rig_at(&r, "result.version"), &version));
    CHECK_INT(version, 1);
    CHECK_TEXT(rig_text(&r, "result.model"), "xor");
    CHECK_TEXT(rig_text(&r, "device"), "cpu:0");
    CHECK_INT(rig_number(&r, "attempt"), 1);
    CHECK_INT(rig_number(&r, "progress.epoch"), 3);
    CHECK_INT(rig_number(&r, "progress.step"), 1);
    CHECK(rig_number(&r, "metrics.loss") > 0);
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/history"), 200);
    CHECK_INT(json_count(rig_at(&r, "epoch")), 3);
    CHECK_INT(json_count(rig_at(&r, "loss")), 3);
    CHECK_INT(json_count(rig_at(&r, "accuracy")), 3);

    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1],[1,1]]}"), 200);
    CHECK_INT(rig_number(&r, "version"), 1);
    CHECK_INT(json_count(rig_at(&r, "outputs")), 2);
    double p = rig_number(&r, "outputs.0.0");
    CHECK(p > 0 && p < 1);

    CHECK_INT(rig_get(&r, "/api/v1/models"), 200);
    CHECK_TEXT(rig_text(&r, "models.0.model"), "xor");
    CHECK_INT(rig_get(&r, "/api/v1/models/xor/versions/1"), 200);
    CHECK_TEXT(rig_text(&r, "architecture.class_name"), "Sequential");
    CHECK_INT(rig_get(&r, "/api/v1/models/xor/versions/1/files/model.h5"), 200);
    CHECK(r.reply.file >= 0);
    CHECK(r.reply.file_bytes > 1000);
    CHECK_INT(rig_get(&r, "/api/v1/models/xor/versions/1/files/other"), 404);
    CHECK_INT(rig_get(&r, "/api/v1/models/xor/versions/2"), 404);
    CHECK_INT(rig_post(&r, "/api/v1/jobs/1/cancel", ""), 409);

    must_be_done(&r, post_job(&r, "{\"type\":\"fit\",\"model\":{\"name\":\"xor\",\"version\":1}," FIT "}"));
    CHECK_INT(rig_number(&r, "result.version"), 2);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 200);
    CHECK_INT(rig_number(&r, "version"), 2);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/versions/1/predict", "{\"inputs\":[[0,1]]}"), 200);
    CHECK_INT(rig_number(&r, "version"), 1);
    CHECK_NEAR(rig_number(&r, "outputs.0.0"), p, 1e-6);

    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/models/xor", NULL, NULL, 0), 204);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 404);
    rig_close(&r);
}

TEST(evaluate_and_bulk_predict_use_a_version)
{
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, JOB));
    must_be_done(&r,
                 post_job(&r, "{\"type\":\"evaluate\",\"model\":{\"name\":\"xor\",\"version\":1},\"evaluate\":{" X "," Y "}}"));
    CHECK(rig_number(&r, "metrics.loss") > 0);
    CHECK(rig_number(&r, "metrics.accuracy") >= 0);
    CHECK(rig_number(&r, "result.loss") == rig_number(&r, "metrics.loss"));

    must_be_done(&r, post_job(&r, "{\"type\":\"predict\",\"model\":{\"name\":\"xor\"},\"predict\":{" X ",\"batch_size\":3}}"));
    CHECK_TEXT(rig_text(&r, "result.dataset"), "xor-predict-3");
    CHECK_TEXT(rig_text(&r, "result.arrays.0"), "out");
    CHECK_INT(rig_get(&r, "/api/v1/datasets/xor-predict-3"), 200);
    CHECK_INT(rig_number(&r, "arrays.0.shape.0"), 4);
    CHECK_INT(rig_number(&r, "arrays.0.shape.1"), 1);
    rig_close(&r);
}

TEST(preprocessing_is_kept_with_the_version)
{
    static const char job[] =
        "{\"type\":\"fit\"," MODEL "," COMPILE ",\"fit\":{\"x\":[[[0],[0]],[[0],[10]],[[10],[0]],[[10],[10]]]," Y
        ",\"batch_size\":4,\"epochs\":1,"
        "\"preprocess\":[{\"class_name\":\"Rescaling\",\"config\":{\"scale\":0.1}},{\"class_name\":\"Flatten\"}]}}";
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, job));
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[[0],[10]]]}"), 200);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "(1, 2)");
    CHECK_CONTAINS(rig_text(&r, "detail"), "(None, 2, 1)");
    must_be_done(
        &r, post_job(&r, "{\"type\":\"evaluate\",\"model\":{\"name\":\"xor\"},\"evaluate\":{\"x\":[[[0],[10]]],\"y\":[[1]]}}"));
    rig_close(&r);
}

TEST(a_training_that_diverges_fails_and_says_where)
{
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    int64_t id = post_job(
        &r, "{\"type\":\"fit\"," MODEL ",\"compile\":{\"loss\":\"mse\",\"optimizer\":{\"class_name\":\"SGD\",\"config\":"
            "{\"learning_rate\":1e30}}},\"fit\":{\"x\":[[1e30,1e30],[1e30,-1e30]],\"y\":[[1e38],[-1e38]],\"epochs\":50}}");
    CHECK_TEXT(rig_wait(&r, id), "failed");
    CHECK_CONTAINS(rig_text(&r, "problem.detail"), "epoch");
    CHECK_CONTAINS(rig_text(&r, "problem.detail"), "diverged");
    CHECK_INT(rig_number(&r, "problem.status"), 422);
    CHECK_INT(rig_get(&r, "/api/v1/models/xor"), 404);
    rig_close(&r);
}

TEST(layers_of_a_model_without_an_input_are_described_by_the_data)
{
    static const char job[] =
        "{\"type\":\"fit\",\"model\":{\"name\":\"open\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":"
        "{\"layers\":[{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1}}]}}},"
        "\"compile\":{\"loss\":\"mse\"},\"fit\":{" X
    "," Y ",\"epochs\":1}}";
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    CHECK_INT(rig_post(&r, "/api/v1/jobs?dry_run=true", job), 200);
    CHECK_INT(rig_number(&r, "parameters"), 3);
    CHECK_INT(rig_number(&r, "layers.0.output_shape.1"), 1);
    must_be_done(&r, post_job(&r, job));
    CHECK_INT(rig_post(&r, "/api/v1/models/open/predict", "{\"inputs\":[[0,1]]}"), 200);
    rig_close(&r);
}

TEST(loaded_models_above_the_serving_memory_are_unloaded_by_last_use)
{
    static const char second[] =
        "{\"type\":\"fit\",\"model\":{\"name\":\"other\",\"architecture\":" ARCHITECTURE "}," COMPILE "," FIT "}";
    struct rig r;

    rig_open(&r, true, "--threads=1", "--serving-memory=400", NULL);
    must_be_done(&r, post_job(&r, JOB));
    must_be_done(&r, post_job(&r, second));
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 200);
    CHECK_INT(registry_count(r.server.registry), 1);
    CHECK(registry_bytes(r.server.registry) > 200);
    CHECK_INT(rig_post(&r, "/api/v1/models/other/predict", "{\"inputs\":[[0,1]]}"), 200);
    CHECK_INT(registry_count(r.server.registry), 1);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 200);
    CHECK_TEXT(rig_text(&r, "model"), "xor");
    rig_close(&r);
}

/* --- predict calls -------------------------------------------------------------------------------------------------------------------------- */

TEST(a_wrong_predict_call_is_refused_where_it_is_wrong)
{
    static const struct {
        const char *body;
        int status;
        const char *detail;
    } rows[] = {
        {"", 400, "no body"},
        {"[]", 400, "an object"},
        {"{}", 422, "missing"},
        {"{\"inputs\":[[0,1]]", 400, "ends"},
        {"{\"inputs\":[[0,1]]} x", 400, "the end"},
        {"{\"inputs\":[[0,1]],\"inputs\":[[0,1]]}", 400, "twice"},
        {"{\"instances\":[[0,1]]}", 422, "no key"},
        {"{\"inputs\":[[0,1],[0]]}", 422, ""},
        {"{\"inputs\":[0,1]}", 422, "(2,)"},
        {"{\"inputs\":[[0,1,2]]}", 422, "(1, 3)"},
        {"{\"inputs\":[[0,1,2]]}", 422, "(None, 2)"},
        {"{\"inputs\":[]}", 422, ""},
        {"{\"inputs\":\"x\"}", 422, "nested arrays"},
        {"{\"inputs\":[[0,NaN]]}", 400, "NaN"},
        {"{\"inputs\":[[0,1e99]]}", 400, "range"},
        {"{\"inputs\":{\"other\":[[0,1]]}}", 422, "no input"},
        {"{\"inputs\":{}}", 422, "empty"},
        {"{\"inputs\":{\"in\":[[0,1]],\"in\":[[0,1]]}}", 400, "twice"},
    };
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, JOB));
    for (size_t i = 0; i < COUNT(rows); i++) {
        int status = rig_post(&r, "/api/v1/models/xor/predict", rows[i].body);

        if (status / 100 != 4 || !strstr(rig_text(&r, "detail"), rows[i].detail))
            fail_msg("row %zu (%s): %d: %s", i, rows[i].body, status, r.reply.body.s);
        if (status != rows[i].status)
            fail_msg("row %zu (%s): %d instead of %d: %s", i, rows[i].body, status, rows[i].status, r.reply.body.s);
    }
    CHECK_INT(rig_send(&r, "POST", "/api/v1/models/xor/predict", "Content-Type: text/html", "x", 1), 415);
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/versions/9/predict", "{\"inputs\":[[0,1]]}"), 404);
    rig_close(&r);
}

TEST(inputs_by_name_and_npy_give_the_same_as_plain_json)
{
    CLEAN(text_done) struct text body = text_make(10000);
    struct shape shape = SHAPE(2, 2);
    struct problem problem;
    struct npy a;
    float y[2];
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, JOB));
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", " { \"inputs\" : [[0,1],[1,0.5]] } "), 200);
    double first = rig_number(&r, "outputs.0.0"), second = rig_number(&r, "outputs.1.0");
    CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":{\"in\":[[0,1],[1,0.5]]}}"), 200);
    CHECK(rig_number(&r, "outputs.1.0") == second);

    npy_print(&body, (float[]){0, 1, 1, 0.5f}, &shape);
    CHECK_INT(rig_send(&r, "POST", "/api/v1/models/xor/predict", "Content-Type: application/x-npy\nAccept: application/x-npy",
                       body.s, body.length),
              200);
    CHECK_TEXT(r.reply.content_type, "application/x-npy");
    CHECK_OK(npy_read(r.reply.body.s, r.reply.body.length, &a, &problem));
    CHECK_INT(a.count, 2);
    npy_floats(&a, y);
    CHECK_NEAR(y[0], first, 1e-6);
    CHECK_NEAR(y[1], second, 1e-6);
    CHECK_INT(rig_send(&r, "POST", "/api/v1/models/xor/predict", "Content-Type: application/x-npy", body.s, body.length - 1),
              422);
    rig_close(&r);
}

TEST(a_loaded_small_model_answers_in_the_http_thread)
{
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    must_be_done(&r, post_job(&r, JOB));
    r.http_thread = true;
    (void)rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}");
    CHECK(r.reply.later); /* it must be loaded first */
    /* A lane ends the change of versions a moment after the job is done; until then a worker has to say which is the newest. */
    for (int tries = 0; tries < 100 && r.reply.later; tries++) {
        r.http_thread = false;
        CHECK_INT(rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}"), 200);
        r.http_thread = true;
        (void)rig_post(&r, "/api/v1/models/xor/predict", "{\"inputs\":[[0,1]]}");
    }
    CHECK(!r.reply.later);
    CHECK_INT(r.reply.code, 200);
    rig_close(&r);
}

/* --- the daemon itself ------------------------------------------------------------------------------------------------------------------------ */

TEST(the_system_and_its_metrics_are_shown)
{
    struct rig r;

    rig_open(&r, true, "--threads=1", NULL);
    CHECK_INT(rig_get(&r, "/api/v1/system"), 200);
    CHECK_TEXT(rig_text(&r, "version"), HORN_VERSION);
    CHECK_TEXT(rig_text(&r, "lanes.0.device"), "cpu:0");
    CHECK_INT(rig_get(&r, "/readyz"), 200);
    CHECK_INT(rig_get(&r, "/metrics"), 200);
    CHECK_CONTAINS(r.reply.body.s, "horn_jobs{state=\"queued\"} 0\n");
    CHECK_CONTAINS(r.reply.body.s, "horn_predict_seconds_bucket{le=\"+Inf\"}");
    atomic_store(&r.server.stopping, true);
    CHECK_INT(rig_get(&r, "/readyz"), 503);
    rig_close(&r);
}
