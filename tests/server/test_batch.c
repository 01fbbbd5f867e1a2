/* Predict calls of several clients that are computed together, over real sockets, and the lists they wait in. */
#include "server/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http.h"
#include "server/metrics.h"
#include "tests/server/support.h"

enum { CLIENTS = 12, ROOM = 1 << 14, LARGE = 70000 /* bytes of a body that no HTTP thread computes */ };

#define JOB                                                                                                                   \
    "{\"type\":\"fit\",\"model\":{\"name\":\"m\",\"architecture\":{\"class_name\":\"Sequential\",\"config\":{\"name\":\"s\"," \
    "\"layers\":["                                                                                                            \
    "{\"class_name\":\"InputLayer\",\"config\":{\"name\":\"in\",\"batch_shape\":[null,2]}},"                                  \
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"h\",\"units\":40,\"activation\":\"tanh\"}},"                            \
    "{\"class_name\":\"Dense\",\"config\":{\"name\":\"o\",\"units\":3,\"activation\":\"softmax\"}}]}}},"                      \
    "\"compile\":{\"optimizer\":\"adam\",\"loss\":\"sparse_categorical_crossentropy\"},"                                      \
    "\"fit\":{\"x\":[[0,0],[0,1],[1,0],[1,1]],\"y\":[0,1,2,0],\"epochs\":1},\"seed\":5}"

static struct http *start(struct rig *r, const char *delay, const char *most)
{
    struct problem problem = {0};
    struct http *http = NULL;

    rig_open(r, true, "--threads=1", "--listen=127.0.0.1:0", "--http-threads=1", "--request-threads=12", delay, most, NULL);
    CHECK_INT(rig_post(r, "/api/v1/jobs", JOB), 202);
    CHECK_TEXT(rig_wait(r, (int64_t)rig_number(r, "id")), "done");
    CHECK_INT(rig_post(r, "/api/v1/models/m/predict", "{\"inputs\":[[0,0]]}"), 200); /* loads it */
    CHECK_OK(http_start(&r->server, &http, &problem));
    return http;
}

static void ask(int fd, const char *inputs, int padding)
{
    CLEAN(text_done) struct text t = text_make(200000);
    size_t sent = 0;

    text_printf(&t,
                "POST /api/v1/models/m/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: %zu\r\n\r\n{\"inputs\":%s",
                strlen(inputs) + 11 + (size_t)padding, inputs);
    for (int i = 0; i < padding; i++)
        text_add_char(&t, ' ');
    text_add_char(&t, '}');
    while (sent < t.length) {
        ssize_t n = send(fd, t.s + sent, t.length - sent, MSG_NOSIGNAL);

        CHECK(n > 0);
        sent += (size_t)n;
    }
}

/* One reply's body into `to`; its status. */
static int hear(int fd, char to[ROOM])
{
    char all[ROOM];
    size_t n = 0, want = ROOM;
    char *end = NULL;

    while (n < ROOM - 1 && n < want) {
        ssize_t got = recv(fd, all + n, ROOM - 1 - n, 0);
        char *length;

        if (got <= 0)
            return 0;
        n += (size_t)got;
        all[n] = 0;
        end = strstr(all, "\r\n\r\n");
        length = end ? strstr(all, "Content-Length: ") : NULL;
        if (length)
            want = (size_t)(end + 4 - all) + (size_t)atol(length + 16);
    }
    strcpy(to, end ? end + 4 : "");
    return atoi(all + 9);
}

static double batches(struct rig *r)
{
    CLEAN(text_done) struct text t = text_make(1 << 20);
    const char *at;

    metrics_print(&r->server, &t);
    at = strstr(t.s, "\nhorn_predict_batches_total ");
    CHECK(at != NULL);
    return strtod(strchr(at, ' '), NULL);
}

