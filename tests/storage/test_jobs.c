/* The queue: order, life cycle, history, what survives a crash. */
#include "storage/jobs.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/sql.h"
#include "tests/storage/scratch.h"
#include "tests/test.h"

static int64_t enqueue(struct db *db, const char *model, const char *device, int priority)
{
    struct job_new j = {.type = "fit", .model = model, .request = "{}", .device = device, .seed = 42, .priority = priority};
    struct problem problem = {0};
    bool existing = true;
    int64_t id = 0;

    CHECK_OK(jobs_enqueue(db, &j, 1000000, &id, &existing, &problem));
    CHECK(!existing);
    return id;
}

static int64_t claim(struct db *db, const char *device)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    struct job_row row;

    if (jobs_claim(db, device, "here", mem, &row, &problem) != ST_OK) {
        CHECK_INT(problem.status, ST_NOT_FOUND);
        return 0;
    }
    CHECK_INT(row.state, JOB_RUNNING);
    CHECK_TEXT(row.ran_on, device);
    return row.id;
}

static enum status tell(struct db *db, int64_t id, int epoch, int n, const char *const *names, const double *values,
                        const char *progress)
{
    struct job_epoch e = {epoch, n, names, values};
    struct problem problem = {0};

    return jobs_news(db, id, &(struct job_news){1, &e, progress}, &problem);
}

/* As the version before wrote it. */
static enum status back_to_version_1(struct sqlite3 *s, void *arg, struct problem *problem)
{
    static const char *const undo[] = {"DROP TRIGGER jobs_count_new", "DROP TRIGGER jobs_count_old",
                                       "DROP TRIGGER jobs_count_changed", "DROP TABLE job_counts", "PRAGMA user_version = 1"};

    (void)arg;
    for (size_t i = 0; i < COUNT(undo); i++)
        TRY(sql_run(s, problem, undo[i], ""));
    return ST_OK;
}

static struct job_row get(struct db *db, int64_t id, struct arena *mem)
{
    struct problem problem = {0};
    struct job_row row = {0};

    CHECK_OK(jobs_get(db, id, mem, &row, &problem));
    return row;
}

static enum status insert_array(struct sqlite3 *s, void *arg, struct problem *problem)
{
    TRY(sql_run(s, problem, "INSERT INTO datasets (name, created_ms) VALUES ('d', 0)", ""));
    TRY(sql_run(s, problem,
                "INSERT INTO arrays (dataset, name, current, dtype, shape, bytes, file_offset, path, created_ms) VALUES "
                "(last_insert_rowid(), 'x', 1, 'float32', '[1]', 4, 0, 'datasets/1/1.h5', 0)",
                ""));
    *(int64_t *)arg = sqlite3_last_insert_rowid(s);
    return ST_OK;
}

TEST(the_highest_priority_is_claimed_first_then_the_oldest)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    int64_t a = enqueue(db, "m", "auto", 0), b = enqueue(db, "m", "auto", 5), c = enqueue(db, "m", "auto", 5),
            d = enqueue(db, "m", "auto", -1000);

    CHECK_INT(get(db, b, mem).queue_position, 1);
    CHECK_INT(get(db, c, mem).queue_position, 2);
    CHECK_INT(get(db, a, mem).queue_position, 3);
    CHECK_INT(get(db, d, mem).queue_position, 4);
    CHECK_INT(claim(db, "cpu:0"), b);
    CHECK_INT(claim(db, "cpu:0"), c);
    CHECK_INT(claim(db, "cpu:0"), a);
    CHECK_INT(get(db, a, mem).queue_position, 0);
    CHECK_INT(claim(db, "cpu:0"), d);
    CHECK_INT(claim(db, "cpu:0"), 0);
}

TEST(a_lane_takes_auto_its_kind_and_itself_and_nothing_else)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    int64_t gpu = enqueue(db, "m", "gpu", 9), other = enqueue(db, "m", "cpu:1", 9), own = enqueue(db, "m", "cpu:0", 0),
            kind = enqueue(db, "m", "cpu", 0), any = enqueue(db, "m", "auto", 0);

    CHECK_INT(claim(db, "cpu:0"), own);
    CHECK_INT(claim(db, "cpu:0"), kind);
    CHECK_INT(claim(db, "cpu:0"), any);
    CHECK_INT(claim(db, "cpu:0"), 0);
    CHECK_INT(claim(db, "cpu:1"), other);
    CHECK_INT(claim(db, "gpu:0"), gpu);
}

