/* The folder, its lock, group commit, readers, files. */
#include "storage/db.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/sql.h"
#include "tests/storage/scratch.h"
#include "tests/test.h"

static enum status add_dataset(struct sqlite3 *s, void *arg, struct problem *problem)
{
    return sql_run(s, problem, "INSERT INTO datasets (name, created_ms) VALUES (?, 0)", "t", (const char *)arg);
}

static enum status add_and_fail(struct sqlite3 *s, void *arg, struct problem *problem)
{
    TRY(add_dataset(s, arg, problem));
    return fail(problem, ST_INVALID, "here", "not this one");
}

static int64_t count(struct db *db)
{
    struct problem problem = {0};
    int64_t n = -1;

    CHECK_OK(sql_int(db_reader(db), 0, &n, &problem, "SELECT count(*) FROM datasets", ""));
    return n;
}

static void exists(const struct scratch *s, const char *name, bool want)
{
    char path[512];

    snprintf(path, sizeof path, "%s/data/%s", s->folder, name);
    CHECK_INT(access(path, F_OK) == 0, want);
}

TEST(a_second_daemon_on_the_folder_is_refused_with_the_pid_of_the_first)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    OWNED(db_close) struct db *second = NULL;
    struct problem problem = {0};
    char path[300], want[80];

    snprintf(path, sizeof path, "%s/data", s.folder);
    CHECK_INT(db_open(path, &second, &problem), ST_CONFLICT);
    snprintf(want, sizeof want, "another hornd (pid %d) uses this folder", (int)getpid());
    CHECK_TEXT(problem.detail, want);
    CHECK(!second);

    db = db_close(db);
    CHECK_OK(db_open(path, &second, &problem));
}

TEST(the_folder_is_made_with_its_parents_for_its_owner_alone)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = NULL;
    struct problem problem = {0};
    struct stat st;
    char path[300];

    snprintf(path, sizeof path, "%s/a/b/data", s.folder);
    CHECK_OK(db_open(path, &db, &problem));
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0700);
    snprintf(path, sizeof path, "%s/a/b/data/horn.db", s.folder);
    CHECK_INT(stat(path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0600);
}

TEST(a_folder_that_cannot_be_made_is_a_problem_that_names_it)
{
    OWNED(db_close) struct db *db = NULL;
    struct problem problem = {0};

    CHECK_INT(db_open("/proc/no-such-thing/data", &db, &problem), ST_STORAGE);
    CHECK_CONTAINS(problem.where, "/proc/no-such-thing");
    CHECK_CONTAINS(problem.detail, "make the folder");
}

TEST(a_database_of_a_newer_schema_is_refused)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    struct sqlite3 *raw = NULL;
    char path[300];

    db = db_close(db);
    snprintf(path, sizeof path, "%s/data/horn.db", s.folder);
    CHECK_INT(sqlite3_open(path, &raw), SQLITE_OK);
    CHECK_INT(sqlite3_exec(raw, "PRAGMA user_version = 99", NULL, NULL, NULL), SQLITE_OK);
    CHECK_INT(sqlite3_close(raw), SQLITE_OK);
    snprintf(path, sizeof path, "%s/data", s.folder);
    CHECK_INT(db_open(path, &db, &problem), ST_CONFLICT);
    CHECK_TEXT(problem.detail, "was written by a newer Horn (schema 99, this one knows 2)");
}

TEST(a_task_that_fails_is_rolled_back_alone)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    char a[] = "a", b[] = "b";

    CHECK_OK(db_write(db, add_dataset, a, &problem));
    CHECK_INT(db_write(db, add_and_fail, b, &problem), ST_INVALID);
    CHECK_TEXT(problem.detail, "not this one");
    CHECK_INT(count(db), 1);
    CHECK_INT(db_write(db, add_dataset, a, &problem), ST_STORAGE); /* UNIQUE */
    CHECK_CONTAINS(problem.detail, "UNIQUE");
    CHECK_INT(count(db), 1);
}

#define N_THREADS 8
#define N_EACH    40

struct many {
    struct db *db;
    int thread, done, seen;
};

static void *write_many(void *arg)
{
    struct many *m = arg;
    struct problem problem;

    for (int i = 0; i < N_EACH; i++) {
        char name[40];
        int64_t n = 0;

        snprintf(name, sizeof name, "t%d-%d", m->thread, i);
        /* Every fourth task fails: its neighbours in the transaction must not notice. */
        enum status want = i % 4 == 3 ? ST_INVALID : ST_OK;
        m->done += db_write(m->db, i % 4 == 3 ? add_and_fail : add_dataset, name, &problem) == want;
        (void)sql_int(db_reader(m->db), 0, &n, &problem, "SELECT count(*) FROM datasets WHERE name = ?", "t", name);
        m->seen += n == (want == ST_OK);
    }
    return NULL;
}

