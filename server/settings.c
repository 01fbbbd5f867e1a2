/* The settings table and its three readers: config file, environment, flags.
 *
 * All three bring texts, so that one function reads a value and one message says what is wrong with it. The file is lines of
 * `key = value`; `#` begins a comment at the start of a line or behind a blank. Sizes take the suffixes K, M, G and T, in powers
 * of 1024. */
#include "server/settings.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/arena.h"
#include "engine/base/thread.h"

enum setting_type { SETTING_TEXT, SETTING_INT, SETTING_SIZE, SETTING_SECONDS, SETTING_CHOICE, SETTING_BOOL };

struct setting {
    const char *key;
    enum setting_type type;
    size_t offset;
    double preset, min, max;
    const char *const *choices; /* CHOICE: ends with NULL */
    const char *preset_text;    /* TEXT; elsewhere what --help says about a preset that is counted from the machine */
    const char *doc;
};

static const struct setting table[];

enum { MAX_FILE = 64 << 10, MAX_VALUE = 4096 };

static const struct setting *setting_find(const char *key)
{
    for (const struct setting *r = table; r->key; r++) {
        if (strcmp(r->key, key) == 0)
            return r;
    }
    return NULL;
}

static void *member(struct settings *s, const struct setting *r)
{
    return (char *)s + r->offset;
}

static const void *member_const(const struct settings *s, const struct setting *r)
{
    return (const char *)s + r->offset;
}

/* "--checkpoint-seconds" or "HORN_CHECKPOINT_SECONDS" */
static void flag_name(const struct setting *r, char to[64])
{
    snprintf(to, 64, "--%s", r->key);
    for (char *p = to; *p; p++) {
        if (*p == '_')
            *p = '-';
    }
}

static void variable_name(const struct setting *r, char to[64])
{
    snprintf(to, 64, "HORN_%s", r->key);
    for (char *p = to; *p; p++) {
        if (*p >= 'a' && *p <= 'z')
            *p = (char)(*p - 'a' + 'A');
    }
}

static enum status read_number(const struct setting *r, const char *value, const char *where, double *ret,
                               struct problem *problem)
{
    static const char suffixes[] = "KMGT";
    char *end;
    const char *suffix;
    double x;

    errno = 0;
    x = strtod(value, &end);
    if (end == value || !isfinite(x) || errno == ERANGE)
        return fail(problem, ST_INVALID, where, "%s is a number, not \"%s\"", r->key, value);
    if (r->type == SETTING_SIZE && *end && (suffix = strchr(suffixes, *end))) {
        x = ldexp(x, 10 * (int)(suffix - suffixes + 1));
        end++;
        if (strcmp(end, "iB") == 0 || strcmp(end, "B") == 0)
            end += strlen(end);
    }
    if (*end)
        return fail(problem, ST_INVALID, where, "%s has \"%s\" behind the number", r->key, end);
    if (r->type != SETTING_SECONDS && x != floor(x))
        return fail(problem, ST_INVALID, where, "%s is a whole number, not %s", r->key, value);
    if (!(x >= r->min && x <= r->max))
        return fail(problem, ST_INVALID, where, "%s is %s, it must be from %.15g to %.15g", r->key, value, r->min, r->max);
    *ret = x;
    return ST_OK;
}

static enum status set_choice(struct settings *s, const struct setting *r, const char *value, const char *where,
                              struct problem *problem)
{
    CLEAN(text_done) struct text all = text_make(256);

    for (int i = 0; r->choices[i]; i++) {
        if (strcmp(r->choices[i], value) == 0) {
            *(int *)member(s, r) = i;
            return ST_OK;
        }
        text_printf(&all, "%s%s", i ? ", " : "", r->choices[i]);
    }
    return fail(problem, ST_INVALID, where, "%s is \"%s\", it must be one of %s", r->key, value, all.s);
}

static enum status set(struct settings *s, const struct setting *r, const char *value, const char *where,
                       struct problem *problem)
{
    double x = 0;