TEST(a_full_queue_refuses_and_says_both_numbers)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto"};
    struct problem problem = {0};
    int64_t id;
    bool existing;

    CHECK_OK(jobs_enqueue(db, &j, 2, &id, &existing, &problem));
    CHECK_OK(jobs_enqueue(db, &j, 2, &id, &existing, &problem));
    CHECK_INT(jobs_enqueue(db, &j, 2, &id, &existing, &problem), ST_TOO_MANY);
    CHECK_TEXT(problem.detail, "2 jobs are queued, the limit is 2; try again later");
    CHECK_INT(jobs_count(db, JOB_QUEUED), 2);
    CHECK(claim(db, "cpu:0") > 0);
    CHECK_OK(jobs_enqueue(db, &j, 2, &id, &existing, &problem));
    CHECK_INT(jobs_count(db, -1), 3);
}

TEST(the_same_idempotency_key_gives_the_same_job)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto", .idempotency_key = "k"};
    struct problem problem = {0};
    int64_t first, second;
    bool existing;

    CHECK_OK(jobs_enqueue(db, &j, 1, &first, &existing, &problem));
    CHECK(!existing);
    CHECK_OK(jobs_enqueue(db, &j, 1, &second, &existing, &problem)); /* not judged by the limit: it is no new job */
    CHECK(existing);
    CHECK_INT(second, first);
    CHECK_OK(jobs_find_key(db, "k", &second, &problem));
    CHECK_INT(second, first);
    CHECK_OK(jobs_find_key(db, "another", &second, &problem));
    CHECK_INT(second, 0);
}

TEST(a_row_holds_what_was_posted)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct job_new j = {.type = "evaluate",
                        .model = "mnist",
                        .request = "{\"a\":1}",
                        .device = "cpu",
                        .warnings = "[\"w\"]",
                        .seed = INT64_MAX,
                        .priority = -7};
    struct problem problem = {0};
    int64_t id;
    bool existing;

    CHECK_OK(jobs_enqueue(db, &j, 9, &id, &existing, &problem));
    struct job_row r = get(db, id, mem);
    CHECK_TEXT(r.type, "evaluate");
    CHECK_TEXT(r.model, "mnist");
    CHECK_TEXT(r.request, "{\"a\":1}");
    CHECK_TEXT(r.device, "cpu");
    CHECK_TEXT(r.warnings, "[\"w\"]");
    CHECK(r.seed == INT64_MAX);
    CHECK_INT(r.priority, -7);
    CHECK_INT(r.attempt, 0);
    CHECK(r.created_ms > 1700000000000);
    CHECK_INT(r.started_ms, 0);
    CHECK(!r.ran_on && !r.result && !r.problem && !r.progress && !r.checkpoint && r.reproducible);
    CHECK_INT(jobs_get(db, 99, mem, &r, &problem), ST_NOT_FOUND);
    CHECK_TEXT(problem.detail, "there is no job 99");
}

TEST(cancel_is_idempotent_and_refused_once_a_job_is_done)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    int64_t a = enqueue(db, "m", "auto", 1), b = enqueue(db, "m", "auto", 0);
    bool running;

    CHECK_OK(jobs_cancel(db, b, &running, &problem));
    CHECK(!running);
    CHECK_INT(get(db, b, mem).state, JOB_CANCELLED);
    CHECK(get(db, b, mem).finished_ms > 0);
    CHECK_OK(jobs_cancel(db, b, &running, &problem));
    CHECK(!running);

    CHECK_INT(claim(db, "cpu:0"), a);
    CHECK_OK(jobs_cancel(db, a, &running, &problem));
    CHECK(running);
    CHECK_INT(get(db, a, mem).state, JOB_RUNNING);
    CHECK_OK(jobs_finish(db, a, JOB_DONE, "{\"loss\":1}", NULL, NULL, &problem));
    CHECK_INT(jobs_cancel(db, a, &running, &problem), ST_CONFLICT);
    CHECK_TEXT(problem.detail, "job 1 is done and cannot be cancelled any more");
    CHECK_INT(jobs_cancel(db, 77, &running, &problem), ST_NOT_FOUND);
}

