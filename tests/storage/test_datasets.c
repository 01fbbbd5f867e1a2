/* Data sets as rows: what replaces what, who holds what, when a file goes. */
#include "storage/datasets.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/jobs.h"
#include "storage/sql.h"
#include "tests/storage/put.h"
#include "tests/test.h"

static int64_t job_on(struct bench *b, int64_t array)
{
    struct job_new j = {.type = "fit", .model = "m", .request = "{}", .device = "auto", .n_arrays = 1, .array_ids = &array};
    struct problem problem = {0};
    int64_t id = 0;
    bool existing;

    CHECK_OK(jobs_enqueue(b->db, &j, 100, &id, &existing, &problem));
    return id;
}

static struct array_row resolve(struct bench *b, const char *reference)
{
    struct problem problem = {0};
    struct array_row row = {0};

    CHECK_OK(datasets_resolve(b->db, reference, "/fit/x", b->mem, &row, &problem));
    return row;
}

static void reopen(struct bench *b)
{
    b->db = db_close(b->db);
    b->db = scratch_db(&b->s);
}

TEST(arrays_of_one_data_set_may_have_different_lengths_and_come_in_name_order)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct dataset_row *rows;
    int n;

    CHECK_INT(put_text(&b, "y", "1\n2\n3\n"), ST_OK);
    CHECK_INT(put_text(&b, "x", "1,2\n"), ST_OK);
    CHECK_INT(b.d.n_arrays, 2);
    CHECK_TEXT(b.d.name, "d");
    CHECK_TEXT(b.d.arrays[0].name, "x");
    CHECK_TEXT(b.d.arrays[1].name, "y");
    CHECK_INT(b.d.arrays[1].bytes, 12);
    CHECK(b.d.created_ms > 1700000000000);
    reopen(&b);
    BENCH_OK(datasets_get(b.db, "d", b.mem, &b.d, &b.problem));
    CHECK_INT(b.d.n_arrays, 2);
    CHECK_NEAR(b.d.arrays[1].max, 3, 0);
    BENCH_OK(datasets_list(b.db, b.mem, &rows, &n, &b.problem));
    CHECK_INT(n, 1);
    CHECK_INT(rows[0].n_arrays, 2);
    CHECK_INT(scratch_files(&b.s, "datasets"), 2);
}

TEST(a_replaced_array_goes_at_once_unless_a_job_holds_it)
{
    CLEAN(bench_done) struct bench b = bench_make();

    CHECK_INT(put_text(&b, "x", "1\n2\n"), ST_OK);
    int64_t first = b.d.arrays[0].id;
    CHECK_INT(put_text(&b, "x", "1\n2\n3\n"), ST_OK);
    CHECK(b.d.arrays[0].id != first);
    CHECK_INT(scratch_files(&b.s, "datasets"), 1);
    struct array_row row;
    CHECK_INT(datasets_array(b.db, first, b.mem, &row, &b.problem), ST_NOT_FOUND);
}

TEST(a_job_keeps_the_array_it_saw_until_it_is_over)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row held;
    bool running;

    CHECK_INT(put_text(&b, "x", "1\n2\n"), ST_OK);
    int64_t first = resolve(&b, "d/x").id, job = job_on(&b, first), second = job_on(&b, first);
    CHECK_INT(put_text(&b, "x", "1\n2\n3\n"), ST_OK);
    CHECK_INT(resolve(&b, "d/x").shape.dim[0], 3);
    reopen(&b);
    CHECK_INT(scratch_files(&b.s, "datasets"), 2);
    BENCH_OK(datasets_array(b.db, first, b.mem, &held, &b.problem));
    CHECK_INT(held.shape.dim[0], 2);

    BENCH_OK(jobs_cancel(b.db, job, &running, &b.problem));
    CHECK_INT(scratch_files(&b.s, "datasets"), 2);
    struct job_row row;
    BENCH_OK(jobs_claim(b.db, "cpu:0", "here", b.mem, &row, &b.problem));
    CHECK_INT(row.id, second);
    BENCH_OK(jobs_finish(b.db, second, JOB_DONE, NULL, NULL, NULL, &b.problem));
    CHECK_INT(scratch_files(&b.s, "datasets"), 1);
    CHECK_INT(datasets_array(b.db, first, b.mem, &held, &b.problem), ST_NOT_FOUND);
}

