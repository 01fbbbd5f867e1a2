/* HTTP by libmicrohttpd.
 *
 * One epoll daemon per HTTP thread, all on one port by SO_REUSEPORT: the kernel spreads connections by hash, where
 * the library's own thread pool leaves all keep-alive connections to one thread. The loop around the daemon is ours: in each turn the
 * library reads and answers whatever is ready; then the small predict calls that came in that turn are computed together. Since a second process of the same user could
 * join such a port in silence, a plain bind goes first and must succeed. 32 KiB per connection was measured best (4 KiB: 30 % fewer
 * small requests per second, 128 KiB: 40 %, as the block is cleared for each request).
 *
 * A request is an exchange:
 *
 *     header -> route_begin -> body collected or streamed -> route_handle -> reply
 *                  |                                            | later: suspended, queued, a request thread handles, resumed
 *                  |                                            | call: suspended, computed behind the turn, resumed
 *                  '-> refused: the body is read and dropped, so that the client gets to read the answer
 *
 * The library cannot close a connection that sends its header too slowly byte by byte: each connection has a deadline, and
 * http_sweep shuts down the socket of one that is past it. Nor does it see the end of a client that leaves amid its body when the end
 * comes along with the last bytes (it takes a short read for an empty socket): http_sweep looks for those too. */
#include "server/http.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <microhttpd.h>

#include "engine/base/arena.h"
#include "engine/base/thread.h"
#include "server/batch.h"
#include "server/listen.h"
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
    MAX_LISTENERS = 64,
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
    struct listener *listener; /* whose thread it is in */
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
    bool crowded;          /* no predictor was free behind the turn: to a request thread */
    struct exchange *next; /* in a pool's queue */
};

struct workers {          /* request threads */
    pthread_mutex_t lock; /* guards what follows */
    pthread_cond_t cond;
    struct exchange *first, *last;
    int n_waiting, limit;
    bool stop;
    int n_threads;
    pthread_t *threads;
};

struct listener { /* an HTTP thread */
    struct http *http;
    struct MHD_Daemon *daemon;
    int epoll, wake; /* the daemon's; an eventfd that ends a wait */
    pthread_t thread;
    atomic_bool quiesce, stop;
    struct call_list calls; /* read and not computed yet; the thread's own */
    bool resumed;           /* connections of the thread's own */
};

struct http {
    struct server *server;
    struct listener listeners[MAX_LISTENERS];
    int n_listeners;
    struct workers requests, uploads;
    pthread_mutex_t lock; /* guards the list and the counts of connections */
    struct connection *connections;
    int n_connections;
    atomic_llong body_bytes, upload_bytes; /* of bodies in flight: in memory, on disk */
    atomic_int n_exchanges;
    char url[300];
};

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