TEST(only_a_running_job_finishes_and_only_once)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    int64_t id = enqueue(db, "m", "auto", 0);

    CHECK_INT(jobs_finish(db, id, JOB_DONE, NULL, NULL, NULL, &problem), ST_CONFLICT);
    CHECK_TEXT(problem.detail, "job 1 is queued, only a running one can end");
    CHECK_INT(claim(db, "cpu:0"), id);
    CHECK_OK(jobs_finish(db, id, JOB_FAILED, NULL, "{\"status\":422}", NULL, &problem));
    CHECK_INT(jobs_finish(db, id, JOB_DONE, NULL, NULL, NULL, &problem), ST_CONFLICT);
    struct job_row r = get(db, id, mem);
    CHECK_INT(r.state, JOB_FAILED);
    CHECK_TEXT(r.problem, "{\"status\":422}");
}

TEST(a_new_checkpoint_replaces_the_old_file_and_cuts_the_epochs_behind_it)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    CLEAN(text_done) struct text json = text_make(4096);
    struct problem problem = {0};
    const char *names[] = {"loss", "accuracy"};
    int64_t id = enqueue(db, "m", "auto", 0);
    char temp[512];

    CHECK_INT(claim(db, "cpu:0"), id);
    for (int e = 0; e < 3; e++) {
        double values[] = {1.0 / (e + 1), 0.25 * e};
        CHECK_OK(tell(db, id, e, 2, names, values, "{\"epoch\":1}"));
    }
    for (int n = 1; n <= 2; n++) {
        char path[64];

        scratch_upload(db, "weights", 7, temp);
        snprintf(path, sizeof path, "jobs/%d/%d.ckpt.h5", (int)id, n);
        CHECK_OK(db_place(db, temp, path, &problem));
        CHECK_OK(jobs_checkpoint(db, id, path, n, 2, &(struct job_news){.progress = "{\"epoch\":2}"}, &problem));
    }
    CHECK_INT(scratch_files(&s, "jobs"), 1);
    struct job_row r = get(db, id, mem);
    CHECK_TEXT(r.checkpoint, "jobs/1/2.ckpt.h5");
    CHECK_INT(r.checkpoint_number, 2);
    CHECK_TEXT(r.progress, "{\"epoch\":2}");
    CHECK_OK(jobs_history(db, id, &json, &problem));
    CHECK_TEXT(json.s, "{\"epoch\":[0,1],\"loss\":[1,0.5],\"accuracy\":[0,0.25]}");

    db = db_close(db); /* the file has a row: the sweep keeps it */
    db = scratch_db(&s);
    CHECK_INT(scratch_files(&s, "jobs"), 1);
    CHECK_INT(claim(db, "cpu:0"), id);
    CHECK_OK(jobs_finish(db, id, JOB_DONE, NULL, NULL, NULL, &problem));
    CHECK_INT(scratch_files(&s, "jobs"), 0);
    CHECK(!get(db, id, mem).checkpoint);
}

TEST(the_end_of_a_job_and_a_checkpoint_store_the_epochs_that_wait)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    CLEAN(text_done) struct text middle = text_make(4096), json = text_make(4096);
    struct problem problem = {0};
    const char *names[] = {"loss"};
    double values[] = {4, 3, 2, 1};
    struct job_epoch e[] = {
        {0, 1, names, values}, {1, 1, names, values + 1}, {2, 1, names, values + 2}, {3, 1, names, values + 3}};
    int64_t id = enqueue(db, "m", "auto", 0);

    CHECK_INT(claim(db, "cpu:0"), id);
    CHECK_OK(jobs_checkpoint(db, id, "jobs/1/1.ckpt.h5", 1, 2, &(struct job_news){2, e, "{\"epoch\":2}"}, &problem));
    CHECK_OK(jobs_history(db, id, &middle, &problem));
    CHECK_TEXT(middle.s, "{\"epoch\":[0,1],\"loss\":[4,3]}");
    CHECK_TEXT(get(db, id, mem).progress, "{\"epoch\":2}");
    CHECK_OK(jobs_finish(db, id, JOB_DONE, NULL, NULL, &(struct job_news){2, e + 2, "{\"epoch\":4}"}, &problem));
    CHECK_OK(jobs_history(db, id, &json, &problem));
    CHECK_TEXT(json.s, "{\"epoch\":[0,1,2,3],\"loss\":[4,3,2,1]}");
    CHECK_TEXT(get(db, id, mem).progress, "{\"epoch\":4}");
    CHECK_INT(tell(db, id, 4, 1, names, values, NULL), ST_CONFLICT);
}