TEST(a_data_set_in_use_cannot_be_deleted)
{
    CLEAN(bench_done) struct bench b = bench_make();
    bool running;

    CHECK_INT(put_text(&b, "x", "1\n2\n"), ST_OK);
    int64_t job = job_on(&b, resolve(&b, "d/x").id);
    CHECK_INT(datasets_delete(b.db, "d", &b.problem), ST_CONFLICT);
    CHECK_TEXT(b.problem.where, "d");
    CHECK_TEXT(b.problem.detail, "job 1 uses it and is not over; cancel it or wait");
    BENCH_OK(jobs_cancel(b.db, job, &running, &b.problem));
    BENCH_OK(datasets_delete(b.db, "d", &b.problem));
    CHECK_INT(scratch_files(&b.s, "datasets"), 0);
    CHECK_INT(datasets_delete(b.db, "d", &b.problem), ST_NOT_FOUND);
    CHECK_TEXT(b.problem.detail, "there is no dataset \"d\"");
    CHECK_INT(put_text(&b, "x", "1\n"), ST_OK);
    reopen(&b);
    CHECK_INT(resolve(&b, "d/x").shape.dim[0], 1);
}

TEST(a_reference_that_leads_nowhere_says_what_there_is)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    CHECK_INT(put_text(&b, "x", "1\n"), ST_OK);
    CHECK_INT(put_text(&b, "y", "1\n"), ST_OK);
    CHECK_INT(datasets_resolve(b.db, "e/x", "/fit/x", b.mem, &row, &b.problem), ST_NOT_FOUND);
    CHECK_TEXT(b.problem.where, "/fit/x");
    CHECK_TEXT(b.problem.detail, "there is no dataset \"e\"; there are: d");
    CHECK_INT(datasets_resolve(b.db, "d/z", "/fit/x", b.mem, &row, &b.problem), ST_NOT_FOUND);
    CHECK_TEXT(b.problem.detail, "dataset \"d\" has no array \"z\"; it has: x, y");
    static const char *const bad[] = {"", "d", "/x", "d/", "d/x/y"};
    for (size_t i = 0; i < COUNT(bad); i++)
        CHECK_INT(datasets_resolve(b.db, bad[i], "/fit/x", b.mem, &row, &b.problem), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "\"d/x/y\" is not of the form dataset/array, for example mnist/x_train");
}

TEST(names_that_are_not_possible_are_refused)
{
    CLEAN(bench_done) struct bench b = bench_make();
    char path[512];

    CHECK_INT(put_text(&b, "../x", "1\n"), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "names have letters, digits");
    scratch_upload(b.db, "1\n", 2, path);
    CHECK_INT(datasets_put(b.db, "a b", "x", path, "", "", &b.limits, b.mem, &b.d, &b.problem), ST_INVALID);
}

TEST(a_file_whose_row_was_not_committed_is_gone_and_its_numbers_are_used_again)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    CHECK_INT(put_text(&b, "x", "1\n"), ST_OK);
    /* The names of the second file's arrays collide inside the transaction, after the first one has been placed. */
    BENCH_OK(jobs_cancel(b.db, job_on(&b, resolve(&b, "d/x").id), &(bool){false}, &b.problem));
    struct sqlite3 *raw = NULL;
    char path[400];
    snprintf(path, sizeof path, "%s/horn.db", db_folder(b.db));
    CHECK_INT(sqlite3_open(path, &raw), SQLITE_OK);
    CHECK_INT(sqlite3_exec(
                  raw, "CREATE TRIGGER no BEFORE INSERT ON arrays WHEN new.name = 'y' BEGIN SELECT raise(ABORT, 'no y'); END",
                  NULL, NULL, NULL),
              SQLITE_OK);
    CHECK_INT(put_file(&b, NULL, "tests/storage/files/two.npz"), ST_STORAGE);
    CHECK_CONTAINS(b.problem.detail, "no y");
    CHECK_INT(scratch_files(&b.s, "datasets"), 1);
    CHECK_INT(resolve(&b, "d/x").shape.dim[0], 1); /* x was not replaced either */
    CHECK_INT(sqlite3_exec(raw, "DROP TRIGGER no", NULL, NULL, NULL), SQLITE_OK);
    CHECK_INT(sqlite3_close(raw), SQLITE_OK);
    CHECK_INT(put_file(&b, NULL, "tests/storage/files/two.npz"), ST_OK);
    CHECK(((const float *)data_of(&b, "x", &row))[11] == 11);
}

