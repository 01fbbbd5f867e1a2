/* What the child gives up before it looks at the first byte of a stranger's file, and what it does then.
 *
 *   limits      address space (what it has now and limits.memory), processor time, size of a file, number of descriptors, no core
 *   privileges  none are gained any more (no_new_privs)
 *   files       Landlock, where the kernel has it: only the working directory, the upload's own folder
 *   system      seccomp, where it was built in: what reading, writing and memory need, for all threads; memory never becomes
 *               executable; everything else fails with EPERM, so that a library that only asks goes on
 *
 * Descriptors were closed, and death with the parent arranged, between fork and exec (run.c). */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HORN_SECCOMP
#include <seccomp.h>
#endif

#include "storage/ingest/ingest.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SHADOW_MEMORY
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHADOW_MEMORY /* terabytes of address space that are not memory */
#endif

static enum status limit(int what, const char *name, rlim_t soft, rlim_t hard, struct problem *problem)
{
    struct rlimit now;

    if (getrlimit(what, &now) == 0 && now.rlim_max != RLIM_INFINITY) {
        hard = hard < now.rlim_max ? hard : now.rlim_max;
        soft = soft < hard ? soft : hard;
    }
    if (setrlimit(what, &(struct rlimit){soft, hard}) < 0)
        return fail(problem, ST_INTERNAL, "ingest", "could not limit %s: %s", name, strerror(errno));
    return ST_OK;
}

#ifndef SHADOW_MEMORY
static rlim_t address_space(void)
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");

    if (f) {
        if (fscanf(f, "%lu", &pages) != 1)
            pages = 0;
        (void)fclose(f);
    }
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}
#endif

static enum status limit_all(const struct ingest_limits *l, struct problem *problem)
{
    rlim_t seconds = (rlim_t)(l->seconds > 0 ? l->seconds : 1);

    (void)signal(SIGXFSZ, SIG_IGN); /* a file that grows too large is an error of write */
#ifndef SHADOW_MEMORY
    /* 64 MiB: stacks, stdio, HDF5's and zlib's own tables */
    rlim_t bytes = address_space() + (rlim_t)l->memory + (64 << 20);
    TRY(limit(RLIMIT_AS, "memory", bytes, bytes, problem));
#endif
    TRY(limit(RLIMIT_CPU, "processor time", seconds, seconds + 1, problem));
    TRY(limit(RLIMIT_FSIZE, "the size of files", (rlim_t)l->bytes + (128 << 20), (rlim_t)l->bytes + (128 << 20), problem));
    TRY(limit(RLIMIT_NOFILE, "open files", 128, 128, problem));
    return limit(RLIMIT_CORE, "core files", 0, 0, problem);
}

/* Best effort: kernels before 5.13, or with Landlock switched off, go on without. */
static void keep_to_folder(void)
{
    struct landlock_ruleset_attr all = {
        .handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE |
                             LANDLOCK_ACCESS_FS_READ_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR | LANDLOCK_ACCESS_FS_REMOVE_FILE |
                             LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                             LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK |
                             LANDLOCK_ACCESS_FS_MAKE_SYM,
    };
    struct landlock_path_beneath_attr here = {
        .allowed_access = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR |
                          LANDLOCK_ACCESS_FS_MAKE_REG,
    };
    long rules = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);

    if (rules < 0)
        return;
    here.parent_fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (here.parent_fd >= 0 && syscall(SYS_landlock_add_rule, (int)rules, LANDLOCK_RULE_PATH_BENEATH, &here, 0) == 0)
        (void)syscall(SYS_landlock_restrict_self, (int)rules, 0);
    if (here.parent_fd >= 0)
        (void)close(here.parent_fd);
    (void)close((int)rules);
}