TEST(a_claim_notes_its_environment_and_another_one_after_a_checkpoint_is_not_reproducible)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    struct job_row r;
    int64_t id = enqueue(db, "m", "auto", 0);

    CHECK_OK(jobs_claim(db, "cpu:0", "avx2", mem, &r, &problem));
    CHECK(!r.environment);
    CHECK_TEXT(get(db, id, mem).environment, "avx2");
    CHECK_OK(jobs_requeue(db, id, &problem));
    CHECK_OK(jobs_claim(db, "cpu:0", "avx512", mem, &r, &problem)); /* from the start: nothing is mixed */
    CHECK_TEXT(r.environment, "avx2");
    CHECK(r.reproducible);
    CHECK_OK(jobs_checkpoint(db, id, "jobs/1/1.ckpt.h5", 1, 0, NULL, &problem));
    CHECK_OK(jobs_requeue(db, id, &problem));
    CHECK_OK(jobs_claim(db, "cpu:0", "avx512", mem, &r, &problem));
    CHECK(r.reproducible);
    CHECK_OK(jobs_requeue(db, id, &problem));
    CHECK_OK(jobs_claim(db, "cpu:0", "avx2", mem, &r, &problem));
    CHECK_TEXT(r.environment, "avx512");
    CHECK(!r.reproducible);
    CHECK_OK(jobs_requeue(db, id, &problem));
    CHECK_OK(jobs_claim(db, "cpu:0", "avx2", mem, &r, &problem));
    CHECK(!r.reproducible); /* and stays so */
}

TEST(history_has_null_where_a_value_is_missing_or_no_number)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    CLEAN(text_done) struct text json = text_make(4096), none = text_make(100);
    struct problem problem = {0};
    const char *first[] = {"loss"}, *second[] = {"loss", "val_loss"};
    double a[] = {2}, b[] = {0.0 / 0.0, 0.125};
    int64_t id = enqueue(db, "m", "auto", 0);

    CHECK_OK(jobs_history(db, id, &none, &problem));
    CHECK_TEXT(none.s, "{\"epoch\":[]}");
    CHECK_INT(claim(db, "cpu:0"), id);
    CHECK_OK(tell(db, id, 0, 1, first, a, NULL));
    CHECK_OK(tell(db, id, 1, 1, first, a, NULL));
    CHECK_OK(tell(db, id, 1, 2, second, b, NULL)); /* replaces */
    CHECK_OK(jobs_history(db, id, &json, &problem));
    CHECK_TEXT(json.s, "{\"epoch\":[0,1],\"loss\":[2,null],\"val_loss\":[null,0.125]}");
    CHECK_INT(jobs_history(db, 5, &json, &problem), ST_NOT_FOUND);
}

TEST(lists_go_from_the_newest_down_by_state_and_model)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    struct job_row *rows;
    int n;
    bool more;

    for (int i = 0; i < 5; i++)
        enqueue(db, i % 2 ? "odd" : "even", "auto", 0);
    CHECK_OK(jobs_list(db, -1, NULL, 0, 2, mem, &rows, &n, &more, &problem));
    CHECK_INT(n, 2);
    CHECK(more);
    CHECK_INT(rows[0].id, 5);
    CHECK_INT(rows[1].id, 4);
    CHECK_OK(jobs_list(db, -1, NULL, 4, 3, mem, &rows, &n, &more, &problem));
    CHECK_INT(n, 3);
    CHECK(!more);
    CHECK_INT(rows[0].id, 3);
    CHECK_OK(jobs_list(db, -1, "odd", 0, 10, mem, &rows, &n, &more, &problem));
    CHECK_INT(n, 2);
    claim(db, "cpu:0");
    CHECK_OK(jobs_list(db, JOB_RUNNING, NULL, 0, 10, mem, &rows, &n, &more, &problem));
    CHECK_INT(n, 1);
    CHECK_INT(rows[0].id, 1);
}

TEST(positions_in_a_list_are_those_that_each_job_has_alone)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    struct job_row *rows;
    unsigned seed = 1;
    int n;
    bool more;

    for (int i = 0; i < 200; i++)
        enqueue(db, i % 7 ? "m" : "seven", "auto", rand_r(&seed) % 4 - 1);
    for (int i = 0; i < 20; i++)
        CHECK(claim(db, "cpu:0") > 0);
    for (int k = 0; k < 4; k++) {
        CHECK_OK(jobs_list(db, k == 1 ? JOB_QUEUED : -1, k == 2 ? "seven" : NULL, k == 3 ? 150 : 0, 50, mem, &rows, &n, &more,
                           &problem));
        CHECK_INT(n, k == 2 ? 29 : 50);
        for (int i = 0; i < n; i++)
            CHECK_INT(rows[i].queue_position, get(db, rows[i].id, mem).queue_position);
    }
    CHECK_INT(jobs_count(db, JOB_QUEUED), 180);
    CHECK_INT(jobs_count(db, JOB_RUNNING), 20);
    CHECK_INT(jobs_count(db, -1), 200);
}

