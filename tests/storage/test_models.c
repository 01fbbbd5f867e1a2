/* Versions of models: numbers, files, who holds them; imports of Keras' files. */
#include "storage/models.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/datasets.h"
#include "storage/jobs.h"
#include "storage/sql.h"
#include "tests/storage/put.h"
#include "tests/test.h"

static enum status publish(struct bench *b, const char *model, int64_t job, int64_t *version)
{
    char path[512];
    struct version_new v = {.model = model,
                            .architecture = "{\"class_name\":\"Sequential\"}",
                            .compile = "{\"loss\":\"mse\"}",
                            .metrics = "{\"loss\":0.5}",
                            .job = job,
                            .temp = path};

    scratch_upload(b->db, "weights", 7, path);
    enum status status = models_publish(b->db, &v, version, &b->problem);
    CHECK_INT(access(path, F_OK), -1);
    return status;
}

static int64_t running_job(struct bench *b, int64_t base_version)
{
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto", .base_version = base_version};
    struct problem problem = {0};
    struct job_row row;
    int64_t id = 0;
    bool existing;

    CHECK_OK(jobs_enqueue(b->db, &j, 100, &id, &existing, &problem));
    CHECK_OK(jobs_claim(b->db, "cpu:0", "here", b->mem, &row, &problem));
    CHECK_INT(row.id, id);
    return id;
}

TEST(versions_count_up_from_one_and_keep_what_they_were_made_of)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct version_row v;
    char path[700];
    int64_t n;

    CHECK_INT(publish(&b, "m", 0, &n), ST_OK);
    CHECK_INT(n, 1);
    CHECK_INT(publish(&b, "m", 0, &n), ST_OK);
    CHECK_INT(n, 2);
    CHECK_INT(publish(&b, "other", 0, &n), ST_OK);
    CHECK_INT(n, 1);
    b.db = db_close(b.db);
    b.db = scratch_db(&b.s);
    CHECK_INT(scratch_files(&b.s, "models"), 3);
    BENCH_OK(models_get(b.db, "m", 0, b.mem, &v, &b.problem));
    CHECK_INT(v.version, 2);
    CHECK_TEXT(v.model, "m");
    CHECK_TEXT(v.architecture, "{\"class_name\":\"Sequential\"}");
    CHECK_TEXT(v.compile, "{\"loss\":\"mse\"}");
    CHECK_TEXT(v.metrics, "{\"loss\":0.5}");
    CHECK(!v.prepare && !v.raw_shapes && v.job == 0);
    snprintf(path, sizeof path, "%s/%s", db_folder(b.db), v.path);
    CHECK_INT(access(path, R_OK), 0);
    BENCH_OK(models_get(b.db, "m", 1, b.mem, &v, &b.problem));
    CHECK_INT(v.version, 1);
    struct version_row again;
    BENCH_OK(models_version(b.db, v.id, b.mem, &again, &b.problem));
    CHECK_INT(again.version, 1);
    CHECK_INT(models_get(b.db, "m", 9, b.mem, &v, &b.problem), ST_NOT_FOUND);
    CHECK_TEXT(b.problem.detail, "model \"m\" has no version 9; the newest is 2");
    CHECK_INT(models_get(b.db, "none", 0, b.mem, &v, &b.problem), ST_NOT_FOUND);
    CHECK_TEXT(b.problem.detail, "there is no model \"none\"");
}

TEST(lists_have_the_newest_of_each_or_all_of_one)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct version_row *rows;
    int64_t version;
    int n;

    CHECK_INT(publish(&b, "b", 0, &version), ST_OK);
    CHECK_INT(publish(&b, "b", 0, &version), ST_OK);
    CHECK_INT(publish(&b, "a", 0, &version), ST_OK);
    BENCH_OK(models_list(b.db, NULL, b.mem, &rows, &n, &b.problem));
    CHECK_INT(n, 2);
    CHECK_TEXT(rows[0].model, "a");
    CHECK_TEXT(rows[1].model, "b");
    CHECK_INT(rows[1].version, 2);
    BENCH_OK(models_list(b.db, "b", b.mem, &rows, &n, &b.problem));
    CHECK_INT(n, 2);
    CHECK_INT(rows[0].version, 1);
    CHECK_INT(models_list(b.db, "c", b.mem, &rows, &n, &b.problem), ST_NOT_FOUND);
}

