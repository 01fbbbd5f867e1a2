/* Files as memory, and what happens when they end too early. */
#include "storage/mapped.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/arena.h"
#include "engine/base/thread.h"
#include "tests/test.h"

#define BYTES (1 << 20)

static int file_of(size_t bytes)
{
    char path[] = "/tmp/horn-mapped-XXXXXX";
    int fd = mkstemp(path);
    OWNED(free) char *text = must_alloc(bytes);

    CHECK(fd >= 0);
    (void)unlink(path);
    for (size_t i = 0; i < bytes; i++)
        text[i] = (char)(i * 31 >> 3);
    CHECK_INT(write(fd, text, bytes), (int64_t)bytes);
    return fd;
}

struct copy {
    const struct mapped *map;
    size_t at, n;
    char *to;
    bool whole;
};

static void copy(void *arg)
{
    struct copy *c = arg;

    memcpy(c->to, c->map->data + c->at, c->n);
}

static bool reads(const struct mapped *m, size_t at, size_t n, char *to)
{
    struct copy c = {.map = m, .at = at, .n = n, .to = to};

    return mapped_read(m, copy, &c);
}

static void *cut_and_read(void *arg)
{
    struct copy *c = arg;

    c->whole = reads(c->map, c->at, c->n, c->to);
    return NULL;
}

enum what { SENT, FAULT, SENT_IN_READING };

static void be_sent_one(void *arg)
{
    (void)arg;
    (void)raise(SIGBUS);
}

static void seven(int signal)
{
    (void)signal;
    _exit(7);
}

/* In a child: how a SIGBUS ends that is none of a reader's. -9: by signal 9, else the exit code. */
static int ends(void (*handler)(int), enum what what)
{
    int fd = file_of(BYTES), status;
    struct mapped m;
    pid_t child = fork();

    if (child == 0) {
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
        (void)signal(SIGBUS, handler);
        if (!mapped_open(&m, fd, 0, BYTES) || ftruncate(fd, 0) != 0)
            _exit(99);
        if (what == SENT)
            (void)raise(SIGBUS);
        else if (what == FAULT)
            (void)*(const volatile char *)m.data;
        else
            (void)mapped_read(&m, be_sent_one, NULL);
        _exit(0);
    }
    CHECK(child > 0);
    (void)close(fd);
    CHECK_INT(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* Before any map is opened here: a child that inherits no handler of the map's sees its own chained. */
TEST(a_signal_that_is_no_readers_goes_where_it_went_before)
{
    CHECK_INT(ends(SIG_DFL, SENT), -SIGBUS);
    CHECK_INT(ends(SIG_DFL, FAULT), -SIGBUS);
    CHECK_INT(ends(SIG_DFL, SENT_IN_READING), -SIGBUS);
    CHECK_INT(ends(SIG_IGN, SENT), 0);
    CHECK_INT(ends(SIG_IGN, FAULT), -SIGBUS);
    CHECK_INT(ends(seven, SENT), 7);
    CHECK_INT(ends(seven, FAULT), 7);
}

static void *keeps_its_mode(void *arg)
{
    volatile float small = 1e-38f, scale = 1e-3f;

    thread_compute_mode();
    bool flushed = small * scale == 0;
    (void)cut_and_read(arg);
    return (void *)(intptr_t)(flushed == (small * scale == 0)); /* the handler began with another mode */
}

/* The first that maps in this process: the tests' own handler is set anew for each of them, and the map's once. */
TEST(a_file_cut_underneath_fails_its_reader_and_nobody_else)
{
    int fd = file_of(BYTES);
    OWNED(free) char *got = must_alloc(BYTES);
    struct mapped m;
    pthread_t thread;
    struct copy in_thread = {.map = &m, .at = BYTES / 2, .n = BYTES / 2, .to = got, .whole = true};

    CHECK(mapped_open(&m, fd, 0, BYTES));
    CHECK(reads(&m, 0, BYTES, got));
    CHECK_INT(ftruncate(fd, BYTES / 4), 0);
    for (int i = 0; i < 3; i++)
        CHECK(!reads(&m, BYTES / 2, BYTES / 2, got)); /* the signal is open again behind a fault */
    CHECK(reads(&m, 0, BYTES / 4, got));
    thread_start(&thread, "reader", cut_and_read, &in_thread);
    CHECK_INT(pthread_join(thread, NULL), 0);
    CHECK(!in_thread.whole);
    void *kept;
    in_thread.whole = true;
    thread_start(&thread, "reader", keeps_its_mode, &in_thread);
    CHECK_INT(pthread_join(thread, &kept), 0);
    CHECK(!in_thread.whole && kept);
    mapped_close(&m);
    (void)close(fd);
}

TEST(a_map_begins_at_any_byte_of_the_file)
{
    int fd = file_of(BYTES);
    struct mapped m;
    char got[9000];

    CHECK(mapped_open(&m, fd, 4099, 9000));
    (void)close(fd);
    CHECK(reads(&m, 0, 9000, got));
    for (int i = 0; i < 9000; i++)
        if (got[i] != (char)((i + 4099) * 31 >> 3))
            CHECK_INT(got[i], (char)((i + 4099) * 31 >> 3));
    mapped_close(&m);
    CHECK(!m.data);
    mapped_close(&m);
    CHECK(!mapped_open(&m, -1, 0, 100));
    CHECK(!mapped_open(&m, -1, 0, 0));
}
