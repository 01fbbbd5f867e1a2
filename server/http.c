/* HTTP by libmicrohttpd.
 *
 * One single-threaded epoll daemon per HTTP thread, all on one port by SO_REUSEPORT: the kernel spreads connections by hash, where
 * the library's own thread pool leaves all keep-alive connections to one thread. Since a second process of the same user could
 * join such a port in silence, a plain bind goes first and must succeed. 32 KiB per connection was measured best (4 KiB: 30 % fewer
 * small requests per second, 128 KiB: 40 %, as the block is cleared for each request).
 *
 * A request is an exchange:
 *
 *     header -> route_begin -> body collected or streamed -> route_handle -> reply
 *                  |                                            | later: suspended, queued, a request thread handles, resumed
 *                  '-> refused: the body is read and dropped, so that the client gets to read the answer
 *
 * The library cannot close a connection that sends its header too slowly byte by byte: each connection has a deadline, and
 * http_sweep shuts down the socket of one that is past it. Nor does it see the end of a client that leaves amid its body when the end
 * comes along with the last bytes (it takes a short read for an empty socket): http_sweep looks for those too. */
#include "server/http.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <microhttpd.h>

#include "engine/base/arena.h"
#include "engine/base/thread.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/route.h"
#include "server/server.h"
#include "storage/datasets.h"
#include "storage/db.h"

enum {
    CONNECTION_MEMORY = 32 << 10,
    SMALL_BODY = 64 << 20, /* a refused body up to this is read first: a client that writes before it reads gets its answer */
    DROP_BYTES = 64 << 20,
    QUEUE_PER_THREAD = 256, /* waiting requests; beyond them 503 */
    MAX_DAEMONS = 64,
    GONE_SWEEPS = 2 /* looks at a connection whose client left amid its body, before it is closed */
};

#define DRAIN_SECONDS 1.0 /* for requests under way at a stop */
#define END_SECONDS   0.5 /* for their answers to be sent */

struct connection { /* in the list of its server from accept to close */
    struct connection *next, *previous;
    int fd;
    struct sockaddr_storage address;
    atomic_llong deadline_ms; /* 0: none, a request is under way */
    atomic_bool receiving;    /* more of a request's body is to come */
    int gone;                 /* sweeps in a row that found the client gone; guarded by http->lock */
};

struct exchange {
    struct http *http;
    struct MHD_Connection *connection;
    struct connection *record;
    struct request request;
    struct reply reply;
    int upload;                 /* descriptor, -1: none */
    int64_t received, reserved; /* bytes of the body; of the total in flight */
    int64_t dropped;            /* bytes read after a refusal */
    atomic_llong *total;
    bool refused;          /* the reply is made, the body is dropped */
    bool done;             /* the reply is made */
    struct exchange *next; /* in a pool's queue */
};

struct pool {             /* request threads */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t cond;
    struct exchange *first, *last;
    int n_waiting, limit;
    bool stop;
    int n_threads;
    pthread_t *threads;
};

struct http {
    struct server *server;
    struct MHD_Daemon *daemons[MAX_DAEMONS];
    int n_daemons;
    struct pool requests, uploads;
    pthread_mutex_t lock; /* guards the list and the counts of connections */
    struct connection *connections;
    int n_connections;
    atomic_llong body_bytes, upload_bytes; /* of bodies in flight: in memory, on disk */
    atomic_int n_exchanges;
    char url[300];
};

/* --- addresses ------------------------------------------------------------------------------------------------------------ */

static bool loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return (ntohl(((const struct sockaddr_in *)a)->sin_addr.s_addr) >> 24) == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)a)->sin6_addr);
}

/* "127.0.0.1:8501", "[::1]:8501", "localhost:0" */
static enum status address_parse(const char *listen, struct sockaddr_storage *ret, socklen_t *length, struct problem *problem)
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

enum status http_check_listen(const char *listen, int allow_anyone, struct problem *problem)
{
    struct sockaddr_storage address;
    socklen_t length = 0;

