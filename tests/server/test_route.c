/* Finding endpoints, Host and Origin, problems; and that the written description and the routes agree. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/server/support.h"

TEST(a_path_that_is_no_route_is_404_as_a_problem)
{
    static const char *const paths[] = {"/",
                                        "/api/v1/nothing",
                                        "/api/v1/jobs/",
                                        "/api/v1/jobs/x",
                                        "/api/v1/jobs/0",
                                        "/api/v1/jobs/99999999999999999999",
                                        "/api/v1/jobs/1/cancel/2",
                                        "/API/v1/jobs",
                                        "//api/v1/jobs",
                                        "/api/v1/models/../system",
                                        "/api/v1/models/a%2fb"};
    struct rig r;

    rig_open(&r, false, NULL);
    for (size_t i = 0; i < COUNT(paths); i++) {
        if (rig_get(&r, paths[i]) != 404)
            fail_msg("%s answers %d", paths[i], r.reply.code);
        CHECK_TEXT(r.reply.content_type, "application/problem+json");
        CHECK_INT(rig_number(&r, "status"), 404);
        CHECK_TEXT(rig_text(&r, "type"), "urn:horn:problem:not-found");
    }
    rig_close(&r);
}

TEST(a_method_that_a_route_lacks_is_405_and_the_others_are_named)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_send(&r, "DELETE", "/api/v1/jobs", NULL, NULL, 0), 405);
    CHECK_CONTAINS(r.reply.allow, "GET");
    CHECK_CONTAINS(r.reply.allow, "POST");
    CHECK_INT(rig_get(&r, "/api/v1/jobs/1/cancel"), 405);
    CHECK_TEXT(r.reply.allow, "POST");
    CHECK_INT(rig_send(&r, "HEAD", "/healthz", NULL, NULL, 0), 200);
    rig_close(&r);
}

TEST(a_name_that_is_none_is_422_when_it_would_be_made)
{
    struct rig r;

    rig_open(&r, false, NULL);
    CHECK_INT(rig_send(&r, "PUT", "/api/v1/datasets/.hidden/x", NULL, "x", 1), 422);
    CHECK_CONTAINS(rig_text(&r, "detail"), "holds a name that is none");
    CHECK_INT(rig_get(&r, "/api/v1/datasets/.hidden"), 404);
    rig_close(&r);
}

TEST(foreign_hosts_and_origins_are_403)
{
    static const struct {
        const char *headers;
        int want;
    } rows[] = {
        {"Host: localhost", 200},
        {"Host: localhost:8501", 200},
        {"Host: 127.0.0.1:8501", 200},
        {"Host: [::1]:8501", 200},
        {"Host: LOCALHOST:9000", 200},
        {"Host: friend.example:80", 200},
        {"Host: evil.example", 403},
        {"Host: localhost.evil.example:8501", 403},
        {"Host: 10.1.2.3", 403},
        {"Host: localhost:8501:80", 403},
        {"Host: [::1", 403},
        {"Host: localhost:8501\nOrigin: http://localhost:8501", 200},
        {"Host: localhost:8501\nOrigin: http://localhost:3000", 403},
        {"Host: localhost:8501\nOrigin: http://evil.example", 403},
        {"Host: localhost:8501\nOrigin: null", 403},
    };
    struct rig r;

    rig_open(&r, false, "--hosts=other.example, friend.example", NULL);
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (rig_send(&r, "GET", "/healthz", rows[i].headers, NULL, 0) != rows[i].want)
            fail_msg("%s answers %d, not %d", rows[i].headers, r.reply.code, rows[i].want);
    }
    rig_close(&r);
}

TEST(a_body_that_is_announced_too_large_is_413_before_it_is_read)
{
    struct rig r;
    struct request q = {.server = &r.server, .mem = arena_new(), .method = "POST", .path = "/api/v1/jobs", .length = 2000};

    rig_open(&r, false, "--body-limit=1K", NULL);
    CHECK(!route_begin(&q, &r.reply));
    CHECK_INT(r.reply.code, 413);
    CHECK_CONTAINS(r.reply.body.s, "the body has 2000 bytes, the limit (body_limit) is 1024");
    arena_free(q.mem);
    rig_close(&r);
}

TEST(what_waits_for_the_disk_is_put_off_in_an_http_thread)
{
    struct rig r;

    rig_open(&r, false, NULL);
    r.http_thread = true;
    (void)rig_post(&r, "/api/v1/jobs", "{}");
    CHECK(r.reply.later);
    CHECK_INT(rig_get(&r, "/healthz"), 200);
    CHECK(!r.reply.later);
    rig_close(&r);
}

/* --- the description -------------------------------------------------------------------------------------------------------- */

struct operation {
    char method[8], path[128], id[64];
};

/* The lines of openapi.yaml: "  /path:", "    get:", "      operationId: x", in this indentation. */
static int scan_description(struct operation *to, int room)
{
    FILE *f = fopen("api-spec/openapi.yaml", "r");
    char line[512], path[128] = "", method[8] = "";
    int n = 0;

    if (!f)
        return -1;
    while (fgets(line, sizeof line, f)) {
        char word[128];

        line[strcspn(line, "\n")] = 0;
        if (strncmp(line, "  /", 3) == 0) {
            snprintf(path, sizeof path, "%.*s", (int)strcspn(line + 2, ":"), line + 2);
        } else if (*path && sscanf(line, "    %127[a-z]:", word) == 1 && strncmp(line, "     ", 5) != 0) {
            snprintf(method, sizeof method, "%.7s", word);
            for (char *c = method; *c; c++)
                *c = (char)toupper(*c);
        } else if (strncmp(line, "      operationId: ", 19) == 0 && n < room) {
            snprintf(to[n].id, sizeof to[n].id, "%.63s", line + 19);
            snprintf(to[n].method, sizeof to[n].method, "%s", method);
            snprintf(to[n++].path, sizeof to[0].path, "%s", path);
        } else if (line[0] && line[0] != ' ') {
            path[0] = 0;
        }
    }
    (void)fclose(f);
    return n;
}

TEST(every_route_is_described_and_every_description_is_a_route)
{
    struct operation described[100];
    int n = scan_description(described, 100), n_routes;
    const struct endpoint *const *routes = route_table(&n_routes);

    CHECK(n > 10);
    for (int i = 0; i < n_routes; i++) {
        int k = 0;

        while (k < n &&
               (strcmp(described[k].method, routes[i]->method) != 0 || strcmp(described[k].path, routes[i]->path) != 0))
            k++;
        if (k == n)
            fail_msg("openapi.yaml does not have %s %s", routes[i]->method, routes[i]->path);
        CHECK_TEXT(described[k].id, routes[i]->operation);
    }
    CHECK_INT(n, n_routes);
}

TEST(the_description_is_served_as_it_is_written)
{
    struct rig r;
    CLEAN(text_done) struct text written = text_make(1 << 20);
    FILE *f = fopen("api-spec/openapi.yaml", "r");
    int c;

    CHECK(f != NULL);
    while ((c = fgetc(f)) != EOF)
        text_add_char(&written, (char)c);
    (void)fclose(f);
    rig_open(&r, false, NULL);
    CHECK_INT(rig_get(&r, "/openapi.yaml"), 200);
    CHECK_TEXT(r.reply.content_type, "application/yaml");
    CHECK(strcmp(r.reply.body.s, written.s) == 0);
    rig_close(&r);
}
