/* The only place where a parallel region begins (but for oneDNN's own and the recurrent kernels). */
#include "engine/cpu/cpu.h"
#include "engine/cpu/crowd.h"

#ifdef _OPENMP
#include <omp.h>
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
                body(context, n * me / parts, n * (me + 1) / parts);
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
