/* Log lines, written by one write(2) each: lines of several threads never mix, and nothing waits for a lock. */
#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "storage/db.h"

enum { MAX_LINE = 4000 }; /* below PIPE_BUF, so that a line is written in one piece even to a pipe */

static const char *const level_names[];
static enum log_level least_level = LOG_INFO;
static enum log_format line_format = LOG_TEXT;

static void add_escaped(struct text *t, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if (c < 0x20 || c == 0x7F)
            text_printf(t, "\\x%02x", c);
        else
            text_add_char(t, (char)c);
    }
}

void log_setup(enum log_level least, enum log_format format)
{
    least_level = least;
    line_format = format;
}

void log_line(struct text *t, enum log_format format, int64_t unix_ms, enum log_level level, int64_t job, const char *message)
{
    char time[32];

    time_text(unix_ms, time);
    if (format == LOG_JSON) {
        text_printf(t, "{\"time\":\"%s\",\"level\":\"%s\",", time, level_names[level]);
        if (job)
            text_printf(t, "\"job\":%lld,", (long long)job);
        text_add(t, "\"message\":");
        text_add_json(t, message);
        text_add(t, "}\n");
        return;
    }
    text_printf(t, "%s %-7s ", time, level_names[level]);
    if (job)
        text_printf(t, "job %lld: ", (long long)job);
    add_escaped(t, message);
    text_add_char(t, '\n');
}

void log_event(enum log_level level, int64_t job, const char *format, ...)
{
    CLEAN(text_done) struct text line = text_make(4 * MAX_LINE);
    char message[1500];
    va_list args;
    ssize_t written;

    if (level < least_level)
        return;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    log_line(&line, line_format, clock_unix_ms(), level, job, message);
    written = write(STDERR_FILENO, line.s, line.length);
    (void)written; /* there is nowhere to say that the log cannot be written */
}

void log_problem(enum log_level level, int64_t job, const char *doing, const struct problem *p)
{
    log_event(level, job, "%s: %s%s%s", doing, p->where, p->where[0] ? ": " : "", p->detail);
}

static const char *const level_names[] = {"debug", "info", "warning", "error"};
