/* A table whose gradient comes by rows trains to the bits of the same table with the whole gradient: for every optimizer, with
 * one thread and two, over ragged batches, rows that are never looked up, and a stop in the middle.
 *
 * The whole gradient is had by a penalty with the smallest factor that float32 has: with weights below a quarter, its gradient is
 * rounded to zeros, which are added to every row. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/run/program.h"
#include "engine/run/train.h"

#define WORDS   2000
#define LENGTH  9
#define SAMPLES 150 /* nine batches of 16 and one of 6 */

static const char *const optimizers[] = {
    "\"adam\"",
    "{\"class_name\":\"Adam\",\"config\":{\"amsgrad\":true,\"clipvalue\":0.001}}",
    "{\"class_name\":\"Adam\",\"config\":{\"weight_decay\":0.01,\"epsilon\":1e-3}}",
    "{\"class_name\":\"Adam\",\"config\":{\"beta_1\":0}}",
    "\"sgd\"",
    "{\"class_name\":\"SGD\",\"config\":{\"momentum\":0.9,\"nesterov\":true}}",
    "{\"class_name\":\"RMSprop\",\"config\":{\"momentum\":0.5,\"centered\":true}}",
    "\"rmsprop\"",
    "\"adagrad\"",
};

/* --- a source of sentences in which few words are common ----------------------------------------------------------------- */

static enum status gather(struct source *s, int array, const int64_t *row, int64_t n, void *to, struct problem *problem)
{
    (void)s, (void)problem;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < (array ? 1 : LENGTH); k++) {
            struct philox_words w = philox(5, (uint64_t)row[i], (uint64_t)k);
            double u = (w.w[0] + 1.0) / 4294967297.0;

            if (array)
                ((float *)to)[i] = (float)(w.w[1] & 1);
            else /* word r about as often as 1 / r */
                ((int32_t *)to)[i * LENGTH + k] = (int32_t)pow(WORDS, u) - 1;
        }
    return ST_OK;
}

static struct source *close_source(struct source *s)
{
    (void)s;
    return NULL;
}

static struct source sentences = {.array = {{"text/x", I32, SHAPE(LENGTH)}, {"text/y", F32, SHAPE(1)}},
                                  .n_inputs = 1,
                                  .n_targets = 1,
                                  .rows = SAMPLES,
                                  .gather = gather,
                                  .close = close_source};

/* --- a run ------------------------------------------------------------------------------------------------------------- */

struct kept { /* what a run leaves */
    struct snapshot now;
    void *weights, *slots, *sums;
    size_t weights_bytes, slots_bytes;
};

struct run {
    struct sink sink;
    int stop_after, polls;
    struct kept kept;
};

static void *copy_of(const void *from, size_t bytes)
{
    void *p = must_alloc(bytes + 1);

    if (bytes)
        memcpy(p, from, bytes);
    return p;
}

static void kept_done(struct kept *k)
{
    free_null(k->weights);
    free_null(k->slots);
    free_null(k->sums);
}

static void keep_all(struct kept *k, const struct snapshot *now)
{
    kept_done(k);
    k->now = *now;
    k->weights_bytes = now->layout->bytes;
    k->slots_bytes = (size_t)now->optimizer->n_slots * now->layout->trainable_bytes;
    k->now.weights = k->weights = copy_of(now->weights, k->weights_bytes);
    k->now.slots = k->slots = copy_of(now->slots, k->slots_bytes);
    k->now.accumulators = k->sums = copy_of(now->accumulators, sizeof(double) * (size_t)now->n_accumulators);
}

static unsigned on_poll(struct sink *s)
{
    struct run *r = (struct run *)s;

    return ++r->polls == r->stop_after ? POLL_STOP : POLL_GO;
}

static void on_progress(struct sink *s, const struct progress *p)
{
    (void)s, (void)p;
}

static enum status on_epoch(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                            struct problem *problem)
{
    (void)s, (void)epoch, (void)n, (void)names, (void)values, (void)problem;
    return ST_OK;
}

static enum status on_checkpoint(struct sink *s, const struct snapshot *now, struct problem *problem)
{
    (void)problem;
    keep_all(&((struct run *)s)->kept, now);
    return ST_OK;
}

static enum status on_file(struct sink *s, const char *name, bool weights_only, const struct snapshot *now,
                           struct problem *problem)
{
    (void)s, (void)name, (void)weights_only, (void)now, (void)problem;
    return ST_OK;
}

static void on_note(struct sink *s, const char *line)
{
    (void)s, (void)line;
}

