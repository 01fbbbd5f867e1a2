#include "tests/test.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>

#include "engine/base/arena.h"
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

TEST(arena_pieces_are_zeroed_aligned_and_apart)
{
    OWNED(arena_free) struct arena *a = arena_new();
    char *last = NULL;

    for (size_t n = 0; n < 3000; n += 7) {
        char *p = arena_alloc(a, n);

        CHECK_INT((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            CHECK_INT(p[i], 0);
        memset(p, 0xAB, n);
        CHECK(p != last);
        last = p;
    }
}

TEST(arena_keeps_what_was_written_before_it_grew)
{
    OWNED(arena_free) struct arena *a = arena_new();
    int *values[2000];

    for (int i = 0; i < 2000; i++) {
        values[i] = ARENA_ARRAY(a, int, 1 + i % 300);
        values[i][i % 300] = i;
        if (i % 500 == 0)
            memset(arena_alloc(a, 3 << 20), 1, 3 << 20); /* larger than any block */
    }
    for (int i = 0; i < 2000; i++)
        CHECK_INT(values[i][i % 300], i);
}

TEST(arena_counts_the_bytes_it_handed_out)
{
    OWNED(arena_free) struct arena *a = arena_new();

    CHECK_INT(arena_bytes(a), 0);
    arena_alloc(a, 100);
    arena_alloc(a, 1000000);
    CHECK_INT(arena_bytes(a), 1000100);
}

TEST(arena_texts_are_copies)
{
    OWNED(arena_free) struct arena *a = arena_new();
    char s[] = "conv";
    char *copy = arena_text(a, s);

    s[0] = 'X';
    CHECK_TEXT(copy, "conv");
    CHECK(!arena_text(a, NULL));
    CHECK_TEXT(arena_print(a, "%s_%d", "dense", 3), "dense_3");
    CHECK_TEXT(arena_print(a, "%s", ""), "");
    CHECK_INT(strlen(arena_print(a, "%9000d", 1)), 9000);
}

TEST(running_over_the_end_of_a_piece_is_found_under_asan)
{
#ifdef __SANITIZE_ADDRESS__
    OWNED(arena_free) struct arena *a = arena_new();
    char *p = arena_alloc(a, 20), *q = arena_alloc(a, 20);

    CHECK(!__asan_address_is_poisoned(p + 19) && !__asan_address_is_poisoned(q));
    CHECK(__asan_address_is_poisoned(p + 20) && __asan_address_is_poisoned(p + 32) && __asan_address_is_poisoned(q + 20));
#else
    TEST_SKIP("this build has no ASan");
#endif
}

TEST(arena_free_takes_null)
{
    CHECK(!arena_free(NULL));
}

TEST(heap_helpers_zero_and_copy)
{
    char *p = must_alloc(100);

    for (int i = 0; i < 100; i++)
        CHECK_INT(p[i], 0);
    p[99] = 7;
    p = must_realloc(p, 5000);
    CHECK_INT(p[99], 7);
    CHECK(!free_null(p));
    p = must_text("abc");
    CHECK_TEXT(p, "abc");
    free_null(p);
    CHECK(!must_text(NULL));
    free_null(must_alloc(0));
}

TEST(try_alloc_is_aligned_zeroed_and_counted)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 100000, (4 << 20) - 1, 4 << 20, (5 << 20) + 3};
    size_t before = memory_used();

    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct problem problem;
        void *p = NULL;
        unsigned char *bytes, any = 0;

        CHECK_OK(try_alloc(sizes[i], "rows", &p, &problem));
        bytes = p;
        CHECK_INT((uintptr_t)p % (sizes[i] >= 4 << 20 ? 2 << 20 : 64), 0);
        CHECK_INT(memory_used() - before, sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++)
            any |= bytes[k];
        CHECK_INT(any, 0);
        if (sizes[i])
            bytes[0] = bytes[sizes[i] - 1] = 1;
        big_free(p, sizes[i]);
        CHECK_INT(memory_used(), before);
    }
    big_free(NULL, 12);
    CHECK_INT(memory_used(), before);
}

TEST(freed_memory_comes_back_zeroed)
{
    for (int i = 0; i < 4; i++) {
        struct problem problem;
        void *p = NULL;

        CHECK_OK(try_alloc(1000, "x", &p, &problem));
        for (int k = 0; k < 1000; k++)
            CHECK_INT(((char *)p)[k], 0);
        memset(p, 0x55, 1000);
        big_free(p, 1000);
    }
}

TEST(a_request_beyond_the_limit_names_both_numbers_and_what)
{
    struct problem problem;
    size_t before = memory_used();
    void *p = NULL, *q = NULL;

    memory_limit_set(before + 1000);
    CHECK_INT(memory_limit(), before + 1000);
    CHECK_OK(try_alloc(600, "weights", &p, &problem));
    CHECK_INT(try_alloc(401, "the batch", &q, &problem), ST_NO_MEMORY);
    CHECK(!q);
    CHECK_CONTAINS(problem.detail, "401 bytes for the batch");
    CHECK_CONTAINS(problem.detail, "memory limit");
    CHECK_INT(memory_used(), before + 600);
    CHECK_OK(try_alloc(400, "the batch", &q, &problem)); /* exactly full */
    big_free(p, 600);
    big_free(q, 400);
    memory_limit_set(0);
    CHECK_INT(memory_used(), before);
}

TEST(absurd_sizes_fail_without_a_limit)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 63, SIZE_MAX / 2, (size_t)1 << 62};
    size_t before = memory_used();

    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct problem problem = {0};
        void *p = NULL;

        CHECK_INT(try_alloc(sizes[i], "weights", &p, &problem), ST_NO_MEMORY);
        CHECK_CONTAINS(problem.detail, "for weights");
        CHECK_INT(memory_used(), before);
    }
}

static void *take_and_free(void *arg)
{
    int *taken = arg;

    for (int i = 0; i < 3000; i++) {
        struct problem problem;
        void *p;

        if (try_alloc(300, "x", &p, &problem) == ST_OK) {
            ++*taken;
            big_free(p, 300);
        }
    }
    return NULL;
}

TEST(threads_never_pass_the_limit_together)
{
    size_t before = memory_used();
    pthread_t threads[4];
    int taken[4] = {0};

    memory_limit_set(before + 700);
    for (int i = 0; i < 4; i++)
        CHECK_INT(pthread_create(&threads[i], NULL, take_and_free, &taken[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    memory_limit_set(0);
    CHECK_INT(memory_used(), before);
    CHECK(taken[0] + taken[1] + taken[2] + taken[3] > 0);
}

TEST(size_mul_finds_overflow)
{
    size_t n = 0;

    CHECK(size_mul(3, 5, &n));
    CHECK_INT(n, 15);
    CHECK(!size_mul((size_t)1 << 40, (size_t)1 << 40, &n));
}
