/* Counters and their page (Prometheus text format 0.0.4). */
#include "server/metrics.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "server/lane.h"
#include "server/registry.h"
#include "server/server.h"
#include "storage/jobs.h"

enum { N_CODES = 600, N_BUCKETS = 12 };

static const double bounds[N_BUCKETS]; /* seconds */
static atomic_llong requests[N_CODES];
static atomic_llong buckets[N_BUCKETS + 1], predict_ns, predict_samples, predict_batches;
static atomic_llong trained_samples, attempts, checkpoints, checkpoint_ns;

void metrics_request(int code)
{
    if (code > 0 && code < N_CODES)
        atomic_fetch_add_explicit(&requests[code], 1, memory_order_relaxed);
}

void metrics_predict(double seconds, int64_t samples)
{
    int i = 0;

    while (i < N_BUCKETS && seconds > bounds[i])
        i++;
    atomic_fetch_add_explicit(&buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&predict_ns, (long long)(seconds * 1e9), memory_order_relaxed);
    atomic_fetch_add_explicit(&predict_samples, samples, memory_order_relaxed);
}

void metrics_batch(void)
{
    atomic_fetch_add_explicit(&predict_batches, 1, memory_order_relaxed);
}

void metrics_samples(int64_t n)
{
    atomic_fetch_add_explicit(&trained_samples, n, memory_order_relaxed);
}

void metrics_attempt(void)
{
    atomic_fetch_add_explicit(&attempts, 1, memory_order_relaxed);
}

void metrics_checkpoint(double seconds)
{
    atomic_fetch_add_explicit(&checkpoints, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&checkpoint_ns, (long long)(seconds * 1e9), memory_order_relaxed);
}

static void head(struct text *t, const char *name, const char *type, const char *help)
{
    text_printf(t, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one_value(struct text *t, const char *name, const char *type, const char *help, double value)
{
    head(t, name, type, help);
    text_printf(t, "%s ", name);
    text_add_number(t, value);
    text_add_char(t, '\n');
}

static double resident_bytes(void)
{
    long long size = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (!f)
        return 0;
    if (fscanf(f, "%lld %lld", &size, &resident) != 2)
        resident = 0;
    (void)fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE);
}

static void print_predict(struct text *t)
{
    long long sum = 0;

    head(t, "horn_predict_seconds", "histogram", "Time from a predict call's body to its answer.");
    for (int i = 0; i <= N_BUCKETS; i++) {
        sum += atomic_load_explicit(&buckets[i], memory_order_relaxed);
        if (i < N_BUCKETS)
            text_printf(t, "horn_predict_seconds_bucket{le=\"%g\"} %lld\n", bounds[i], sum);
        else
            text_printf(t, "horn_predict_seconds_bucket{le=\"+Inf\"} %lld\n", sum);
    }
    text_printf(t, "horn_predict_seconds_sum %.9g\n", (double)atomic_load(&predict_ns) * 1e-9);
    text_printf(t, "horn_predict_seconds_count %lld\n", sum);
    one_value(t, "horn_predict_samples_total", "counter", "Samples answered by predict calls.",
              (double)atomic_load(&predict_samples));
    one_value(t, "horn_predict_batches_total", "counter", "Batches in which predict calls were computed.",
              (double)atomic_load(&predict_batches));
}

void metrics_print(struct server *s, struct text *t)
{
    head(t, "horn_info", "gauge", "The version that runs.");
    text_printf(t, "horn_info{version=\"%s\"} 1\n", HORN_VERSION);
    one_value(t, "horn_uptime_seconds", "gauge", "Time since the start.", (double)(clock_unix_ms() - s->started_ms) / 1000);
    head(t, "horn_jobs", "gauge", "Jobs by state.");
    for (int i = JOB_QUEUED; i <= JOB_CANCELLED; i++)
        text_printf(t, "horn_jobs{state=\"%s\"} %lld\n", job_state_name((enum job_state)i), (long long)jobs_count(s->db, i));
    one_value(t, "horn_queue_length", "gauge", "Jobs that wait for a lane.", (double)jobs_count(s->db, JOB_QUEUED));
    one_value(t, "horn_lanes", "gauge", "Lanes.", s->lanes ? lanes_count(s->lanes) : 0);
    one_value(t, "horn_lanes_busy", "gauge", "Lanes that run a job.", s->lanes ? lanes_busy(s->lanes) : 0);
    one_value(t, "horn_job_attempts_total", "counter", "Jobs that a lane began or went on with.",
              (double)atomic_load(&attempts));
    one_value(t, "horn_samples_trained_total", "counter", "Samples that went through training steps.",
              (double)atomic_load(&trained_samples));
    one_value(t, "horn_checkpoints_total", "counter", "Checkpoints written.", (double)atomic_load(&checkpoints));
    one_value(t, "horn_checkpoint_seconds_total", "counter", "Time spent writing checkpoints.",
              (double)atomic_load(&checkpoint_ns) * 1e-9);
    head(t, "horn_http_requests_total", "counter", "Answered requests by status code.");
    for (int i = 0; i < N_CODES; i++) {
        long long n = atomic_load_explicit(&requests[i], memory_order_relaxed);

        if (n)
            text_printf(t, "horn_http_requests_total{code=\"%d\"} %lld\n", i, n);
    }
    print_predict(t);
    one_value(t, "horn_models_loaded", "gauge", "Model versions in memory.", registry_count(s->registry));
    one_value(t, "horn_models_loaded_bytes", "gauge", "Bytes of the model versions in memory.",
              (double)registry_bytes(s->registry));
    one_value(t, "horn_memory_used_bytes", "gauge", "Tensors and data in memory.", (double)memory_used());
    one_value(t, "horn_memory_limit_bytes", "gauge", "The setting memory_limit.", (double)memory_limit());
    one_value(t, "process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes());
}

static const double bounds[N_BUCKETS] = {50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.1, 0.5, 2};