struct putter {
    struct bench *b;
    int n, done;
};

static void *put_often(void *arg)
{
    struct putter *p = arg;
    struct problem problem;
    struct dataset_row row;

    for (int i = 0; i < 4; i++) {
        OWNED(arena_free) struct arena *mem = arena_new();
        char path[512], text[40];
        int fd, n = snprintf(text, sizeof text, "%d\n%d\n", p->n, i);

        if (db_temp(p->b->db, path, &fd, &problem) != ST_OK)
            return NULL;
        bool written = write(fd, text, (size_t)n) == n;
        (void)close(fd);
        p->done += written && datasets_put(p->b->db, "d", i % 2 ? "shared" : "x", path, "", "", &p->b->limits, mem, &row,
                                           &problem) == ST_OK;
    }
    return NULL;
}

TEST(uploads_at_the_same_time_leave_one_file_for_each_name)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct putter putter[4];
    pthread_t thread[4];
    struct array_row row;

    /* Not a plain fork: a lock of the allocator that another thread holds (ASan's) would never be free in the child. */
    ingest_program("/proc/self/exe");
    for (int i = 0; i < 4; i++) {
        putter[i] = (struct putter){.b = &b, .n = i};
        CHECK_INT(pthread_create(&thread[i], NULL, put_often, &putter[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_join(thread[i], NULL), 0);
    ingest_program(NULL);
    for (int i = 0; i < 4; i++)
        CHECK_INT(putter[i].done, 4);
    BENCH_OK(datasets_get(b.db, "d", b.mem, &b.d, &b.problem));
    CHECK_INT(b.d.n_arrays, 2);
    CHECK_INT(scratch_files(&b.s, "datasets"), 2);
    CHECK_INT(scratch_files(&b.s, "tmp"), 0);
    const int32_t *data = data_of(&b, "shared", &row);
    CHECK(data[0] >= 0 && data[0] < 4 && (data[1] == 1 || data[1] == 3));
}

TEST(a_prediction_becomes_an_array_of_a_data_set)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(array_writer_free) struct array_writer *w = NULL;
    struct shape shape = SHAPE(5, 2);
    float rows[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    struct array_row row;

    BENCH_OK(array_writer_new(b.db, &shape, &w, &b.problem));
    BENCH_OK(array_writer_add(w, rows, 3, &b.problem));
    CHECK_INT(array_writer_finish(w, "d", "out", &b.problem), ST_INTERNAL); /* not all rows yet */
    BENCH_OK(array_writer_add(w, rows + 6, 2, &b.problem));
    CHECK_INT(array_writer_add(w, rows, 1, &b.problem), ST_INTERNAL);
    struct sqlite3 *raw = NULL;
    char path[400];
    snprintf(path, sizeof path, "%s/horn.db", db_folder(b.db));
    CHECK_INT(sqlite3_open(path, &raw), SQLITE_OK);
    /* COMMIT itself fails, when everything is placed; as after a full disk, the second try succeeds. */
    CHECK_INT(sqlite3_exec(raw,
                           "CREATE TABLE late (job INTEGER REFERENCES jobs (id) DEFERRABLE INITIALLY DEFERRED);"
                           "CREATE TRIGGER no AFTER INSERT ON arrays BEGIN INSERT INTO late VALUES (99); END",
                           NULL, NULL, NULL),
              SQLITE_OK);
    CHECK_INT(array_writer_finish(w, "d", "out", &b.problem), ST_STORAGE);
    CHECK_INT(scratch_files(&b.s, "datasets"), 0);
    CHECK_INT(sqlite3_exec(raw, "DROP TRIGGER no", NULL, NULL, NULL), SQLITE_OK);
    CHECK_INT(sqlite3_close(raw), SQLITE_OK);
    BENCH_OK(array_writer_finish(w, "d", "out", &b.problem));
    w = array_writer_free(w);
    BENCH_OK(datasets_get(b.db, "d", b.mem, &b.d, &b.problem));
    const float *data = data_of(&b, "out", &row);
    CHECK_FLOATS(data, rows, 10, 0);
    CHECK(shape_equal(&row.shape, &shape));
    CHECK_NEAR(row.mean, 4.5, 0);

    BENCH_OK(array_writer_new(b.db, &shape, &w, &b.problem)); /* given up: nothing stays */
    w = array_writer_free(w);
    CHECK_INT(scratch_files(&b.s, "tmp"), 0);
}
