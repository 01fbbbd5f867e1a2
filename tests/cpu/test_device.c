/* The CPU device: levels, threads, memory, and how a kernel is chosen. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/graph/plan.h"
#include "engine/ops/all.h"
#include "engine/run/backend.h"
#include "tests/cpu/compare.h"
#include "tests/test.h"

static struct device *open_device(int threads, const char *simd)
{
    struct problem problem = {0};
    struct device *d = NULL;

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = threads, .simd = simd}, &d, &problem));
    return d;
}

TEST(a_device_describes_its_level_threads_and_libraries)
{
    const char *level = compare_level(0);
    struct device *d = open_device(1, level);
    const char *text = backend_cpu()->describe(d);

    CHECK_CONTAINS(text, "cpu: ");
    CHECK_CONTAINS(text, level);
    CHECK_CONTAINS(text, "1 thread,");
    CHECK_CONTAINS(text, "OpenBLAS 0.");
    (void)backend_cpu()->close(d);
}

TEST(the_cpu_supports_every_op)
{
    static const struct op *const ops[] = {
#define X(op) &op,
#include "ops.inc"
#undef X
    };

    for (size_t i = 0; i < COUNT(ops); i++)
        if (!backend_cpu()->supports(ops[i], NULL, NULL, 0))
            fail_msg("%s has neither a kernel nor a reference", ops[i]->name);
}

TEST(every_level_of_this_machine_can_be_asked_for)
{
    int n = 0;

    for (; compare_level(n); n++) {
        struct device *d = open_device(1, compare_level(n));

        CHECK_CONTAINS(backend_cpu()->describe(d), compare_level(n));
        (void)backend_cpu()->close(d);
    }
    CHECK(n >= 1);
}

TEST(an_unknown_level_is_a_problem_that_names_the_known_ones)
{
    struct problem problem = {0};
    struct device *d = NULL;

    CHECK_INT(backend_cpu()->open(0, &(struct device_options){.threads = 1, .simd = "v9"}, &d, &problem), ST_INVALID);
    CHECK(d == NULL);
    CHECK_TEXT(problem.where, "HORN_SIMD");
    CHECK_CONTAINS(problem.detail, "there is no SIMD level \"v9\"; this program has ");
    CHECK_CONTAINS(problem.detail, compare_level(0));
}

TEST(the_environment_chooses_the_level_when_the_caller_does_not)
{
    struct problem problem = {0};
    struct device *d = NULL;

    setenv("HORN_SIMD", compare_level(0), 1);
    d = open_device(1, NULL);
    CHECK_CONTAINS(backend_cpu()->describe(d), compare_level(0));
    (void)backend_cpu()->close(d);
    setenv("HORN_SIMD", "quick", 1);
    CHECK_INT(backend_cpu()->open(0, NULL, &d, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "quick");
    unsetenv("HORN_SIMD");
}

TEST(a_device_refuses_a_wrong_number_of_threads_and_a_second_cpu)
{
    struct problem problem = {0};
    struct device *d = NULL;

    CHECK_INT(backend_cpu()->open(0, &(struct device_options){.threads = -1}, &d, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "-1 are asked for");
    CHECK_INT(backend_cpu()->open(1, NULL, &d, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "number 0; 1 is asked for");
}

TEST(memory_is_zeroed_and_aligned_and_a_request_beyond_the_limit_fails_with_its_bytes)
{
    struct problem problem = {0};
    struct device *d = open_device(1, NULL);
    size_t before = memory_limit();
    unsigned char *p = NULL;
    void *q = NULL;

    CHECK_OK(backend_cpu()->alloc(d, 1000, (void **)&p, &problem));
    CHECK_INT((uintptr_t)p % 64, 0);
    for (int i = 0; i < 1000; i++)
        CHECK_INT(p[i], 0);
    backend_cpu()->release(d, p, 1000);
    memory_limit_set(memory_used() + 5000);
    CHECK_INT(backend_cpu()->alloc(d, 1000000, &q, &problem), ST_NO_MEMORY);
    CHECK_CONTAINS(problem.detail, "1000000");
    memory_limit_set(before);
    (void)backend_cpu()->close(d);
}

TEST(enter_makes_denormals_zero_in_the_calling_thread)
{
    struct device *d = open_device(2, NULL);
    volatile float tiny = 1e-40f, one = 1;

    backend_cpu()->enter(d);
#if defined(__x86_64__)
    CHECK(tiny * one == 0);
#else
    (void)tiny, (void)one;
#endif
    (void)backend_cpu()->close(d);
}

/* --- choosing --------------------------------------------------------------------------------------------------------- */

static enum status decline(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch,
                           struct problem *problem)
{
    (void)d, (void)n, (void)values, (void)ret, (void)scratch;
    return fail(problem, ST_UNSUPPORTED, "", "not this one");
}

static enum status run_out(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch,
                           struct problem *problem)
{
    (void)d, (void)n, (void)values, (void)ret, (void)scratch;
    return fail(problem, ST_NO_MEMORY, "", "64 bytes");
}

static void nothing(const struct kernel_call *c)
{
    (void)c;
}

static enum status choose(const struct backend *b, struct plan_step *step, struct problem *problem)
{
    struct compare c = compare_make();
    value_id x = compare_input(&c, F32, SHAPE(2, 3)), w = compare_input(&c, F32, SHAPE(3, 4));

    c.b.origin = "dense_7";
    (void)emit_matmul(&c.b, x, w, 0);
    enum status s = backend_choose(b, NULL, c.g, 1, step, problem);

    compare_done(&c);
    return s;
}

TEST(the_first_row_that_does_not_decline_is_chosen)
{
    const struct kernel rows[] = {{"conv", "toy.conv", NULL, nothing, NULL},
                                  {"matmul", "toy.picky", decline, nothing, NULL},
                                  {"matmul", "toy.any", NULL, nothing, NULL},
                                  {0}};
    const struct backend b = {.name = "test", .kernels = rows};
    struct plan_step step = {0};
    struct problem problem = {0};

    CHECK_INT(choose(&b, &step, &problem), ST_OK);
    CHECK(step.kernel == &rows[2]);
    CHECK_INT(problem.status, ST_OK);
}

TEST(without_a_row_the_reference_runs_where_the_backend_allows_it)
{
    const struct kernel rows[] = {{"matmul", "toy.picky", decline, nothing, NULL}, {0}};
    struct backend b = {.name = "toy", .kernels = rows, .reference_ok = true};
    struct plan_step step = {0};
    struct problem problem = {0};

    CHECK_INT(choose(&b, &step, &problem), ST_OK);
    CHECK(step.kernel == NULL);
    b.reference_ok = false;
    CHECK_INT(choose(&b, &step, &problem), ST_UNSUPPORTED);
    CHECK_TEXT(problem.where, "dense_7");
    CHECK_CONTAINS(problem.detail, "the backend toy has no kernel for the op matmul");
}

TEST(a_kernel_that_fails_otherwise_ends_the_choice_with_the_layer_named)
{
    const struct kernel rows[] = {
        {"matmul", "toy.large", run_out, nothing, NULL}, {"matmul", "toy.any", NULL, nothing, NULL}, {0}};
    const struct backend b = {.name = "toy", .kernels = rows, .reference_ok = true};
    struct plan_step step = {0};
    struct problem problem = {0};

    CHECK_INT(choose(&b, &step, &problem), ST_NO_MEMORY);
    CHECK_TEXT(problem.where, "dense_7");
    CHECK_TEXT(problem.detail, "64 bytes");
}