    switch (r->type) {
    case SETTING_TEXT:
        if (strlen(value) > MAX_VALUE)
            return fail(problem, ST_INVALID, where, "%s is longer than %d bytes", r->key, MAX_VALUE);
        free(*(char **)member(s, r));
        *(char **)member(s, r) = must_text(value);
        return ST_OK;
    case SETTING_INT:
    case SETTING_SIZE:
        TRY(read_number(r, value, where, &x, problem));
        *(int64_t *)member(s, r) = (int64_t)x;
        return ST_OK;
    case SETTING_SECONDS:
        TRY(read_number(r, value, where, &x, problem));
        *(double *)member(s, r) = x;
        return ST_OK;
    case SETTING_CHOICE:
        return set_choice(s, r, value, where, problem);
    case SETTING_BOOL:
        if (strcmp(value, "true") == 0 || strcmp(value, "1") == 0 || strcmp(value, "yes") == 0)
            *(bool *)member(s, r) = true;
        else if (strcmp(value, "false") == 0 || strcmp(value, "0") == 0 || strcmp(value, "no") == 0)
            *(bool *)member(s, r) = false;
        else
            return fail(problem, ST_INVALID, where, "%s is true or false, not \"%s\"", r->key, value);
        return ST_OK;
    }
    return ST_OK;
}

static void presets(struct settings *s)
{
    for (const struct setting *r = table; r->key; r++) {
        switch (r->type) {
        case SETTING_TEXT:
            *(char **)member(s, r) = must_text(r->preset_text ? r->preset_text : "");
            break;
        case SETTING_INT:
        case SETTING_SIZE:
            *(int64_t *)member(s, r) = (int64_t)r->preset;
            break;
        case SETTING_SECONDS:
            *(double *)member(s, r) = r->preset;
            break;
        case SETTING_CHOICE:
            *(int *)member(s, r) = (int)r->preset;
            break;
        case SETTING_BOOL:
            *(bool *)member(s, r) = r->preset != 0;
            break;
        }
    }
}

/* Blanks around s cut off, in place. */
static char *trim(char *s)
{
    size_t n;

    while (*s == ' ' || *s == '\t')
        s++;
    n = strlen(s);
    while (n && (s[n - 1] == ' ' || s[n - 1] == '\t' || s[n - 1] == '\r' || s[n - 1] == '\n'))
        s[--n] = 0;
    return s;
}

static void cut_comment(char *line)
{
    for (char *p = line; *p; p++) {
        if (*p == '#' && (p == line || p[-1] == ' ' || p[-1] == '\t')) {
            *p = 0;
            return;
        }
    }
}

static enum status read_line(struct settings *s, char *line, const char *where, struct problem *problem)
{
    const struct setting *r;
    char *equals, *key, *value;

    cut_comment(line);
    line = trim(line);
    if (!*line)
        return ST_OK;
    equals = strchr(line, '=');
    if (!equals)
        return fail(problem, ST_INVALID, where, "\"%s\" is not `key = value`", line);
    *equals = 0;
    key = trim(line);
    value = trim(equals + 1);
    r = setting_find(key);
    if (!r)
        return fail(problem, ST_INVALID, where, "\"%s\" is no setting; `hornd --help` lists them all", key);
    return set(s, r, value, where, problem);
}

static void close_file(FILE **f)
{
    if (*f)
        (void)fclose(*f);
}

static enum status read_file(struct settings *s, const char *path, struct problem *problem)
{
    CLEAN(close_file) FILE *f = fopen(path, "re");
    char line[MAX_VALUE + 128], where[256];
    size_t bytes = 0;

    if (!f)
        return fail(problem, ST_INVALID, path, "the config file cannot be read: %s", strerror(errno));
    for (int number = 1; fgets(line, sizeof line, f); number++) {
        size_t n = strlen(line);

        snprintf(where, sizeof where, "%s:%d", path, number);
        bytes += n;
        if (bytes > MAX_FILE || (n && line[n - 1] != '\n' && !feof(f)))
            return fail(problem, ST_INVALID, where, "the file has a line over %d bytes, or over %d bytes in all", MAX_VALUE,
                        MAX_FILE);
        TRY(read_line(s, line, where, problem));
    }
    if (ferror(f))
        return fail(problem, ST_INVALID, path, "the config file cannot be read: %s", strerror(errno));
    return ST_OK;
}

