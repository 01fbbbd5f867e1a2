/* A daemon without sockets for tests: a temporary folder, and requests that go through route.h. */
#ifndef HORN_TESTS_SERVER_SUPPORT_H
#define HORN_TESTS_SERVER_SUPPORT_H

#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"
#include "tests/test.h"

struct rig {
    char folder[64];
    struct settings settings;
    struct server server;
    struct reply reply; /* of the last request */
    struct json *json;  /* its body, parsed; NULL if it is no JSON */
    bool http_thread;   /* requests run as in an HTTP thread: `later` is seen */
};

/* with_lanes: jobs run. Further settings as "key=value" flags ("--checkpoint-seconds=0.1"), up to NULL. */
void rig_open(struct rig *r, int with_lanes, ...) __attribute__((sentinel));
void rig_reopen(struct rig *r, bool with_lanes); /* stops and starts again on the same folder */
void rig_close(struct rig *r);                   /* stops, removes the folder */

/* headers: "Name: value" lines, or NULL. Returns the HTTP status. */
int rig_send(struct rig *r, const char *method, const char *target, const char *headers, const char *body, size_t bytes);
int rig_get(struct rig *r, const char *target);
int rig_post(struct rig *r, const char *target, const char *json);
int rig_put_floats(struct rig *r, const char *target, const float *v, int rank, const int64_t *dim); /* as .npy */
/* Data set "d": x (rows, 4) waves, y (rows, 1) a smooth function of them. */
void rig_put_curve(struct rig *r, int64_t rows);
/* A socket connected to the daemon's port that waits 10 s for an answer. The caller closes it. */
struct http;
int rig_connect(const struct http *http);
/* Waits for the job to end, at most 60 s; its last document is in r->json. Returns the state. */
const char *rig_wait(struct rig *r, int64_t id);
/* A member of the last reply: "problem.detail", "arrays.0.shape". */
const struct json *rig_at(const struct rig *r, const char *path);
const char *rig_text(const struct rig *r, const char *path); /* "" if absent */
double rig_number(const struct rig *r, const char *path);

#endif
