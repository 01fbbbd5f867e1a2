/* profile_run: every node of the step is there with what it costs, and a training in whose middle a profile is made ends with the
 * bits of an undisturbed one. */
#include "tests/test.h"

#include <math.h>
#include <string.h>

#include "engine/base/json.h"
#include "engine/ops/ops.h"
#include "engine/run/profile.h"
#include "engine/run/train.h"
#include "tests/run/fashion.h"

enum { ROWS = 700, BATCH = 128 };

struct bench { /* everything that a fit needs, and the sink of one */
    struct sink sink;
    struct json *json;
    struct model *model;
    struct arena *mem;
    struct compile_spec *compile;
    struct fit_spec *fit;
    struct device *device;
    struct source *source;
    struct weights *weights;
    int polls, profile_at; /* 0: never */
    struct profile *profile;
    void *result;
    size_t result_bytes;
};

static void bench_open(struct bench *b, int threads)
{
    struct problem problem = {0};
    size_t bytes = 0;
    char *text = read_file("api-spec/examples/fashion-mlp.json", &bytes);

    CHECK(text != NULL);
    CHECK_OK(json_parse(text, bytes, NULL, JSON_NAN, &b->json, &problem));
    free_null(text);
    CHECK_OK(model_parse(json_get(json_get(b->json, "model"), "architecture"), "/model/architecture", &b->model, &problem));
    b->mem = arena_new();
    CHECK_OK(compile_parse(json_get(b->json, "compile"), "/compile", b->model, b->mem, &b->compile, &problem));
    CHECK_OK(fit_parse(json_get(b->json, "fit"), "/fit", "fit", b->model, b->mem, &b->fit, &problem));
    b->fit->epochs = 2;
    b->fit->batch_size = BATCH;
    b->fit->has_validation = false;
    b->fit->validation_split = 0;
    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = threads}, &b->device, &problem));
    backend_cpu()->enter(b->device);
    b->source = fashion_source(false, ROWS);
    CHECK(b->source != NULL);
    b->weights = weights_new();
}

static void bench_close(struct bench *b)
{
    profile_free(b->profile);
    free_null(b->result);
    weights_free(b->weights);
    source_close(b->source);
    backend_cpu()->close(b->device);
    fit_spec_done(b->fit);
    compile_spec_done(b->compile);
    arena_free(b->mem);
    model_free(b->model);
    json_free(b->json);
}

static struct profile_setup setup_of(struct bench *b, enum program_mode mode)
{
    return (struct profile_setup){.model = b->model,
                                  .weights = b->weights,
                                  .compile = mode == PROGRAM_PREDICT ? NULL : b->compile,
                                  .spec = b->fit,
                                  .mode = mode,
                                  .backend = backend_cpu(),
                                  .device = b->device,
                                  .seed = 3,
                                  .source = b->source};
}

static void make_profile(struct bench *b, enum program_mode mode)
{
    struct profile_setup setup = setup_of(b, mode);
    struct problem problem = {0};

    CHECK_OK(profile_run(&setup, &b->profile, &problem));
}

/* The plan of the same step, without a device. */
static void plan_step(struct bench *b, struct program **program, struct plan **plan)
{
    struct array_shape x = {b->source->array[0].type, b->source->array[0].row};
    struct array_shape y = {b->source->array[1].type, b->source->array[1].row};
    struct program_request r = {.model = b->model,
                                .compile = b->compile,
                                .prepare = b->fit->prepare,
                                .mode = PROGRAM_TRAIN,
                                .batch = BATCH,
                                .x = &x,
                                .y = &y,
                                .weights = b->weights};
    struct problem problem = {0};

    CHECK_OK(program_build(&r, program, &problem));
    CHECK_OK(plan_make((*program)->graph, NULL, NULL, 0, plan, &problem));
}

