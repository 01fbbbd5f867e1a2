/* The command-line client: one HTTP helper, one watcher, one table of commands. */
#ifndef HORN_CLI_CLI_H
#define HORN_CLI_CLI_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/json.h"
#include "engine/base/text.h"

struct answer {
    int code;         /* HTTP status; 0: no answer, text says why */
    struct text text; /* body */
};

/* Sends a request to the daemon. body may be NULL; file (a path) is streamed instead. type NULL: none is said. */
struct answer http_send(const char *method, const char *path, const char *type, const char *body, size_t bytes,
                        const char *file);
void http_url(const char *url);

/* Exits with 1 after printing what the daemon said, unless the answer is a success. Returns the JSON, to be freed. */
struct json *answer_json(struct answer *a);

/* Follows a job until it ends, drawing Keras' progress bar; 0 when it is done, 1 else. */
int watch_job(int64_t id);

#endif
