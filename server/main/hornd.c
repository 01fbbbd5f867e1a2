/* hornd: the order of start and stop, and signals.
 *
 *     settings -> log -> memory limit -> database (lock, recovery) -> registry -> lanes -> HTTP -> ready
 *
 * and back in the other order: first the lanes, which checkpoint while requests are still answered. The main thread waits for
 * signals; all other threads have them blocked. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef HORN_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

#include "engine/base/thread.h"
#include "engine/run/backend.h"
#include "server/http.h"
#include "server/job.h"
#include "server/lane.h"
#include "server/listen.h"
#include "server/log.h"
#include "server/registry.h"
#include "server/server.h"
#include "server/settings.h"
#include "storage/datasets.h"
#include "storage/db.h"

static void tell_systemd(const char *state)
{
#ifdef HORN_SYSTEMD
    (void)sd_notify(0, state);
#else
    (void)state;
#endif
}

static void raise_file_limit(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

static pthread_t main_thread;

static void hand_over(int sig)
{
    (void)pthread_kill(main_thread, sig);
}

/* Signals that end the daemon, blocked before our first thread starts, so that all threads inherit that. Libraries start threads before
 * main (OpenBLAS its pool): what is delivered to one of those while we do not wait would end the process, and is handed over instead. */
static sigset_t block_signals(void)
{
    struct sigaction pass = {.sa_handler = hand_over, .sa_flags = SA_RESTART};
    sigset_t ours;

    main_thread = pthread_self();

    sigemptyset(&ours);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ours, NULL);
    (void)sigaction(SIGTERM, &pass, NULL);
    (void)sigaction(SIGINT, &pass, NULL);
    (void)sigaction(SIGHUP, &pass, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    return ours;
}

static void wait_for_signal(const sigset_t *ours, struct http *http)
{
    for (;;) {
        struct timespec second = {.tv_sec = 1};
        int sig = sigtimedwait(ours, NULL, &second);

        if (sig == SIGTERM || sig == SIGINT) {
            log_event(LOG_INFO, 0, "%s: stopping", sig == SIGTERM ? "SIGTERM" : "SIGINT");
            return;
        }
        http_sweep(http);
        tell_systemd("WATCHDOG=1");
    }
}

static enum status serve(const struct settings *s, const sigset_t *ours, struct problem *problem)
{
    static struct server server;
    OWNED(db_close) struct db *db = NULL;
    struct http *http = NULL;
    enum status status;

    TRY(listen_check(s->listen, s->allow_anyone, problem));
    TRY(listen_check_free(s->listen, problem)); /* before jobs are claimed that a second daemon would only let go again */
    TRY(db_open(s->data_dir, &db, problem));
    server.settings = s;
    server.db = db;
    server.started_ms = clock_unix_ms();
    TRY(registry_new(db, s->serving_memory, &server.registry, problem));
    status = lanes_start(&server, &server.lanes, problem);
    if (status == ST_OK)
        status = http_start(&server, &http, problem);
    if (status == ST_OK) {
        atomic_store(&server.ready, true);
        printf("horn: ready on %s\n", http_url(http));
        (void)fflush(stdout);
        log_event(LOG_INFO, 0, "ready on %s, version %s, data in %s, %lld lane%s, %lld thread%s each", http_url(http),
                  HORN_VERSION, s->data_dir, (long long)s->lanes, s->lanes == 1 ? "" : "s", (long long)s->threads,
                  s->threads == 1 ? "" : "s");
        tell_systemd("READY=1");
        wait_for_signal(ours, http);
        tell_systemd("STOPPING=1");
        atomic_store(&server.stopping, true);
    }
    lanes_stop(server.lanes);
    http_stop(http);
    lanes_free(server.lanes);
    server.registry = registry_free(server.registry);
    return status;
}

/* The JSON document in a file. */
static enum status read_document(const char *path, int64_t limit, struct text *to, struct problem *problem)
{
    FILE *f = fopen(path, "re");
    char block[1 << 16];
    size_t n;
    bool failed;