static enum status on_result(void *context, const struct snapshot *last, struct problem *problem)
{
    (void)problem;
    keep_all(&((struct run *)context)->kept, last);
    return ST_OK;
}

struct job {
    struct json *architecture, *compile_json, *fit_json;
    struct model *model;
    struct arena *mem;
    struct compile_spec *compile;
    struct fit_spec *fit;
};

/* The table stands between two layers' weights in the flat vector, so that both sides of it are groups. */
static void job_open(struct job *j, const char *optimizer, bool whole)
{
    static const char layers[] =
        "{\"class_name\":\"Sequential\",\"config\":{\"name\":\"s\",\"layers\":["
        "{\"class_name\":\"InputLayer\",\"config\":{\"batch_shape\":[null,9],\"dtype\":\"int32\",\"name\":\"in\"}},"
        "{\"class_name\":\"Embedding\",\"config\":{\"name\":\"words\",\"input_dim\":2000,\"output_dim\":37%s}},"
        "{\"class_name\":\"LSTM\",\"config\":{\"name\":\"lstm\",\"units\":5}},"
        "{\"class_name\":\"Dense\",\"config\":{\"name\":\"out\",\"units\":1,\"activation\":\"sigmoid\"}}]}}";
    static const char fit[] = "{\"x\":[\"text/x\"],\"y\":[\"text/y\"],\"epochs\":3,\"batch_size\":16}";
    char text[2000], compile[400];
    struct problem problem = {0};

    snprintf(text, sizeof text, layers,
             whole ? ",\"embeddings_regularizer\":{\"class_name\":\"L2\",\"config\":{\"l2\":1e-45}}" : "");
    snprintf(compile, sizeof compile, "{\"optimizer\":%s,\"loss\":\"binary_crossentropy\"}", optimizer);
    j->mem = arena_new();
    CHECK_OK(json_parse(text, strlen(text), NULL, JSON_NAN, &j->architecture, &problem));
    CHECK_OK(json_parse(compile, strlen(compile), NULL, JSON_NAN, &j->compile_json, &problem));
    CHECK_OK(json_parse(fit, strlen(fit), NULL, JSON_NAN, &j->fit_json, &problem));
    CHECK_OK(model_parse(j->architecture, "/model", &j->model, &problem));
    CHECK_OK(compile_parse(j->compile_json, "/compile", j->model, j->mem, &j->compile, &problem));
    CHECK_OK(fit_parse(j->fit_json, "/fit", "fit", j->model, j->mem, &j->fit, &problem));
}

static void job_close(struct job *j)
{
    fit_spec_done(j->fit);
    compile_spec_done(j->compile);
    arena_free(j->mem);
    model_free(j->model);
    json_free(j->architecture);
    json_free(j->compile_json);
    json_free(j->fit_json);
}

static enum fit_end job_run(const struct job *j, int threads, int stop_after, const struct snapshot *start, struct kept *ret)
{
    struct problem problem = {0};
    OWNED(weights_free) struct weights *w = weights_new();
    struct run r = {.sink = {on_poll, on_progress, on_epoch, on_checkpoint, on_file, on_note}, .stop_after = stop_after};
    struct device *d = NULL;
    enum fit_end end = FIT_DONE;

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = threads}, &d, &problem));
    backend_cpu()->enter(d);
    struct fit_setup setup = {.model = j->model,
                              .weights = w,
                              .compile = j->compile,
                              .fit = j->fit,
                              .backend = backend_cpu(),
                              .device = d,
                              .seed = 11,
                              .train = &sentences,
                              .start = start,
                              .resume = start != NULL};

    CHECK_OK(fit_run(&setup, &r.sink, on_result, &r, &end, &problem));
    backend_cpu()->close(d);
    *ret = r.kept;
    return end;
}

static void check_same(const struct kept *a, const struct kept *b, const char *what, const char *optimizer)
{
    CHECK_INT(a->weights_bytes, b->weights_bytes);
    CHECK_INT(a->slots_bytes, b->slots_bytes);
    for (size_t i = 0; i < a->weights_bytes / sizeof(float); i++)
        if (memcmp((float *)a->weights + i, (float *)b->weights + i, sizeof(float)) != 0)
            fail_msg("%s, %s: weight %zu is %.9g, it should be %.9g", optimizer, what, i, (double)((float *)a->weights)[i],
                     (double)((float *)b->weights)[i]);
    if (memcmp(a->slots, b->slots, a->slots_bytes) != 0)
        fail_msg("%s, %s: other slots", optimizer, what);
}

