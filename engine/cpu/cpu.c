/* The CPU backend: opening a device, its memory, and the table of kernels.
 *
 * The SIMD level is the best that the CPU has; HORN_SIMD or the caller may ask for a lower one (tests run all of them on one
 * machine). Levels differ in bits, so the level is part of the description that is stored with a job. */
#include "engine/cpu/cpu.h"

#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/base/thread.h"
#include "engine/cpu/crowd.h"
#include "engine/cpu/kernels.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#define MAX_THREADS 1024

#ifdef HORN_SIMD_base
extern const struct simd simd_base;
static bool level_works(int i)
{
    return i == 0;
}
static const struct simd *const levels[] = {&simd_base};
#define MACHINE "generic"
#else
extern const struct simd simd_v2, simd_v3, simd_v4;
static bool level_works(int i)
{
    __builtin_cpu_init();
    bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
              __builtin_cpu_supports("bmi2");
    bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");

    return i == 0 ? v2 : i == 1 ? v3 : v4;
}
static const struct simd *const levels[] = {&simd_v2, &simd_v3, &simd_v4};
#define MACHINE "x86-64"
#endif

static enum status level_choose(const char *asked, int *ret, int *best, struct problem *problem)
{
    int n = (int)COUNT(levels);

    *best = -1;
    for (int i = 0; i < n; i++)
        if (level_works(i))
            *best = i;
    if (*best < 0)
        return fail(problem, ST_UNSUPPORTED, "cpu", "the CPU is older than %s-%s, which this program needs", MACHINE,
                    levels[0]->name);
    if (!asked || !asked[0]) {
        *ret = *best;
        return ST_OK;
    }
    for (int i = 0; i < n; i++)
        if (!strcmp(asked, levels[i]->name)) {
            if (i > *best)
                return fail(problem, ST_UNSUPPORTED, "HORN_SIMD", "the level %s is asked for, this CPU has %s at most", asked,
                            levels[*best]->name);
            *ret = i;
            return ST_OK;
        }
    return fail(problem, ST_INVALID, "HORN_SIMD", "there is no SIMD level \"%s\"; this program has %s%s%s", asked,
                levels[0]->name, n > 1 ? " to " : "", n > 1 ? levels[n - 1]->name : "");
}

static void library_threads(void)
{
    openblas_set_num_threads(1);
}

static char blas_level(void)
{
    static const char *const v4[] = {"SkylakeX", "Cooperlake", "SapphireRapids"}, *const v3[] = {"Haswell", "Zen"};
    const char *core = openblas_get_corename();

    if (COUNT(levels) == 1)
        return 'b';
    for (size_t i = 0; i < COUNT(v4); i++)
        if (!strcasecmp(core, v4[i]))
            return '4';
    for (size_t i = 0; i < COUNT(v3); i++)
        if (!strcasecmp(core, v3[i]))
            return '3';
    return '2';
}

/* VDPBF16PS alone makes half the products a second of float32's FMA where it was measured (88 against 168 GFLOP/s on an
 * Emerald Rapids core, oneDNN 2.6.3): it is no reason to leave float32, the tiles of AMX are. */
static bool bfloat_wanted(bool forced)
{
#ifdef HORN_ONEDNN
    unsigned isa = (unsigned)dnnl_get_effective_cpu_isa(),
             wanted = forced ? dnnl_cpu_isa_avx512_core_bf16 : dnnl_cpu_isa_avx512_core_amx;

    return (isa & wanted) == wanted;
#else
    (void)forced;
    return false;
#endif
}

static void describe_into(struct device *d)
{
    const char *blas = openblas_get_config(); /* "OpenBLAS 0.3.21 DYNAMIC_ARCH ..." */
    int length = 0;

    if (!strncmp(blas, "OpenBLAS ", 9))
        length = (int)strcspn(blas + 9, " ") + 9;
#ifdef HORN_ONEDNN
    const dnnl_version_t *v = dnnl_version();

    snprintf(d->text, sizeof d->text, "cpu: %s-%s%s, %d thread%s, oneDNN %d.%d.%d, %.*s (%s)", MACHINE, d->simd->name,
             d->bfloat ? " with bfloat16" : "", d->threads, d->threads == 1 ? "" : "s", v->major, v->minor, v->patch, length,
             blas, openblas_get_corename());
#else
    snprintf(d->text, sizeof d->text, "cpu: %s-%s, %d thread%s, %.*s (%s)", MACHINE, d->simd->name, d->threads,
             d->threads == 1 ? "" : "s", length, blas, openblas_get_corename());
#endif
}

/* Whatever has no kernel runs by its reference. */
static bool cpu_supports(const struct op *op, const void *attr, const struct value *in, uint16_t n_in)
{
    (void)attr, (void)in, (void)n_in;
    return op->reference || op->flags & OP_VIEW;
}

