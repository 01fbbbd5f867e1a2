/* Every activation and its gradient against real Keras 3 (sparsemax: the paper's algorithm), from numbers that
 * tests/golden/make_activations.py wrote. */
#include "tests/ops/cases.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/test.h"

#define ROWS  3
#define WIDTH 8

static const struct golden {
    const char *name;
    int n; /* elements of y */
    float x[ROWS * WIDTH], r[ROWS * WIDTH], y[ROWS * WIDTH], dx[ROWS * WIDTH];
} golden[] = {
#include "tests/golden/activations.inc"
};

static void check_numbers(const char *name, const char *what, const float *got, const float *want, int n, double tolerance)
{
    for (int i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tolerance * fmax(1, fabs((double)want[i]))))
            fail_msg("%s, %s, element %d: %.9g, Keras has %.9g", name, what, i, (double)got[i], (double)want[i]);
}

static void check_activation(const struct golden *g)
{
    OWNED(graph_free) struct graph *graph = graph_new();
    struct build b = build_make(graph);
    int which = activation_find(g->name);
    value_id x = input(&b, F32, &SHAPE(ROWS, WIDTH)), y = emit_activation(&b, x, which), r, dx;
    struct shape shape = shape_of(&b, y);

    CHECK(which >= 0);
    CHECK_INT(shape_count(&shape), g->n);
    r = input(&b, F32, &shape);
    graph_grad(&b, emit_reduce_all(&b, emit_mul(&b, y, r), REDUCE_SUM), &x, 1, &dx);
    if (build_failed(&b))
        fail_msg("%s: %s", g->name, b.problem.detail);

    OWNED(memory_free) struct memory *m = memory_new(graph);

    memcpy(m->at[x], g->x, sizeof g->x);
    memcpy(m->at[r], g->r, sizeof(float) * (size_t)g->n);
    trial_run(&(struct trial){.graph = graph}, m, 1, graph->n_nodes);
    check_numbers(g->name, "value", m->at[y], g->y, g->n, 1e-6);
    check_numbers(g->name, "gradient", m->at[dx], g->dx, ROWS * WIDTH, 1e-5);
}

TEST(activations_and_their_gradients_equal_keras)
{
    for (size_t i = 0; i < COUNT(golden); i++)
        check_activation(&golden[i]);
    printf("%zu activations\n", COUNT(golden));
}

TEST(every_activation_has_golden_numbers)
{
    for (int i = 0; activation_names[i]; i++) {
        bool found = false;

        for (size_t k = 0; k < COUNT(golden); k++)
            found |= !strcmp(golden[k].name, activation_names[i]);
        if (!found)
            fail_msg("%s is not in tests/golden/make_activations.py", activation_names[i]);
    }
}

TEST(linear_is_the_first_name_and_unknown_ones_are_minus_1)
{
    OWNED(graph_free) struct graph *graph = graph_new();
    struct build b = build_make(graph);
    value_id x = input(&b, F32, &SHAPE(3));

    CHECK_INT(activation_find("linear"), 0);
    CHECK_INT(activation_find("Relu"), -1);
    CHECK_INT(emit_activation(&b, x, -1), x);
    CHECK_INT(emit_activation(&b, x, 0), x);
}

/* Keras' ReLU layer: x >= max_value: max_value; threshold < x < max_value: x; else slope (x - threshold). */
TEST(relu_takes_slope_maximum_and_threshold)
{
    static const struct {
        double slope, max_value, threshold;
        float want[5]; /* of -2, 0.5, 1, 3, 9 */
    } rows[] = {
        {0, NAN, 0, {0, 0.5f, 1, 3, 9}},       {0, 6, 0, {0, 0.5f, 1, 3, 6}}, {0.1, NAN, 0, {-0.2f, 0.5f, 1, 3, 9}},
        {0.1, 6, 1, {-0.3f, -0.05f, 0, 3, 6}}, {0, NAN, 1, {0, 0, 0, 3, 9}},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(graph_free) struct graph *graph = graph_new();
        struct build b = build_make(graph);
        value_id x = input(&b, F32, &SHAPE(5)), y = emit_relu(&b, x, rows[i].slope, rows[i].max_value, rows[i].threshold);
        OWNED(memory_free) struct memory *m = memory_new(graph);

        memcpy(m->at[x], (float[]){-2, 0.5f, 1, 3, 9}, 20);
        trial_run(&(struct trial){.graph = graph}, m, 1, graph->n_nodes);
        CHECK_FLOATS((const float *)m->at[y], rows[i].want, 5, 1e-7);
    }
}
