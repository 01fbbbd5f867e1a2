/* Finding the endpoint, and what is the same for all of them.
 *
 * There are some twenty templates: a walk over the table compares segment by segment and takes about a microsecond. Host and
 * Origin are looked at because a page in a browser can send requests to a loopback port: its Origin gives it away, and a name that
 * was rebound to 127.0.0.1 stands in Host. */
#include "server/route.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <unistd.h>

#include "server/server.h"
#include "server/settings.h"
#include "storage/db.h"

#define X(name) extern const struct endpoint name;
#include "endpoints.inc"
#undef X

static const struct endpoint *const table[] = {
#define X(name) &name,
#include "endpoints.inc"
#undef X
};

static bool number_read(const char *s, int64_t *ret)
{
    int64_t x = 0;

    if (*s < '1' || *s > '9')
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || x > (INT64_MAX - 9) / 10)
            return false;
        x = x * 10 + (*s - '0');
    }
    *ret = x;
    return true;
}

/* Does the path fit the template? Parameters are copied to r. *bad_name: it would, but for a parameter that is no name. */
static bool path_fits(const char *template, const char *path, struct request *r, bool *bad_name)
{
    int n = 0;

    *bad_name = false;
    while (*template && *path) {
        size_t length;
        char *value;

        if (*template != '{') {
            if (*template ++ != *path++)
                return false;
            continue;
        }
        length = strcspn(path, "/");
        value = arena_alloc(r->mem, length + 1);
        memcpy(value, path, length);
        if (strncmp(template, "{id}", 4) == 0 || strncmp(template, "{n}", 3) == 0) {
            if (!number_read(value, &r->number[n]))
                return false;
        } else if (!name_valid(value)) {
            *bad_name = true;
        }
        if (n < MAX_PARAMS)
            r->param[n++] = value;
        path += length;
        template = strchr(template, '}') + 1;
    }
    return !*template && !*path;
}

static void allow_add(struct reply *reply, const char *method)
{
    size_t used = strlen(reply->allow);

    snprintf(reply->allow + used, sizeof reply->allow - used, "%s%s", used ? ", " : "", method);
}

static enum status find_endpoint(struct request *r, struct reply *reply, struct problem *problem)
{
    bool head = strcmp(r->method, "HEAD") == 0, bad_name = false;

    for (size_t i = 0; i < COUNT(table); i++) {
        if (!path_fits(table[i]->path, r->path, r, &bad_name))
            continue;
        if (bad_name)
            return fail(problem, strcmp(r->method, "PUT") == 0 ? ST_INVALID : ST_NOT_FOUND, "",
                        "%.300s holds a name that is none: names are a letter or digit, then up to 127 letters, digits, "
                        "'.', '_' or '-'",
                        r->path);
        if (strcmp(table[i]->method, head ? "GET" : r->method) == 0) {
            r->endpoint = table[i];
            return ST_OK;
        }
        allow_add(reply, table[i]->method);
    }
    if (reply->allow[0])
        return fail(problem, ST_NO_METHOD, "", "%.16s is no method of %.300s, which has %s", r->method, r->path, reply->allow);
    return fail(problem, ST_NOT_FOUND, "", "there is no %.400s here; /openapi.yaml lists what there is", r->path);
}

/* "[::1]:8501" or "localhost:8501": the host without brackets and port. false: not of that form. */
static bool host_part(const char *authority, char to[256])
{
    size_t n;
    const char *rest;

    if (*authority == '[') {
        n = strcspn(authority + 1, "]");
        if (authority[n + 1] != ']' || n >= 256)
            return false;
        memcpy(to, authority + 1, n);
        rest = authority + n + 2;
    } else {
        n = strcspn(authority, ":");
        if (n >= 256)
            return false;
        memcpy(to, authority, n);
        rest = authority + n;
    }
    to[n] = 0;
    if (*rest && *rest != ':')
        return false;
    if (*rest == ':' && strspn(rest + 1, "0123456789") != strlen(rest + 1))
        return false;
    return n > 0;
}