TEST(a_profile_has_every_node_of_the_step_once_with_its_kernel_and_costs)
{
    struct bench b = {0};
    OWNED(program_free) struct program *program = NULL;
    OWNED(plan_free) struct plan *plan = NULL;
    double flops = 0, seconds = 0;
    int nodes = 0, products = 0;

    bench_open(&b, 2);
    make_profile(&b, PROGRAM_TRAIN);
    plan_step(&b, &program, &plan);
    const struct profile *p = b.profile;
    OWNED(free) bool *seen = must_alloc(program->graph->n_nodes);

    CHECK_INT(p->n_nodes, plan->n_steps);
    CHECK_INT(p->batch, BATCH);
    CHECK(p->steps >= 3);
    CHECK(p->step_seconds > 0 && p->feed_seconds > 0 && p->clock_seconds > 0 && p->clock_seconds < 1e-5);
    CHECK(p->flops_per_second > 1e8 && p->bytes_per_second > 1e8);
    CHECK_CONTAINS(p->device, "2 threads");
    for (int i = 0; i < p->n_layers; i++) {
        const struct profile_layer *l = &p->layer[i];
        double sum = 0;

        CHECK(i == 0 || p->layer[i - 1].seconds >= l->seconds);
        for (int k = l->first; k < l->first + l->n; k++) {
            const struct profile_node *n = &p->node[k];

            CHECK_TEXT(n->layer, l->name);
            CHECK(!seen[n->number]);
            seen[n->number] = true;
            CHECK_TEXT(n->op, program->graph->nodes[n->number].op->name);
            CHECK(n->kernel[0] && (strchr(n->kernel, '.') || !strcmp(n->kernel, "reference")));
            CHECK(n->least_seconds >= 0 && n->least_seconds <= n->seconds);
            CHECK(n->bytes > 0 && n->flops >= 0);
            CHECK(k == l->first || p->node[k - 1].seconds >= n->seconds);
            products += !strcmp(n->kernel, "matmul.product");
            sum += n->seconds;
            flops += n->flops;
            nodes++;
        }
        CHECK(fabs(sum - l->seconds) < 1e-12);
        seconds += sum;
    }
    CHECK_INT(nodes, p->n_nodes);
    CHECK(products > 0);
    CHECK(fabs(flops - plan->report.flops) < 1);
    CHECK(fabs(seconds - p->nodes_seconds) < 1e-9);
    bench_close(&b);
}

TEST(a_prediction_is_profiled_without_losses_and_updates)
{
    struct bench b = {0};

    bench_open(&b, 1);
    make_profile(&b, PROGRAM_PREDICT);
    CHECK(b.profile->n_nodes > 0);
    for (int i = 0; i < b.profile->n_layers; i++)
        CHECK(strcmp(b.profile->layer[i].name, "optimizer") != 0);
    bench_close(&b);
}

TEST(a_nodes_bytes_count_an_input_used_twice_once_and_of_a_table_what_is_looked_up)
{
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);
    value_id table = input(&b, F32, &SHAPE(1000, 8)), index = input(&b, I32, &SHAPE(5));
    value_id rows = emit_gather(&b, table, index), some = emit_slice(&b, table, 0, 10, 12), all = emit_mul(&b, table, table);
    const value_id made[] = {rows, some, all};
    static const double want[] = {5 * 4 + 2 * 5 * 8 * 4, 2 * 2 * 8 * 4, 2 * 8000 * 4};

    CHECK_INT(b.problem.status, ST_OK);
    for (size_t i = 0; i < COUNT(made); i++)
        CHECK_NEAR(node_bytes(&g->nodes[g->values[made[i]].producer], g->values), want[i], 0);
}

TEST(a_node_is_held_against_the_ceiling_that_it_is_nearer_to)
{
    const struct profile p = {.flops_per_second = 1e9, .bytes_per_second = 1e8}, unknown = {0};
    bool by_flops;

    CHECK_NEAR(profile_of_ceiling(&p, &(struct profile_node){.flops = 1e9, .bytes = 1e7, .seconds = 2}, &by_flops), 0.5, 1e-12);
    CHECK(by_flops);
    CHECK_NEAR(profile_of_ceiling(&p, &(struct profile_node){.flops = 1e6, .bytes = 1e8, .seconds = 4}, &by_flops), 0.25,
               1e-12);
    CHECK(!by_flops);
    CHECK(isnan(profile_of_ceiling(&p, &(struct profile_node){.flops = 1, .bytes = 1}, &by_flops)));
    CHECK(isnan(profile_of_ceiling(&unknown, &(struct profile_node){.flops = 1, .bytes = 1, .seconds = 1}, &by_flops)));
}

