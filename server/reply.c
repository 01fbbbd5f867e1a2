/* Replies and problems.
 *
 * The type of a problem is a URN from its status name: stable for programs, while title and detail are for people. */
#include "server/reply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void reply_init(struct reply *r)
{
    *r = (struct reply){.code = 200, .body = text_make(REPLY_LIMIT), .file = -1};
}

void reply_clear(struct reply *r)
{
    struct text body = r->body;

    if (r->file >= 0)
        (void)close(r->file);
    text_clear(&body);
    reply_init(r);
    r->body = body;
}

void reply_done(struct reply *r)
{
    if (r->file >= 0)
        (void)close(r->file);
    r->file = -1;
    text_done(&r->body);
}

enum status reply_json(struct reply *r, int code, struct json *takes)
{
    OWNED(json_free) struct json *j = takes;
    char *printed = json_print(j, 0);

    r->code = code;
    r->content_type = "application/json";
    text_clear(&r->body);
    text_add(&r->body, printed);
    free(printed);
    return ST_OK;
}

enum status reply_file(struct reply *r, const char *path, const char *where, const char *name, struct problem *problem)
{
    struct stat st;

    r->file = open(path, O_RDONLY | O_CLOEXEC);
    if (r->file < 0 || fstat(r->file, &st) < 0)
        return fail(problem, ST_STORAGE, where, "the stored file cannot be read: %s", strerror(errno));
    r->file_bytes = st.st_size;
    r->content_type = "application/x-hdf5";
    snprintf(r->file_name, sizeof r->file_name, "%.150s", name);
    return ST_OK;
}

struct json *problem_json(const struct problem *p)
{
    struct json *j = json_new_object();
    char type[64];

    snprintf(type, sizeof type, "urn:horn:problem:%s", status_name(p->status));
    for (char *c = type; *c; c++)
        *c = *c == '_' ? '-' : *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    json_put(j, "type", json_new_text(type));
    json_put(j, "title", json_new_text(status_title(p->status)));
    json_put(j, "status", json_new_int(status_http(p->status)));
    json_put(j, "detail", json_new_text(p->detail));
    if (p->where[0])
        json_put(j, p->where[0] == '/' ? "pointer" : "where", json_new_text(p->where));
    return j;
}

char *problem_text(const struct problem *p)
{
    OWNED(json_free) struct json *j = problem_json(p);

    return json_print(j, 0);
}

void reply_problem(struct reply *r, const struct problem *p)
{
    char allow[sizeof r->allow];

    memcpy(allow, r->allow, sizeof allow);
    reply_clear(r);
    (void)reply_json(r, status_http(p->status), problem_json(p));
    r->content_type = "application/problem+json";
    if (p->status == ST_NO_METHOD)
        memcpy(r->allow, allow, sizeof allow);
    if (p->status == ST_BUSY || p->status == ST_TOO_MANY || p->status == ST_NO_MEMORY)
        r->retry_after = 1;
}
