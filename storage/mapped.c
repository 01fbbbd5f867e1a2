/* See mapped.h.
 *
 * The fault is answered by a jump out of the signal handler, to the frame that asked. That is defined here: SIGBUS is raised by the
 * reading instruction itself, so nothing is interrupted but the body, which holds nothing. The jump puts the mask back as it was, for
 * one system call to a batch: whatever stands between the kernel and the handler (ThreadSanitizer does) may have blocked the signal.
 * The kernel enters a handler with the floating-point mode of a new program, and the jump would keep it: a lane that flushes denormals
 * would compute other bits from then on, so the mode is put back. A thread that is not reading has no frame here; its SIGBUS, and one
 * that a process sent, go where they went before. */
#include "storage/mapped.h"

#include <fenv.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

struct reading { /* of one thread, while mapped_read runs */
    const struct mapped *map;
    sigjmp_buf back;
};

static __thread struct reading *volatile current;
static struct sigaction before;
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* As if there were no handler of ours. Only calls that a signal handler may make. */
static void pass_on(int signal, siginfo_t *info, void *context)
{
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(signal);
    } else if (info->si_code > 0 || before.sa_handler == SIG_DFL) {
        (void)sigaction(SIGBUS, &before, NULL);
        (void)raise(SIGBUS); /* open by SA_NODEFER; a fault that is ignored comes again on return, and ends the process */
    }
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
    struct reading *r = current;
    const char *at = info->si_addr;

    if (r && info->si_code > 0 && at >= r->map->base && at < r->map->base + r->map->length)
        siglongjmp(r->back, 1);
    pass_on(signal, info, context);
}

static void catch_faults(void)
{
    struct sigaction how = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};

    sigemptyset(&how.sa_mask);
    (void)sigaction(SIGBUS, NULL, &before); /* known before the handler may need it */
    (void)sigaction(SIGBUS, &how, NULL);
}

bool mapped_open(struct mapped *m, int fd, int64_t offset, size_t bytes)
{
    int64_t page = (int64_t)sysconf(_SC_PAGESIZE), first = offset / page * page;
    size_t length = bytes + (size_t)(offset - first);
    void *base;

    *m = (struct mapped){0};
    if (!length || length < bytes)
        return false;
    base = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, first);
    if (base == MAP_FAILED)
        return false;
    (void)pthread_once(&once, catch_faults);
    *m = (struct mapped){.data = (char *)base + (offset - first), .base = base, .length = length};
    return true;
}

void mapped_close(struct mapped *m)
{
    if (m->base)
        (void)munmap(m->base, m->length);
    *m = (struct mapped){0};
}

bool mapped_read(const struct mapped *m, void (*body)(void *arg), void *arg)
{
    struct reading r = {.map = m};
    fenv_t mode;

    (void)fegetenv(&mode);
    if (sigsetjmp(r.back, 1)) {
        current = NULL;
        (void)fesetenv(&mode);
        return false;
    }
    current = &r;
    atomic_signal_fence(memory_order_seq_cst);
    body(arg);
    atomic_signal_fence(memory_order_seq_cst);
    current = NULL;
    return true;
}
