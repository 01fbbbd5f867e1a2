/* Rows of stored and inline arrays. */
#include "storage/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/storage/put.h"
#include "tests/test.h"

#define MEMORY ((uint64_t)1 << 40) /* enough for every array to stay in it */

static enum status take(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem)
{
    TRY(source_expect(s, array, row, n, problem));
    return s->gather(s, array, row, n, to, problem);
}

static struct source_part stored(struct bench *b, const char *name)
{
    struct array_row *row = ARENA_NEW(b->mem, struct array_row);

    (void)data_of(b, name, row);
    return (struct source_part){.name = arena_print(b->mem, "d/%s", name), .stored = row};
}

static void put_npy(struct bench *b, const char *name, const char *descr, const char *shape, const void *body, size_t bytes)
{
    size_t n;
    void *file = npy(descr, false, shape, body, bytes, &n);

    CHECK_INT(put_bytes(b, name, file, n), ST_OK);
    free(file);
}

/* Larger than what is kept in memory, and so mapped. The first that is: the tests' own handler of SIGBUS is set anew for each of them. */
TEST(a_large_file_that_is_cut_fails_the_job_and_not_the_daemon)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(source_close) struct source *s = NULL;
    enum { ROWS = 3000, WIDTH = 1001 };
    OWNED(free) float *body = must_alloc(sizeof *body * ROWS * WIDTH);
    struct source_part part;
    int64_t rows[] = {2999, 0};
    char path[600];
    float got[2 * WIDTH];

    for (int i = 0; i < ROWS * WIDTH; i++)
        body[i] = (float)i;
    put_npy(&b, "x", "<f4", "3000, 1001", body, sizeof *body * ROWS * WIDTH);
    part = stored(&b, "x");
    BENCH_OK(source_open(b.db, &part, 1, 0, 0, MEMORY, &s, &b.problem));
    BENCH_OK(take(s, 0, rows, 2, got, &b.problem));
    CHECK(!memcmp(got, body + 2999 * WIDTH, sizeof *body * WIDTH) && !memcmp(got + WIDTH, body, sizeof *body * WIDTH));
    snprintf(path, sizeof path, "%s/%s", db_folder(b.db), part.stored->path);
    CHECK_INT(truncate(path, part.stored->file_offset + 4 * ROWS * WIDTH - 1), 0); /* within its last page */
    CHECK_INT(take(s, 0, rows, 2, got, &b.problem), ST_STORAGE);
    CHECK_TEXT(b.problem.where, "d/x");
    CHECK_TEXT(b.problem.detail, "the array's file ends too early");
    CHECK_INT(truncate(path, 100), 0);
    CHECK_INT(take(s, 0, rows, 2, got, &b.problem), ST_STORAGE);
    CHECK_TEXT(b.problem.detail, "the array's file ends too early");
}

TEST(stored_types_are_delivered_as_models_take_them)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static const double f8[] = {0.1, 1, 2, 3, 4, 5};
    static const int64_t i8[] = {7, -8, 9};
    static const uint8_t bits[] = {1, 0, 1}, u1[] = {3, 2, 1};
    static const float f4[] = {1.5f, 2.5f, 3.5f};
    struct source_part parts[5];
    OWNED(source_close) struct source *s = NULL;
    int64_t all[] = {0, 1, 2}, some[] = {2, 0};
    float x[6], w[3];
    int32_t y[3];
    uint8_t z[3];

    put_npy(&b, "f8", "<f8", "3, 2", f8, sizeof f8);
    put_npy(&b, "i8", "<i8", "3,", i8, sizeof i8);
    put_npy(&b, "b1", "|b1", "3,", bits, sizeof bits);
    put_npy(&b, "u1", "|u1", "3,", u1, sizeof u1);
    put_npy(&b, "f4", "<f4", "3,", f4, sizeof f4);
    parts[0] = stored(&b, "f8");
    parts[1] = stored(&b, "u1");
    parts[2] = stored(&b, "i8");
    parts[3] = stored(&b, "b1");
    parts[4] = stored(&b, "f4");
    BENCH_OK(source_open(b.db, parts, 2, 2, 1, MEMORY, &s, &b.problem));
    CHECK_INT(s->n_inputs, 2);
    CHECK_INT(s->n_targets, 2);
    CHECK_INT(s->n_weights, 1);
    CHECK_INT(s->rows, 3);
    CHECK_TEXT(s->array[0].name, "d/f8");
    CHECK_INT(s->array[0].type, F32);
    CHECK_INT(s->array[0].row.rank, 1);
    CHECK_INT(s->array[0].row.dim[0], 2);
    CHECK_INT(s->array[1].type, U8);
    CHECK_INT(s->array[2].type, I32);
    CHECK_INT(s->array[3].type, U8);
    CHECK_INT(s->array[4].type, F32);

    BENCH_OK(take(s, 0, all, 3, x, &b.problem));
    CHECK(x[0] == 0.1f && x[5] == 5);
    BENCH_OK(take(s, 0, some, 2, x, &b.problem));
    CHECK(x[0] == 4 && x[1] == 5 && x[2] == 0.1f && x[3] == 1);
    BENCH_OK(take(s, 2, some, 2, y, &b.problem));
    CHECK(y[0] == 9 && y[1] == 7);
    BENCH_OK(take(s, 3, all, 3, z, &b.problem));
    CHECK(z[0] == 1 && z[1] == 0);
    BENCH_OK(take(s, 4, some, 2, w, &b.problem));
    CHECK(w[0] == 3.5f && w[1] == 1.5f);
    some[1] = 3;
    CHECK_INT(take(s, 4, some, 2, w, &b.problem), ST_INTERNAL);
}