/* The value of a flag in `--flag value` or `--flag=value`; NULL where argv[*i] is not `flag`. */
static const char *flag_value(int argc, char **argv, int *i, const char *flag, bool bare)
{
    size_t n = strlen(flag);

    if (strncmp(argv[*i], flag, n) != 0 || (argv[*i][n] && argv[*i][n] != '='))
        return NULL;
    if (argv[*i][n] == '=')
        return argv[*i] + n + 1;
    if (bare)
        return "true";
    return *i + 1 < argc ? argv[++*i] : "";
}

static enum status read_flag(struct settings *s, int argc, char **argv, int *i, struct problem *problem)
{
    for (const struct setting *r = table; r->key; r++) {
        char flag[64];
        const char *value;

        flag_name(r, flag);
        value = flag_value(argc, argv, i, flag, r->type == SETTING_BOOL);
        if (value)
            return set(s, r, value, flag, problem);
    }
    return fail(problem, ST_INVALID, argv[*i], "no such argument; `hornd --help` lists them all");
}

/* What depends on the machine. */
static void count_machine(struct settings *s)
{
    if (!s->lanes)
        s->lanes = 1;
    if (!s->threads)
        s->threads = cpu_count() > s->lanes ? cpu_count() / s->lanes : 1;
    if (!s->http_threads)
        s->http_threads = cpu_count() < 4 ? cpu_count() : 4;
    if (!s->memory_limit)
        s->memory_limit = (int64_t)(memory_bytes() / 10 * 8);
    if (!s->serving_memory)
        s->serving_memory = s->memory_limit / 4;
}

static enum status find_data_dir(struct settings *s, struct problem *problem)
{
    const char *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    CLEAN(text_done) struct text path = text_make(PATH_MAX);

    if (*s->data_dir)
        return ST_OK;
    if (geteuid() == 0)
        text_add(&path, "/var/lib/horn");
    else if (base && *base == '/')
        text_printf(&path, "%s/horn", base);
    else if (home && *home == '/')
        text_printf(&path, "%s/.local/share/horn", home);
    else
        return fail(problem, ST_INVALID, "data_dir", "neither HOME nor XDG_DATA_HOME is set; say --data-dir");
    free(s->data_dir);
    s->data_dir = text_steal(&path);
    return ST_OK;
}

enum status settings_read(int argc, char **argv, struct settings *s, enum settings_action *action, struct problem *problem)
{
    const char *config = getenv("HORN_CONFIG");

    *s = (struct settings){0};
    *action = SETTINGS_RUN;
    presets(s);
    for (int i = 1; i < argc; i++) { /* first what decides how the rest is read */
        const char *value = flag_value(argc, argv, &i, "--config", false);

        if (value)
            config = value;
    }
    if (config && *config)
        TRY(read_file(s, config, problem));
    for (const struct setting *r = table; r->key; r++) {
        char name[64];
        const char *value;

        variable_name(r, name);
        value = getenv(name);
        if (value && *value)
            TRY(set(s, r, value, name, problem));
    }
    for (int i = 1; i < argc; i++) {
        const char *value;

        if (strcmp(argv[i], "--check") == 0)
            *action = SETTINGS_CHECK;
        else if (strcmp(argv[i], "--version") == 0)
            *action = SETTINGS_VERSION;
        else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            *action = SETTINGS_HELP;
        else if (flag_value(argc, argv, &i, "--config", false))
            continue;
        else if ((value = flag_value(argc, argv, &i, "--profile", false))) {
            if (!*value)
                return fail(problem, ST_INVALID, "--profile", "needs the FILE of a job, as it would be posted");
            *action = SETTINGS_PROFILE;
            s->profile = value;
        } else
            TRY(read_flag(s, argc, argv, &i, problem));
    }
    if (*action == SETTINGS_VERSION || *action == SETTINGS_HELP)
        return ST_OK;
    count_machine(s);
    return find_data_dir(s, problem);
}

void settings_done(struct settings *s)
{
    for (const struct setting *r = table; r->key; r++) {
        if (r->type == SETTING_TEXT)
            *(char **)member(s, r) = free_null(*(char **)member(s, r));
    }
}