static bool is_address(const char *host)
{
    unsigned char bytes[16];

    return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

static bool is_loopback(const char *host)
{
    unsigned char v4[4];

    return strcasecmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (inet_pton(AF_INET, host, v4) == 1 && v4[0] == 127);
}

/* One of the names of the setting `hosts`? */
static bool is_listed(const char *list, const char *host)
{
    size_t n = strlen(host);

    while (*list) {
        size_t length;

        list += strspn(list, ", ");
        length = strcspn(list, ", ");
        if (length == n && strncasecmp(list, host, n) == 0)
            return true;
        list += length;
    }
    return false;
}

static bool host_is_ours(const struct settings *s, const char *authority)
{
    char host[256], listen[256], own[256] = "";

    if (!host_part(authority, host))
        return false;
    if (is_loopback(host) || is_listed(s->hosts, host))
        return true;
    if (!host_part(s->listen, listen) || is_loopback(listen))
        return false;
    if (strcasecmp(host, listen) == 0)
        return true;
    if (gethostname(own, sizeof own - 1) == 0 && strcasecmp(host, own) == 0)
        return true;
    /* listening on all addresses: which are ours is the network's business, but a name is not an address */
    return (strcmp(listen, "0.0.0.0") == 0 || strcmp(listen, "::") == 0) && is_address(host);
}

static enum status check_caller(const struct request *r, struct problem *problem)
{
    if (r->host && !host_is_ours(r->server->settings, r->host))
        return fail(problem, ST_FORBIDDEN, "Host",
                    "\"%.200s\" is no name of this daemon; the setting `hosts` takes further ones", r->host);
    if (r->origin) {
        const char *authority = strstr(r->origin, "://");

        if (!authority || !r->host || strcasecmp(authority + 3, r->host) != 0)
            return fail(problem, ST_FORBIDDEN, "Origin", "pages of \"%.200s\" may not use this daemon", r->origin);
    }
    return ST_OK;
}

/* Types that come with a JSON body: curl -d without a header says x-www-form-urlencoded. */
static bool may_be_json(const struct request *r)
{
    return !r->content_type || request_is(r, "application/json") || request_is(r, "text/json") ||
           request_is(r, "application/x-www-form-urlencoded") || request_is(r, "application/octet-stream");
}

size_t route_body_limit(const struct request *r)
{
    const struct settings *s = r->server->settings;

    return (size_t)(r->endpoint && (r->endpoint->flags & ENDPOINT_UPLOAD) ? s->upload_limit : s->body_limit);
}

static enum status begin(struct request *r, struct reply *reply, struct problem *problem)
{
    TRY(check_caller(r, problem));
    TRY(find_endpoint(r, reply, problem));
    if (r->length > (int64_t)route_body_limit(r))
        return fail(problem, ST_TOO_LARGE, "", "the body has %lld bytes, the limit (%s) is %zu", (long long)r->length,
                    r->endpoint->flags & ENDPOINT_UPLOAD ? "upload_limit" : "body_limit", route_body_limit(r));
    if (r->endpoint->body && !may_be_json(r))
        return fail(problem, ST_MEDIA, "Content-Type", "the body is read as application/json, not as \"%.100s\"",
                    r->content_type);
    return ST_OK;
}

/* NaN and Infinity are no JSON, but Keras prints them in layer configurations. */
static enum status refuse_nan(const struct json *j, const char *pointer, const char *but_below, struct problem *problem)
{
    if (json_type(j) == JSON_NUMBER && !isfinite(json_number(j)))
        return fail(problem, ST_MALFORMED, pointer, "NaN and Infinity are no JSON; they are read below %s alone", but_below);
    if (json_type(j) != JSON_OBJECT && json_type(j) != JSON_ARRAY)
        return ST_OK;
    int i = 0;
    for (const struct json *item = json_first(j); item; item = json_next(item), i++) {
        CLEAN(text_done) struct text here = text_make(256);

        if (json_type(item) != JSON_NUMBER && json_type(item) != JSON_OBJECT && json_type(item) != JSON_ARRAY)
            continue;
        if (json_type(item) == JSON_NUMBER && isfinite(json_number(item)))
            continue;
        if (json_type(j) == JSON_OBJECT)
            text_printf(&here, "%s/%s", pointer, json_key(item));
        else
            text_printf(&here, "%s/%d", pointer, i);
        if (strcmp(here.s, but_below) != 0)
            TRY(refuse_nan(item, here.s, but_below, problem));
    }
    return ST_OK;
}

static enum status handle(struct request *r, struct reply *reply, struct problem *problem)
{
    const struct endpoint *e = r->endpoint;
    OWNED(json_free) struct json *json = NULL;
    struct json_limits limits = {.bytes = route_body_limit(r)};
    void *body = NULL;
    enum status s;

    if (e->body) {
        if (!r->body_bytes)
            return fail(problem, ST_MALFORMED, "", "the request has no body; %s %s takes a JSON object", e->method, e->path);
        TRY(json_parse(r->body, r->body_bytes, &limits, e->nan_below ? JSON_NAN : 0, &json, problem));
        if (json_type(json) != JSON_OBJECT)
            return fail(problem, ST_INVALID, "", "the body is %s, it must be an object", json_type_name(json_type(json)));
        if (e->nan_below)
            TRY(refuse_nan(json, "", e->nan_below, problem));
        body = arena_alloc(r->mem, e->body_size);
        TRY(field_parse(e->body, json, body, r->mem, "", FIELD_STRICT, NULL, problem));
        r->json = json;
    }
    s = e->handle(r, body, reply, problem);
    r->json = NULL;
    return s;
}

bool route_begin(struct request *r, struct reply *reply)
{
    struct problem problem = {0};

    if (begin(r, reply, &problem) == ST_OK)
        return true;
    reply_problem(reply, &problem);
    return false;
}

bool route_handle(struct request *r, struct reply *reply)
{
    struct problem problem = {0};

    if ((r->endpoint->flags & ENDPOINT_SLOW) && !r->worker) {
        reply->later = true;
        return true;
    }
    if (handle(r, reply, &problem) == ST_OK)
        return true;
    reply_problem(reply, &problem);
    return false;
}

const char *request_query(const struct request *r, const char *key)
{
    for (int i = 0; i < r->n_query; i++) {
        if (strcmp(r->query[i].key, key) == 0)
            return r->query[i].value;
    }
    return NULL;
}

enum status request_query_only(const struct request *r, const char *const *known, struct problem *problem)
{
    for (int i = 0; i < r->n_query; i++) {
        int k = 0;

        while (known[k] && strcmp(known[k], r->query[i].key) != 0)
            k++;
        if (!known[k])
            return fail(problem, ST_INVALID, r->query[i].key, "is no query parameter of %s %s", r->endpoint->method,
                        r->endpoint->path);
        for (int j = 0; j < i; j++) {
            if (strcmp(r->query[j].key, r->query[i].key) == 0)
                return fail(problem, ST_INVALID, r->query[i].key, "stands twice in the query");
        }
    }
    return ST_OK;
}

enum status request_query_int(const struct request *r, const char *key, int64_t preset, int64_t min, int64_t max, int64_t *ret,
                              struct problem *problem)
{
    const char *s = request_query(r, key);
    int64_t x;

    *ret = preset;
    if (!s)
        return ST_OK;
    if (!number_read(s, &x) || x < min || x > max)
        return fail(problem, ST_INVALID, key, "is \"%.60s\", it must be a whole number from %lld to %lld", s, (long long)min,
                    (long long)max);
    *ret = x;
    return ST_OK;
}

enum status request_query_bool(const struct request *r, const char *key, bool *ret, struct problem *problem)
{
    const char *s = request_query(r, key);

    *ret = false;
    if (!s)
        return ST_OK;
    if (strcmp(s, "true") != 0 && strcmp(s, "false") != 0)
        return fail(problem, ST_INVALID, key, "is \"%.60s\", it must be true or false", s);
    *ret = s[0] == 't';
    return ST_OK;
}

bool request_is(const struct request *r, const char *type)
{
    size_t n = strlen(type);

    if (!r->content_type || strncasecmp(r->content_type, type, n) != 0)
        return false;
    return strchr(" ;", r->content_type[n]) != NULL; /* the terminator counts */
}

const struct endpoint *const *route_table(int *n)
{
    *n = (int)COUNT(table);
    return table;
}
