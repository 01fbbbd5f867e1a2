/* fit_run on real images: it learns, the same seed gives the same bits, and a run that was stopped and resumed ends with the bits of
 * an undisturbed one. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/run/infer.h"
#include "engine/run/train.h"
#include "tests/run/fashion.h"

struct recorder { /* a sink that keeps what it is told */
    struct sink sink;
    int stop_after, polls, checkpoint_every; /* POLL_STOP at that poll; 0: never */
    struct snapshot kept;
    void *weights, *slots, *callbacks, *best;
    double *sums;
    int epochs;
    double last[8];
    const char *names[8];
    int n;
    void *result;
    size_t result_bytes;
};

static void *copy_of(const void *from, size_t bytes)
{
    void *p = must_alloc(bytes + 1);

    if (bytes)
        memcpy(p, from, bytes);
    return p;
}

static unsigned poll_recorder(struct sink *s)
{
    struct recorder *r = (struct recorder *)s;

    return ++r->polls == r->stop_after ? POLL_STOP : POLL_GO;
}

static void ignore_progress(struct sink *s, const struct progress *p)
{
    (void)s, (void)p;
}

static enum status record_epoch(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                                struct problem *problem)
{
    struct recorder *r = (struct recorder *)s;

    (void)problem;
    r->epochs = epoch + 1;
    r->n = n < 8 ? n : 8;
    for (int i = 0; i < r->n; i++) {
        r->last[i] = values[i];
        r->names[i] = names[i];
    }
    return ST_OK;
}

static enum status record_checkpoint(struct sink *s, const struct snapshot *now, struct problem *problem)
{
    struct recorder *r = (struct recorder *)s;
    size_t slots = (size_t)now->optimizer->n_slots * now->layout->trainable_bytes;

    (void)problem;
    r->kept = *now;
    r->kept.weights = r->weights = copy_of(now->weights, now->layout->bytes);
    r->kept.slots = r->slots = copy_of(now->slots, slots);
    r->kept.callbacks = r->callbacks = copy_of(now->callbacks, now->callbacks_bytes);
    if (now->best)
        r->kept.best = r->best = copy_of(now->best, now->layout->bytes);
    r->kept.accumulators = r->sums = copy_of(now->accumulators, sizeof(double) * (size_t)now->n_accumulators);
    return ST_OK;
}

static enum status ignore_file(struct sink *s, const char *name, bool weights_only, const struct snapshot *now,
                               struct problem *problem)
{
    (void)s, (void)name, (void)weights_only, (void)now, (void)problem;
    return ST_OK;
}

static void ignore_note(struct sink *s, const char *line)
{
    (void)s, (void)line;
}

static enum status record_result(void *context, const struct snapshot *last, struct problem *problem)
{
    struct recorder *r = context;

    (void)problem;
    r->result_bytes = last->layout->bytes;
    r->result = copy_of(last->weights, r->result_bytes);
    return ST_OK;
}

static struct recorder recorder(int stop_after)
{
    return (struct recorder){
        .sink = {poll_recorder, ignore_progress, record_epoch, record_checkpoint, ignore_file, ignore_note},
        .stop_after = stop_after};
}

static void recorder_done(struct recorder *r)
{
    free_null(r->weights);
    free_null(r->slots);
    free_null(r->callbacks);
    free_null(r->sums);
    free_null(r->best);
    free_null(r->result);
}

struct bench { /* everything that a fit needs, from a job file */
    struct json *json;
    struct model *model;
    struct arena *mem;
    struct compile_spec *compile;
    struct fit_spec *fit;
    struct device *device;
    struct source *source;
};

static void bench_open(struct bench *b, const char *job, int64_t rows, int64_t epochs, int threads)
{
    struct problem problem = {0};
    size_t bytes = 0;
    char *text = read_file(job, &bytes);
    struct device_options options = {.threads = threads};

    CHECK(text != NULL);
    CHECK_OK(json_parse(text, bytes, NULL, JSON_NAN, &b->json, &problem));
    free_null(text);
    CHECK_OK(model_parse(json_get(json_get(b->json, "model"), "architecture"), "/model/architecture", &b->model, &problem));
    b->mem = arena_new();
    CHECK_OK(compile_parse(json_get(b->json, "compile"), "/compile", b->model, b->mem, &b->compile, &problem));
    CHECK_OK(fit_parse(json_get(b->json, "fit"), "/fit", "fit", b->model, b->mem, &b->fit, &problem));
    b->fit->epochs = epochs;
    b->fit->has_validation = false;
    CHECK_OK(backend_cpu()->open(0, &options, &b->device, &problem));
    backend_cpu()->enter(b->device);
    b->source = fashion_source(false, rows);
    CHECK(b->source != NULL);
}

static void bench_close(struct bench *b)
{
    source_close(b->source);
    backend_cpu()->close(b->device);
    fit_spec_done(b->fit);
    compile_spec_done(b->compile);
    arena_free(b->mem);
    model_free(b->model);
    json_free(b->json);
}

static enum fit_end bench_run(struct bench *b, struct recorder *r, const struct snapshot *start, uint64_t seed)
{
    struct problem problem = {0};
    OWNED(weights_free) struct weights *w = weights_new();
    enum fit_end end;
    struct fit_setup setup = {.model = b->model,
                              .weights = w,
                              .compile = b->compile,
                              .fit = b->fit,
                              .backend = backend_cpu(),
                              .device = b->device,
                              .seed = seed,
                              .train = b->source,
                              .start = start,
                              .resume = start != NULL};

    CHECK_OK(fit_run(&setup, &r->sink, record_result, r, &end, &problem));
    return end;
}