/* --- tests ------------------------------------------------------------------------------------------------------------- */

/* How many nodes of the op the training step has. */
static int count_op(const struct job *j, int batch, const char *op)
{
    OWNED(weights_free) struct weights *w = weights_new();
    OWNED(program_free) struct program *p = NULL;
    struct problem problem = {0};
    struct array_shape x = {I32, SHAPE(LENGTH)}, y = {F32, SHAPE(1)};
    struct program_request r = {
        .mode = PROGRAM_TRAIN, .batch = batch, .x = &x, .y = &y, .model = j->model, .compile = j->compile, .weights = w};
    int n = 0;

    CHECK_OK(program_build(&r, &p, &problem));
    for (uint32_t i = 1; i < p->graph->n_nodes; i++)
        n += strcmp(p->graph->nodes[i].op->name, op) == 0;
    return n;
}

TEST(few_rows_of_a_large_table_are_kept_by_rows_and_many_are_not)
{
    struct job few = {0}, whole = {0};

    job_open(&few, "\"adam\"", false);
    job_open(&whole, "\"adam\"", true);
    CHECK_INT(count_op(&few, 16, "update_rows"), 1);
    CHECK_INT(count_op(&few, 16, "scatter_add"), 0);
    CHECK_INT(count_op(&few, 111, "update_rows"), 1); /* 999 indices, half of the rows */
    CHECK_INT(count_op(&few, 112, "update_rows"), 0);
    CHECK_INT(count_op(&few, 112, "scatter_add"), 1);
    CHECK_INT(count_op(&whole, 16, "update_rows"), 0);
    job_close(&few);
    job_close(&whole);
}

TEST(a_gradient_by_rows_trains_to_the_bits_of_the_whole_gradient)
{
    for (size_t i = 0; i < COUNT(optimizers); i++)
        for (int threads = 1; threads <= 2; threads++) {
            struct job few = {0}, whole = {0};
            struct kept a = {0}, b = {0};

            job_open(&few, optimizers[i], false);
            job_open(&whole, optimizers[i], true);
            CHECK_INT(job_run(&few, threads, 0, NULL, &a), FIT_DONE);
            CHECK_INT(job_run(&whole, threads, 0, NULL, &b), FIT_DONE);
            check_same(&a, &b, threads == 1 ? "one thread" : "two threads", optimizers[i]);
            kept_done(&a);
            kept_done(&b);
            job_close(&few);
            job_close(&whole);
        }
}

TEST(a_stop_in_the_middle_keeps_the_bits)
{
    for (size_t i = 0; i < COUNT(optimizers); i++)
        for (int stop = 4; stop <= 18; stop += 7) {
            struct job j = {0};
            struct kept whole = {0}, first = {0}, second = {0};

            job_open(&j, optimizers[i], false);
            CHECK_INT(job_run(&j, 2, 0, NULL, &whole), FIT_DONE);
            CHECK_INT(job_run(&j, 2, stop, NULL, &first), FIT_STOPPED);
            CHECK_INT(job_run(&j, 2, 0, &first.now, &second), FIT_DONE);
            check_same(&second, &whole, "stopped", optimizers[i]);
            kept_done(&whole);
            kept_done(&first);
            kept_done(&second);
            job_close(&j);
        }
}

/* A norm is a sum, here over fewer numbers in another order: its last bits, and no more, may differ. */
TEST(clipping_by_norm_agrees_with_that_of_the_whole_gradient)
{
    static const char *const clipped[] = {
        "{\"class_name\":\"SGD\",\"config\":{\"learning_rate\":0.5,\"clipnorm\":0.01}}",
        "{\"class_name\":\"SGD\",\"config\":{\"learning_rate\":0.5,\"global_clipnorm\":0.01}}"};

    for (size_t i = 0; i < COUNT(clipped); i++) {
        struct job few = {0}, whole = {0};
        struct kept a = {0}, b = {0};

        job_open(&few, clipped[i], false);
        job_open(&whole, clipped[i], true);
        CHECK_INT(job_run(&few, 2, 0, NULL, &a), FIT_DONE);
        CHECK_INT(job_run(&whole, 2, 0, NULL, &b), FIT_DONE);
        for (size_t k = 0; k < a.weights_bytes / sizeof(float); k++)
            CHECK_NEAR(((float *)a.weights)[k], ((float *)b.weights)[k], 1e-6);
        kept_done(&a);
        kept_done(&b);
        job_close(&few);
        job_close(&whole);
    }
}
