/* program_build: names of metrics, and data of other types than the model's input. */
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

#include "engine/run/infer.h"
#include "engine/run/program.h"

#define LAYER(class, config) "{\"module\":\"keras.layers\",\"class_name\":\"" class "\",\"config\":{" config "}}"
#define SEQUENTIAL(layers) \
    "{\"module\":\"keras\",\"class_name\":\"Sequential\",\"config\":{\"name\":\"s\",\"layers\":[" layers "]}}"

struct built {
    struct json *architecture, *compile;
    struct model *model;
    struct arena *mem;
    struct compile_spec *spec;
    struct weights *weights;
    struct program *program;
};

/* The training program for four rows of x and y. */
static void built_open(struct built *t, const char *architecture, const char *compile, struct array_shape x,
                       struct array_shape y)
{
    struct problem problem = {0};
    struct program_request r = {.mode = PROGRAM_TRAIN, .batch = 4, .x = &x, .y = &y};

    t->mem = arena_new();
    t->weights = weights_new();
    CHECK_OK(json_parse(architecture, strlen(architecture), NULL, JSON_NAN, &t->architecture, &problem));
    CHECK_OK(json_parse(compile, strlen(compile), NULL, JSON_NAN, &t->compile, &problem));
    CHECK_OK(model_parse(t->architecture, "/model", &t->model, &problem));
    CHECK_OK(compile_parse(t->compile, "/compile", t->model, t->mem, &t->spec, &problem));
    r.model = t->model;
    r.compile = t->spec;
    r.weights = t->weights;
    CHECK_OK(program_build(&r, &t->program, &problem));
}

static void built_close(struct built *t)
{
    program_free(t->program);
    weights_free(t->weights);
    compile_spec_done(t->spec);
    model_free(t->model);
    arena_free(t->mem);
    json_free(t->compile);
    json_free(t->architecture);
}

static const struct op *reader_of(const struct graph *g, value_id v)
{
    for (uint32_t i = 1; i < g->n_nodes; i++)
        for (int k = 0; k < g->nodes[i].n_in; k++)
            if (g->nodes[i].in[k] == v)
                return g->nodes[i].op;
    return NULL;
}

TEST(a_weighted_metric_whose_name_is_taken_is_called_weighted)
{
    static const char *const want[] = {"loss", "mae", "mae_1", "weighted_mae", "weighted_mae_1", "mse"};
    struct built t = {0};

    built_open(&t, SEQUENTIAL(LAYER("InputLayer", "\"batch_shape\":[null,3]") "," LAYER("Dense", "\"units\":2")),
               "{\"loss\":\"mse\",\"metrics\":[\"mae\",\"mae\"],\"weighted_metrics\":[\"mae\",\"mae\",\"mse\"]}",
               (struct array_shape){F32, SHAPE(3)}, (struct array_shape){F32, SHAPE(2)});
    CHECK_INT(t.program->n_metrics, COUNT(want));
    for (size_t i = 0; i < COUNT(want); i++)
        CHECK_TEXT(t.program->metric_names[i], want[i]);
    built_close(&t);
}

TEST(whole_numbers_reach_a_dense_layer_as_float32_and_an_embedding_as_they_are)
{
    struct built dense = {0}, embedding = {0};

    built_open(&dense, SEQUENTIAL(LAYER("InputLayer", "\"batch_shape\":[null,3]") "," LAYER("Dense", "\"units\":2")),
               "{\"loss\":\"mse\"}", (struct array_shape){U8, SHAPE(3)}, (struct array_shape){F32, SHAPE(2)});
    CHECK_INT(dense.program->graph->values[dense.program->x[0]].type, U8);
    CHECK_TEXT(reader_of(dense.program->graph, dense.program->x[0])->name, "pointwise");
    built_close(&dense);
    built_open(&embedding,
               SEQUENTIAL(LAYER("InputLayer", "\"batch_shape\":[null,3]") "," LAYER(
                   "Embedding", "\"input_dim\":7,\"output_dim\":2") "," LAYER("Flatten", "")),
               "{\"loss\":\"mse\"}", (struct array_shape){I32, SHAPE(3)}, (struct array_shape){F32, SHAPE(6)});
    CHECK_TEXT(reader_of(embedding.program->graph, embedding.program->x[0])->name, "gather");
    built_close(&embedding);
}

