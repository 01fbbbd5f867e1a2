#include "tests/server/support.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "server/http.h"
#include "server/lane.h"
#include "server/log.h"
#include "server/npy.h"
#include "server/registry.h"
#include "storage/datasets.h"
#include "storage/db.h"

/* hornd stands beside the test and reads uploads as it does in service. A plain fork of this process would hang whenever
 * another thread holds a lock of the allocator: ASan's is not released in the child. */
static const char *hornd_path(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof "hornd");
    char *name;

    CHECK(n > 0);
    path[n] = 0;
    name = strrchr(path, '/');
    CHECK(name != NULL);
    strcpy(name + 1, "hornd");
    return path;
}

static void start(struct rig *r, bool with_lanes)
{
    struct problem problem;

    CHECK_OK(db_open(r->folder, &r->server.db, &problem));
    r->server.settings = &r->settings;
    r->server.started_ms = clock_unix_ms();
    atomic_store(&r->server.stopping, false);
    atomic_store(&r->server.ready, true);
    CHECK_OK(registry_new(r->server.db, r->settings.serving_memory, &r->server.registry, &problem));
    if (with_lanes)
        CHECK_OK(lanes_start(&r->server, &r->server.lanes, &problem));
}

static void stop(struct rig *r)
{
    atomic_store(&r->server.stopping, true);
    lanes_stop(r->server.lanes);
    lanes_free(r->server.lanes);
    r->server.lanes = NULL;
    r->server.registry = registry_free(r->server.registry);
    r->server.db = db_close(r->server.db);
}

void rig_open(struct rig *r, int with_lanes, ...)
{
    char *argv[24] = {(char *)"hornd"};
    enum settings_action action;
    struct problem problem;
    int argc = 1;
    va_list flags;

    memset(r, 0, sizeof *r);
    log_setup(getenv("HORN_TEST_LOG") ? LOG_DEBUG : LOG_ERROR, LOG_TEXT);
    ingest_program(hornd_path());
    strcpy(r->folder, "/tmp/horn-test-XXXXXX");
    CHECK(mkdtemp(r->folder) != NULL);
    va_start(flags, with_lanes);
    for (char *flag; (flag = va_arg(flags, char *)) && argc < 24;)
        argv[argc++] = flag;
    va_end(flags);
    CHECK_OK(settings_read(argc, argv, &r->settings, &action, &problem));
    reply_init(&r->reply);
    start(r, with_lanes);
}

void rig_reopen(struct rig *r, bool with_lanes)
{
    stop(r);
    start(r, with_lanes);
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *at)
{
    (void)st, (void)what, (void)at;
    return remove(path);
}

