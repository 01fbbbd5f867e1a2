/* horn: the command-line client of hornd. Each command is a row of the table at the end. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/arena.h"

struct command {
    const char *name, *arguments, *doc;
    int least; /* arguments that must be there */
    int (*run)(int n, char **args);
};

static bool has_suffix(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);

    return n >= m && strcmp(s + n - m, suffix) == 0;
}

/* The flag is taken out of the arguments when it is there. */
static bool take_flag(int *n, char **args, const char *flag)
{
    for (int i = 0; i < *n; i++)
        if (strcmp(args[i], flag) == 0) {
            memmove(args + i, args + i + 1, sizeof *args * (size_t)(*n - i - 1));
            (*n)--;
            return true;
        }
    return false;
}

static struct text read_all(const char *path)
{
    struct text t = text_make((size_t)1 << 30);
    FILE *f = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    char block[1 << 16];
    size_t n;

    if (!f) {
        fprintf(stderr, "horn: %s cannot be opened\n", path);
        exit(1);
    }
    while ((n = fread(block, 1, sizeof block, f)) > 0)
        text_add_bytes(&t, block, n);
    if (f != stdin)
        fclose(f);
    return t;
}

static int run_upload(int n, char **args)
{
    char path[512];

    (void)n;
    snprintf(path, sizeof path, "/api/v1/datasets/%s", args[0]);
    struct answer a = http_send("PUT", path, NULL, NULL, 0, args[1]);
    OWNED(json_free) struct json *j = answer_json(&a);

    const char *array = strchr(args[0], '/');

    for (const struct json *r = json_first(json_get(j, "arrays")); r; r = json_next(r)) {
        if (array && !json_is(json_get(r, "name"), array + 1))
            continue; /* of the data set, but not of this upload */
        printf("%s/%s  %s (", json_text(json_get(j, "name")), json_text(json_get(r, "name")), json_text(json_get(r, "dtype")));
        for (const struct json *d = json_first(json_get(r, "shape")); d; d = json_next(d))
            printf("%s%.0f", d == json_first(json_get(r, "shape")) ? "" : ", ", json_number(d));
        printf(")\n");
    }
    return 0;
}

static int run_submit(int n, char **args)
{
    bool watch = take_flag(&n, args, "--watch"), dry = take_flag(&n, args, "--dry-run");

    if (n < 1) {
        fprintf(stderr, "horn: submit needs a FILE (or -)\n");
        return 2;
    }
    CLEAN(text_done) struct text body = read_all(args[0]);
    struct answer a =
        http_send("POST", dry ? "/api/v1/jobs?dry_run=true" : "/api/v1/jobs", "application/json", body.s, body.length, NULL);
    OWNED(json_free) struct json *j = answer_json(&a);
    int64_t id = 0, seed = 0;

    if (dry) {
        CLEAN(free_owned) char *text = json_print(j, 0);

        puts(text);
        return 0;
    }
    json_int(json_get(j, "id"), &id);
    json_int(json_get(j, "seed"), &seed); /* up to 2^63 - 1: no double holds it */
    for (const struct json *w = json_first(json_get(j, "warnings")); w; w = json_next(w))
        fprintf(stderr, "warning: %s\n", json_text(w));
    printf("job %lld %s: %s of model %s, seed %lld\n", (long long)id, json_text(json_get(j, "state")),
           json_text(json_get(j, "type")), json_text(json_get(j, "model")), (long long)seed);
    fflush(stdout);
    return watch ? watch_job(id) : 0;
}

static int run_jobs(int n, char **args)
{
    (void)n;
    (void)args;
    struct answer a = http_send("GET", "/api/v1/jobs?limit=100", NULL, NULL, 0, NULL);
    OWNED(json_free) struct json *j = answer_json(&a);

    printf("%6s  %-9s %-9s %-24s %9s  %s\n", "id", "type", "state", "model", "epoch", "created");
    for (const struct json *r = json_first(json_get(j, "jobs")); r; r = json_next(r)) {
        const struct json *p = json_get(r, "progress");
        char epoch[32] = "";

        if (json_type(json_get(p, "epoch")) == JSON_NUMBER)
            snprintf(epoch, sizeof epoch, "%.0f/%.0f", json_number(json_get(p, "epoch")), json_number(json_get(p, "epochs")));
        printf("%6.0f  %-9s %-9s %-24s %9s  %s\n", json_number(json_get(r, "id")), json_text(json_get(r, "type")),
               json_text(json_get(r, "state")), json_text(json_get(r, "model")), epoch, json_text(json_get(r, "created_at")));
    }
    return 0;
}

