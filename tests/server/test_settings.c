/* Settings: precedence, units, messages; and the log's lines. */
#include "server/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/scope.h"
#include "server/listen.h"
#include "server/log.h"
#include "tests/test.h"

static struct settings settings;
static struct problem problem;
static enum settings_action action;

/* argv after "hornd", up to NULL */
static enum status read_args(char *first, ...)
{
    char *argv[16] = {(char *)"hornd"};
    int argc = 1;
    va_list more;

    settings_done(&settings);
    memset(&problem, 0, sizeof problem);
    va_start(more, first);
    for (char *arg = first; arg && argc < 16; arg = va_arg(more, char *))
        argv[argc++] = arg;
    va_end(more);
    return settings_read(argc, argv, &settings, &action, &problem);
}

static char config_path[] = "/tmp/horn-test-config-XXXXXX";

static void write_config(const char *text)
{
    int fd;

    strcpy(config_path, "/tmp/horn-test-config-XXXXXX");
    fd = mkstemp(config_path);
    CHECK(fd >= 0);
    CHECK_INT(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

TEST(without_anything_the_presets_hold)
{
    CHECK_OK(read_args(NULL));
    CHECK_TEXT(settings.listen, "127.0.0.1:8501");
    CHECK_NEAR(settings.checkpoint_seconds, 10, 0);
    CHECK_INT(settings.lanes, 1);
    CHECK_INT(settings.body_limit, 16 << 20);
    CHECK(settings.threads >= 1);
    CHECK(settings.memory_limit > 0);
    CHECK(settings.data_dir[0] == '/');
    CHECK_INT(action, SETTINGS_RUN);
}

TEST(the_job_to_profile_is_a_file)
{
    CHECK_OK(read_args("--threads=3", "--profile", "job.json", NULL));
    CHECK_INT(action, SETTINGS_PROFILE);
    CHECK_TEXT(settings.profile, "job.json");
    CHECK_INT(settings.threads, 3);
    CHECK_INT(read_args("--profile", NULL), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "needs the FILE of a job");
}

TEST(a_flag_goes_before_the_environment_and_that_before_the_file)
{
    write_config("# a comment\nlanes = 2\nthreads=8   # behind\n\ncheckpoint_seconds = 0.3\n");
    CHECK_OK(read_args("--config", config_path, NULL));
    CHECK_INT(settings.lanes, 2);
    CHECK_INT(settings.threads, 8);
    CHECK_NEAR(settings.checkpoint_seconds, 0.3, 1e-15);

    setenv("HORN_THREADS", "6", 1);
    CHECK_OK(read_args("--config", config_path, NULL));
    CHECK_INT(settings.threads, 6);
    CHECK_OK(read_args("--threads=4", "--config", config_path, NULL));
    CHECK_INT(settings.threads, 4);
    unsetenv("HORN_THREADS");
    (void)unlink(config_path);
}

TEST(an_unknown_key_of_the_file_is_named_with_its_line)
{
    char want[64];

    write_config("lanes = 1\n\nlamps = 2\n");
    CHECK_INT(read_args("--config", config_path, NULL), ST_INVALID);
    snprintf(want, sizeof want, "%s:3", config_path);
    CHECK_TEXT(problem.where, want);
    CHECK_CONTAINS(problem.detail, "\"lamps\" is no setting");
    (void)unlink(config_path);
}

TEST(wrong_values_are_refused_with_their_bounds)
{
    static const struct {
        char *flag;
        const char *part;
    } rows[] = {
        {"--lanes=0", "must be from 1 to 256"},
        {"--lanes=two", "is a number, not \"two\""},
        {"--lanes=1.5", "whole number"},
        {"--threads", "is a number, not \"\""},
        {"--log-format=xml", "one of text, json"},
        {"--body-limit=16Q", "has \"Q\" behind the number"},
        {"--checkpoint-seconds=nan", "is a number"},
        {"--unknown-flag=1", "no such argument"},
        {"stray", "no such argument"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        CHECK_INT(read_args(rows[i].flag, NULL), ST_INVALID);
        CHECK_CONTAINS(problem.detail, rows[i].part);
    }
}

TEST(sizes_take_suffixes)
{
    CHECK_OK(read_args("--body-limit", "2M", "--memory-limit=3GiB", "--upload-limit", "4096", NULL));
    CHECK_INT(settings.body_limit, 2 << 20);
    CHECK_INT(settings.memory_limit, 3LL << 30);
    CHECK_INT(settings.upload_limit, 4096);
}

TEST(check_version_and_help_are_seen)
{
    CLEAN(text_done) struct text help = text_make(1 << 20);

    CHECK_OK(read_args("--check", NULL));
    CHECK_INT(action, SETTINGS_CHECK);
    CHECK_OK(read_args("--version", NULL));
    CHECK_INT(action, SETTINGS_VERSION);
    CHECK_OK(read_args("--help", NULL));
    CHECK_INT(action, SETTINGS_HELP);
    settings_help(&help);
    CHECK_CONTAINS(help.s, "--checkpoint-seconds, HORN_CHECKPOINT_SECONDS");
    CHECK_CONTAINS(help.s, "preset: 127.0.0.1:8501");
}

TEST(what_is_printed_reads_back_the_same)
{
    CLEAN(text_done) struct text first = text_make(1 << 16);
    CLEAN(text_done) struct text second = text_make(1 << 16);

    CHECK_OK(read_args("--threads=3", "--data-dir=/tmp/x", "--body-limit=1000K", "--log-format=json", "--allow-anyone", NULL));
    settings_print(&settings, &first);
    write_config(first.s);
    CHECK_OK(read_args("--config", config_path, NULL));
    settings_print(&settings, &second);
    CHECK_TEXT(second.s, first.s);
    (void)unlink(config_path);
}

TEST(an_address_that_others_can_reach_needs_a_word)
{
    static const struct {
        const char *listen;
        int anyone;
        enum status want;
    } rows[] = {
        {"127.0.0.1:8501", 0, ST_OK},    {"[::1]:0", 0, ST_OK},          {"127.1.2.3:1", 0, ST_OK},
        {"0.0.0.0:8501", 0, ST_INVALID}, {"0.0.0.0:8501", 1, ST_OK},     {"10.0.0.1:80", 0, ST_INVALID},
        {"[::]:80", 0, ST_INVALID},      {"127.0.0.1", 0, ST_INVALID},   {"127.0.0.1:99999", 0, ST_INVALID},
        {":80", 1, ST_INVALID},          {"127.0.0.1:x", 0, ST_INVALID},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (listen_check(rows[i].listen, rows[i].anyone, &problem) != rows[i].want)
            fail_msg("%s with allow_anyone %d is not %s", rows[i].listen, rows[i].anyone, status_name(rows[i].want));
    }
}

TEST(a_log_line_has_time_level_and_job_and_is_one_line)
{
    CLEAN(text_done) struct text line = text_make(1000);

    log_line(&line, LOG_TEXT, 0, LOG_WARNING, 7, "two\nlines \x1b[31m");
    CHECK_TEXT(line.s, "1970-01-01T00:00:00.000Z warning job 7: two\\x0alines \\x1b[31m\n");
    text_clear(&line);
    log_line(&line, LOG_JSON, 0, LOG_INFO, 0, "say \"x\"\n");
    CHECK_TEXT(line.s, "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"info\",\"message\":\"say \\\"x\\\"\\n\"}\n");
}