static const char *const simd_names[];

const char *settings_simd(const struct settings *s)
{
    return s->simd ? simd_names[s->simd] : NULL;
}

static void print_size(struct text *t, double bytes)
{
    static const char suffixes[] = " KMGT";
    int i = 0;

    while (i < 4 && bytes >= 1024 && fmod(bytes, 1024) == 0) {
        bytes /= 1024;
        i++;
    }
    text_printf(t, "%.0f%.*s", bytes, i > 0, suffixes + i);
}

static void print_preset(const struct setting *r, struct text *t)
{
    if (r->preset_text)
        text_add(t, r->preset_text);
    else if (r->type == SETTING_SIZE)
        print_size(t, r->preset);
    else if (r->type == SETTING_CHOICE)
        text_add(t, r->choices[(int)r->preset]);
    else if (r->type == SETTING_BOOL)
        text_add(t, r->preset ? "true" : "false");
    else if (r->type != SETTING_TEXT)
        text_printf(t, "%.15g", r->preset);
}

void settings_help(struct text *t)
{
    text_add(t, "hornd trains and serves Keras models over HTTP.\n\n"
                "usage: hornd [--config FILE] [--check] [--profile FILE] [--version] [--help] [settings]\n\n"
                "  --config FILE   lines of `key = value`; # begins a comment (also HORN_CONFIG)\n"
                "  --check         read all settings, say whether they are right, and leave\n"
                "  --profile FILE  print where the time of a step goes for the job in FILE, kernel by kernel, and leave\n\n"
                "Each setting is a key of the config file, a variable and a flag; a flag goes before the\n"
                "variable, that before the file. Sizes take K, M, G, T.\n\n");
    for (const struct setting *r = table; r->key; r++) {
        char flag[64], variable[64];

        flag_name(r, flag);
        variable_name(r, variable);
        text_printf(t, "  %s, %s", flag, variable);
        text_printf(t, "\n      %s (", r->doc);
        if (r->choices) {
            for (int i = 0; r->choices[i]; i++)
                text_printf(t, "%s%s", i ? ", " : "", r->choices[i]);
            text_add(t, "; ");
        }
        text_add(t, "preset: ");
        print_preset(r, t);
        text_add(t, ")\n");
    }
}

void settings_print(const struct settings *s, struct text *t)
{
    for (const struct setting *r = table; r->key; r++) {
        const void *at = member_const(s, r);

        text_printf(t, "%s = ", r->key);
        switch (r->type) {
        case SETTING_TEXT:
            text_add(t, *(char *const *)at);
            break;
        case SETTING_INT:
            text_printf(t, "%lld", (long long)*(const int64_t *)at);
            break;
        case SETTING_SIZE:
            print_size(t, (double)*(const int64_t *)at);
            break;
        case SETTING_SECONDS:
            text_printf(t, "%.15g", *(const double *)at);
            break;
        case SETTING_CHOICE:
            text_add(t, r->choices[*(const int *)at]);
            break;
        case SETTING_BOOL:
            text_add(t, *(const bool *)at ? "true" : "false");
            break;
        }
        text_add_char(t, '\n');
    }
}

static const char *const format_names[] = {"text", "json", NULL};
static const char *const level_names[] = {"debug", "info", "warning", "error", NULL};
static const char *const simd_names[] = {"auto", "v2", "v3", "v4", NULL};

#define AT(name) offsetof(struct settings, name)
#define KIB      1024.0
#define MIB      (KIB * KIB)
#define GIB      (KIB * MIB)