static int64_t job_id(const char *text)
{
    char *end;
    long long id = strtoll(text, &end, 10);

    if (*end || id < 1) {
        fprintf(stderr, "horn: \"%s\" is no job number\n", text);
        exit(2);
    }
    return id;
}

static int run_watch(int n, char **args)
{
    (void)n;
    return watch_job(job_id(args[0]));
}

static int run_cancel(int n, char **args)
{
    char path[128];

    (void)n;
    snprintf(path, sizeof path, "/api/v1/jobs/%lld/cancel", (long long)job_id(args[0]));
    struct answer a = http_send("POST", path, NULL, NULL, 0, NULL);
    OWNED(json_free) struct json *j = answer_json(&a);

    printf("job %s is %s\n", args[0], json_text(json_get(j, "state")));
    return 0;
}

static int run_profile(int n, char **args)
{
    char path[128];

    (void)n;
    snprintf(path, sizeof path, "/api/v1/jobs/%lld/profile?format=table", (long long)job_id(args[0]));
    struct answer a = http_send("GET", path, NULL, NULL, 0, NULL);

    if (a.code != 200)
        json_free(answer_json(&a)); /* says what is wrong, and leaves */
    fputs(a.text.s, stdout);
    text_done(&a.text);
    return 0;
}

static int run_predict(int n, char **args)
{
    char path[256];
    struct answer a;

    (void)n;
    snprintf(path, sizeof path, "/api/v1/models/%s/predict", args[0]);
    if (has_suffix(args[1], ".npy")) {
        a = http_send("POST", path, "application/x-npy", NULL, 0, args[1]);
    } else {
        CLEAN(text_done) struct text body = read_all(args[1]);

        a = http_send("POST", path, "application/json", body.s, body.length, NULL);
    }
    OWNED(json_free) struct json *j = answer_json(&a);
    CLEAN(free_owned) char *text = json_print(j, 0);

    puts(text);
    return 0;
}

static const struct command commands[] = {
    {"upload", "DATASET[/ARRAY] FILE", "store a .npy, .npz, IDX or CSV file, gzipped or not", 2, run_upload},
    {"submit", "FILE [--watch] [--dry-run]", "post a job (- reads standard input)", 1, run_submit},
    {"jobs", "", "list the latest jobs", 0, run_jobs},
    {"watch", "ID", "follow a job with a progress bar", 1, run_watch},
    {"cancel", "ID", "cancel a job", 1, run_cancel},
    {"profile", "ID", "where the time of a job's step goes, kernel by kernel", 1, run_profile},
    {"predict", "MODEL FILE", "send {\"inputs\": ...} or a .npy, print the outputs", 2, run_predict},
};

static int usage(FILE *to, int code)
{
    fprintf(to,
            "horn %s, client of hornd\n\nhorn [--url URL] COMMAND ...    URL: --url, $HORN_URL or http://127.0.0.1:8501\n\n",
            HORN_VERSION);
    for (size_t i = 0; i < COUNT(commands); i++)
        fprintf(to, "  %-8s %-28s %s\n", commands[i].name, commands[i].arguments, commands[i].doc);
    return code;
}

int main(int argc, char **argv)
{
    const char *url = getenv("HORN_URL");
    int at = 1;

    if (argc > 1 && strcmp(argv[1], "--version") == 0)
        return puts("horn " HORN_VERSION) < 0;
    if (argc > 1 && strcmp(argv[1], "--help") == 0)
        return usage(stdout, 0);
    if (argc > 2 && strcmp(argv[1], "--url") == 0) {
        url = argv[2];
        at = 3;
    }
    if (url)
        http_url(url);
    for (size_t i = 0; at < argc && i < COUNT(commands); i++) {
        if (strcmp(argv[at], commands[i].name) != 0)
            continue;
        if (argc - at - 1 < commands[i].least) {
            fprintf(stderr, "usage: horn %s %s\n", commands[i].name, commands[i].arguments);
            return 2;
        }
        return commands[i].run(argc - at - 1, argv + at + 1);
    }
    return usage(stderr, 2);
}