TEST(a_database_of_version_1_counts_its_jobs_from_then_on)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    bool running;

    enqueue(db, "m", "auto", 0);
    enqueue(db, "m", "auto", 0);
    CHECK_OK(jobs_cancel(db, 1, &running, &problem));
    CHECK_OK(db_write(db, back_to_version_1, NULL, &problem));
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_INT(jobs_count(db, JOB_QUEUED), 1);
    CHECK_INT(jobs_count(db, JOB_CANCELLED), 1);
    enqueue(db, "m", "auto", 0);
    CHECK_INT(jobs_count(db, JOB_QUEUED), 2);
}

TEST(a_running_job_is_queued_again_when_the_daemon_opens)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    int64_t id = enqueue(db, "m", "auto", 0);

    CHECK_INT(claim(db, "cpu:0"), id);
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_INT(get(db, id, mem).state, JOB_QUEUED);
    CHECK_INT(claim(db, "cpu:0"), id);
    CHECK_INT(get(db, id, mem).attempt, 2);
}

TEST(a_job_that_ends_the_daemon_twenty_times_without_a_checkpoint_fails)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    int64_t id = enqueue(db, "m", "auto", 0);

    for (int i = 0; i < 25; i++) {
        CHECK_INT(get(db, id, mem).state, JOB_QUEUED);
        CHECK_INT(claim(db, "cpu:0"), id);
        if (i == 4) /* this one counts anew */
            CHECK_OK(jobs_checkpoint(db, id, "jobs/1/1.ckpt.h5", 1, 0, NULL, &problem));
        db = db_close(db);
        db = scratch_db(&s);
    }
    struct job_row r = get(db, id, mem);
    CHECK_INT(r.state, JOB_FAILED);
    CHECK_INT(r.attempt, 25);
    CHECK_CONTAINS(r.problem, "20 times in a row without a new checkpoint");
    CHECK(r.finished_ms > 0);
}

TEST(a_stop_gives_the_job_back_without_counting_as_a_crash)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    int64_t id = enqueue(db, "m", "auto", 0);

    for (int i = 0; i < 22; i++) {
        CHECK_INT(claim(db, "cpu:0"), id);
        CHECK_OK(jobs_requeue(db, id, &problem));
    }
    CHECK_INT(claim(db, "cpu:0"), id);
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_INT(get(db, id, mem).state, JOB_QUEUED);
    CHECK_INT(jobs_requeue(db, id, &problem), ST_CONFLICT);
}

TEST(a_job_holds_its_arrays_and_refuses_ids_that_are_gone)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    int64_t array, gone = 4711, id, *ids;
    bool existing;
    int n;

    CHECK_OK(db_write(db, insert_array, &array, &problem));
    int64_t twice[] = {array, array};
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto", .n_arrays = 2, .array_ids = twice};
    CHECK_OK(jobs_enqueue(db, &j, 9, &id, &existing, &problem));
    CHECK_OK(jobs_arrays(db, id, mem, &ids, &n, &problem));
    CHECK_INT(n, 1);
    CHECK_INT(ids[0], array);
    j.array_ids = &gone;
    j.n_arrays = 1;
    CHECK_INT(jobs_enqueue(db, &j, 9, &id, &existing, &problem), ST_CONFLICT);
    CHECK_CONTAINS(problem.detail, "post it again");
    CHECK_INT(jobs_count(db, -1), 1);
}

TEST(a_second_file_of_a_name_replaces_the_first)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    int64_t id = enqueue(db, "m", "auto", 0);
    char temp[512], path[512], text[8] = {0};

    CHECK_INT(claim(db, "cpu:0"), id);
    scratch_upload(db, "one", 3, temp);
    CHECK_OK(jobs_file_put(db, id, "../best.h5", temp, &problem)); /* a name is no path */
    scratch_upload(db, "two", 3, temp);
    CHECK_OK(jobs_file_put(db, id, "../best.h5", temp, &problem));
    CHECK_INT(scratch_files(&s, "jobs"), 1);
    CHECK_INT(scratch_files(&s, "tmp"), 0);
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_OK(jobs_file_get(db, id, "../best.h5", path, &problem));
    FILE *f = fopen(path, "r");
    CHECK(f);
    CHECK_INT(fread(text, 1, 7, f), 3);
    CHECK_INT(fclose(f), 0);
    CHECK_TEXT(text, "two");
    CHECK_INT(jobs_file_get(db, id, "worst.h5", path, &problem), ST_NOT_FOUND);
    CHECK_TEXT(problem.detail, "job 1 has no file \"worst.h5\"");
}

