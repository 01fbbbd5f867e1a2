/* The smallest harness over cmocka: a test's name is a sentence that is true when it passes.
 *
 *     TEST(conv_rejects_a_kernel_larger_than_its_input)
 *     {
 *         CHECK_INT(y, 0);
 *     }
 *
 * Tests register themselves; main is in test.c and prints "N passed, N failed, N skipped". TEST_SKIP(reason) ends a test that cannot run here. An
 * argument on the command line runs only the tests whose names contain it. */
#ifndef HORN_TESTS_TEST_H
#define HORN_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* cmocka's macro would hide fail() of engine/base/status.h. */
#undef fail
#undef fail_msg
#define fail_msg(...)                       \
    do {                                    \
        print_error("ERROR: " __VA_ARGS__); \
        print_error("\n");                  \
        _fail(__FILE__, __LINE__);          \
    } while (0)

void test_register(const char *name, void (*run)(void));
void test_skip(const char *reason);
void test_check_int(long long got, long long want, const char *text, const char *file, int line);
void test_check_near(double got, double want, double relative, const char *text, const char *file, int line);
void test_check_text(const char *got, const char *want, const char *text, const char *file, int line);
void test_check_contains(const char *got, const char *part, const char *text, const char *file, int line);
void test_check_true(int ok, const char *text, const char *file, int line);
/* |got - want| <= tolerance * max(1, largest |want|) for each element; prints the worst element. */
void test_check_floats(const float *got, const float *want, size_t n, double tolerance, const char *text, const char *file,
                       int line);

#define TEST(name)                                                 \
    static void name(void);                                        \
    __attribute__((constructor)) static void register_##name(void) \
    {                                                              \
        test_register(#name, name);                                \
    }                                                              \
    static void name(void)

#define TEST_SKIP(reason)  \
    do {                   \
        test_skip(reason); \
        return;            \
    } while (0)
#define CHECK(x)                              test_check_true(!!(x), #x, __FILE__, __LINE__)
#define CHECK_INT(got, want)                  test_check_int((long long)(got), (long long)(want), #got, __FILE__, __LINE__)
#define CHECK_NEAR(got, want, relative)       test_check_near(got, want, relative, #got, __FILE__, __LINE__)
#define CHECK_TEXT(got, want)                 test_check_text(got, want, #got, __FILE__, __LINE__)
#define CHECK_CONTAINS(got, part)             test_check_contains(got, part, #got, __FILE__, __LINE__)
#define CHECK_FLOATS(got, want, n, tolerance) test_check_floats(got, want, n, tolerance, #got, __FILE__, __LINE__)
/* A call that must succeed; prints the problem. Wants a `struct problem problem` in scope. */
#define CHECK_OK(call)                                                                               \
    do {                                                                                             \
        if ((call) != ST_OK)                                                                         \
            fail_msg("%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, problem.where, problem.detail); \
    } while (0)

#endif