    if (!f)
        return fail(problem, ST_INVALID, "--profile", "the job %s cannot be read: %s", path, strerror(errno));
    *to = text_make((size_t)limit);
    while ((n = fread(block, 1, sizeof block, f)) > 0 && !to->cut)
        text_add_bytes(to, block, n);
    failed = ferror(f);
    (void)fclose(f);
    if (failed)
        return fail(problem, ST_INVALID, "--profile", "the job %s cannot be read: %s", path, strerror(errno));
    if (to->cut)
        return fail(problem, ST_TOO_LARGE, "--profile", "the job %s has more than body_limit's %lld bytes", path,
                    (long long)limit);
    return ST_OK;
}

/* The data directory, in which the job's data sets and versions are. */
static enum status open_data(const struct settings *s, struct db **ret, struct problem *problem)
{
    enum status status = db_open(s->data_dir, ret, problem);
    struct problem why = *problem;

    if (status != ST_CONFLICT)
        return status;
    return fail(problem, status, why.where, "%.300s; a running daemon is asked for the profile of a job: horn profile ID",
                why.detail);
}

/* --profile FILE: judged as a POST of it would be, then clocked in this thread with the threads of a lane. */
static enum status profile_file(const struct settings *s, struct problem *problem)
{
    const struct backend *cpu = backend_cpu();
    const struct device_options options = {.threads = (int)s->threads, .simd = settings_simd(s)};
    OWNED(db_close) struct db *db = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    CLEAN(text_done) struct text document = {0};
    OWNED(json_free) struct json *json = NULL;
    OWNED(work_free) struct work *work = NULL;
    OWNED(profile_free) struct profile *profile = NULL;
    CLEAN(text_done) struct text table = text_make(64 << 20);
    struct job_body body = {0};
    struct device *device;
    enum status status;

    TRY(read_document(s->profile, s->body_limit, &document, problem));
    TRY(job_read(document.s, mem, &json, &body, problem));
    TRY(open_data(s, &db, problem));
    TRY(work_open(db, &body, &work, problem));
    TRY(cpu->open(0, &options, &device, problem));
    cpu->enter(device);
    status = work_profile(work, body.seed < 0 ? 0 : (uint64_t)body.seed, cpu, device, &profile, problem);
    if (status == ST_OK) {
        printf("%s of %s\n", work_names[work->type], work->name);
        profile_table(profile, &table);
        (void)fputs(table.s, stdout);
    }
    cpu->close(device);
    return status;
}

static int complain(const struct problem *p)
{
    fprintf(stderr, "hornd: %s%s%s\n", p->where, p->where[0] ? ": " : "", p->detail);
    return 1;
}

int main(int argc, char **argv)
{
    struct settings settings;
    struct problem problem = {0};
    enum settings_action action;
    enum status status;
    sigset_t ours;
    int code = 0;

    if (argc > 1 && strcmp(argv[1], "--ingest") == 0)
        return ingest_main(argc, argv);
    ours = block_signals();
    status = settings_read(argc, argv, &settings, &action, &problem);
    if (status == ST_OK && action == SETTINGS_VERSION) {
        printf("hornd %s\n", HORN_VERSION);
    } else if (status == ST_OK && action == SETTINGS_HELP) {
        CLEAN(text_done) struct text help = text_make(64 << 10);

        settings_help(&help);
        (void)fputs(help.s, stdout);
    } else if (status == ST_OK && action == SETTINGS_CHECK) {
        CLEAN(text_done) struct text all = text_make(64 << 10);

        status = listen_check(settings.listen, settings.allow_anyone, &problem);
        settings_print(&settings, &all);
        if (status == ST_OK)
            (void)fputs(all.s, stdout);
    } else if (status == ST_OK && action == SETTINGS_PROFILE) {
        log_setup(LOG_WARNING, (enum log_format)settings.log_format);
        memory_limit_set((size_t)settings.memory_limit);
        status = profile_file(&settings, &problem);
    } else if (status == ST_OK) {
        log_setup((enum log_level)settings.log_level, (enum log_format)settings.log_format);
        raise_file_limit();
        memory_limit_set((size_t)settings.memory_limit);
        ingest_program("/proc/self/exe");
        status = serve(&settings, &ours, &problem);
        if (status == ST_OK)
            log_event(LOG_INFO, 0, "stopped");
    }
    if (status != ST_OK)
        code = complain(&problem);
    settings_done(&settings);
    return code;
}
