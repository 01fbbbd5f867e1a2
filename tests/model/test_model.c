/* Models become graphs: shapes, shared weights, preprocess; misfits are named by layer with both shapes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/weights.h"
#include "tests/model/documents.h"
#include "tests/test.h"

struct built { /* one build of a model for a batch */
    struct model *m;
    struct graph *g;
    struct build b;
    struct weights *weights;
    struct tuple out;
    struct problem problem;
    enum status status;
};

/* Builds with the declared input shapes, unknown dimensions as 3, or with `x` for every input where x.rank is not 0. */
static void build_again(struct built *t, int64_t batch, struct shape x)
{
    value_id in[8];

    graph_free(t->g);
    t->g = graph_new();
    t->b = build_make(t->g);
    t->b.weights = t->weights;
    for (int i = 0; i < t->m->n_inputs; i++) {
        struct shape s = x.rank ? x : t->m->inputs[i].shape;
        for (int d = 0; d < s.rank; d++)
            s.dim[d] = s.dim[d] < 0 ? 3 : s.dim[d];
        s.dim[0] = batch;
        in[i] = input(&t->b, t->m->inputs[i].type, &s);
    }
    struct tuple given = tuple_make(&t->b, t->m->n_inputs, in, NULL);
    t->problem = (struct problem){0};
    t->status = model_build(t->m, &t->b, &given, &t->out, &t->problem);
}

static struct built built_make(struct model *taken)
{
    struct built t = {.m = taken, .weights = weights_new()};

    build_again(&t, 2, (struct shape){0});
    return t;
}

static void built_done(struct built *t)
{
    graph_free(t->g);
    weights_free(t->weights);
    model_free(t->m);
}

static const char *out_shape(const struct built *t, int i)
{
    static char text[200];
    struct shape s = shape_of(&t->b, t->out.v[i]);

    snprintf(text, sizeof text, "%s", shape_text(&s).s);
    return text;
}

TEST(models_of_every_dialect_build)
{
    static const struct {
        const char *file, *shape;
        int64_t parameters;
    } rows[] = {
        {"keras1_mlp", "(2, 10)", 669706},
        {"keras1_sequential_cnn", "(2, 10)", 8 * 9 + 8 + 1568 * 16 + 16 + 170},
        {"keras1_functional_nested", "(2, 1)", 8 * 4 + 4 + 4 * 3 + 3 + 7},
        {"keras1_nested_sequential", "(2, 5)", 30},
        {"keras1_merge_first", "(2, 2)", 36 + 28 + 10},
        {"keras1_lstm", "(2, 1)", 1600 + 4 * 16 * (8 + 16 + 1) + 17},
        {"keras2_list_mlp", "(2, 3)", 147 + 24},
        {"keras2_sequential_cnn", "(2, 10)", 80 + 15690},
        {"keras2_functional_nested", "(2, 1)", 36 + 15 + 7},
        {"tf_keras_sequential", "(2, 2)", 36 + 10},
        {"tf_keras_functional_lstm", "(2, 4)", 16 * (3 + 4 + 1) + 20},
        {"keras3_mlp", "(2, 10)", 669706},
        {"keras3_sequential_cnn_reduced", "(2, 10)", 80 + 15690},
        {"keras3_all_layers", "(2, 10)", 80 + 16 + 90}, /* the moving statistics are not trainable */
        {"keras3_lstm", "(2, 1)", 2560000 + 512 * (128 + 128 + 1) + 129},
        {"keras3_initial_state", "(2, 5)", 20 * (3 + 5 + 1)},
        {"keras3_dict_io", "(2, 4)", 0},
        {"keras3_functional_nested", "(2, 1)", 15 + 8 + 5 + 6},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(built_done) struct built t = built_make(model_file(rows[i].file));
        if (t.status != ST_OK)
            fail_msg("%s: %s: %s", rows[i].file, t.problem.where, t.problem.detail);
        CHECK_TEXT(out_shape(&t, 0), rows[i].shape);
        CHECK_INT(weights_count(t.weights, true), rows[i].parameters);
    }
}

TEST(a_later_build_finds_the_same_weights)
{
    CLEAN(built_done) struct built t = built_make(model_file("keras1_functional_nested"));
    size_t bytes = t.weights->bytes;
    int n = t.weights->n;

    CHECK_INT(t.status, ST_OK);
    build_again(&t, 17, (struct shape){0});
    CHECK_INT(t.status, ST_OK);
    CHECK_TEXT(out_shape(&t, 0), "(17, 1)");
    CHECK_INT(t.weights->n, n);
    CHECK_INT(t.weights->bytes, bytes);
}

TEST(weights_are_called_after_their_leaf)
{
    CLEAN(built_done) struct built t = built_make(model_file("keras1_functional_nested"));
    struct weight_entry *e = weights_find(t.weights, "inner/inner_d", "kernel");

    CHECK(e != NULL);
    CHECK_TEXT(e->path, "inner/inner_d/kernel");
    CHECK_TEXT(t.m->layers[e->leaf].name, "inner/inner_d");
}