    TRY(address_parse(listen, &address, &length, problem));
    if (!allow_anyone && !loopback((struct sockaddr *)&address))
        return fail(
            problem, ST_INVALID, "listen",
            "%.200s can be reached from other machines and there are no keys yet: anybody could train, read and delete. "
            "Take a loopback address, or say --allow-anyone",
            listen);
    return ST_OK;
}

static enum status listening_socket(const struct sockaddr_storage *address, socklen_t length, bool shared,
                                    const char *listening, int *ret, struct problem *problem)
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

enum status http_check_free(const char *listening, struct problem *problem)
{
    struct sockaddr_storage address;
    socklen_t length = 0;
    int fd;

    TRY(address_parse(listening, &address, &length, problem));
    TRY(listening_socket(&address, length, false, listening, &fd, problem));
    (void)close(fd);
    return ST_OK;
}

static void print_url(const struct sockaddr_storage *a, socklen_t length, char *to, size_t room)
{
    char host[128], port[16];

    if (getnameinfo((const struct sockaddr *)a, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV))
        snprintf(to, room, "http://?");
    else
        snprintf(to, room, a->ss_family == AF_INET6 ? "http://[%s]:%s" : "http://%s:%s", host, port);
}

/* --- connections ---------------------------------------------------------------------------------------------------------- */

static bool same_address(const struct sockaddr_storage *a, const struct sockaddr *b)
{
    if (a->ss_family != b->sa_family)
        return false;
    if (b->sa_family == AF_INET)
        return ((const struct sockaddr_in *)a)->sin_addr.s_addr == ((const struct sockaddr_in *)b)->sin_addr.s_addr;
    return memcmp(&((const struct sockaddr_in6 *)a)->sin6_addr, &((const struct sockaddr_in6 *)b)->sin6_addr, 16) == 0;
}

static enum MHD_Result on_accept(void *arg, const struct sockaddr *address, socklen_t length)
{
    struct http *h = arg;
    const struct settings *s = h->server->settings;
    int64_t from_here = 0;
    bool welcome;

    (void)length;
    pthread_mutex_lock(&h->lock);
    for (const struct connection *c = h->connections; c; c = c->next)
        from_here += same_address(&c->address, address);
    welcome = h->n_connections < s->connection_limit && from_here < s->address_limit;
    pthread_mutex_unlock(&h->lock);
    if (!welcome)
        log_event(LOG_DEBUG, 0, "a connection was refused: %lld from its address", (long long)from_here);
    return welcome ? MHD_YES : MHD_NO;
}

static int64_t after(double seconds)
{
    return (int64_t)((clock_seconds() + seconds) * 1000);
}

static void on_connection(void *arg, struct MHD_Connection *connection, void **context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct http *h = arg;
    struct connection *c = *context;

    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *fd = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        const union MHD_ConnectionInfo *address = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);

        c = must_alloc(sizeof *c);
        c->fd = fd ? fd->connect_fd : -1;
        if (address && address->client_addr)
            memcpy(&c->address, address->client_addr,
                   address->client_addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
        atomic_init(&c->receiving, false);
        atomic_init(&c->deadline_ms, after(h->server->settings->header_seconds));
        pthread_mutex_lock(&h->lock);
        c->next = h->connections;
        if (c->next)
            c->next->previous = c;
        h->connections = c;
        h->n_connections++;
        pthread_mutex_unlock(&h->lock);
        *context = c;
    } else if (c) { /* the socket is still open here: http_sweep cannot meet a descriptor that became another's */
        pthread_mutex_lock(&h->lock);
        if (c->next)
            c->next->previous = c->previous;
        if (c->previous)
            c->previous->next = c->next;
        else
            h->connections = c->next;
        h->n_connections--;
        pthread_mutex_unlock(&h->lock);
        free(c);
        *context = NULL;
    }
}

/* The client has closed its side, and all that it sent is read. */
static bool has_left(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int unread = 0;

    return poll(&p, 1, 0) == 1 && (ioctl(fd, FIONREAD, &unread) < 0 || unread == 0);
}