TEST(publishing_ends_the_job_in_the_same_transaction)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct job_row row;
    int64_t n, job = running_job(&b, 0);
    bool running;

    CHECK_INT(publish(&b, "m", job, &n), ST_OK);
    BENCH_OK(jobs_get(b.db, job, b.mem, &row, &b.problem));
    CHECK_INT(row.state, JOB_DONE);
    CHECK_TEXT(row.result, "{\"model\":\"m\",\"version\":1}");
    struct version_row v;
    BENCH_OK(models_get(b.db, "m", 1, b.mem, &v, &b.problem));
    CHECK_INT(v.job, job);

    /* A job that is no longer running publishes nothing. */
    CHECK_INT(publish(&b, "m", job, &n), ST_CONFLICT);
    CHECK_INT(publish(&b, "new", 77, &n), ST_NOT_FOUND);
    CHECK_INT(scratch_files(&b.s, "models"), 1);
    CHECK_INT(models_get(b.db, "new", 0, b.mem, &v, &b.problem), ST_NOT_FOUND);
    job = running_job(&b, 0);
    BENCH_OK(jobs_cancel(b.db, job, &running, &b.problem));
    CHECK(running);
    CHECK_INT(publish(&b, "m", job, &n), ST_OK); /* the lane was faster than the cancel */
    CHECK_INT(n, 2);
}

TEST(a_commit_that_fails_leaves_no_version_and_no_file)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct sqlite3 *raw = NULL;
    char path[400];
    int64_t n;

    CHECK_INT(publish(&b, "m", 0, &n), ST_OK);
    snprintf(path, sizeof path, "%s/horn.db", db_folder(b.db));
    CHECK_INT(sqlite3_open(path, &raw), SQLITE_OK);
    CHECK_INT(sqlite3_exec(raw,
                           "CREATE TABLE late (job INTEGER REFERENCES jobs (id) DEFERRABLE INITIALLY DEFERRED);"
                           "CREATE TRIGGER no AFTER INSERT ON model_versions BEGIN INSERT INTO late VALUES (99); END",
                           NULL, NULL, NULL),
              SQLITE_OK);
    int64_t job = running_job(&b, 0);
    struct job_row row;
    CHECK_INT(publish(&b, "m", job, &n), ST_STORAGE);
    CHECK_CONTAINS(b.problem.detail, "could not COMMIT");
    BENCH_OK(jobs_get(b.db, job, b.mem, &row, &b.problem));
    CHECK_INT(row.state, JOB_RUNNING);
    CHECK_INT(scratch_files(&b.s, "models"), 1);
    CHECK_INT(sqlite3_exec(raw, "DROP TRIGGER no", NULL, NULL, NULL), SQLITE_OK);
    CHECK_INT(sqlite3_close(raw), SQLITE_OK);
    CHECK_INT(publish(&b, "m", job, &n), ST_OK);
    CHECK_INT(n, 2);
}

TEST(a_model_that_a_job_goes_on_from_cannot_be_deleted)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct version_row v;
    int64_t n;

    CHECK_INT(publish(&b, "m", 0, &n), ST_OK);
    BENCH_OK(models_get(b.db, "m", 1, b.mem, &v, &b.problem));
    int64_t job = running_job(&b, v.id);
    CHECK_INT(models_delete(b.db, "m", &b.problem), ST_CONFLICT);
    CHECK_CONTAINS(b.problem.detail, "job 1 goes on from a version of it");
    BENCH_OK(jobs_finish(b.db, job, JOB_FAILED, NULL, NULL, NULL, &b.problem));
    BENCH_OK(models_delete(b.db, "m", &b.problem));
    CHECK_INT(scratch_files(&b.s, "models"), 0);
    CHECK_INT(models_delete(b.db, "m", &b.problem), ST_NOT_FOUND);
    CHECK_INT(publish(&b, "m", 0, &n), ST_OK);
    CHECK_INT(n, 1);
}