TEST(json_and_table_say_the_same)
{
    struct bench b = {0};
    CLEAN(text_done) struct text table = text_make(1 << 20);

    bench_open(&b, 1);
    make_profile(&b, PROGRAM_TRAIN);
    OWNED(json_free) struct json *j = json_new_object();
    double shares = 0;

    profile_json(b.profile, j);
    profile_table(b.profile, &table);
    CHECK(json_number(json_get(j, "batch_size")) == BATCH);
    for (const struct json *l = json_first(json_get(j, "layers")); l; l = json_next(l)) {
        CHECK_CONTAINS(table.s, json_text(json_get(l, "layer")));
        shares += json_number(json_get(l, "share"));
        for (const struct json *n = json_first(json_get(l, "nodes")); n; n = json_next(n)) {
            CHECK_CONTAINS(table.s, json_text(json_get(n, "kernel")));
            CHECK(json_number(json_get(n, "of_ceiling")) > 0 || json_number(json_get(n, "seconds")) == 0);
        }
    }
    CHECK_NEAR(shares, 1, 1e-2);
    bench_close(&b);
}

/* --- in the middle of a training ---------------------------------------------------------------------------------------------- */

static unsigned profiling_poll(struct sink *s)
{
    struct bench *b = (struct bench *)s;

    if (++b->polls == b->profile_at)
        make_profile(b, PROGRAM_TRAIN);
    return POLL_GO;
}

static void no_progress(struct sink *s, const struct progress *p)
{
    (void)s, (void)p;
}

static enum status no_epoch(struct sink *s, int epoch, int n, const char *const *names, const double *values,
                            struct problem *problem)
{
    (void)s, (void)epoch, (void)n, (void)names, (void)values, (void)problem;
    return ST_OK;
}

static void no_note(struct sink *s, const char *line)
{
    (void)s, (void)line;
}

static enum status keep_result(void *context, const struct snapshot *last, struct problem *problem)
{
    struct bench *b = context;
    size_t slots = (size_t)last->optimizer->n_slots * last->layout->trainable_bytes;

    (void)problem;
    b->result_bytes = last->layout->bytes + slots;
    b->result = must_alloc(b->result_bytes);
    memcpy(b->result, last->weights, last->layout->bytes);
    memcpy((char *)b->result + last->layout->bytes, last->slots, slots);
    return ST_OK;
}

static void train(struct bench *b)
{
    struct fit_setup setup = {.model = b->model,
                              .weights = b->weights,
                              .compile = b->compile,
                              .fit = b->fit,
                              .backend = backend_cpu(),
                              .device = b->device,
                              .seed = 7,
                              .train = b->source};
    struct problem problem = {0};
    enum fit_end end;

    b->sink = (struct sink){.poll = profiling_poll, .progress = no_progress, .epoch = no_epoch, .note = no_note};
    CHECK_OK(fit_run(&setup, &b->sink, keep_result, b, &end, &problem));
    CHECK_INT(end, FIT_DONE);
}

TEST(a_training_keeps_its_bits_when_a_profile_is_made_between_two_steps)
{
    struct bench calm = {0}, asked = {.profile_at = 4};

    bench_open(&calm, 2);
    bench_open(&asked, 2);
    train(&calm);
    train(&asked);
    CHECK(asked.profile != NULL);
    CHECK_INT(asked.result_bytes, calm.result_bytes);
    CHECK(memcmp(asked.result, calm.result, calm.result_bytes) == 0);
    bench_close(&calm);
    bench_close(&asked);
}