void http_sweep(struct http *h)
{
    int64_t now = after(0);

    pthread_mutex_lock(&h->lock);
    for (struct connection *c = h->connections; c; c = c->next) {
        int64_t deadline = atomic_load(&c->deadline_ms);

        c->gone = atomic_load(&c->receiving) && has_left(c->fd) ? c->gone + 1 : 0;
        if (c->fd >= 0 && ((deadline && deadline < now) || c->gone == GONE_SWEEPS))
            (void)shutdown(c->fd, SHUT_RDWR);
    }
    pthread_mutex_unlock(&h->lock);
}

/* --- exchanges ------------------------------------------------------------------------------------------------------------ */

static const char *header(struct MHD_Connection *c, const char *name)
{
    return MHD_lookup_connection_value(c, MHD_HEADER_KIND, name);
}

static enum MHD_Result on_query(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
    struct request *r = arg;

    (void)kind;
    if (r->n_query == MAX_QUERY)
        return MHD_NO;
    r->query[r->n_query].key = key;
    r->query[r->n_query++].value = value ? value : "";
    return MHD_YES;
}

static struct exchange *exchange_new(struct http *h, struct MHD_Connection *c, const char *url, const char *method)
{
    struct exchange *x = must_alloc(sizeof *x);
    const union MHD_ConnectionInfo *record = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct request *r = &x->request;
    const char *length = header(c, MHD_HTTP_HEADER_CONTENT_LENGTH);

    x->http = h;
    x->connection = c;
    x->record = record ? record->socket_context : NULL;
    x->upload = -1;
    reply_init(&x->reply);
    r->server = h->server;
    r->mem = arena_new();
    r->method = method;
    r->path = url;
    r->host = header(c, MHD_HTTP_HEADER_HOST);
    r->origin = header(c, MHD_HTTP_HEADER_ORIGIN);
    r->content_type = header(c, MHD_HTTP_HEADER_CONTENT_TYPE);
    r->accept = header(c, MHD_HTTP_HEADER_ACCEPT);
    r->idempotency_key = header(c, "Idempotency-Key");
    r->length = length ? strtoll(length, NULL, 10) : -1;
    (void)MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, on_query, r);
    atomic_fetch_add(&h->n_exchanges, 1);
    if (x->record) {
        atomic_store(&x->record->deadline_ms, 0);
        atomic_store(&x->record->receiving, true);
    }
    return x;
}

static struct exchange *exchange_free(struct exchange *x)
{
    if (!x)
        return NULL;
    if (x->upload >= 0)
        (void)close(x->upload);
    if (x->request.upload[0])
        (void)unlink(x->request.upload);
    if (x->total)
        atomic_fetch_sub(x->total, x->reserved);
    if (x->record) {
        atomic_store(&x->record->receiving, false);
        atomic_store(&x->record->deadline_ms, after(x->http->server->settings->idle_seconds));
    }
    atomic_fetch_sub(&x->http->n_exchanges, 1);
    free(x->request.body);
    reply_done(&x->reply);
    arena_free(x->request.mem);
    free(x);
    return NULL;
}

static void refuse(struct exchange *x, const struct problem *p)
{
    x->refused = x->done = true;
    reply_problem(&x->reply, p);
}

/* Bodies in flight are limited in all, in memory and on disk, so that many clients cannot do what one may not. */
static enum status reserve(struct exchange *x, int64_t bytes, struct problem *problem)
{
    const struct settings *s = x->http->server->settings;
    bool upload = x->request.endpoint->flags & ENDPOINT_UPLOAD;
    int64_t limit = upload                                    ? s->upload_total
                    : s->memory_limit / 8 > 2 * s->body_limit ? s->memory_limit / 8
                                                              : 2 * s->body_limit;
    int64_t more = bytes - x->reserved;

    if (more <= 0)
        return ST_OK;
    x->total = upload ? &x->http->upload_bytes : &x->http->body_bytes;
    if (atomic_fetch_add(x->total, more) + more > limit) {
        atomic_fetch_sub(x->total, more);
        return fail(problem, ST_TOO_MANY, "", "the bodies that are being received now would pass %lld bytes; try again later",
                    (long long)limit);
    }
    x->reserved += more;
    return ST_OK;
}