static int cpu_backend_count(void)
{
    return 1;
}

static enum status cpu_open(int index, const struct device_options *options, struct device **ret, struct problem *problem)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    const char *asked = options && options->simd ? options->simd : getenv("HORN_SIMD");
    int threads = options && options->threads ? options->threads : 1, level = 0, best = -1;

    if (index != 0)
        return fail(problem, ST_INVALID, "cpu", "there is one CPU device, number 0; %d is asked for", index);
    if (threads < 1 || threads > MAX_THREADS)
        return fail(problem, ST_INVALID, "cpu", "a device has 1 to %d threads, %d are asked for", MAX_THREADS, threads);
    TRY(level_choose(asked, &level, &best, problem));
    (void)pthread_once(&once, library_threads);
#ifndef _OPENMP
    threads = 1;
#endif
    struct device *d = must_alloc(sizeof *d);

    d->threads = threads;
    d->simd = levels[level];
    d->bfloat = d->simd == levels[best] && bfloat_wanted(options && options->bfloat);
    d->blas_level = blas_level();
    d->level = COUNT(levels) == 1 ? 'b' : (char)('2' + best);
#ifdef HORN_ONEDNN
    if (dnnl_engine_create(&d->engine, dnnl_cpu, 0) != dnnl_success) {
        free_null(d);
        return fail(problem, ST_DEVICE, "cpu", "oneDNN does not start on this CPU");
    }
#endif
    describe_into(d);
    *ret = d;
    return ST_OK;
}

static struct device *cpu_close(struct device *d)
{
#ifdef HORN_ONEDNN
    if (d)
        (void)dnnl_engine_destroy(d->engine);
#endif
    return free_null(d);
}

/* The team belongs to the thread that starts it, and so does its size, which oneDNN follows. */
static void cpu_enter(struct device *d)
{
    thread_compute_mode();
#ifdef _OPENMP
    omp_set_num_threads(d->threads);
    omp_set_dynamic(0);
#pragma omp parallel num_threads(d->threads)
    thread_compute_mode();
    crowd_enter(d->threads);
#else
    (void)d;
#endif
}

static int cpu_threads(struct device *d)
{
    return d->threads;
}

static const char *cpu_describe(struct device *d)
{
    return d->text;
}

static enum status cpu_alloc(struct device *d, size_t bytes, void **ret, struct problem *problem)
{
    (void)d;
    return try_alloc(bytes, "tensors", ret, problem);
}

static void cpu_release(struct device *d, void *memory, size_t bytes)
{
    (void)d;
    big_free(memory, bytes);
}

static void cpu_put(struct device *d, void *to, const void *host, size_t bytes)
{
    (void)d;
    if (bytes)
        memcpy(to, host, bytes);
}

static void cpu_get(struct device *d, void *host, const void *from, size_t bytes)
{
    (void)d;
    if (bytes)
        memcpy(host, from, bytes);
}

static enum status cpu_sync(struct device *d, struct problem *problem)
{
    (void)d, (void)problem;
    return ST_OK;
}

KERNEL_PREPARE(prepare_plain)
{
    struct prepared *p = must_alloc(sizeof *p);

    (void)n, (void)values, (void)scratch, (void)problem;
    p->device = d;
    *ret = p;
    return ST_OK;
}

void release_plain(void *prepared)
{
    free_null(prepared);
}

enum status all_f32(const struct node *n, const struct value *values, struct problem *problem)
{
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        value_id v = i < n->n_in ? n->in[i] : n->out[i - n->n_in];

        if (v && values[v].type != F32)
            return fail(problem, ST_UNSUPPORTED, "", "%s is not computed here", dtype_name(values[v].type));
    }
    return ST_OK;
}

static struct kernel kernel_table[] = {
#define X(name) {0},
    KERNELS(X)
#undef X
        {0},
};

static void fill_table(void)
{
    struct kernel *k = kernel_table;

#define X(name) *k++ = kernel_##name;
    KERNELS(X)
#undef X
}

static const struct backend cpu = {
    .abi = BACKEND_ABI,
    .name = "cpu",
    .kernels = kernel_table,
    .host_memory = true,
    .reference_ok = true,
    .supports = cpu_supports,
    .count = cpu_backend_count,
    .open = cpu_open,
    .close = cpu_close,
    .enter = cpu_enter,
    .threads = cpu_threads,
    .share = team_run,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .put = cpu_put,
    .get = cpu_get,
    .sync = cpu_sync,
    .ceiling = cpu_ceiling,
};

const struct backend *backend_cpu(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;

    (void)pthread_once(&once, fill_table);
    return &cpu;
}
