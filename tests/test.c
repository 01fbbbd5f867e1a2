/* See test.h. */
#include "tests/test.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TESTS 2000

static struct {
    const char *name;
    void (*run)(void);
} tests[MAX_TESTS];
static int n_tests;
static const char *skip_reason;

void test_register(const char *name, void (*run)(void))
{
    if (n_tests == MAX_TESTS)
        abort();
    tests[n_tests].name = name;
    tests[n_tests++].run = run;
}

void test_skip(const char *reason)
{
    skip_reason = reason;
}

void test_check_int(long long got, long long want, const char *text, const char *file, int line)
{
    if (got != want)
        fail_msg("%s:%d: %s is %lld, expected %lld", file, line, text, got, want);
}

void test_check_near(double got, double want, double relative, const char *text, const char *file, int line)
{
    if (!(fabs(got - want) <= relative * fmax(fabs(want), 1e-30)) && got != want)
        fail_msg("%s:%d: %s is %.9g, expected %.9g within %g", file, line, text, got, want, relative);
}

void test_check_text(const char *got, const char *want, const char *text, const char *file, int line)
{
    if (!got || strcmp(got, want) != 0)
        fail_msg("%s:%d: %s is \"%s\", expected \"%s\"", file, line, text, got ? got : "(null)", want);
}

void test_check_contains(const char *got, const char *part, const char *text, const char *file, int line)
{
    if (!got || !strstr(got, part))
        fail_msg("%s:%d: %s is \"%s\", expected it to contain \"%s\"", file, line, text, got ? got : "(null)", part);
}

void test_check_true(int ok, const char *text, const char *file, int line)
{
    if (!ok)
        fail_msg("%s:%d: not true: %s", file, line, text);
}

void test_check_floats(const float *got, const float *want, size_t n, double tolerance, const char *text, const char *file,
                       int line)
{
    double scale = 1, worst = -1;
    size_t at = 0;

    for (size_t i = 0; i < n; i++)
        if (isfinite(want[i]))
            scale = fmax(scale, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++) {
        double d = isnan(want[i]) && isnan(got[i]) ? 0 : got[i] == want[i] ? 0 : fabs((double)got[i] - (double)want[i]);

        if (!(d <= worst)) {
            worst = d;
            at = i;
            if (isnan(d))
                break;
        }
    }
    if (n && !(worst <= tolerance * scale))
        fail_msg("%s:%d: %s[%zu] is %.9g, expected %.9g (tolerance %g of %g, %zu elements)", file, line, text, at,
                 (double)got[at], (double)want[at], tolerance, scale, n);
}

static void run_one(void **state)
{
    void (*run)(void);

    memcpy(&run, *state, sizeof run);
    run();
}

int main(int argc, char **argv)
{
    int passed = 0, failed = 0, skipped = 0;

    for (int i = 0; i < n_tests; i++) {
        if (argc > 1 && !strstr(tests[i].name, argv[1]))
            continue;
        skip_reason = NULL;
        struct CMUnitTest one = {tests[i].name, run_one, NULL, NULL, &tests[i].run};
        bool bad = _cmocka_run_group_tests(tests[i].name, &one, 1, NULL, NULL) != 0;

        if (bad)
            failed++;
        else if (skip_reason)
            skipped++, printf("SKIPPED %s: %s\n", tests[i].name, skip_reason);
        else
            passed++;
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    (void)fflush(stdout); /* LeakSanitizer may end the process before exit() does it */
    return failed ? 1 : 0;
}