static enum status take(struct exchange *x, const char *data, size_t n, struct problem *problem)
{
    struct request *r = &x->request;
    size_t limit = route_body_limit(r);
    int64_t total = x->received + (int64_t)n;

    if (total > (int64_t)limit)
        return fail(problem, ST_TOO_LARGE, "", "the body is larger than the limit (%s) of %zu bytes",
                    r->endpoint->flags & ENDPOINT_UPLOAD ? "upload_limit" : "body_limit", limit);
    TRY(reserve(x, total, problem));
    if (r->endpoint->flags & ENDPOINT_UPLOAD) {
        if (x->upload < 0)
            TRY(db_temp(r->server->db, r->upload, &x->upload, problem));
        while (n) {
            ssize_t written = write(x->upload, data, n);

            if (written < 0 && errno == EINTR)
                continue;
            if (written < 0)
                return fail_errno(problem, errno, "", "store the upload");
            data += written;
            n -= (size_t)written;
        }
        r->upload_bytes = total;
    } else {
        if (!r->body)
            r->body = must_alloc(r->length >= 0 ? (size_t)r->length + 1 : n + 1);
        else if (r->length < 0)
            r->body = must_realloc(r->body, (size_t)total + 1);
        memcpy(r->body + x->received, data, n);
        r->body_bytes = (size_t)total;
        r->body[total] = 0;
    }
    x->received = total;
    return ST_OK;
}

static enum MHD_Result exchange_send(struct exchange *x)
{
    struct reply *reply = &x->reply;
    struct MHD_Response *response;
    enum MHD_Result result;
    char number[24];

    if (reply->file >= 0) {
        response = MHD_create_response_from_fd64((uint64_t)reply->file_bytes, reply->file);
        if (response)
            reply->file = -1;
    } else {
        size_t n = reply->body.length;

        response = MHD_create_response_from_buffer(n, text_steal(&reply->body), MHD_RESPMEM_MUST_FREE);
    }
    if (!response)
        return MHD_NO;
    (void)MHD_add_response_header(response, "Server", "horn/" HORN_VERSION);
    if (reply->content_type)
        (void)MHD_add_response_header(response, "Content-Type", reply->content_type);
    (void)MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (reply->location[0])
        (void)MHD_add_response_header(response, "Location", reply->location);
    if (reply->allow[0])
        (void)MHD_add_response_header(response, "Allow", reply->allow);
    if (reply->file_name[0]) {
        char disposition[200];

        snprintf(disposition, sizeof disposition, "attachment; filename=\"%s\"", reply->file_name);
        (void)MHD_add_response_header(response, "Content-Disposition", disposition);
    }
    if (reply->retry_after) {
        snprintf(number, sizeof number, "%d", reply->retry_after);
        (void)MHD_add_response_header(response, "Retry-After", number);
    }
    if (atomic_load(&x->http->server->stopping))
        (void)MHD_add_response_header(response, "Connection", "close");
    metrics_request(reply->code);
    log_event(LOG_DEBUG, 0, "%s %.300s: %d", x->request.method, x->request.path, reply->code);
    result = MHD_queue_response(x->connection, (unsigned)reply->code, response);
    MHD_destroy_response(response);
    return result;
}

static bool pool_push(struct pool *p, struct exchange *x)
{
    bool taken;

    pthread_mutex_lock(&p->lock);
    taken = !p->stop && p->n_waiting < p->limit;
    if (taken) {
        x->next = NULL;
        if (p->last)
            p->last->next = x;
        else
            p->first = x;
        p->last = x;
        p->n_waiting++;
        pthread_cond_signal(&p->cond);
    }
    pthread_mutex_unlock(&p->lock);
    return taken;
}

/* Handles the request here, or hands it to a request thread. The exchange may be gone after a hand-over. */
static enum MHD_Result exchange_handle(struct exchange *x)
{
    struct http *h = x->http;
    struct problem problem;

