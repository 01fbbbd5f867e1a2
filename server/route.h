/* From a request to its endpoint, without sockets: http.c fills a struct request, tests do the same by hand.
 *
 *     route_begin(r, reply)   header is there: Host, Origin, path, method, announced length
 *     route_handle(r, reply)  body is there: parses it by the endpoint's table, calls the handler, renders its problem
 *
 * An endpoint is one definition `const struct endpoint endpoint_x = {` in server/api/: the list is generated. Paths are
 * templates, "/api/v1/jobs/{id}"; {id} and {n} are positive integers, other parameters are names (storage/db.h: name_valid), so
 * that no client text becomes anything else. */
#ifndef HORN_SERVER_ROUTE_H
#define HORN_SERVER_ROUTE_H

#include "engine/base/arena.h"
#include "engine/base/field.h"
#include "server/reply.h"

struct server;
struct request;

enum endpoint_flag {
    ENDPOINT_SLOW = 1,   /* waits for the disk or computes: never in an HTTP thread */
    ENDPOINT_UPLOAD = 2, /* the body is streamed to a file: request.upload */
    ENDPOINT_RAW = 4     /* the handler reads the body itself: request.body */
};

struct endpoint {
    const char *method, *path; /* "POST", "/api/v1/jobs" */
    const char *operation;     /* operationId in api-spec/openapi.yaml */
    unsigned flags;
    const struct field *body; /* table of the JSON body; NULL: no body, or UPLOAD, or RAW */
    size_t body_size;
    enum status (*handle)(struct request *r, const void *body, struct reply *reply, struct problem *problem);
    const char *nan_below; /* pointer of the member in which NaN and Infinity are read, as Keras prints them; NULL: nowhere */
};

enum { MAX_PARAMS = 4, MAX_QUERY = 16 };

struct request {
    struct server *server;
    struct arena *mem;                                                   /* lives as long as the request */
    const char *method, *path;                                           /* path decoded, without the query */
    const char *host, *origin, *content_type, *accept, *idempotency_key; /* headers; NULL: absent */
    int n_query;
    struct {
        const char *key, *value;
    } query[MAX_QUERY];
    int64_t length; /* announced; -1: not */
    char *body;     /* collected, terminated; NULL: none */
    size_t body_bytes;
    char upload[512]; /* path of the streamed file, "" if there is none (left). A handler that takes it sets "" */
    int64_t upload_bytes;
    const struct json *json; /* the parsed body */
    bool worker;             /* in a request thread: may wait */
    bool gathers;            /* predict calls are left in reply.call, for their answer to come from a batch */

    const struct endpoint *endpoint;
    const char *param[MAX_PARAMS]; /* of the template, in its order */
    int64_t number[MAX_PARAMS];    /* of {id} and {n} */
};

/* Both return false after a problem, which is in the reply. begin's may come before the body was read. */
bool route_begin(struct request *r, struct reply *reply);
bool route_handle(struct request *r, struct reply *reply);
size_t route_body_limit(const struct request *r); /* bytes that the body may have */

/* The query parameter, or NULL. Handlers name the ones they know: any other is ST_INVALID. */
const char *request_query(const struct request *r, const char *key);
enum status request_query_only(const struct request *r, const char *const *known, struct problem *problem);
enum status request_query_int(const struct request *r, const char *key, int64_t preset, int64_t min, int64_t max, int64_t *ret,
                              struct problem *problem);
enum status request_query_bool(const struct request *r, const char *key, bool *ret, struct problem *problem);
/* The content type without parameters equals `type`. */
bool request_is(const struct request *r, const char *type);

const struct endpoint *const *route_table(int *n);

#endif
