/* Where the daemon listens: ADDRESS:PORT judged, bound and printed. */
#ifndef HORN_SERVER_LISTEN_H
#define HORN_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "engine/base/status.h"

/* "127.0.0.1:8501", "[::1]:8501", "localhost:0". ST_INVALID: no such address. */
enum status listen_parse(const char *listen, struct sockaddr_storage *ret, socklen_t *length, struct problem *problem);
/* The address judged alone, for --check. ST_INVALID: none, or not loopback without allow_anyone. */
enum status listen_check(const char *listen, int allow_anyone, struct problem *problem);
/* Binds and lets go: ST_CONFLICT if another process has the port. For the start, before anything is begun. */
enum status listen_check_free(const char *listening, struct problem *problem);
/* A bound, listening descriptor that does not block; shared: others may be bound to the same port. ST_CONFLICT as above. */
enum status listen_socket(const struct sockaddr_storage *address, socklen_t length, bool shared, const char *listening,
                          int *ret, struct problem *problem);
void listen_url(const struct sockaddr_storage *a, socklen_t length, char *to, size_t room); /* "http://127.0.0.1:8501" */

#endif