    if (x->upload >= 0) {
        (void)close(x->upload); /* written through; db_place syncs */
        x->upload = -1;
    }
    (void)route_handle(&x->request, &x->reply);
    if (!x->reply.later) {
        x->done = true;
        return exchange_send(x);
    }
    reply_clear(&x->reply);
    x->request.worker = true;
    MHD_suspend_connection(x->connection);
    if (pool_push(x->request.endpoint->flags & ENDPOINT_UPLOAD ? &h->uploads : &h->requests, x))
        return MHD_YES;
    (void)fail(&problem, ST_BUSY, "", "%s",
               atomic_load(&h->server->stopping) ? "the daemon is stopping"
                                                 : "too many requests wait already; try again later");
    refuse(x, &problem);
    MHD_resume_connection(x->connection);
    return MHD_YES;
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *bytes, void **context)
{
    struct http *h = arg;
    struct exchange *x = *context;
    struct problem problem;

    if (!x) {
        *context = x = exchange_new(h, connection, url, method);
        x->refused = x->done = !route_begin(&x->request, &x->reply);
        if (!x->refused && !x->request.host && strcmp(version, MHD_HTTP_VERSION_1_0) != 0) {
            (void)fail(&problem, ST_MALFORMED, "Host", "the header is missing");
            refuse(x, &problem);
        }
        if (!x->refused && reserve(x, x->request.length, &problem) != ST_OK)
            refuse(x, &problem);
        if (x->refused && (x->request.length > SMALL_BODY || header(connection, MHD_HTTP_HEADER_EXPECT)))
            return exchange_send(x); /* before the body; the library then closes the connection */
        return MHD_YES;
    }
    if (*bytes) {
        if (!x->refused && take(x, data, *bytes, &problem) != ST_OK) {
            refuse(x, &problem);
        } else if (x->refused) {
            x->dropped += (int64_t)*bytes;
            if (x->dropped > DROP_BYTES && x->dropped > x->request.length)
                return MHD_NO; /* a body without an announced end, or one that lied */
        }
        *bytes = 0;
        return MHD_YES;
    }
    if (x->record)
        atomic_store(&x->record->receiving, false);
    return x->done ? exchange_send(x) : exchange_handle(x);
}

static void on_completed(void *arg, struct MHD_Connection *connection, void **context, enum MHD_RequestTerminationCode how)
{
    (void)arg;
    (void)connection;
    (void)how;
    *context = exchange_free(*context);
}

/* --- request threads ------------------------------------------------------------------------------------------------------ */

static void *pool_run(void *arg)
{
    struct pool *p = arg;

    for (;;) {
        struct exchange *x;
        struct MHD_Connection *connection;

        pthread_mutex_lock(&p->lock);
        while (!p->first && !p->stop)
            pthread_cond_wait(&p->cond, &p->lock);
        x = p->first;
        if (x) {
            p->first = x->next;
            if (!p->first)
                p->last = NULL;
            p->n_waiting--;
        }
        pthread_mutex_unlock(&p->lock);
        if (!x)
            return NULL;
        (void)route_handle(&x->request, &x->reply);
        x->done = true;
        connection = x->connection;
        MHD_resume_connection(connection); /* x belongs to its HTTP thread again */
    }
}

static void pool_start(struct pool *p, const char *name, int n)
{
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
    p->n_threads = n;
    p->limit = n * QUEUE_PER_THREAD;
    p->threads = must_alloc(sizeof *p->threads * (size_t)n);
    for (int i = 0; i < n; i++)
        thread_start(&p->threads[i], name, pool_run, p);
}

static void pool_stop(struct pool *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
}

static void pool_done(struct pool *p)
{
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->cond);
    p->threads = free_null(p->threads);
}