#ifdef HORN_SECCOMP
static const int allowed[] = {
    SCMP_SYS(read),          SCMP_SYS(write),           SCMP_SYS(readv),        SCMP_SYS(writev),
    SCMP_SYS(pread64),       SCMP_SYS(pwrite64),        SCMP_SYS(lseek),        SCMP_SYS(open),
    SCMP_SYS(openat),        SCMP_SYS(close),           SCMP_SYS(fstat),        SCMP_SYS(stat),
    SCMP_SYS(lstat),         SCMP_SYS(newfstatat),      SCMP_SYS(statx),        SCMP_SYS(fcntl),
    SCMP_SYS(dup),           SCMP_SYS(flock),           SCMP_SYS(ftruncate),    SCMP_SYS(fallocate),
    SCMP_SYS(fsync),         SCMP_SYS(munmap),          SCMP_SYS(mremap),       SCMP_SYS(madvise),
    SCMP_SYS(brk),           SCMP_SYS(futex),           SCMP_SYS(exit),         SCMP_SYS(exit_group),
    SCMP_SYS(rt_sigaction),  SCMP_SYS(rt_sigprocmask),  SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
    SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday),    SCMP_SYS(getpid),       SCMP_SYS(gettid),
    SCMP_SYS(tgkill),        SCMP_SYS(getrandom),       SCMP_SYS(sched_yield),  SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo),       SCMP_SYS(restart_syscall),
};
static const int mapping[] = {SCMP_SYS(mmap), SCMP_SYS(mprotect)};

static enum status filter(struct problem *problem)
{
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    int rc = f ? seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1) : -ENOMEM;

    for (size_t i = 0; rc == 0 && i < COUNT(allowed); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
    for (size_t i = 0; rc == 0 && i < COUNT(mapping); i++)
        rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, mapping[i], 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (rc == 0)
        rc = seccomp_load(f);
    if (f)
        seccomp_release(f);
    return rc == 0 ? ST_OK
                   : fail(problem, ST_INTERNAL, "ingest", "could not restrict the reader of uploads: %s", strerror(-rc));
}
#endif

static void answer_problem(struct text *t, const struct problem *p)
{
    text_clear(t);
    text_add(t, "{\"status\":");
    text_add_json(t, status_name(p->status));
    text_add(t, ",\"where\":");
    text_add_json(t, p->where);
    text_add(t, ",\"detail\":");
    text_add_json(t, p->detail);
    text_add(t, "}\n");
}

static void answer_arrays(struct text *t, const struct output *o)
{
    text_add(t, "{\"arrays\":[");
    for (int i = 0; i < o->n; i++) {
        const struct ingest_array *a = &o->array[i];

        text_printf(t, "%s{\"file\":\"%s\",\"dtype\":\"%s\",\"bytes\":%lld,\"offset\":%lld,\"shape\":[", i ? "," : "", a->file,
                    dtype_name(a->type), (long long)a->bytes, (long long)a->offset);
        for (int d = 0; d < a->shape.rank; d++)
            text_printf(t, "%s%lld", d ? "," : "", (long long)a->shape.dim[d]);
        text_add(t, "],\"min\":");
        text_add_number(t, a->min);
        text_add(t, ",\"max\":");
        text_add_number(t, a->max);
        text_add(t, ",\"mean\":");
        text_add_number(t, a->mean);
        if (a->name) {
            text_add(t, ",\"name\":");
            text_add_json(t, a->name);
        }
        if (a->columns) {
            text_add(t, ",\"columns\":");
            text_add_json(t, a->columns);
        }
        text_add(t, "}");
    }
    text_add(t, "]}\n");
}

enum status jail_enter(const struct ingest_limits *limits, struct problem *problem)
{
    TRY(limit_all(limits, problem));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return fail(problem, ST_INTERNAL, "ingest", "could not give up privileges: %s", strerror(errno));
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    keep_to_folder();
#ifdef HORN_SECCOMP
    TRY(filter(problem));
#endif
    return ST_OK;
}

_Noreturn void ingest_child(const char *format, bool named, const char *where, const struct ingest_limits *limits, int answer)
{
    struct text t = text_make(16 << 20);
    struct arena *mem = arena_new();
    struct output o = {.limits = limits, .mem = mem, .array = ARENA_ARRAY(mem, struct ingest_array, MAX_INGEST_ARRAYS)};
    struct problem problem = {.status = ST_OK};
    int fd = open("in", O_RDONLY | O_CLOEXEC);
    enum status status = fd < 0 ? fail_errno(&problem, errno, where, "open the upload") : jail_enter(limits, &problem);

    if (status == ST_OK)
        status = strcmp(format, "model") == 0 ? read_model("in", where, &o, &problem)
                                              : read_upload(fd, format, named, where, &o, &problem);
    if (status == ST_OK)
        answer_arrays(&t, &o);
    else
        answer_problem(&t, &problem);
    for (size_t done = 0; done < t.length;) {
        ssize_t n = write(answer, t.s + done, t.length - done);

        if (n <= 0 && errno != EINTR)
            _exit(2);
        done += n > 0 ? (size_t)n : 0;
    }
    _exit(0);
}