#define N_THREADS 8
#define N_EACH    25

struct many {
    struct db *db;
    int64_t id[N_EACH];
    int n;
};

static void *enqueue_many(void *arg)
{
    struct many *m = arg;
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto"};
    struct problem problem;
    bool existing;

    for (int i = 0; i < N_EACH; i++)
        m->n += jobs_enqueue(m->db, &j, 100000, &m->id[i], &existing, &problem) == ST_OK;
    return NULL;
}

TEST(every_acknowledged_job_of_eight_threads_is_there_after_opening_again)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(arena_free) struct arena *mem = arena_new();
    static struct many many[N_THREADS];
    pthread_t thread[N_THREADS];
    bool seen[N_THREADS * N_EACH + 1] = {0};

    for (int i = 0; i < N_THREADS; i++) {
        many[i] = (struct many){.db = db};
        CHECK_INT(pthread_create(&thread[i], NULL, enqueue_many, &many[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        CHECK_INT(pthread_join(thread[i], NULL), 0);
    db = db_close(db);
    db = scratch_db(&s);
    for (int i = 0; i < N_THREADS; i++) {
        CHECK_INT(many[i].n, N_EACH);
        for (int k = 0; k < N_EACH; k++) {
            int64_t id = many[i].id[k];

            CHECK(id >= 1 && id <= N_THREADS * N_EACH && !seen[id]);
            seen[id] = true;
            CHECK_INT(get(db, id, mem).state, JOB_QUEUED);
        }
    }
}

TEST(two_lanes_never_claim_the_same_job)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    int64_t a = enqueue(db, "m", "auto", 0), b = enqueue(db, "m", "auto", 0);

    CHECK_INT(claim(db, "cpu:0"), a);
    CHECK_INT(claim(db, "cpu:1"), b);
    CHECK_INT(claim(db, "cpu:1"), 0);
}

/* The child tells each id when it has been acknowledged, and is killed while it works. */
static _Noreturn void enqueue_until_killed(const struct scratch *s, int to)
{
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto"};
    struct problem problem;
    struct db *db;
    char path[300];
    int64_t id;
    bool existing;

    snprintf(path, sizeof path, "%s/data", s->folder);
    if (db_open(path, &db, &problem) != ST_OK)
        _exit(1);
    for (;;) {
        if (jobs_enqueue(db, &j, 1000000, &id, &existing, &problem) != ST_OK || write(to, &id, sizeof id) != sizeof id)
            _exit(1);
    }
}

TEST(every_job_acknowledged_before_a_kill_is_there)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(arena_free) struct arena *mem = arena_new();
    int64_t last = 0, total = 0, id;

    for (int round = 0; round < 5; round++) {
        int pipes[2], status;

        CHECK_INT(pipe(pipes), 0);
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0)
            enqueue_until_killed(&s, pipes[1]);
        close(pipes[1]);
        CHECK_INT(read(pipes[0], &id, sizeof id), sizeof id);
        usleep(20000 + 7000 * (unsigned)round);
        CHECK_INT(kill(pid, SIGKILL), 0);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        do {
            CHECK_INT(id > last, 1);
            last = id;
            total++;
        } while (read(pipes[0], &id, sizeof id) == sizeof id);
        close(pipes[0]);

        OWNED(db_close) struct db *db = scratch_db(&s);
        CHECK_INT(get(db, last, mem).state, JOB_QUEUED);
        CHECK(jobs_count(db, JOB_QUEUED) >= total);
    }
}

TEST(state_names_are_those_of_the_api)
{
    enum job_state state;

    CHECK_TEXT(job_state_name(JOB_QUEUED), "queued");
    CHECK_TEXT(job_state_name(JOB_CANCELLED), "cancelled");
    CHECK(job_state_find("failed", &state));
    CHECK_INT(state, JOB_FAILED);
    CHECK(!job_state_find("Failed", &state));
    CHECK(!job_state_find("", &state));
}
