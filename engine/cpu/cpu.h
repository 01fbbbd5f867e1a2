/* What the files of the CPU backend share: the device, its team of threads, and the names of all kernels.
 *
 * A device belongs to a lane or to the threads that predict: it is immutable once open, so any number of threads may run its
 * kernels at once, each with a team of its own. A kernel's prepare works everything out that shapes decide; run splits the
 * work in pieces that depend on shapes alone, so that results do not depend on the number of threads. */
#ifndef HORN_CPU_CPU_H
#define HORN_CPU_CPU_H

#include "engine/cpu/simd/simd.h"
#include "engine/ops/ops.h"
#include "engine/run/backend.h"

#ifdef HORN_ONEDNN
#include <oneapi/dnnl/dnnl.h>
#endif

struct device {
    int threads;
    const struct simd *simd;
    char level;      /* of the machine, whatever HORN_SIMD says, since libraries choose by themselves: '2', '3', '4', 'b' */
    bool bfloat;     /* products of bfloat16 are the CPU's own: it has AMX tiles for them, or the caller asked for it */
    char blas_level; /* that of the kernels that OpenBLAS has chosen; lower where it does not know the CPU */
    char text[160];  /* for describe() */
#ifdef HORN_ONEDNN
    dnnl_engine_t engine;
#endif
};

/* Elements below which a team costs more than it gives (some 2 us to start and join). */
#define TEAM_GRAIN 16384

/* body(context, begin, end) for the parts of 0 .. n, one per thread; in the calling thread alone if n < 2 * grain, or inside
 * another team. The body must give the same numbers however n is cut. */
void team_run(const struct device *d, int64_t n, int64_t grain, void (*body)(const void *context, int64_t begin, int64_t end),
              const void *context);

/* The calling thread's number in its team, for scratch of its own: 0 .. threads - 1. */
int team_member(void);
/* Whether the caller is one of a team at work: what it calls then runs in it alone. */
bool team_inside(void);

/* Units of `size` elements each that make a piece worth a thread. */
static inline int64_t team_grain(int64_t size)
{
    return size >= TEAM_GRAIN ? 1 : TEAM_GRAIN / (size > 0 ? size : 1) + 1;
}

/* ceiling.c; see struct backend. */
enum status cpu_ceiling(struct device *d, double *flops, double *bytes, struct problem *problem);

/* Most kernels keep nothing but their device. */
struct prepared {
    const struct device *device;
};
enum status prepare_plain(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch,
                          struct problem *problem);
void release_plain(void *prepared);
#define DEVICE(c) (((const struct prepared *)(c)->prepared)->device)

/* ST_UNSUPPORTED unless all floats are F32: the next row, in the end the reference, takes it. */
enum status all_f32(const struct node *n, const struct value *values, struct problem *problem);
static inline int64_t count_of(const struct value *values, value_id v)
{
    return shape_count(&values[v].shape);
}

#define KERNEL_PREPARE(name)                                                                                          \
    enum status name(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch, \
                     struct problem *problem)

#endif