TEST(names_of_models_are_checked)
{
    CLEAN(bench_done) struct bench b = bench_make();
    int64_t n;

    CHECK_INT(publish(&b, "a/b", 0, &n), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "the name \"a/b\" is not possible");
}

/* --- imports ------------------------------------------------------------------------------------------------------------- */

static enum status import_file(struct bench *b, const char *file, int64_t *version)
{
    static char block[1 << 20];
    char path[512];
    int fd = open(file, O_RDONLY);

    CHECK(fd >= 0);
    ssize_t n = read(fd, block, sizeof block);
    CHECK_INT(close(fd), 0);
    scratch_upload(b->db, block, (size_t)n, path);
    enum status status = models_import(b->db, "m", path, &b->limits, version, &b->problem);
    CHECK_INT(access(path, F_OK), -1);
    CHECK_INT(scratch_files(&b->s, "tmp"), 0);
    return status;
}

TEST(what_is_no_keras_model_is_not_imported)
{
    static const struct {
        const char *file, *detail;
    } rows[] = {
        {"tests/storage/files/two.npz", "is no HDF5 file (its signature is missing)"},
        {"tests/storage/files/external_link.h5", "is a link into another file; these are not followed"},
        {"tests/storage/files/virtual.h5", "is a virtual dataset, whose data lie in other files; these are not read"},
        {"tests/storage/files/cycle.h5", "lies deeper than 64 groups"},
        {"tests/storage/files/soft_link.h5", "is a soft link; these are not followed"},
    };
    CLEAN(bench_done) struct bench b = bench_make();
    int64_t n;

    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK_INT(import_file(&b, rows[i].file, &n), ST_INVALID);
        CHECK_TEXT(b.problem.detail, rows[i].detail);
    }
    CHECK_INT(import_file(&b, "tests/storage/files/texts.h5", &n), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "no model_config");
    CHECK_INT(scratch_files(&b.s, "models"), 0);
}

TEST(files_of_every_keras_become_versions_with_what_they_carry)
{
    static const struct {
        const char *file, *version;
        bool compiled;
    } rows[] = {
        {"tests/storage/data/keras3_mlp.h5", "\"keras_version\":\"3.", true},
        {"tests/storage/data/keras3_shared_nested.h5", "\"keras_version\":\"3.", true},
        {"tests/storage/data/keras2_nested_theano.h5", "\"keras_version\":\"2.", true},
        {"tests/storage/data/keras1_cnn_theano.h5", "\"keras_version\":\"1.", true},
        {"tests/storage/data/keras1_lstm_tensorflow.h5", "\"keras_version\":\"1.", false},
        {"tests/storage/files/any_length.h5", "\"keras_version\":\"3.", false},
        {"tests/storage/files/any_size.h5", "\"keras_version\":\"3.", false},
    };
    CLEAN(bench_done) struct bench b = bench_make();
    struct version_row v;
    int64_t n;

    for (size_t i = 0; i < COUNT(rows); i++) {
        BENCH_OK(import_file(&b, rows[i].file, &n));
        CHECK_INT(n, (int64_t)i + 1);
        BENCH_OK(models_get(b.db, "m", n, b.mem, &v, &b.problem));
        CHECK_CONTAINS(v.architecture, rows[i].version);
        CHECK_INT(v.job, 0);
        CHECK_INT(v.compile != NULL, rows[i].compiled);
        if (v.compile)
            CHECK_CONTAINS(v.compile, "\"optimizer\"");
    }
    CHECK_INT(scratch_files(&b.s, "models"), (int)COUNT(rows));
}