static const struct setting table[] = {
    {"data_dir", SETTING_TEXT, AT(data_dir),
     .doc = "folder that holds everything; empty: /var/lib/horn for root, else $XDG_DATA_HOME/horn"},
    {"listen", SETTING_TEXT, AT(listen), .preset_text = "127.0.0.1:8501",
     .doc = "ADDRESS:PORT; port 0 takes a free one and the ready line says which"},
    {"allow_anyone", SETTING_BOOL, AT(allow_anyone), .doc = "needed to listen on another address than loopback"},
    {"hosts", SETTING_TEXT, AT(hosts), .doc = "further host names, by commas, that requests may be addressed to"},
    {"lanes", SETTING_INT, AT(lanes), .preset = 1, .min = 1, .max = 256, .doc = "jobs that run at the same time"},
    {"threads", SETTING_INT, AT(threads), .max = 1024, .preset_text = "the cores divided by lanes",
     .doc = "threads of each lane; a job's bits depend on their number"},
    {"simd", SETTING_CHOICE, AT(simd), .choices = simd_names, .doc = "x86-64 level of the CPU kernels"},
    {"checkpoint_seconds", SETTING_SECONDS, AT(checkpoint_seconds), .preset = 10, .min = 0.01, .max = 86400,
     .doc = "time between two checkpoints of a training"},
    {"http_threads", SETTING_INT, AT(http_threads), .max = 64, .preset_text = "all cores, at most 4",
     .doc = "threads that read and answer requests"},
    {"request_threads", SETTING_INT, AT(request_threads), .preset = 4, .min = 1, .max = 256,
     .doc = "threads for requests that wait for the disk or compute longer; as many again, at most 4, for uploads"},
    {"max_batch", SETTING_INT, AT(max_batch), .preset = 32, .min = 1, .max = 1024,
     .doc = "samples of concurrent predict calls that are computed together"},
    {"batch_delay_us", SETTING_INT, AT(batch_delay_us), .max = 100000,
     .doc = "microseconds that a predict call waits for others to be computed with; 0: only those that are there already"},
    {"memory_limit", SETTING_SIZE, AT(memory_limit), .max = 0x1p50, .preset_text = "80 % of the machine or its cgroup",
     .doc = "bytes for tensors, data and requests in all"},
    {"serving_memory", SETTING_SIZE, AT(serving_memory), .max = 0x1p50, .preset_text = "a quarter of memory_limit",
     .doc = "bytes of loaded models; above it those used least recently are unloaded"},
    {"body_limit", SETTING_SIZE, AT(body_limit), .preset = 16 * MIB, .min = KIB, .max = GIB, .doc = "bytes of a JSON body"},
    {"upload_limit", SETTING_SIZE, AT(upload_limit), .preset = 4 * GIB, .min = KIB, .max = 0x1p50,
     .doc = "bytes of an uploaded file, and of the arrays it holds"},
    {"upload_total", SETTING_SIZE, AT(upload_total), .preset = 16 * GIB, .min = KIB, .max = 0x1p50,
     .doc = "bytes of all bodies that are being received at one time"},
    {"ingest_seconds", SETTING_INT, AT(ingest_seconds), .preset = 600, .min = 1, .max = 86400,
     .doc = "processor seconds that reading an uploaded file may take"},
    {"ingest_memory", SETTING_SIZE, AT(ingest_memory), .preset = GIB, .min = 16 * MIB, .max = 0x1p50,
     .doc = "bytes of memory that reading an uploaded file may take"},
    {"queue_limit", SETTING_INT, AT(queue_limit), .preset = 10000, .min = 1, .max = 1e9, .doc = "jobs that may wait"},
    {"connection_limit", SETTING_INT, AT(connection_limit), .preset = 1024, .min = 4, .max = 100000,
     .doc = "connections at one time"},
    {"address_limit", SETTING_INT, AT(address_limit), .preset = 512, .min = 1, .max = 100000,
     .doc = "connections at one time from one address"},
    {"header_seconds", SETTING_SECONDS, AT(header_seconds), .preset = 20, .min = 0.1, .max = 3600,
     .doc = "time for a new connection to send its first request's header"},
    {"idle_seconds", SETTING_SECONDS, AT(idle_seconds), .preset = 75, .min = 1, .max = 3600,
     .doc = "time without a byte, or between two requests, after which a connection is closed"},
    {"log_format", SETTING_CHOICE, AT(log_format), .choices = format_names, .doc = "form of the lines on standard error"},
    {"log_level", SETTING_CHOICE, AT(log_level), .choices = level_names, .preset = LOG_INFO,
     .doc = "least level that is logged"},
    {0},
};