TEST(eight_threads_write_together_and_each_sees_its_own_rows_at_once)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    pthread_t thread[N_THREADS];
    struct many many[N_THREADS];

    for (int i = 0; i < N_THREADS; i++) {
        many[i] = (struct many){.db = db, .thread = i};
        CHECK_INT(pthread_create(&thread[i], NULL, write_many, &many[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        CHECK_INT(pthread_join(thread[i], NULL), 0);
    for (int i = 0; i < N_THREADS; i++) {
        CHECK_INT(many[i].done, N_EACH);
        CHECK_INT(many[i].seen, N_EACH);
    }
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_INT(count(db),
              0); /* datasets without arrays are swept: this shows that opening again works, see test_jobs for rows */
}

TEST(a_placed_file_has_its_folders_and_a_removed_one_is_gone_with_them)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    char temp[512];

    scratch_upload(db, "abc", 3, temp);
    CHECK_INT(scratch_files(&s, "tmp"), 1);
    CHECK_OK(db_place(db, temp, "jobs/7/files/1", &problem));
    CHECK_INT(scratch_files(&s, "tmp"), 0);
    exists(&s, "jobs/7/files/1", true);
    db_remove(db, "jobs/7/files/1");
    exists(&s, "jobs/7/files/1", false);
    exists(&s, "jobs/7/files", true);
    db_remove(db, "jobs/7");
    exists(&s, "jobs/7", false);
    db_remove(db, "jobs/7");
    CHECK_INT(db_place(db, temp, "jobs/7/x", &problem), ST_STORAGE);
    CHECK_TEXT(problem.where, "jobs/7/x");
}

TEST(removing_a_folder_does_not_follow_links_out_of_it)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    char outside[300], link[300];

    snprintf(outside, sizeof outside, "%s/outside", s.folder);
    CHECK_INT(mkdir(outside, 0700), 0);
    snprintf(link, sizeof link, "%s/data/jobs/9", s.folder);
    CHECK_INT(mkdir(link, 0700), 0);
    snprintf(link, sizeof link, "%s/data/jobs/9/link", s.folder);
    CHECK_INT(symlink(outside, link), 0);
    db_remove(db, "jobs/9");
    CHECK_INT(access(outside, F_OK), 0);
    exists(&s, "jobs/9", false);
}

TEST(opening_sweeps_temporary_files_and_files_without_a_row)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    static const char *const strays[] = {"datasets/5/1.h5", "datasets/x", "models/3/1/model.h5", "jobs/12/1.ckpt.h5",
                                         "datasets/9/sub/deep"};
    char temp[512];

    for (size_t i = 0; i < COUNT(strays); i++) {
        scratch_upload(db, "x", 1, temp);
        CHECK_OK(db_place(db, temp, strays[i], &problem));
    }
    scratch_upload(db, "x", 1, temp);
    db = db_close(db);
    db = scratch_db(&s);
    CHECK_INT(
        scratch_files(&s, "tmp") + scratch_files(&s, "datasets") + scratch_files(&s, "models") + scratch_files(&s, "jobs"), 0);
}

TEST(a_full_disk_fails_the_write_and_leaves_the_database_usable)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    if (!scratch_mount(&s, 2 << 20))
        TEST_SKIP("a tmpfs cannot be mounted here");
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem = {0};
    enum status status = ST_OK;
    static char block[65536];
    char temp[512], name[60000];
    int fd, acknowledged = 0;

    /* Fill the rest, so that the log cannot grow. */
    CHECK_OK(db_temp(db, temp, &fd, &problem));
    while (write(fd, block, sizeof block) > 0)
        ;
    CHECK_INT(errno, ENOSPC);
    CHECK_INT(close(fd), 0);

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    for (int i = 0; i < 40 && status == ST_OK; i++) {
        name[0] = (char)('a' + i);
        status = db_write(db, add_dataset, name, &problem);
        acknowledged += status == ST_OK;
    }
    CHECK_INT(status, ST_DISK_FULL);
    CHECK_INT(problem.status, ST_DISK_FULL);
    CHECK_CONTAINS(problem.detail, "no space left");
    CHECK_INT(count(db), acknowledged);

    CHECK_INT(unlink(temp), 0);
    CHECK_OK(db_write(db, add_dataset, name, &problem));
    CHECK_INT(count(db), acknowledged + 1);
}

TEST(errno_becomes_a_status)
{
    struct problem problem = {0};

    CHECK_INT(fail_errno(&problem, ENOSPC, "mnist/x", "write the upload"), ST_DISK_FULL);
    CHECK_TEXT(problem.where, "mnist/x");
    CHECK_TEXT(problem.detail, "could not write the upload: No space left on device");
    CHECK_INT(fail_errno(&problem, EDQUOT, "x", "write"), ST_DISK_FULL);
    CHECK_INT(fail_errno(&problem, EIO, "x", "write"), ST_STORAGE);
}

TEST(names_begin_with_a_letter_or_digit_and_have_at_most_128_characters)
{
    char longest[130];

    memset(longest, 'a', 129);
    longest[129] = 0;
    CHECK(!name_valid(longest));
    longest[128] = 0;
    CHECK(name_valid(longest));
    CHECK(name_valid("mnist-mlp_2.0"));
    CHECK(!name_valid(""));
    CHECK(!name_valid(NULL));
    CHECK(!name_valid(".hidden"));
    CHECK(!name_valid("../x"));
    CHECK(!name_valid("a/b"));
    CHECK(!name_valid("na\xc3\xafve"));
}

TEST(times_are_iso_8601_in_utc_with_milliseconds)
{
    char text[32];

    time_text(1769860800000, text);
    CHECK_TEXT(text, "2026-01-31T12:00:00.000Z");
    time_text(1, text);
    CHECK_TEXT(text, "1970-01-01T00:00:00.001Z");
    time_text(-1, text);
    CHECK_TEXT(text, "1969-12-31T23:59:59.999Z");
}