static struct exchange *exchange_new(struct listener *l, struct MHD_Connection *c, const char *url, const char *method)
{
    struct http *h = l->http;
    struct exchange *x = must_alloc(sizeof *x);
    const union MHD_ConnectionInfo *record = MHD_get_connection_info(c, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct request *r = &x->request;
    const char *length = header(c, MHD_HTTP_HEADER_CONTENT_LENGTH);

    x->http = h;
    x->listener = l;
    x->connection = c;
    x->record = record ? record->socket_context : NULL;
    x->upload = -1;
    reply_init(&x->reply);
    r->server = h->server;
    r->gathers = true;
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

static bool workers_push(struct workers *p, struct exchange *x)
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

static _Thread_local struct listener *own_listener; /* in an HTTP thread */

static void listener_wake(struct listener *l)
{
    (void)!write(l->wake, &(uint64_t){1}, sizeof(uint64_t));
}

/* The exchange belongs to its HTTP thread from here on. In a loop of ours the library does not end the wait by itself. */
static void exchange_resume(struct exchange *x)
{
    struct listener *l = x->listener;

    MHD_resume_connection(x->connection);
    if (own_listener == l)
        l->resumed = true;
    else
        listener_wake(l);
}

/* Hands the request to a request thread. The exchange may be gone afterwards. */
static enum MHD_Result exchange_later(struct exchange *x)
{
    struct http *h = x->http;
    struct problem problem;

    reply_clear(&x->reply);
    x->request.worker = true;
    MHD_suspend_connection(x->connection);
    if (workers_push(x->request.endpoint->flags & ENDPOINT_UPLOAD ? &h->uploads : &h->requests, x))
        return MHD_YES;
    (void)fail(&problem, ST_BUSY, "", "%s",
               atomic_load(&h->server->stopping) ? "the daemon is stopping"
                                                 : "too many requests wait already; try again later");
    refuse(x, &problem);
    exchange_resume(x);
    return MHD_YES;
}

/* Handles the request here, puts it to the turn's calls, or hands it to a request thread. */
static enum MHD_Result exchange_handle(struct exchange *x)
{
    if (x->upload >= 0) {
        (void)close(x->upload); /* written through; db_place syncs */
        x->upload = -1;
    }
    if (x->crowded)
        return exchange_later(x);
    (void)route_handle(&x->request, &x->reply);
    if (x->reply.later)
        return exchange_later(x);
    if (x->reply.call) {
        call_push(&x->listener->calls, x->reply.call);
        MHD_suspend_connection(x->connection);
        return MHD_YES;
    }
    x->done = true;
    return exchange_send(x);
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *data, size_t *bytes, void **context)
{
    struct exchange *x = *context;
    struct problem problem;

    if (!x) {
        *context = x = exchange_new(arg, connection, url, method);
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

static struct exchange *exchange_of(const struct call *c)
{
    return (struct exchange *)((char *)c->request - offsetof(struct exchange, request));
}

/* The call's answer, or what keeps it from one, is in its exchange, which belongs to its HTTP thread again. */
static void call_end(struct call *c)
{
    struct exchange *x = exchange_of(c);

    x->done = c->answered;
    x->crowded = !c->answered;
    call_done(c);
    x->reply.call = NULL;
    exchange_resume(x);
}

static void *workers_run(void *arg)
{
    struct workers *p = arg;

    for (;;) {
        struct exchange *x;

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
        if (x->reply.call) {
            batch_submit(x->reply.call, call_end);
            continue;
        }
        x->done = true;
        exchange_resume(x);
    }
}

static void workers_start(struct workers *p, const char *name, int n)
{
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
    p->n_threads = n;
    p->limit = n * QUEUE_PER_THREAD;
    p->threads = must_alloc(sizeof *p->threads * (size_t)n);
    for (int i = 0; i < n; i++)
        thread_start(&p->threads[i], name, workers_run, p);
}

static void workers_stop(struct workers *p)
{
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++)
        pthread_join(p->threads[i], NULL);
}

static void workers_done(struct workers *p)
{
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->cond);
    p->threads = free_null(p->threads);
}

/* --- HTTP threads --------------------------------------------------------------------------------------------------------- */

/* Computes the calls of this turn, version by version. */
static void run_calls(struct listener *l)
{
    struct call *list;

    while ((list = call_take(&l->calls, l->http->server->settings->max_batch))) {
        struct version *v = list->version;
        struct predictor *predictor = NULL;
        struct problem problem;

        if (version_borrow(v, false, &predictor, &problem) == ST_OK && predictor) {
            batch_run(list, predictor);
            version_return(v, predictor);
        }
        for (struct call *c = list, *next; c; c = next) {
            next = c->next;
            call_end(c);
        }
    }
}

/* Microseconds until the calls must be computed. */
static int64_t calls_patience(const struct listener *l)
{
    const struct settings *s = l->http->server->settings;
    int64_t waited = s->batch_delay_us ? (int64_t)((clock_seconds() - l->calls.first->began) * 1e6) : 0;

    return l->calls.samples >= s->max_batch || waited >= s->batch_delay_us ? 0 : s->batch_delay_us - waited;
}

/* How long to wait for events, in microseconds; -1: until there is one. */
static int64_t patience(const struct listener *l)
{
    MHD_UNSIGNED_LONG_LONG ms;
    int64_t wait = MHD_get_timeout(l->daemon, &ms) == MHD_YES ? (int64_t)(ms < 1000000 ? ms : 1000000) * 1000 : -1;
    int64_t left = l->resumed ? 0 : l->calls.first ? calls_patience(l) : -1;

    return wait < 0 || (left >= 0 && left < wait) ? left : wait;
}

static void wait_for_events(struct listener *l, int64_t us)
{
    struct pollfd fds[2] = {{.fd = l->epoll, .events = POLLIN}, {.fd = l->wake, .events = POLLIN}};
    struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};
    uint64_t times;

    if (ppoll(fds, 2, us < 0 ? NULL : &t, NULL) > 0 && fds[1].revents)
        (void)!read(l->wake, &times, sizeof times);
}

static void *listener_run(void *arg)
{
    struct listener *l = arg;
    bool quiet = false;

    own_listener = l;
    while (!atomic_load(&l->stop)) {
        int64_t us = patience(l);

        if (us)
            wait_for_events(l, us);
        if (atomic_load(&l->quiesce) && !quiet) {
            int fd = MHD_quiesce_daemon(l->daemon);

            quiet = true;
            if (fd >= 0)
                (void)close(fd);
        }
        l->resumed = false;
        (void)MHD_run(l->daemon);
        if (l->calls.first && calls_patience(l) == 0)
            run_calls(l);
    }
    run_calls(l);
    return NULL;
}

static void listener_tell(struct listener *l, atomic_bool *what)
{
    atomic_store(what, true);
    listener_wake(l);
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

static struct MHD_Daemon *daemon_start(struct listener *l, int fd, bool ipv6)
{
    struct http *h = l->http;
    const struct settings *s = h->server->settings;
    unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG | (ipv6 ? MHD_USE_IPv6 : 0);

    return MHD_start_daemon(flags, 0, on_accept, h, on_request, l, MHD_OPTION_EXTERNAL_LOGGER, on_library_message, NULL,
                            MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, on_completed, h,
                            MHD_OPTION_NOTIFY_CONNECTION, on_connection, h, MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL,
                            MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY, MHD_OPTION_CONNECTION_LIMIT,
                            (unsigned)s->connection_limit, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)(s->idle_seconds + 1),
                            MHD_OPTION_END);
}

/* Takes fd. */
static enum status listener_start(struct http *h, int fd, bool ipv6, struct problem *problem)
{
    struct listener *l = &h->listeners[h->n_listeners];
    const union MHD_DaemonInfo *epoll;

