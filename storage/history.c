/* See history.h. */
#include "storage/history.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "storage/hdf5.h"
#include "storage/jobs.h"

#define MAX_HISTORY ((size_t)256 << 20)

/* "/epoch/<name>", a name that HDF5 takes as one component. */
static void array_path(const char *name, char *to, size_t room)
{
    int prefix = snprintf(to, room, "/epoch/%s%s", *name == '.' ? "_" : "", name);

    for (char *c = to + strlen("/epoch/"); prefix > 0 && *c; c++)
        if (*c == '/')
            *c = '_';
}

static enum status write_column(struct h5 *f, const struct json *column, struct problem *problem)
{
    int64_t n = json_count(column), i = 0;
    struct shape shape = SHAPE(n);
    char path[300];

    array_path(json_key(column), path, sizeof path);
    if (strcmp(json_key(column), "epoch") == 0) {
        CLEAN(free_owned) int64_t *epochs = must_alloc(sizeof *epochs * (size_t)(n + 1));

        for (const struct json *v = json_first(column); v; v = json_next(v))
            (void)json_int(v, &epochs[i++]);
        return h5_write(f, path, I64, &shape, epochs, problem);
    }
    CLEAN(free_owned) double *values = must_alloc(sizeof *values * (size_t)(n + 1));

    for (const struct json *v = json_first(column); v; v = json_next(v))
        values[i++] = json_number(v); /* NaN for null */
    return h5_write(f, path, F64, &shape, values, problem);
}

static enum status write_columns(const char *path, const struct json *history, struct problem *problem)
{
    OWNED(h5_free) struct h5 *f = NULL;

    TRY(h5_create(path, "history.h5", &f, problem));
    for (const struct json *column = json_first(history); column; column = json_next(column))
        TRY(write_column(f, column, problem));
    return h5_close(STEAL(f), problem);
}

enum status history_file(struct db *db, int64_t job, char path[512], struct problem *problem)
{
    CLEAN(text_done) struct text text = text_make(MAX_HISTORY);
    OWNED(json_free) struct json *history = NULL;
    enum status status;
    int fd;

    TRY(jobs_history(db, job, &text, problem));
    TRY(json_parse(text.s, text.length, &(struct json_limits){.bytes = MAX_HISTORY, .nodes = MAX_HISTORY}, 0, &history,
                   problem));
    TRY(db_temp(db, path, &fd, problem));
    (void)close(fd);
    status = write_columns(path, history, problem);
    if (status != ST_OK)
        (void)unlink(path);
    return status;
}
