/* Batches gathered ahead, by a team, or by the one thread there is: the rows that a step asks for are there, whoever brought them, and
 * a problem is told with its own step. */
#include "tests/test.h"

#include <stdatomic.h>
#include <string.h>

#include "engine/run/feed.h"

#define WIDTH 4096 /* floats to a row: a batch of 32 is large enough to be gathered ahead */
#define BATCH 32
#define ROWS  (3 * BATCH + 5)

static const char architecture[] =
    "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"s\",\"layers\":[{\"class_name\":\"InputLayer\",\"config\":{\"batch_"
    "shape\":"
    "[null,4096],\"name\":\"in\"}},{\"class_name\":\"Dense\",\"config\":{\"units\":1,\"name\":\"d\"}}]}}";

struct numbers { /* row r is WIDTH times r */
    struct source source;
    int64_t bad; /* row that cannot be read; -1: none */
    atomic_int calls;
};

static enum status gather(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem)
{
    struct numbers *d = (struct numbers *)s;

    (void)array;
    d->calls++;
    for (int64_t i = 0; i < n; i++) {
        if (row[i] == d->bad)
            return fail(problem, ST_STORAGE, "numbers", "row %lld cannot be read", (long long)row[i]);
        for (int64_t k = 0; k < WIDTH; k++)
            ((float *)to)[i * WIDTH + k] = (float)row[i];
    }
    return ST_OK;
}

struct rig {
    struct json *json;
    struct model *model;
    struct weights *weights;
    struct device *device;
    struct fit_spec spec;
    struct numbers numbers;
    struct feed feed;
    struct regions regions;
    int64_t order[ROWS];
};

enum who { ALONE, AHEAD, TEAM, WAYS };

static void rig_open(struct rig *r, enum who who)
{
    const struct backend *b = backend_cpu();
    struct problem problem = {0};
    size_t needs[N_REGIONS] = {0}, arena = 0;

    *r = (struct rig){.weights = weights_new()};
    CHECK_OK(json_parse(architecture, strlen(architecture), NULL, JSON_NAN, &r->json, &problem));
    CHECK_OK(model_parse(r->json, "/model", &r->model, &problem));
    CHECK_OK(b->open(0, &(struct device_options){.threads = who == TEAM ? 2 : 1}, &r->device, &problem));
    r->numbers =
        (struct numbers){{.array = {{"numbers", F32, SHAPE(WIDTH)}}, .n_inputs = 1, .rows = ROWS, .gather = gather}, .bad = -1};
    r->feed =
        (struct feed){.source = &r->numbers.source, .spec = &r->spec, .data = &r->spec.data, .rows = ROWS, .batch = BATCH};
    CHECK_OK(feed_plan(&r->feed, PROGRAM_PREDICT, r->model, NULL, r->weights, b, r->device, &problem));
    feed_needs(&r->feed, needs, &arena);
    CHECK_OK(regions_grow(&r->regions, r->device, b, needs, &problem));
    CHECK_OK(feed_start(&r->feed, &r->regions, NULL, &problem));
    r->feed.ahead.beside = who == AHEAD; /* whatever CPUs there are */
    for (int64_t i = 0; i < ROWS; i++)
        r->order[i] = i * 7 % ROWS;
}

static void rig_close(struct rig *r)
{
    feed_done(&r->feed);
    regions_done(&r->regions, r->device, backend_cpu());
    (void)backend_cpu()->close(r->device);
    weights_free(r->weights);
    model_free(r->model);
    json_free(r->json);
}

/* That the step reads its rows: by the inputs themselves, and by the sums that a run of it makes. */
static void check_step(struct rig *r, int64_t step)
{
    struct problem problem = {0};
    struct program *p;
    float y[BATCH];

    CHECK_OK(feed_step(&r->feed, step, r->order, &p, &problem));
    CHECK_INT(p->batch, step == 3 ? 5 : BATCH);
    const float *x = session_address(p->session, p->x[0]);

    CHECK_OK(session_run(p->session, &problem));
    session_get(p->session, p->outputs[0], y, sizeof(float) * (size_t)p->batch);
    for (int64_t i = 0; i < p->batch; i++) {
        float row = (float)r->order[step * BATCH + i];

        CHECK(x[i * WIDTH] == row && x[i * WIDTH + WIDTH - 1] == row);
        CHECK(y[i] == row * WIDTH);
    }
}

static void fill_weights(struct rig *r)
{
    float *w = r->regions.base[AT_WEIGHT];

    for (int64_t i = 0; i < WIDTH; i++)
        w[i] = 1;
}

TEST(each_step_finds_its_rows_whoever_brought_them)
{
    for (enum who who = ALONE; who < WAYS; who++) {
        struct rig r;

        rig_open(&r, who);
        fill_weights(&r);
        for (int epoch = 0; epoch < 3; epoch++) {
            for (int64_t step = 0; step < feed_steps(&r.feed); step++)
                check_step(&r, step);
            feed_settle(&r.feed);
            for (int64_t i = 0; i < ROWS; i++) /* another order at the same place */
                r.order[i] = (r.order[i] * 3 + 1) % ROWS;
        }
        check_step(&r, 2); /* an epoch that begins in its middle, and is left */
        check_step(&r, 0);
        feed_settle(&r.feed);
        CHECK((r.feed.ahead.reader != NULL) == (who == AHEAD));
        if (backend_cpu()->threads(r.device) > 1)
            CHECK(r.numbers.calls > 3 * feed_steps(&r.feed) + 2); /* some of the batches in two pieces */
        else
            CHECK(r.numbers.calls <= 3 * feed_steps(&r.feed) + 4); /* one for each, and what was asked ahead for nothing */
        rig_close(&r);
    }
}

TEST(a_problem_is_told_with_the_step_that_it_belongs_to)
{
    for (enum who who = ALONE; who < WAYS; who++) {
        struct problem problem = {0};
        struct program *p;
        struct rig r;

        rig_open(&r, who);
        fill_weights(&r);
        r.numbers.bad = r.order[BATCH + 3]; /* of step 1 */
        check_step(&r, 0);
        CHECK_INT(feed_step(&r.feed, 1, r.order, &p, &problem), ST_STORAGE);
        CHECK_CONTAINS(problem.detail, "cannot be read");
        check_step(&r, 2);
        rig_close(&r);
    }
}

TEST(a_feed_may_be_closed_while_a_batch_is_on_its_way)
{
    struct rig r;

    rig_open(&r, AHEAD);
    fill_weights(&r);
    check_step(&r, 0);
    rig_close(&r);
}
