/* What an endpoint answers with, and how problems look to clients (RFC 9457).
 *
 * A reply is filled by the handler and sent by http.c; it knows nothing of sockets, so tests read it as it is. */
#ifndef HORN_SERVER_REPLY_H
#define HORN_SERVER_REPLY_H

#include "engine/base/json.h"
#include "engine/base/status.h"
#include "engine/base/text.h"

enum { REPLY_LIMIT = 1 << 30 }; /* bytes of a body made in memory */

struct call;

struct reply {
    int code;                 /* HTTP status */
    const char *content_type; /* static text */
    struct text body;
    int file; /* descriptor of the file that is the body, or -1 */
    int64_t file_bytes;
    char location[320], allow[64], file_name[160]; /* "": no such header */
    int retry_after;                               /* seconds; 0: no such header */
    struct call *call; /* a predict call that was read and waits to be computed (batch.h): only where request.gathers */
    bool later;        /* set by a handler that will not do this in the HTTP thread: it is called again in a request thread */
};

void reply_init(struct reply *r);
void reply_clear(struct reply *r); /* as after reply_init; the memory of the body is kept */
void reply_done(struct reply *r);

enum status reply_json(struct reply *r, int code, struct json *takes); /* returns ST_OK, to end a handler with */
/* The HDF5 file at `path` as the body, offered for saving under `name`. ST_STORAGE says `where`. */
enum status reply_file(struct reply *r, const char *path, const char *where, const char *name, struct problem *problem);
void reply_problem(struct reply *r, const struct problem *p);

/* {"type","title","status","detail"} with "pointer" where the problem is at a JSON pointer of the request, else "where". */
struct json *problem_json(const struct problem *p);
char *problem_text(const struct problem *p); /* printed; caller frees */

#endif