TEST(data_that_does_not_fit_the_input_is_refused_with_both_shapes)
{
    CLEAN(built_done) struct built t = built_make(model_file("keras3_mlp"));

    build_again(&t, 2, SHAPE(2, 28, 28));
    CHECK_INT(t.status, ST_INVALID);
    CHECK_TEXT(t.problem.where, "input_layer");
    CHECK_CONTAINS(t.problem.detail, "(None, 784)");
    CHECK_CONTAINS(t.problem.detail, "(2, 28, 28)");
}

TEST(a_model_without_input_shape_takes_that_of_the_data)
{
    CLEAN(built_done) struct built t = built_make(model_file("keras3_initial_state")); /* replaced below */

    model_free(t.m);
    t.m = model_file("keras3_unbuilt");
    weights_free(t.weights);
    t.weights = weights_new();
    build_again(&t, 2, SHAPE(2, 6));
    CHECK_INT(t.status, ST_OK);
    CHECK_TEXT(out_shape(&t, 0), "(2, 2)");
    CHECK_INT(weights_count(t.weights, true), 6 * 8 + 8 + 18);
}

TEST(a_layer_that_does_not_fit_is_named)
{
    CLEAN(built_done)
    struct built t = built_make(model_text(
        "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"InputLayer\",\"config\":"
        "{\"batch_shape\":[null,6]}},{\"class_name\":\"Reshape\",\"config\":{\"name\":\"r\",\"target_shape\":[4,2]}}]}}"));

    CHECK_INT(t.status, ST_INVALID);
    CHECK_TEXT(t.problem.where, "r");
    CHECK_CONTAINS(t.problem.detail, "(2, 6)");
}

TEST(an_output_that_a_layer_does_not_have_is_refused)
{
    CLEAN(built_done)
    struct built t = built_make(
        model_text("{\"class_name\":\"Functional\",\"config\":{\"name\":\"f\",\"layers\":[{\"class_name\":\"InputLayer\","
                   "\"name\":\"x\",\"config\":"
                   "{\"batch_shape\":[null,4]}},{\"class_name\":\"Dense\",\"name\":\"a\",\"config\":{\"units\":2},\"inbound_"
                   "nodes\":[[[\"x\",0,0]]]},"
                   "{\"class_name\":\"Dense\",\"name\":\"b\",\"config\":{\"units\":2},\"inbound_nodes\":[[[\"a\",0,5]]]}],"
                   "\"input_layers\":[\"x\",0,0],\"output_layers\":[\"b\",0,0]}}"));

    CHECK_INT(t.status, ST_INVALID);
    CHECK_TEXT(t.problem.where, "b");
    CHECK_CONTAINS(t.problem.detail, "output 5 of layer \"a\", which has 1");
}

TEST(masks_pass_from_embedding_to_lstm)
{
    CLEAN(built_done) struct built t = built_make(model_file("keras3_lstm"));
    int masked = 0;

    CHECK_INT(t.status, ST_OK);
    for (uint32_t i = 1; i < t.g->n_nodes; i++) {
        const struct node *n = &t.g->nodes[i];
        masked += !strcmp(n->op->name, "rnn_seq") && n->n_in > 6 && n->in[6] != 0;
    }
    CHECK_INT(masked, 1);
}

TEST(inputs_and_outputs_are_found_by_name)
{
    OWNED(model_free) struct model *m = model_file("keras3_functional_nested");

    CHECK_INT(model_input_find(m, "b"), 1);
    CHECK_INT(model_input_find(m, "c"), -1);
    CHECK_INT(model_output_find(m, "inner"), 2);
    CHECK_INT(model_output_find(m, "shared"), -1);
}

TEST(preprocess_stands_before_an_input)
{
    struct problem problem = {0};
    OWNED(prepare_free) struct prepare *p = NULL;
    OWNED(json_free)
    struct json *j = document("[{\"class_name\":\"Rescaling\",\"config\":{\"scale\":0.5}},{\"class_name\":\"Flatten\"}]");
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);

    CHECK_OK(prepare_parse(j, "/fit/preprocess", &p, &problem));
    value_id y = prepare_build(p, &b, input(&b, U8, &SHAPE(5, 28, 28)));
    struct shape s = shape_of(&b, y);
    CHECK_INT(b.problem.status, ST_OK);
    CHECK_TEXT(shape_text(&s).s, "(5, 784)");
    CHECK_TEXT(p->json, "[{\"class_name\":\"Rescaling\",\"config\":{\"scale\":0.5}},{\"class_name\":\"Flatten\"}]");
    CHECK_INT(prepare_build(NULL, &b, y), y);
}

TEST(preprocess_refuses_layers_with_weights)
{
    struct problem problem = {0};
    OWNED(prepare_free) struct prepare *p = NULL;
    OWNED(json_free) struct json *j = document("[{\"class_name\":\"Dense\",\"config\":{\"units\":3}}]");
    OWNED(graph_free) struct graph *g = graph_new();
    struct build b = build_make(g);

    CHECK_OK(prepare_parse(j, "/fit/preprocess", &p, &problem));
    CHECK_INT(prepare_build(p, &b, input(&b, F32, &SHAPE(5, 4))), 0);
    CHECK_INT(b.problem.status, ST_INVALID);
    CHECK_TEXT(b.problem.where, "dense");
    CHECK_CONTAINS(b.problem.detail, "only layers without weights");
}
