/* The only place where a parallel region begins (but for oneDNN's own and the recurrent kernels). */
#include "engine/cpu/cpu.h"
#include "engine/cpu/crowd.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#ifdef _OPENMP
/* Longer pieces are cut at multiples of 16, whole lines of the cache where a unit is a float: the thread that began within a line
 * would read and write two lines with each vector (Adam, 670,000 parameters, two threads: 292 us, 265 so). */
#define CUT_UNIT 16
#define CUT_LONG 1024 /* units to a piece */

static int64_t cut_at(int64_t n, int64_t parts, int64_t at)
{
    int64_t begin = n * at / parts;

    return at < parts && n >= parts * CUT_LONG ? begin / CUT_UNIT * CUT_UNIT : begin;
}
#endif

void team_run(const struct device *d, int64_t n, int64_t grain, void (*body)(const void *context, int64_t begin, int64_t end),
              const void *context)
{
#ifdef _OPENMP
    if (d->threads > 1 && n >= 2 * grain && !omp_in_parallel()) {
        crowd_look();
        /* Always the full team: libgomp ends and starts threads when the size changes. */
#pragma omp parallel num_threads(d->threads)
        {
            int64_t me = omp_get_thread_num(), all = omp_get_num_threads(), parts = n / grain;

            parts = parts < all ? parts : all;
            if (me < parts)
                body(context, cut_at(n, parts, me), cut_at(n, parts, me + 1));
        }
        return;
    }
#endif
    (void)d, (void)grain;
    if (n > 0)
        body(context, 0, n);
}

bool team_inside(void)
{
#ifdef _OPENMP
    return omp_in_parallel();
#else
    return false;
#endif
}

int team_member(void)
{
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