static void inputs_of(int client, char to[100])
{
    if (client == 5)
        strcpy(to, "[[1,2,3]]"); /* no input of this model */
    else if (client == 7)
        strcpy(to, "[[0.5,0.25],[1,1],[0.125,-3]]");
    else
        snprintf(to, 100, "[[%d.5,-0.%d]]", client, client + 1);
}

/* All clients alone, then at once: the same bytes come back, the wrong one is refused and disturbs nobody. */
static void compare(int padding, const char *most, double least, double largest)
{
    static char alone[CLIENTS][ROOM], together[CLIENTS][ROOM];
    char inputs[100];
    struct rig r;
    struct http *http = start(&r, "--batch-delay-us=50000", most);
    int fd[CLIENTS];
    double before;

    for (int i = 0; i < CLIENTS; i++) {
        fd[i] = rig_connect(http);
        inputs_of(i, inputs);
        ask(fd[i], inputs, padding);
        CHECK_INT(hear(fd[i], alone[i]), i == 5 ? 422 : 200);
    }
    before = batches(&r);
    for (int i = 0; i < CLIENTS; i++) {
        inputs_of(i, inputs);
        ask(fd[i], inputs, padding);
    }
    for (int i = 0; i < CLIENTS; i++) {
        CHECK_INT(hear(fd[i], together[i]), i == 5 ? 422 : 200);
        CHECK_TEXT(together[i], alone[i]);
        (void)close(fd[i]);
    }
    if (batches(&r) - before < least || batches(&r) - before > largest)
        fail_msg("%g batches, expected %g to %g", batches(&r) - before, least, largest);
    http_stop(http);
    rig_close(&r);
}

TEST(small_calls_that_come_together_are_answered_together_with_the_bits_of_each_alone)
{
    compare(0, "--max-batch=32", 1, 2); /* two where the machine is slow */
}

TEST(a_batch_has_at_most_max_batch_samples)
{
    compare(0, "--max-batch=4", 4, 8); /* 13 samples */
}

TEST(larger_calls_are_put_together_by_request_threads)
{
    compare(LARGE, "--max-batch=32", 1, 10);
}

TEST(a_stop_answers_the_calls_that_wait_for_others)
{
    static char text[ROOM];
    struct rig r;
    struct http *http = start(&r, "--batch-delay-us=100000", "--max-batch=32");
    int small = rig_connect(http), large = rig_connect(http);

    ask(small, "[[1,2]]", 0);
    ask(large, "[[1,2]]", LARGE);
    usleep(30000);
    atomic_store(&r.server.stopping, true);
    http_stop(http);
    CHECK_INT(hear(small, text), 200);
    CHECK_INT(hear(large, text), 200);
    (void)close(small);
    (void)close(large);
    rig_close(&r);
}

TEST(a_list_gives_calls_of_one_version_up_to_the_samples_wanted)
{
    struct version one = {.number = 1}, two = {.number = 2};
    struct call c[6] = {{.version = &one, .tensors.n = 3},  {.version = &two, .tensors.n = 1},
                        {.version = &one, .tensors.n = 9},  {.version = &one, .tensors.n = 2},
                        {.version = &two, .tensors.n = 50}, {.version = &two, .tensors.n = 2}};
    struct call_list list = {0};

    for (int i = 0; i < 6; i++)
        call_push(&list, &c[i]);
    CHECK_INT(list.samples, 67);
    CHECK(call_take(&list, 5) == &c[0]);
    CHECK(c[0].next == &c[3] && !c[3].next);
    call_remove(&list, &c[5]);
    call_remove(&list, &c[5]);
    CHECK(call_take(&list, 5) == &c[1] && !c[1].next);
    CHECK(call_take(&list, 5) == &c[2] && !c[2].next);
    CHECK(call_take(&list, 5) == &c[4] && !c[4].next); /* larger than a batch: alone */
    CHECK(call_take(&list, 5) == NULL);
    CHECK_INT(list.samples, 0);
    CHECK(!list.first && !list.last);
}