/* Some rows of 20,000, in runs and jumps, to the very end. */
static int some_rows(unsigned *seed, int64_t row[300])
{
    int n = 1 + rand_r(seed) % 300;

    for (int i = 0; i < n; i++)
        row[i] = i && rand_r(seed) % 4 && row[i - 1] < 19999 ? row[i - 1] + 1 : rand_r(seed) % 20000;
    row[n - 1] = 19999;
    return n;
}

/* memory: what the array may hope for. */
static void rows_are_the_files(int width, uint64_t memory)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(source_close) struct source *s = NULL;
    OWNED(free) int64_t *body = must_alloc(sizeof *body * 20000 * (size_t)width);
    OWNED(free) int32_t *got = must_alloc(sizeof *got * 20000 * (size_t)width);
    struct source_part part;
    static int64_t every[20000];
    int64_t row[300];
    unsigned seed = 1;

    for (int i = 0; i < 20000 * width; i++)
        body[i] = i * 7 - 1000;
    put_npy(&b, "x", "<i8", arena_print(b.mem, "20000, %d", width), body, sizeof *body * 20000 * (size_t)width);
    part = stored(&b, "x");
    BENCH_OK(source_open(b.db, &part, 1, 0, 0, memory, &s, &b.problem));
    for (int round = 0; round < 50; round++) {
        int n = some_rows(&seed, row);

        BENCH_OK(take(s, 0, row, n, got, &b.problem));
        for (int i = 0; i < n * width; i++)
            if (got[i] != body[row[i / width] * width + i % width])
                CHECK_INT(got[i], body[row[i / width] * width + i % width]);
    }
    for (int i = 0; i < 20000; i++)
        every[i] = i;
    BENCH_OK(take(s, 0, every, 20000, got, &b.problem)); /* one run over many blocks */
    CHECK(got[0] == -1000 && got[20000 * width - 1] == (20000 * width - 1) * 7 - 1000);
    for (int epoch = 0; epoch < 2; epoch++)
        for (int first = 0; first < 20000; first += 700) { /* one batch behind the other, the last one smaller */
            int n = first + 700 < 20000 ? 700 : 20000 - first;

            BENCH_OK(take(s, 0, every + first, n, got, &b.problem));
            CHECK(got[0] == first * width * 7 - 1000 && got[n * width - 1] == ((first + n) * width - 1) * 7 - 1000);
        }
}

TEST(rows_in_any_order_and_number_are_the_rows_of_the_file)
{
    rows_are_the_files(3, MEMORY);     /* kept in memory */
    rows_are_the_files(120, MEMORY);   /* 19 MB, mapped */
    rows_are_the_files(120, 30 << 20); /* more than half of memory: asked for batch by batch */
    rows_are_the_files(120, 1);        /* beyond memory */
}

TEST(a_small_array_is_read_from_the_file_where_memory_has_an_end)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(source_close) struct source *s = NULL;
    static const float body[] = {1, 2, 3, 4};
    int64_t rows[] = {3, 0};
    struct source_part part;
    float got[2];

    put_npy(&b, "x", "<f4", "4,", body, sizeof body);
    part = stored(&b, "x");
    BENCH_OK(source_open(b.db, &part, 1, 0, 0, MEMORY, &s, &b.problem));
    memory_limit_set(memory_used() + 1);
    enum status status = take(s, 0, rows, 2, got, &b.problem);
    memory_limit_set(0);
    BENCH_OK(status);
    CHECK(got[0] == 4 && got[1] == 1);
}