TEST(an_mlp_learns_fashion_mnist)
{
    struct bench b = {0};
    struct recorder r = recorder(0);

    bench_open(&b, "api-spec/examples/fashion-mlp.json", 10000, 2, 2);
    b.fit->validation_split = 0.1;
    CHECK_INT(bench_run(&b, &r, NULL, 1), FIT_DONE);
    CHECK_INT(r.epochs, 2);
    CHECK_INT(r.n, 4);
    printf("loss %.4f accuracy %.4f val_loss %.4f val_accuracy %.4f\n", r.last[0], r.last[1], r.last[2], r.last[3]);
    CHECK(r.last[1] > 0.8);
    CHECK(r.last[3] > 0.8);
    recorder_done(&r);
    bench_close(&b);
}

TEST(the_same_seed_gives_the_same_bits_and_another_seed_others)
{
    struct bench b = {0};
    struct recorder r[3] = {recorder(0), recorder(0), recorder(0)};

    bench_open(&b, "api-spec/examples/fashion-mlp.json", 1300, 1, 2);
    for (int i = 0; i < 3; i++)
        CHECK_INT(bench_run(&b, &r[i], NULL, i < 2 ? 7 : 8), FIT_DONE);
    CHECK(memcmp(r[0].result, r[1].result, r[0].result_bytes) == 0);
    CHECK(memcmp(r[0].result, r[2].result, r[0].result_bytes) != 0);
    for (int i = 0; i < 3; i++)
        recorder_done(&r[i]);
    bench_close(&b);
}

TEST(a_run_stopped_anywhere_and_resumed_ends_with_the_bits_of_an_undisturbed_one)
{
    static const int stops[] = {1, 2, 9, 10, 11, 17, 22};
    struct bench b = {0};
    struct recorder whole = recorder(0);

    bench_open(&b, "api-spec/examples/fashion-mlp.json", 1300, 2, 1);
    b.fit->validation_split = 0.1;
    CHECK_INT(bench_run(&b, &whole, NULL, 3), FIT_DONE);
    for (size_t i = 0; i < COUNT(stops); i++) {
        struct recorder first = recorder(stops[i]), second = recorder(0);

        CHECK_INT(bench_run(&b, &first, NULL, 3), FIT_STOPPED);
        CHECK_INT(bench_run(&b, &second, &first.kept, 3), FIT_DONE);
        if (memcmp(whole.result, second.result, whole.result_bytes) != 0)
            fail_msg("stopped at poll %d (epoch %d, step %lld): other bits", stops[i], first.kept.epoch,
                     (long long)first.kept.step);
        CHECK(whole.last[0] == second.last[0] && whole.last[3] == second.last[3]);
        recorder_done(&first);
        recorder_done(&second);
    }
    recorder_done(&whole);
    bench_close(&b);
}

TEST(callbacks_and_best_weights_survive_a_stop)
{
    static const char callbacks[] = "[{\"class_name\":\"EarlyStopping\",\"config\":{\"monitor\":\"val_loss\",\"patience\":2,"
                                    "\"restore_best_weights\":true}},"
                                    "{\"class_name\":\"ReduceLROnPlateau\",\"config\":{\"monitor\":\"loss\",\"patience\":1,"
                                    "\"min_delta\":10,\"factor\":0.5}}]";
    struct bench b = {0};
    struct problem problem = {0};
    struct recorder whole = recorder(0);
    struct json *list;

    bench_open(&b, "api-spec/examples/fashion-mlp.json", 400, 6, 1);
    CHECK_OK(json_parse(callbacks, strlen(callbacks), NULL, 0, &list, &problem));
    json_put(json_get(b.json, "fit"), "callbacks", list);
    fit_spec_done(b.fit);
    CHECK_OK(fit_parse(json_get(b.json, "fit"), "/fit", "fit", b.model, b.mem, &b.fit, &problem));
    b.fit->has_validation = false;
    b.fit->validation_split = 0.2;
    b.fit->epochs = 6;
    b.compile->optimizer.common.learning_rate = 0.02; /* so large that val_loss rises again */
    CHECK_INT(bench_run(&b, &whole, NULL, 3), FIT_DONE);
    for (int stop = 1; stop < whole.polls; stop += 3) {
        struct recorder first = recorder(stop), second = recorder(0);

        CHECK_INT(bench_run(&b, &first, NULL, 3), FIT_STOPPED);
        CHECK_INT(bench_run(&b, &second, &first.kept, 3), FIT_DONE);
        CHECK_INT(second.epochs, whole.epochs);
        if (memcmp(whole.result, second.result, whole.result_bytes) != 0)
            fail_msg("stopped at poll %d (epoch %d, step %lld): other bits", stop, first.kept.epoch,
                     (long long)first.kept.step);
        recorder_done(&first);
        recorder_done(&second);
    }
    recorder_done(&whole);
    bench_close(&b);
}

TEST(a_cnn_learns_and_its_bits_survive_a_stop)
{
    struct bench b = {0};
    struct recorder whole = recorder(0), first = recorder(8), second = recorder(0);

    bench_open(&b, "api-spec/examples/fashion-cnn.json", 2000, 1, 2);
    CHECK_INT(bench_run(&b, &whole, NULL, 3), FIT_DONE);
    CHECK(whole.last[1] > 0.3);
    CHECK_INT(bench_run(&b, &first, NULL, 3), FIT_STOPPED);
    CHECK_INT(bench_run(&b, &second, &first.kept, 3), FIT_DONE);
    CHECK(memcmp(whole.result, second.result, whole.result_bytes) == 0);
    recorder_done(&whole);
    recorder_done(&first);
    recorder_done(&second);
    bench_close(&b);
}