    l->http = h;
    l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake < 0) {
        (void)close(fd);
        return fail_errno(problem, errno, "listen", "make an event");
    }
    l->daemon = daemon_start(l, fd, ipv6);
    epoll = l->daemon ? MHD_get_daemon_info(l->daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;
    if (!epoll) {
        if (l->daemon)
            MHD_stop_daemon(l->daemon);
        else
            (void)close(fd);
        (void)close(l->wake);
        return fail(problem, ST_INTERNAL, "listen", "the HTTP server did not start on %.200s", h->url);
    }
    l->epoll = epoll->epoll_fd;
    h->n_listeners++;
    thread_start(&l->thread, "horn-http", listener_run, l);
    return ST_OK;
}

static enum status start_listeners(struct http *h, struct problem *problem)
{
    const struct settings *s = h->server->settings;
    struct sockaddr_storage address;
    socklen_t length = 0, bound = sizeof address;
    int fd, n = (int)(s->http_threads > MAX_LISTENERS ? MAX_LISTENERS : s->http_threads);

    TRY(listen_check(s->listen, s->allow_anyone, problem));
    TRY(listen_parse(s->listen, &address, &length, problem));
    TRY(listen_socket(&address, length, false, s->listen, &fd, problem)); /* alone on the port? */
    if (getsockname(fd, (struct sockaddr *)&address, &bound) != 0) {
        (void)close(fd);
        return fail_errno(problem, errno, "listen", "learn the port");
    }
    (void)close(fd);
    listen_url(&address, length, h->url, sizeof h->url);
    for (int i = 0; i < n; i++) {
        TRY(listen_socket(&address, length, true, s->listen, &fd, problem));
        TRY(listener_start(h, fd, address.ss_family == AF_INET6, problem));
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
    workers_start(&h->requests, "horn-request", n);
    workers_start(&h->uploads, "horn-upload", n < 4 ? n : 4);
    status = start_listeners(h, problem);
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
    for (int i = 0; i < h->n_listeners; i++)
        listener_tell(&h->listeners[i], &h->listeners[i].quiesce);
    drain(h, DRAIN_SECONDS);
    atomic_store(&h->server->ending, true); /* ends long predictions */
    ingest_stop(true);                      /* and readers of uploads: none of them was acknowledged */
    workers_stop(&h->requests); /* what waits is still handled, and resumed: the library cannot stop suspended connections */
    workers_stop(&h->uploads);
    drain(h, END_SECONDS);
    for (int i = 0; i < h->n_listeners; i++) {
        struct listener *l = &h->listeners[i];

        listener_tell(l, &l->stop);
        pthread_join(l->thread, NULL);
        MHD_stop_daemon(l->daemon);
        (void)close(l->wake);
    }
    workers_done(&h->requests);
    workers_done(&h->uploads);
    pthread_mutex_destroy(&h->lock);
    free(h);
}