/* y (rows, 2) of the program without constants. */
static void predict_plainly(const struct built *t, const struct backend *backend, struct device *d, void *weights, int64_t rows,
                            const float *x, float *y)
{
    struct array_shape row = {F32, SHAPE(3)};
    struct program_request r = {.model = t->model, .mode = PROGRAM_PREDICT, .batch = rows, .x = &row, .weights = t->weights};
    struct regions regions = {.base = {[AT_WEIGHT] = weights}};
    struct problem problem = {0};
    OWNED(program_free) struct program *p = NULL;
    uint64_t state[16] = {0};

    CHECK_OK(program_build(&r, &p, &problem));
    CHECK_INT(p->graph->n_constant, 0);
    CHECK_OK(program_plan(p, backend, d, &problem));
    regions.base[AT_STATE] = state;
    CHECK_OK(program_start(p, &regions, NULL, &problem));
    session_put(p->session, p->x[0], x, sizeof(float) * 3 * (size_t)rows);
    CHECK_OK(session_run(p->session, &problem));
    session_get(p->session, p->outputs[0], y, sizeof(float) * 2 * (size_t)rows);
}

TEST(what_depends_on_weights_alone_is_worked_out_once_and_changes_no_bit)
{
    const struct backend *backend = backend_cpu();
    struct built t = {0};
    struct problem problem = {0};
    struct device *d;
    float x[15], once[10], plain[10];
    OWNED(predictor_free) struct predictor *p = NULL;

    built_open(
        &t,
        SEQUENTIAL(LAYER("InputLayer", "\"batch_shape\":[null,3]") "," LAYER(
            "Dense",
            "\"units\":5,\"dtype\":\"mixed_bfloat16\"") "," LAYER("BatchNormalization",
                                                                  "") "," LAYER("Dense",
                                                                                "\"units\":2,\"dtype\":\"mixed_bfloat16\"")),
        "{\"loss\":\"mse\"}", (struct array_shape){F32, SHAPE(3)}, (struct array_shape){F32, SHAPE(2)});
    struct array_shape row = {F32, SHAPE(3)};
    struct program_request r = {
        .model = t.model, .mode = PROGRAM_PREDICT, .batch = 4, .x = &row, .weights = t.weights, .constants = true};
    struct program *built;

    CHECK_OK(program_build(&r, &built, &problem));
    CHECK(built->graph->n_constant > 2); /* both kernels at least */
    for (uint32_t i = 1; i < built->graph->n_nodes; i++)
        CHECK((built->graph->values[built->graph->nodes[i].out[0]].at == AT_CONST) == (i < built->graph->n_constant));
    program_free(built);

    CHECK_OK(backend->open(0, &(struct device_options){.threads = 1}, &d, &problem));
    OWNED(free) void *weights = aligned_alloc(64, t.weights->bytes);

    CHECK_OK(weights_init(t.weights, 3, weights, &problem));
    for (size_t i = 0; i < COUNT(x); i++)
        x[i] = (float)(i * i % 7) - 2.5f;
    CHECK_OK(predictor_new(t.model, t.weights, weights, NULL, NULL, backend, d, &p, &problem));
    for (int64_t rows = 1; rows <= 5; rows += 4) { /* two buckets */
        CHECK_OK(predictor_run(p, (const float *const[]){x}, rows, (float *const[]){once}, &problem));
        predict_plainly(&t, backend, d, weights, rows, x, plain);
        assert_memory_equal(once, plain, sizeof(float) * 2 * (size_t)rows);
    }
    p = predictor_free(p);
    (void)backend->close(d);
    built_close(&t);
}
