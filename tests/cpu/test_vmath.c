/* The elementary functions, in every binade and at every level, against C's library in double. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cpu/cpu.h"
#include "engine/graph/formula.h"
#include "tests/cpu/compare.h"
#include "tests/test.h"

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Runs one code over n numbers through the level's formula engine. */
static void run_code(const struct simd *simd, int code, const float *x, float *y, int64_t n)
{
    const struct formula_code k = {.code = (uint8_t)code, .to = 1};
    struct formula_run r = {.code = &k,
                            .n_code = 1,
                            .block = FORMULA_BLOCK,
                            .n_direct_in = 1,
                            .n_direct_out = 1,
                            .out_bytes = sizeof(float),
                            .direct_in = {x},
                            .direct_out = {y}};

    simd->formulas->run(&r, 0, n);
}

struct function {
    const char *name;
    int code;
    double (*exact)(double);
    float low, high;
    double relative, absolute; /* the error allowed: relative * |y| + absolute */
};

static const struct function functions[] = {
    {"exp", TERM_EXP, exp, -87.3f, 88.72f, 1.3e-7, 0},      {"tanh", TERM_TANH, tanh, -20, 20, 1.5e-7, 0},
    {"sigmoid", TERM_SIGMOID, sigmoid, -80, 80, 2e-7, 0},   {"log", TERM_LOG, log, 1.2e-38f, 3e38f, 1.2e-7, 0},
    {"log1p", TERM_LOG1P, log1p, -0.99f, 1e30f, 2.5e-7, 0}, {"erf", TERM_ERF, erf, -6, 6, 1.5e-7, 0},
};

static void check_range(const struct simd *simd, const struct function *f)
{
    enum { N = 200000 };
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);

    for (int i = 0; i < N; i++) {
        double t = (double)i / (N - 1);

        if (i % 2) /* evenly over the range */
            x[i] = (float)(f->low + t * ((double)f->high - (double)f->low));
        else /* and evenly over the binades, of both signs where both belong to it */
            x[i] = (float)exp(log(1.3e-38) + t * (log((double)f->high) - log(1.3e-38))) * (i % 4 && f->low < 0 ? -1.0f : 1.0f);
        x[i] = x[i] < f->low ? f->low : x[i] > f->high ? f->high : x[i];
    }
    run_code(simd, f->code, x, y, N);
    for (int i = 0; i < N; i++) {
        double want = f->exact((double)x[i]), allowed = f->relative * fabs(want) + f->absolute + 1.2e-38;

        if (!(fabs((double)y[i] - want) <= allowed))
            fail_msg("%s of %.9g at level %s is %.9g, not %.9g: off by %.3g", f->name, (double)x[i], simd->name, (double)y[i],
                     want, fabs((double)y[i] - want) / fabs(want));
    }
    free(x);
    free(y);
}

static const struct simd *level_simd(int i, struct device **d)
{
    struct problem problem = {0};

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = 1, .simd = compare_level(i)}, d, &problem));
    return (*d)->simd;
}

TEST(every_function_is_within_its_error_over_its_whole_range_at_every_level)
{
    for (int l = 0; compare_level(l); l++)
        for (size_t f = 0; f < sizeof functions / sizeof functions[0]; f++) {
            struct device *d;

            check_range(level_simd(l, &d), &functions[f]);
            (void)backend_cpu()->close(d);
        }
}

TEST(infinities_nan_and_the_edges_of_the_range_come_out_as_in_the_library)
{
    static const float x[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 89, 88.73f, -104, -200, FLT_MAX, -FLT_MAX, -1, 1, FLT_MIN};
    enum { N = sizeof x / sizeof x[0] };

    for (int l = 0; compare_level(l); l++)
        for (size_t f = 0; f < sizeof functions / sizeof functions[0]; f++) {
            struct device *d;
            const struct simd *simd = level_simd(l, &d);
            float y[N];

            run_code(simd, functions[f].code, x, y, N);
            for (int i = 0; i < N; i++) {
                float want = (float)functions[f].exact((double)x[i]);

                want = fabsf(want) < FLT_MIN ? 0 : want; /* denormals may be flushed */
                if (isnan(want) ? !isnan(y[i]) : fabsf(y[i] - want) > 2e-7f * fabsf(want) + FLT_MIN && y[i] != want)
                    fail_msg("%s of %.9g at level %s is %.9g, not %.9g", functions[f].name, (double)x[i], simd->name,
                             (double)y[i], (double)want);
            }
            (void)backend_cpu()->close(d);
        }
}

TEST(tanh_and_erf_are_odd)
{
    for (int l = 0; compare_level(l); l++) {
        struct device *d;
        const struct simd *simd = level_simd(l, &d);
        float x[2000], a[2000], b[2000];

        for (int code = 0; code < 2; code++) {
            for (int i = 0; i < 2000; i++)
                x[i] = 0.004f * (float)i;
            run_code(simd, code ? TERM_ERF : TERM_TANH, x, a, 2000);
            for (int i = 0; i < 2000; i++)
                x[i] = -x[i];
            run_code(simd, code ? TERM_ERF : TERM_TANH, x, b, 2000);
            for (int i = 0; i < 2000; i++)
                if (a[i] != -b[i])
                    fail_msg("f(%g) = %.9g, f(-x) = %.9g at level %s", (double)-x[i], (double)a[i], (double)b[i], simd->name);
        }
        (void)backend_cpu()->close(d);
    }
}
