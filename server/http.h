/* The HTTP server: sockets in, struct request to route.h, struct reply out. The only includer of microhttpd is http.c.
 *
 *     TRY(http_start(server, &http, problem));
 *     printf("horn: ready on %s\n", http_url(http));
 *     ... http_sweep(http) about once a second ...
 *     http_stop(http);
 *
 * A request lives in one HTTP thread; one that must wait is suspended, handled by a request thread and resumed. */
#ifndef HORN_SERVER_HTTP_H
#define HORN_SERVER_HTTP_H

#include "engine/base/status.h"

struct http;
struct server;

/* Binds settings.listen. ST_CONFLICT: another process has the port; ST_INVALID: no such address, or one that is not loopback without
 * allow_anyone. */
enum status http_start(struct server *s, struct http **ret, struct problem *problem);
const char *http_url(const struct http *h); /* "http://127.0.0.1:8501", with the port that was bound */
const char *http_library(void);             /* version of libmicrohttpd */
void http_sweep(struct http *h);            /* closes connections whose time is over or whose client left amid its body */
/* Takes no new connection, answers what is under way, ends. NULL is fine. */
void http_stop(struct http *h);

#endif
