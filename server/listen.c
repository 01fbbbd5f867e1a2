/* The setting `listen` and the sockets made from it. */
#include "server/listen.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/db.h"

static bool loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* "127.0.0.1:8501", "[::1]:8501", "localhost:0" */
enum status listen_parse(const char *listen, struct sockaddr_storage *ret, socklen_t *length, struct problem *problem)
{
    const char *colon = strrchr(listen, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    char host[256];
    size_t n;
    int error;

    if (!colon || colon == listen || !colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
        atol(colon + 1) > 65535)
        return fail(problem, ST_INVALID, "listen", "\"%.200s\" is not ADDRESS:PORT, as 127.0.0.1:8501 or [::1]:8501", listen);
    n = (size_t)(colon - listen);
    if (*listen == '[' && n > 2 && listen[n - 1] == ']') {
        listen++;
        n -= 2;
    }
    if (n >= sizeof host)
        return fail(problem, ST_INVALID, "listen", "the address is longer than 255 bytes");
    memcpy(host, listen, n);
    host[n] = 0;
    error = getaddrinfo(host, colon + 1, &hints, &found);
    if (error)
        return fail(problem, ST_INVALID, "listen", "\"%.200s\" is no address: %s", host, gai_strerror(error));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    *length = found->ai_addrlen;
    freeaddrinfo(found);
    return ST_OK;
}

enum status listen_check(const char *listen, int allow_anyone, struct problem *problem)
{
    struct sockaddr_storage address;
    socklen_t length = 0;

    TRY(listen_parse(listen, &address, &length, problem));
    if (!allow_anyone && !loopback((struct sockaddr *)&address))
        return fail(
            problem, ST_INVALID, "listen",
            "%.200s can be reached from other machines and there are no keys yet: anybody could train, read and delete. "
            "Take a loopback address, or say --allow-anyone",
            listen);
    return ST_OK;
}

enum status listen_socket(const struct sockaddr_storage *address, socklen_t length, bool shared, const char *listening,
                          int *ret, struct problem *problem)
{
    int fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1, error;

    if (fd < 0)
        return fail_errno(problem, errno, "listen", "make a socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        (!shared || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0) &&
        bind(fd, (const struct sockaddr *)address, length) == 0 && listen(fd, SOMAXCONN) == 0) {
        *ret = fd;
        return ST_OK;
    }
    error = errno;
    (void)close(fd);
    if (error == EADDRINUSE)
        return fail(problem, ST_CONFLICT, "listen", "another process has %.200s; is a hornd running there already?", listening);
    return fail(problem, ST_INVALID, "listen", "cannot listen on %.200s: %s", listening, strerror(error));
}

enum status listen_check_free(const char *listening, struct problem *problem)
{
    struct sockaddr_storage address;
    socklen_t length = 0;
    int fd;

    TRY(listen_parse(listening, &address, &length, problem));
    TRY(listen_socket(&address, length, false, listening, &fd, problem));
    (void)close(fd);
    return ST_OK;
}

void listen_url(const struct sockaddr_storage *a, socklen_t length, char *to, size_t room)
{
    char host[128], port[16];

    if (getnameinfo((const struct sockaddr *)a, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(to, room, "http://?");
    else
        snprintf(to, room, a->ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}