/* --- start and stop ------------------------------------------------------------------------------------------------------- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Percent-decoding in place. %00 stays as it is: a path does not end in its middle. */
static size_t unescape(void *arg, struct MHD_Connection *connection, char *s)
{
    char *to = s;

    (void)arg;
    (void)connection;
    for (const char *from = s; *from; from++) {
        int high = *from == '%' ? hex(from[1]) : -1, low = high >= 0 ? hex(from[2]) : -1;

        if (low >= 0 && (high || low)) {
            *to++ = (char)(high << 4 | low);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
    return (size_t)(to - s);
}

__attribute__((format(printf, 2, 0))) static void on_library_message(void *arg, const char *format, va_list args)
{
    char message[512];
    int n;

    (void)arg;
    n = vsnprintf(message, sizeof message, format, args);
    while (n > 0 && (size_t)n < sizeof message && message[n - 1] == '\n')
        message[--n] = 0;
    log_event(LOG_DEBUG, 0, "http: %s", message);
}

static struct MHD_Daemon *daemon_start(struct http *h, int fd, bool ipv6)
{
    const struct settings *s = h->server->settings;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (ipv6 ? MHD_USE_IPv6 : 0);

    return MHD_start_daemon(flags, 0, on_accept, h, on_request, h, MHD_OPTION_EXTERNAL_LOGGER, on_library_message, NULL,
                            MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT,
                            (unsigned)s->connection_limit, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(s->idle_seconds + 1),
                            MHD_OPTION_END);
}

static enum status start_daemons(struct http *h, struct problem *problem)
{
    const struct settings *s = h->server->settings;
    struct sockaddr_storage address;
    socklen_t length = 0, bound = sizeof address;
    int fd, n = (int)(s->http_threads > MAX_DAEMONS ? MAX_DAEMONS : s->http_threads);

    TRY(http_check_listen(s->listen, s->allow_anyone, problem));
    TRY(address_parse(s->listen, &address, &length, problem));
    TRY(listening_socket(&address, length, false, s->listen, &fd, problem)); /* alone on the port? */
    if (getsockname(fd, (struct sockaddr *)&address, &bound) != 0) {
        (void)close(fd);
        return fail_errno(problem, errno, "listen", "learn the port");
    }
    (void)close(fd);
    print_url(&address, length, h->url, sizeof h->url);
    for (int i = 0; i < n; i++) {
        TRY(listening_socket(&address, length, true, s->listen, &fd, problem));
        h->daemons[i] = daemon_start(h, fd, address.ss_family == AF_INET6);
        if (!h->daemons[i]) {
            (void)close(fd);
            return fail(problem, ST_INTERNAL, "listen", "the HTTP server did not start on %.200s", h->url);
        }
        h->n_daemons = i + 1;
    }
    return ST_OK;
}

enum status http_start(struct server *s, struct http **ret, struct problem *problem)
{
    struct http *h = must_alloc(sizeof *h);
    int n = (int)s->settings->request_threads;
    enum status status;

    h->server = s;
    ingest_stop(false);
    pthread_mutex_init(&h->lock, NULL);
    pool_start(&h->requests, "horn-request", n);
    pool_start(&h->uploads, "horn-upload", n < 4 ? n : 4);
    status = start_daemons(h, problem);
    if (status != ST_OK) {
        http_stop(h);
        return status;
    }
    *ret = h;
    return ST_OK;
}

const char *http_url(const struct http *h)
{
    return h->url;
}

const char *http_library(void)
{
    return MHD_get_version();
}

/* Until no request is under way or the time is over. */
static void drain(struct http *h, double seconds)
{
    double until = clock_seconds() + seconds;

    while (atomic_load(&h->n_exchanges) > 0 && clock_seconds() < until)
        usleep(5000);
}

void http_stop(struct http *h)
{
    if (!h)
        return;
    for (int i = 0; i < h->n_daemons; i++) {
        int fd = MHD_quiesce_daemon(h->daemons[i]);

        if (fd >= 0)
            (void)close(fd);
    }
    drain(h, DRAIN_SECONDS);
    atomic_store(&h->server->ending, true); /* ends long predictions */
    ingest_stop(true);                      /* and readers of uploads: none of them was acknowledged */
    pool_stop(&h->requests); /* what waits is still handled, and resumed: the library cannot stop suspended connections */
    pool_stop(&h->uploads);
    drain(h, END_SECONDS);
    for (int i = 0; i < h->n_daemons; i++)
        MHD_stop_daemon(h->daemons[i]);
    pool_done(&h->requests);
    pool_done(&h->uploads);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