void rig_close(struct rig *r)
{
    stop(r);
    json_free(r->json);
    reply_done(&r->reply);
    settings_done(&r->settings);
    (void)nftw(r->folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* "Name: value\n..." -> the value, in the request's arena. */
static const char *header(struct arena *mem, const char *headers, const char *name)
{
    size_t n = strlen(name);

    for (const char *line = headers; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *value = line + n + 1 + strspn(line + n + 1, " ");

            return arena_print(mem, "%.*s", (int)strcspn(value, "\n"), value);
        }
    }
    return NULL;
}

static void split_target(struct request *q, const char *target)
{
    char *copy = arena_text(q->mem, target), *query = strchr(copy, '?');

    q->path = copy;
    if (!query)
        return;
    *query++ = 0;
    for (char *pair = strtok(query, "&"); pair && q->n_query < MAX_QUERY; pair = strtok(NULL, "&")) {
        char *value = strchr(pair, '=');

        if (value)
            *value++ = 0;
        q->query[q->n_query].key = pair;
        q->query[q->n_query++].value = value ? value : "";
    }
}

static void give_body(struct rig *r, struct request *q, const char *body, size_t bytes)
{
    struct problem problem;
    int fd;

    if (!(q->endpoint->flags & ENDPOINT_UPLOAD)) {
        q->body = must_alloc(bytes + 1);
        memcpy(q->body, body, bytes);
        q->body_bytes = bytes;
        return;
    }
    CHECK_OK(db_temp(r->server.db, q->upload, &fd, &problem));
    CHECK_INT(write(fd, body, bytes), bytes);
    (void)close(fd);
    q->upload_bytes = (int64_t)bytes;
}

int rig_send(struct rig *r, const char *method, const char *target, const char *headers, const char *body, size_t bytes)
{
    struct problem ignored;
    struct request q = {.server = &r->server, .mem = arena_new(), .method = method, .length = body ? (int64_t)bytes : -1};

    json_free(r->json);
    r->json = NULL;
    reply_clear(&r->reply);
    q.host = header(q.mem, headers, "Host");
    q.origin = header(q.mem, headers, "Origin");
    q.content_type = header(q.mem, headers, "Content-Type");
    q.accept = header(q.mem, headers, "Accept");
    q.idempotency_key = header(q.mem, headers, "Idempotency-Key");
    q.worker = !r->http_thread;
    split_target(&q, target);
    if (route_begin(&q, &r->reply)) {
        if (body)
            give_body(r, &q, body, bytes);
        (void)route_handle(&q, &r->reply);
    }
    free(q.body);
    if (q.upload[0])
        (void)unlink(q.upload);
    arena_free(q.mem);
    if (json_parse(r->reply.body.s, r->reply.body.length, NULL, 0, &r->json, &ignored) != ST_OK)
        r->json = NULL;
    return r->reply.code;
}

int rig_get(struct rig *r, const char *target)
{
    return rig_send(r, "GET", target, NULL, NULL, 0);
}

int rig_post(struct rig *r, const char *target, const char *json)
{
    return rig_send(r, "POST", target, "Content-Type: application/json", json, strlen(json));
}

int rig_put_floats(struct rig *r, const char *target, const float *v, int rank, const int64_t *dim)
{
    CLEAN(text_done) struct text body = text_make(64 << 20);
    struct shape shape = {.rank = rank};

    memcpy(shape.dim, dim, sizeof *dim * (size_t)rank);
    npy_print(&body, v, &shape);
    return rig_send(r, "PUT", target, NULL, body.s, body.length);
}

const char *rig_wait(struct rig *r, int64_t id)
{
    double until = clock_seconds() + 60;
    char target[64];

    snprintf(target, sizeof target, "/api/v1/jobs/%lld", (long long)id);
    do {
        const char *state;

        CHECK_INT(rig_get(r, target), 200);
        state = rig_text(r, "state");
        if (strcmp(state, "queued") != 0 && strcmp(state, "running") != 0)
            return state;
        usleep(5000);
    } while (clock_seconds() < until);
    return "still not over";
}

const struct json *rig_at(const struct rig *r, const char *path)
{
    const struct json *j = r->json;
    char key[128];

    while (j && *path) {
        size_t n = strcspn(path, ".");

        snprintf(key, sizeof key, "%.*s", (int)n, path);
        j = json_type(j) == JSON_ARRAY ? json_at(j, atoi(key)) : json_get(j, key);
        path += n + (path[n] == '.');
    }
    return j;
}

const char *rig_text(const struct rig *r, const char *path)
{
    const char *s = json_text(rig_at(r, path));

    return s ? s : "";
}

double rig_number(const struct rig *r, const char *path)
{
    return json_number(rig_at(r, path));
}

void rig_put_curve(struct rig *r, int64_t rows)
{
    float *x = must_alloc(sizeof *x * 4 * (size_t)rows), *y = must_alloc(sizeof *y * (size_t)rows);

    for (int64_t i = 0; i < rows * 4; i++)
        x[i] = (float)sin((double)i * 0.37);
    for (int64_t i = 0; i < rows; i++)
        y[i] = x[4 * i] * x[4 * i + 1] + x[4 * i + 2];
    CHECK_INT(rig_put_floats(r, "/api/v1/datasets/d/x", x, 2, (int64_t[]){rows, 4}), 201);
    CHECK_INT(rig_put_floats(r, "/api/v1/datasets/d/y", y, 2, (int64_t[]){rows, 1}), 201);
    free(x);
    free(y);
}

int rig_connect(const struct http *http)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    a.sin_port = htons((uint16_t)atoi(strrchr(http_url(http), ':') + 1));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_INT(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}
