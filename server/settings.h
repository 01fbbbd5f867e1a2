/* The settings of the daemon: one table that the config file, the environment, the flags, --help and the documentation share.
 *
 * A row's key `checkpoint_seconds` is `checkpoint_seconds = 10` in the file, HORN_CHECKPOINT_SECONDS in the environment and
 * --checkpoint-seconds on the command line; a flag goes before the environment, that before the file, that before the preset.
 * A setting is a row: nothing else knows its name. */
#ifndef HORN_SERVER_SETTINGS_H
#define HORN_SERVER_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/status.h"
#include "engine/base/text.h"

enum log_format { LOG_TEXT, LOG_JSON };
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

struct settings {
    char *data_dir, *listen, *hosts;
    int64_t lanes, threads, http_threads, request_threads;
    double checkpoint_seconds;
    int64_t memory_limit, serving_memory, body_limit, upload_limit, upload_total, ingest_memory;
    int64_t queue_limit, connection_limit, address_limit;
    double header_seconds, idle_seconds;
    int64_t ingest_seconds;
    int64_t max_batch, batch_delay_us;
    int log_format, log_level, simd;
    bool allow_anyone;
    const char *profile; /* file of SETTINGS_PROFILE, in argv */
};

enum settings_action { SETTINGS_RUN, SETTINGS_CHECK, SETTINGS_PROFILE, SETTINGS_VERSION, SETTINGS_HELP };

/* Reads everything; what is absent gets its preset, what is counted from the machine (threads, memory) is counted. The caller
 * gives `s` to settings_done in any case. ST_INVALID: where names the flag, the variable, or file and line. */
enum status settings_read(int argc, char **argv, struct settings *s, enum settings_action *action, struct problem *problem);
void settings_done(struct settings *s);
const char *settings_simd(const struct settings *s); /* "v3", or NULL for the best that the CPU has */

void settings_help(struct text *t);                            /* --help, from the table */
void settings_print(const struct settings *s, struct text *t); /* as a config file */

#endif
