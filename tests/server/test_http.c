/* HTTP over real sockets: bodies in pieces, suspended requests, limits, a stop with open connections. */
#include "server/http.h"
#include "server/listen.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/server/support.h"

#define HOST "Host: localhost\r\n"

static char answer[1 << 16];

static struct http *start(struct rig *r)
{
    struct problem problem = {0};
    struct http *http = NULL;

    CHECK_OK(http_start(&r->server, &http, &problem));
    return http;
}

static void say(int fd, const char *s, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, s, n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return; /* the other side may close early */
        s += sent;
        n -= (size_t)sent;
    }
}

static void say_text(int fd, const char *s)
{
    say(fd, s, strlen(s));
}

/* One reply into `answer`; its status, 0 if the connection was closed. */
static int hear(int fd)
{
    size_t n = 0, want = sizeof answer;

    while (n < sizeof answer - 1 && n < want) {
        ssize_t got = recv(fd, answer + n, sizeof answer - 1 - n, 0);
        char *end, *length;

        if (got < 0 && errno == EINTR) /* a child that read an upload has ended */
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
        answer[n] = 0;
        end = strstr(answer, "\r\n\r\n");
        length = end ? strstr(answer, "Content-Length: ") : NULL;
        if (end)
            want = (size_t)(end + 4 - answer) + (length ? (size_t)atol(length + 16) : 0);
    }
    answer[n] = 0;
    return n > 12 ? atoi(answer + 9) : 0;
}

static int count_files(const char *folder, const char *sub)
{
    char path[128];
    int n = 0;
    DIR *d;

    snprintf(path, sizeof path, "%s/%s", folder, sub);
    d = opendir(path);
    CHECK(d != NULL);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    (void)closedir(d);
    return n;
}

