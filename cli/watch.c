/* Following a job: what Keras prints with verbose=1, one line per epoch, redrawn while it runs. */
#include "cli/cli.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"

#define BAR     20
#define POLL_US 200000

struct watch {
    int64_t id;
    bool terminal;
    int printed; /* epochs whose final line stands */
    double epoch_began;
    bool line_open;
};

static struct json *get(const char *format, int64_t id)
{
    char path[128];

    snprintf(path, sizeof path, format, (long long)id);
    struct answer a = http_send("GET", path, NULL, NULL, 0, NULL);

    return answer_json(&a);
}

static void draw_bar(int64_t done, int64_t all)
{
    int filled = all > 0 ? (int)(done * BAR / all) : BAR;

    printf("%*lld/%lld ", (int)snprintf(NULL, 0, "%lld", (long long)all), (long long)done, (long long)all);
    for (int i = 0; i < BAR; i++)
        fputs(i < filled ? "━" : "─", stdout);
}

static void draw_metrics(const struct json *metrics)
{
    for (const struct json *m = json_first(metrics); m; m = json_next(m))
        if (isfinite(json_number(m)))
            printf(" - %s: %.4f", json_key(m), json_number(m));
}

/* Final lines of the epochs that ended since the last look. */
static void print_finished(struct watch *w, int64_t steps, int epochs)
{
    OWNED(json_free) struct json *h = get("/api/v1/jobs/%lld/history", w->id);
    const struct json *epoch = json_get(h, "epoch");
    int n = json_count(epoch), fresh = n - w->printed;
    double now = clock_seconds(), seconds = fresh > 0 ? (now - w->epoch_began) / fresh : 0;

    for (; w->printed < n; w->printed++) {
        printf("%sEpoch %d/%d\n", w->terminal ? "\r\033[K" : "", (int)json_number(json_at(epoch, w->printed)) + 1, epochs);
        draw_bar(steps, steps);
        printf(" %.0fs %.3gms/step", seconds, steps > 0 ? seconds * 1000 / (double)steps : 0);
        for (const struct json *m = json_first(h); m; m = json_next(m))
            if (strcmp(json_key(m), "epoch") != 0 && isfinite(json_number(json_at(m, w->printed))))
                printf(" - %s: %.4f", json_key(m), json_number(json_at(m, w->printed)));
        printf("\n");
        w->epoch_began = now;
    }
    w->line_open = false;
    fflush(stdout);
}

static void draw_running(struct watch *w, const struct json *job)
{
    const struct json *p = json_get(job, "progress");
    int64_t step = 0, steps = 0;

    if (!w->terminal || !json_int(json_get(p, "step"), &step) || !json_int(json_get(p, "steps_per_epoch"), &steps))
        return;
    printf("\r\033[KEpoch %.0f/%.0f ", json_number(json_get(p, "epoch")), json_number(json_get(p, "epochs")));
    draw_bar(step, steps);
    if (isfinite(json_number(json_get(p, "samples_per_second"))))
        printf(" %.0f samples/s", json_number(json_get(p, "samples_per_second")));
    if (isfinite(json_number(json_get(p, "eta_seconds"))))
        printf(" - ETA: %.0fs", json_number(json_get(p, "eta_seconds")));
    draw_metrics(json_get(job, "metrics"));
    w->line_open = true;
    fflush(stdout);
}

static int print_end(struct watch *w, const struct json *job, const char *state)
{
    const struct json *result = json_get(job, "result"), *problem = json_get(job, "problem");

    if (w->line_open)
        printf("\n");
    printf("job %lld is %s", (long long)w->id, state);
    if (json_text(json_get(result, "model")))
        printf(": model %s version %.0f", json_text(json_get(result, "model")), json_number(json_get(result, "version")));
    if (json_text(json_get(problem, "detail")))
        printf(": %s", json_text(json_get(problem, "detail")));
    printf("\n");
    if (strcmp(json_text(json_get(job, "type")), "evaluate") == 0) {
        printf("evaluation");
        draw_metrics(json_get(job, "metrics"));
        printf("\n");
    }
    return strcmp(state, "done") == 0 ? 0 : 1;
}

int watch_job(int64_t id)
{
    struct watch w = {.id = id, .terminal = isatty(1), .epoch_began = clock_seconds()};

    for (;; usleep(POLL_US)) {
        OWNED(json_free) struct json *job = get("/api/v1/jobs/%lld", id);
        const struct json *p = json_get(job, "progress");
        const char *state = json_text(json_get(job, "state"));
        bool running = strcmp(state, "running") == 0,
             ended = !running && strcmp(state, "queued") != 0 && strcmp(state, "paused") != 0;
        int64_t epoch = 0, epochs = 0, steps = 0;

        json_int(json_get(p, "epoch"), &epoch);
        json_int(json_get(p, "epochs"), &epochs);
        json_int(json_get(p, "steps_per_epoch"), &steps);
        if (strcmp(json_text(json_get(job, "type")), "fit") == 0 && (epoch > w.printed + 1 || ended))
            print_finished(&w, steps, (int)epochs);
        if (ended)
            return print_end(&w, job, state);
        if (running)
            draw_running(&w, job);
    }
}
