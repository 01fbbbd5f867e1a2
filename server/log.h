/* One line per event on standard error: time, level, job, message. Whoever decides what happens after a failure logs it, once.
 *
 * Text that came from outside may be passed: control characters are escaped, so that it cannot make a line of its own. */
#ifndef HORN_SERVER_LOG_H
#define HORN_SERVER_LOG_H

#include <stdint.h>

#include "engine/base/status.h"
#include "engine/base/text.h"
#include "server/settings.h"

void log_setup(enum log_level least, enum log_format format); /* before threads are started */
/* job 0: none. Any thread. */
void log_event(enum log_level level, int64_t job, const char *format, ...) __attribute__((format(printf, 3, 4)));
void log_problem(enum log_level level, int64_t job, const char *doing, const struct problem *p);

/* The line that log_event writes, with its newline; for tests. */
void log_line(struct text *t, enum log_format format, int64_t unix_ms, enum log_level level, int64_t job, const char *message);

#endif