TEST(requests_on_one_connection_are_answered_in_order)
{
    struct rig r;

    rig_open(&r, false, "--listen=127.0.0.1:0", NULL);
    struct http *http = start(&r);
    int fd = rig_connect(http);

    say_text(fd, "GET /healthz HTTP/1.1\r\n" HOST "\r\n");
    CHECK_INT(hear(fd), 200);
    CHECK_CONTAINS(answer, "Server: horn/" HORN_VERSION "\r\n");
    say_text(fd, "GET /api/v1/jobs HTTP/1.1\r\n" HOST "\r\n"); /* by a request thread */
    CHECK_INT(hear(fd), 200);
    CHECK_CONTAINS(answer, "{\"jobs\":[]");
    say_text(fd, "POST /api/v1/jobs/7/cancel HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
    CHECK_INT(hear(fd), 404);
    say_text(fd, "DELETE /healthz HTTP/1.1\r\n" HOST "\r\n");
    CHECK_INT(hear(fd), 405);
    CHECK_CONTAINS(answer, "Allow: GET\r\n");
    say_text(fd, "GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    CHECK_INT(hear(fd), 403);
    say_text(fd, "GET /healthz HTTP/1.1\r\n\r\n");
    CHECK_INT(hear(fd), 400);
    (void)close(fd);
    http_stop(http);
    rig_close(&r);
}

TEST(a_body_in_pieces_is_put_together)
{
    static const char csv[] = "1,2\n3,4\n";
    struct rig r;

    rig_open(&r, false, "--listen=127.0.0.1:0", NULL);
    struct http *http = start(&r);
    int fd = rig_connect(http);

    say_text(fd, "PUT /api/v1/datasets/d/x?format=csv HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n");
    for (const char *c = csv; *c; c++) {
        char chunk[16];

        snprintf(chunk, sizeof chunk, "1\r\n%c\r\n", *c);
        say_text(fd, chunk);
        usleep(1000);
    }
    say_text(fd, "0\r\n\r\n");
    CHECK_INT(hear(fd), 201);
    CHECK_CONTAINS(answer, "\"shape\":[2,2]");
    CHECK_CONTAINS(answer, "Location: /api/v1/datasets/d\r\n");
    (void)close(fd);
    http_stop(http);
    rig_close(&r);
}

TEST(an_upload_that_is_broken_off_leaves_nothing)
{
    struct rig r;
    static char part[50000];

    rig_open(&r, false, "--listen=127.0.0.1:0", NULL); /* idle_seconds is 75: the sweep sees it */
    struct http *http = start(&r);
    int fd = rig_connect(http);

    say_text(fd, "PUT /api/v1/datasets/d/x HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n");
    say(fd, part, sizeof part);
    for (int i = 0; i < 500 && count_files(r.folder, "tmp") == 0; i++)
        usleep(2000);
    CHECK_INT(count_files(r.folder, "tmp"), 1);
    (void)close(fd);
    for (int i = 0; i < 200 && count_files(r.folder, "tmp") > 0; i++) {
        http_sweep(http);
        usleep(50000);
    }
    CHECK_INT(count_files(r.folder, "tmp"), 0);
    http_stop(http);
    rig_close(&r);
}

TEST(bodies_beyond_their_limit_are_413_announced_or_not)
{
    static char big[70000];
    struct rig r;

    memset(big, ' ', sizeof big);
    rig_open(&r, false, "--listen=127.0.0.1:0", "--body-limit=64K", NULL);
    struct http *http = start(&r);
    int fd = rig_connect(http);

    say_text(fd, "POST /api/v1/jobs HTTP/1.1\r\n" HOST "Content-Length: 70000\r\n\r\n");
    say(fd, big, sizeof big);
    CHECK_INT(hear(fd), 413);
    CHECK_CONTAINS(answer, "the body has 70000 bytes, the limit (body_limit) is 65536");
    say_text(fd, "POST /api/v1/jobs HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n11170\r\n"); /* 70000 */
    say(fd, big, sizeof big);
    say_text(fd, "\r\n0\r\n\r\n");
    CHECK_INT(hear(fd), 413);
    CHECK_CONTAINS(answer, "larger than the limit (body_limit) of 65536");
    say_text(fd, "GET /healthz HTTP/1.1\r\n" HOST "\r\n"); /* the connection goes on */
    CHECK_INT(hear(fd), 200);
    say_text(fd, "PUT /api/v1/datasets/d/x HTTP/1.1\r\n" HOST "Content-Length: 99999999999999\r\nExpect: 100-continue\r\n\r\n");
    CHECK_INT(hear(fd), 413); /* before it is sent */
    (void)close(fd);
    http_stop(http);
    rig_close(&r);
}

TEST(bodies_in_flight_are_limited_in_all)
{
    struct rig r;

    rig_open(&r, false, "--listen=127.0.0.1:0", "--upload-limit=64K", "--upload-total=100K", NULL);
    struct http *http = start(&r);
    int first = rig_connect(http), second = rig_connect(http);

    say_text(first, "PUT /api/v1/datasets/d/x HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n1");
    for (int i = 0; i < 500 && count_files(r.folder, "tmp") == 0; i++)
        usleep(2000);
    say_text(second, "PUT /api/v1/datasets/d/y HTTP/1.1\r\n" HOST "Content-Length: 60000\r\nExpect: 100-continue\r\n\r\n");
    CHECK_INT(hear(second), 429);
    CHECK_CONTAINS(answer, "Retry-After: ");
    (void)close(first);
    (void)close(second);
    http_stop(http);
    rig_close(&r);
}

TEST(a_header_that_takes_too_long_is_cut_off)
{
    struct rig r;
    char byte;

    rig_open(&r, false, "--listen=127.0.0.1:0", "--header-seconds=0.1", NULL);
    struct http *http = start(&r);
    int fd = rig_connect(http);

    say_text(fd, "GET /healthz HTTP/1.1\r\nX: ");
    usleep(200000);
    http_sweep(http);
    CHECK(recv(fd, &byte, 1, 0) <= 0);
    (void)close(fd);
    http_stop(http);
    rig_close(&r);
}

TEST(connections_from_one_address_are_limited)
{
    struct rig r;
    int fd[3];

    rig_open(&r, false, "--listen=127.0.0.1:0", "--address-limit=2", NULL);
    struct http *http = start(&r);

    for (int i = 0; i < 3; i++) {
        fd[i] = rig_connect(http);
        say_text(fd[i], "GET /healthz HTTP/1.1\r\n" HOST "\r\n");
        CHECK_INT(hear(fd[i]), i < 2 ? 200 : 0);
    }
    for (int i = 0; i < 3; i++)
        (void)close(fd[i]);
    http_stop(http);
    rig_close(&r);
}

TEST(a_port_that_is_taken_is_refused)
{
    struct rig r;
    struct problem problem;
    struct http *second = NULL;

    rig_open(&r, false, "--listen=127.0.0.1:0", NULL);
    struct http *http = start(&r);

    free(r.settings.listen);
    r.settings.listen = must_text(http_url(http) + strlen("http://"));
    CHECK_INT(http_start(&r.server, &second, &problem), ST_CONFLICT);
    CHECK_CONTAINS(problem.detail, "another process has 127.0.0.1:");
    CHECK_INT(listen_check_free(r.settings.listen, &problem), ST_CONFLICT);
    http_stop(http);
    CHECK_OK(listen_check_free(r.settings.listen, &problem));
    rig_close(&r);
}

TEST(a_stop_answers_what_waits_and_closes_the_rest)
{
    struct rig r;

    rig_open(&r, false, "--listen=127.0.0.1:0", NULL);
    struct http *http = start(&r);
    int idle = rig_connect(http), waiting = rig_connect(http);
    char byte;

    say_text(waiting, "GET /metrics HTTP/1.1\r\n" HOST "\r\n");
    usleep(20000);
    atomic_store(&r.server.stopping, true);
    http_stop(http);
    CHECK_INT(hear(waiting), 200);
    CHECK(recv(idle, &byte, 1, 0) <= 0);
    (void)close(idle);
    (void)close(waiting);
    rig_close(&r);
}
