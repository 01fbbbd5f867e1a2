/* ModelCheckpoint's filepath: text with {epoch}, {epoch:02d}, {val_loss:.4f}, as Python's str.format has them.
 *
 * A pattern comes from outside and its result becomes a file name, so only a part of str.format is read, checked when
 * the job is posted: names of logs, an optional width with leading zero, a precision, one of d e f g. What stands before
 * the last "/" is dropped. */
#ifndef HORN_CALLBACKS_FILE_NAME_H
#define HORN_CALLBACKS_FILE_NAME_H

#include "engine/callbacks/callback.h"

/* ST_INVALID at `pointer` with the reason. */
enum status file_name_check(const char *pattern, const char *pointer, struct problem *problem);
/* The name for an epoch (the number to print). false: a log is missing, or the result is no safe name; `to` then holds
 * the reason. */
bool file_name_print(const char *pattern, int64_t epoch, const struct callback_logs *logs, char *to, size_t room);

#endif