TEST(an_integer_above_32_bits_is_named_with_its_row)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(source_close) struct source *s = NULL;
    int64_t body[] = {1, 2, 3, (int64_t)1 << 40}, rows[] = {0, 1};
    struct source_part part;
    int32_t got[4];

    put_npy(&b, "x", "<i8", "2, 2", body, sizeof body);
    part = stored(&b, "x");
    BENCH_OK(source_open(b.db, &part, 1, 0, 0, MEMORY, &s, &b.problem));
    CHECK_INT(take(s, 0, rows, 2, got, &b.problem), ST_INVALID);
    CHECK_TEXT(b.problem.where, "d/x");
    CHECK_TEXT(b.problem.detail, "row 1 holds 1099511627776; integers are used with 32 bits");
}

static struct source_part inline_part(const char *text, struct json **keep)
{
    struct problem problem = {0};

    CHECK_OK(json_parse(text, strlen(text), NULL, 0, keep, &problem));
    return (struct source_part){.name = "/fit/x", .inline_numbers = *keep};
}

TEST(inline_arrays_are_rows_too)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(json_free) struct json *x = NULL, *y = NULL;
    OWNED(source_close) struct source *s = NULL;
    struct source_part parts[] = {inline_part("[[1,2],[3,4],[5,6]]", &x), inline_part("[1, 0, 1]", &y)};
    int64_t rows[] = {1, 2, 0};
    float got[6], want[] = {3, 4, 5, 6, 1, 2};

    BENCH_OK(source_open(b.db, parts, 1, 1, 0, MEMORY, &s, &b.problem));
    CHECK_INT(s->rows, 3);
    CHECK_INT(s->array[0].type, F32);
    CHECK_INT(s->array[0].row.dim[0], 2);
    CHECK_INT(s->array[1].row.rank, 0);
    BENCH_OK(take(s, 0, rows, 3, got, &b.problem));
    CHECK_FLOATS(got, want, 6, 0);
}

TEST(arrays_that_cannot_be_joined_are_refused_with_all_lengths)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(json_free) struct json *two = NULL, *ragged = NULL, *lone = NULL, *none = NULL;
    struct source *s = NULL;
    struct source_part parts[2];

    CHECK_INT(put_text(&b, "x", "1,2\n3,4\n5,6\n"), ST_OK);
    parts[0] = stored(&b, "x");
    parts[1] = inline_part("[1, 0]", &two);
    CHECK_INT(source_open(b.db, parts, 1, 1, 0, MEMORY, &s, &b.problem), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "the arrays must have the same number of rows: d/x has 3, /fit/x has 2");
    parts[0] = inline_part("[[1,2],[3]]", &ragged);
    CHECK_INT(source_open(b.db, parts, 1, 0, 0, MEMORY, &s, &b.problem), ST_INVALID);
    parts[0] = inline_part("3", &lone);
    CHECK_INT(source_open(b.db, parts, 1, 0, 0, MEMORY, &s, &b.problem), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "is a single number");
    parts[0] = inline_part("[]", &none);
    CHECK(source_open(b.db, parts, 1, 0, 0, MEMORY, &s, &b.problem) != ST_OK);
    CHECK(!s);
}

TEST(a_file_that_is_gone_or_cut_is_a_problem_of_storage)
{
    CLEAN(bench_done) struct bench b = bench_make();
    OWNED(source_close) struct source *s = NULL;
    struct source_part part;
    int64_t row = 1;
    char path[600];
    float got[2];

    CHECK_INT(put_text(&b, "x", "1,2\n3,4\n"), ST_OK);
    part = stored(&b, "x");
    BENCH_OK(source_open(b.db, &part, 1, 0, 0, MEMORY, &s, &b.problem));
    snprintf(path, sizeof path, "%s/%s", db_folder(b.db), part.stored->path);
    CHECK_INT(truncate(path, part.stored->file_offset + 8), 0);
    CHECK_INT(take(s, 0, &row, 1, got, &b.problem), ST_STORAGE);
    CHECK_TEXT(b.problem.where, "d/x");
    CHECK_TEXT(b.problem.detail, "the array's file ends too early");
    s = source_close(s);
    CHECK_INT(unlink(path), 0);
    CHECK_INT(source_open(b.db, &part, 1, 0, 0, MEMORY, &s, &b.problem), ST_STORAGE);
    CHECK_TEXT(b.problem.where, "d/x");
}
