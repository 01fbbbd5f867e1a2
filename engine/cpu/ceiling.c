/* What this CPU reaches now, with the device's threads: the speed of a large product and of a large copy, as the ceilings that a
 * profile holds kernels against.
 *
 * Both are measured, not worked out from clock rates, since what a neighbour on the machine or a laptop's power leaves is what a
 * kernel can get, too. The best of several runs counts. The product is the one that layers get (product.c). The copy is larger
 * than the second-level caches; where a third level takes it, that is where a step's tensors lie as well. */
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/thread.h"
#include "engine/cpu/product.h"

#define SIDE       1024       /* rows, columns and depth of the product: 2 GFLOP, 12 MiB */
#define COPY_BYTES (64 << 20) /* read; as much is written */
#define SECONDS    0.05       /* for each of the two; at least RUNS runs */
#define RUNS       3

struct copy {
    char *to;
    const char *from;
};

static void copy_part(const void *context, int64_t begin, int64_t end)
{
    const struct copy *c = context;

    memcpy(c->to + begin, c->from + begin, (size_t)(end - begin));
}

static void fill(float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)(i % 17) * 0.0625f - 0.5f;
}

/* Seconds of the fastest run; floats: 2 * COPY_BYTES and 3 * SIDE * SIDE at least. */
static double best_product(struct device *d, float *floats)
{
    const int64_t n = (int64_t)SIDE * SIDE;
    double until = clock_seconds() + SECONDS, best = 1e9;

    fill(floats, 2 * n);
    for (int i = 0; i < RUNS || clock_seconds() < until; i++) {
        double began = clock_seconds(), took;

        product(d, false, false, SIDE, SIDE, SIDE, floats, SIDE, floats + n, SIDE, 0, floats + 2 * n, SIDE);
        took = clock_seconds() - began;
        best = took < best ? took : best;
    }
    return best;
}

static double best_copy(struct device *d, float *floats)
{
    struct copy c = {(char *)floats, (const char *)floats + COPY_BYTES};
    double until = clock_seconds() + SECONDS, best = 1e9;

    memset(floats, 1, 2u * COPY_BYTES); /* memory that nobody wrote is one page of zeros to the system, and read from a cache */
    for (int i = 0; i < RUNS || clock_seconds() < until; i++) {
        double began = clock_seconds(), took;

        team_run(d, COPY_BYTES, TEAM_GRAIN, copy_part, &c);
        took = clock_seconds() - began;
        best = took < best ? took : best;
    }
    return best;
}

enum status cpu_ceiling(struct device *d, double *flops, double *bytes, struct problem *problem)
{
    const size_t room = 2u * COPY_BYTES;
    void *floats = NULL;

    TRY(try_alloc(room, "measuring the device", &floats, problem));
    *bytes = 2.0 * COPY_BYTES / best_copy(d, floats);
    *flops = 2.0 * SIDE * SIDE * SIDE / best_product(d, floats);
    big_free(floats, room);
    return ST_OK;
}
