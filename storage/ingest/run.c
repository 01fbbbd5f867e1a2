/* The daemon's side of reading an upload: starts the child, waits for its line, holds it against what is possible.
 *
 * With a program set (hornd itself) the child is that program started again: nothing of the daemon's memory is in it. Without (the
 * tests of the library) it is a plain fork. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "storage/ingest/ingest.h"

#define ANSWER_FD  3
#define MAX_ANSWER (16 << 20)

static const char *program; /* set once at start */
static atomic_bool stopping;

struct child {
    pid_t pid;
    int answer;
};

/* In the child, between fork and exec: only what is safe there. */
static void leave_parent(pid_t parent, int answer)
{
    int null = open("/dev/null", O_RDWR), high = fcntl(answer, F_DUPFD, 10);

    if (null < 0 || high < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(high, ANSWER_FD) < 0)
        _exit(3);
    (void)syscall(SYS_close_range, ANSWER_FD + 1, ~0u, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(3); /* it died before the line above */
}

static enum status start(const char *folder, char *const argv[], char *const envp[], const char *format, bool named,
                         const char *where, const struct ingest_limits *limits, struct child *ret, struct problem *problem)
{
    int ends[2];
    pid_t parent = getpid();

    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(problem, errno, where, "make a pipe to the reader of uploads");
    pid_t pid = fork();
    if (pid == 0) {
        leave_parent(parent, ends[1]);
        if (chdir(folder) < 0)
            _exit(3);
        if (!program)
            ingest_child(format, named, where, limits, ANSWER_FD);
        (void)execve(program, argv, envp);
        _exit(4);
    }
    int error = errno;
    (void)close(ends[1]);
    if (pid < 0) {
        (void)close(ends[0]);
        return fail_errno(problem, error, where, "start the reader of uploads");
    }
    *ret = (struct child){.pid = pid, .answer = ends[0]};
    return ST_OK;
}

/* All that the child writes, until it closes its end. false: the time is over, or the daemon's. */
static bool read_answer(const struct child *c, double deadline, struct text *t)
{
    char block[65536];

    for (;;) {
        double left = deadline - clock_seconds();
        struct pollfd p = {.fd = c->answer, .events = POLLIN};

        if (left <= 0 || atomic_load(&stopping))
            return false;
        int rc = poll(&p, 1, left > 0.1 ? 100 : (int)(left * 1000) + 1);
        if (rc < 0 && errno != EINTR)
            return true;
        if (rc <= 0)
            continue;
        ssize_t n = read(c->answer, block, sizeof block);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return true;
        text_add_bytes(t, block, (size_t)n);
    }
}

static enum status how_it_died(int status, const char *where, const struct ingest_limits *l, struct problem *problem)
{
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || WTERMSIG(status) == SIGKILL))
        return fail(problem, ST_INVALID, where, "reading the file was stopped after the %d seconds that are allowed",
                    l->seconds);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 4)
        return fail(problem, ST_INTERNAL, where, "the reader of uploads, %s, cannot be started", program);
    if (WIFSIGNALED(status))
        return fail(problem, ST_INVALID, where,
                    "reading the file failed (signal %d): it is damaged, or needs more than the %" PRId64
                    " bytes of memory allowed",
                    WTERMSIG(status), l->memory);
    return fail(problem, ST_INTERNAL, where, "the reader of uploads ended with code %d and no answer",
                WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static enum status foul(const char *where, struct problem *problem)
{
    return fail(problem, ST_INTERNAL, where, "the reader of uploads gave an answer that cannot be read");
}

static enum status parse_array(const struct json *j, const char *where, struct arena *mem, struct ingest_array *a,
                               struct problem *problem)
{
    const char *file = json_text(json_get(j, "file")), *dtype = json_text(json_get(j, "dtype"));
    const struct json *shape = json_get(j, "shape");
    size_t n = file ? strlen(file) : 0;

    *a = (struct ingest_array){.name = arena_text(mem, json_text(json_get(j, "name"))),
                               .file = arena_text(mem, file),
                               .columns = arena_text(mem, json_text(json_get(j, "columns"))),
                               .min = json_number(json_get(j, "min")),
                               .max = json_number(json_get(j, "max")),
                               .mean = json_number(json_get(j, "mean"))};
    if (n < 4 || n > 16 || strspn(file, "0123456789") != n - 3 || strcmp(file + n - 3, ".h5") != 0 || !dtype ||
        !dtype_find(dtype, &a->type) || !json_int(json_get(j, "bytes"), &a->bytes) ||
        !json_int(json_get(j, "offset"), &a->offset) || json_count(shape) > MAX_RANK)
        return foul(where, problem);
    for (const struct json *d = json_first(shape); d; d = json_next(d)) {
        if (!json_int(d, &a->shape.dim[a->shape.rank]) || a->shape.dim[a->shape.rank] < 0)
            return foul(where, problem);
        a->shape.rank++;
    }
    return ST_OK;
}

static enum status parse_answer(const struct text *t, const char *where, struct arena *mem, struct ingest_answer *ret,
                                struct problem *problem)
{
    OWNED(json_free) struct json *j = NULL;
    struct problem ignored;

    if (t->cut || json_parse(t->s, t->length, &(struct json_limits){.bytes = MAX_ANSWER}, 0, &j, &ignored) != ST_OK)
        return foul(where, problem);
    const char *status = json_text(json_get(j, "status"));
    if (status) {
        const char *at = json_text(json_get(j, "where")), *detail = json_text(json_get(j, "detail"));

        for (int s = ST_OK + 1; s <= ST_DISK_FULL; s++)
            if (strcmp(status, status_name((enum status)s)) == 0)
                return fail(problem, (enum status)s, at ? at : where, "%s", detail ? detail : "");
        return foul(where, problem);
    }
    const struct json *arrays = json_get(j, "arrays");
    int n = json_count(arrays);
    if (json_type(arrays) != JSON_ARRAY || n > MAX_INGEST_ARRAYS)
        return foul(where, problem);
    ret->n = 0;
    ret->array = ARENA_ARRAY(mem, struct ingest_array, n + 1);
    for (const struct json *a = json_first(arrays); a; a = json_next(a))
        TRY(parse_array(a, where, mem, &ret->array[ret->n++], problem));
    return ST_OK;
}

void ingest_program(const char *path)
{
    program = path;
}

void ingest_stop(bool stop)
{
    atomic_store(&stopping, stop);
}

enum status ingest_run(const char *folder, const char *format, const char *array, const char *where,
                       const struct ingest_limits *limits, struct arena *mem, struct ingest_answer *ret,
                       struct problem *problem)
{
    CLEAN(text_done) struct text t = text_make(MAX_ANSWER);
    const char *libraries = getenv("LD_LIBRARY_PATH");
    char bytes[24], seconds[24], memory[24];
    struct child c = {.pid = -1, .answer = -1};
    int status = 0;

    snprintf(bytes, sizeof bytes, "%" PRId64, limits->bytes);
    snprintf(seconds, sizeof seconds, "%d", limits->seconds);
    snprintf(memory, sizeof memory, "%" PRId64, limits->memory);
    char *argv[] = {"hornd", "--ingest", (char *)format, array ? "one" : "named", (char *)where, bytes, seconds, memory, NULL};
    /* One thread: the libraries that hornd is linked with start teams of them as they are loaded. */
    char *envp[] = {"OPENBLAS_NUM_THREADS=1",
                    "OMP_NUM_THREADS=1",
                    "HDF5_USE_FILE_LOCKING=FALSE",
                    "LC_ALL=C",
                    libraries ? (char *)arena_print(mem, "LD_LIBRARY_PATH=%s", libraries) : NULL,
                    NULL};

    if (atomic_load(&stopping))
        return fail(problem, ST_BUSY, where, "the daemon is stopping");
    TRY(start(folder, argv, envp, format, !array, where, limits, &c, problem));
    /* Wall time is no measure of work: four times the processor's, and some for a busy disk. */
    if (!read_answer(&c, clock_seconds() + 4.0 * limits->seconds + 30, &t))
        (void)kill(c.pid, SIGKILL);
    (void)close(c.answer);
    while (waitpid(c.pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (t.length == 0 || t.s[t.length - 1] != '\n') {
        if (atomic_load(&stopping))
            return fail(problem, ST_BUSY, where, "the daemon is stopping");
        return how_it_died(status, where, limits, problem);
    }
    return parse_answer(&t, where, mem, ret, problem);
}

int ingest_main(int argc, char **argv)
{
    struct ingest_limits limits;

    if (argc != 8)
        return 3;
    limits = (struct ingest_limits){
        .bytes = strtoll(argv[5], NULL, 10), .seconds = atoi(argv[6]), .memory = strtoll(argv[7], NULL, 10)};
    ingest_child(argv[2], strcmp(argv[3], "named") == 0, argv[4], &limits, ANSWER_FD);
}
