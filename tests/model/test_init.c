/* Initializers: moments and bounds of each distribution, and that numbers follow from the key alone. */
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/model/runner.h"

#define N 40000

static const struct initializer *initializer(const struct object *o)
{
    return (const struct initializer *)o->type;
}

/* Draws (rows, columns) by the class with the configuration. */
static void draw(const char *class_name, const char *config, struct shape shape, uint64_t key, float *to)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    const struct object *o = runner_object(r, &initializer_catalogue, class_name, config);
    struct problem problem;

    CHECK_OK(initializer(o)->fill(o->config, &shape, key, to, &problem));
}

struct moments {
    double mean, deviation, largest;
};

static struct moments moments(const float *x, int n)
{
    struct moments m = {0};

    for (int i = 0; i < n; i++) {
        m.mean += (double)x[i] / n;
        m.largest = fmax(m.largest, fabs((double)x[i]));
    }
    for (int i = 0; i < n; i++)
        m.deviation += ((double)x[i] - m.mean) * ((double)x[i] - m.mean) / n;
    m.deviation = sqrt(m.deviation);
    return m;
}

TEST(each_distribution_has_the_deviation_and_the_bound_that_keras_documents)
{
    /* shape (100, 400): fan_in 100, fan_out 400, fan_avg 250; a uniform's deviation is its bound / sqrt(3) */
    static const struct {
        const char *class_name, *config;
        double deviation, bound;
    } rows[] = {
        {"GlorotUniform", "{}", 0.0632456, 0.1095445},
        {"GlorotNormal", "{\"seed\": null}", 0.0632456, 2 * 0.0632456 / 0.8796257},
        {"HeUniform", "{}", 0.1414214, 0.2449490},
        {"HeNormal", "{}", 0.1414214, 2 * 0.1414214 / 0.8796257},
        {"LecunUniform", "{}", 0.1, 0.1732051},
        {"LecunNormal", "{}", 0.1, 0.2 / 0.8796257},
        {"RandomUniform", "{\"minval\": -0.2, \"maxval\": 0.2}", 0.1154701, 0.2},
        {"RandomNormal", "{\"stddev\": 0.3}", 0.3, 2},
        {"TruncatedNormal", "{\"stddev\": 0.3}", 0.3 * 0.8796257, 0.6},
        {"VarianceScaling", "{\"scale\": 2, \"mode\": \"fan_out\", \"distribution\": \"uniform\"}", 0.0707107, 0.1224745},
        {"VarianceScaling", "{\"scale\": 1, \"mode\": \"fan_avg\", \"distribution\": \"untruncated_normal\"}", 0.0632456, 0.5},
        {"VarianceScaling", "{}", 0.1, 0.2 / 0.8796257},
    };
    float *x = malloc(N * sizeof(float));

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct moments m;

        draw(rows[i].class_name, rows[i].config, SHAPE(100, 400), 7 + i, x);
        m = moments(x, N);
        CHECK_NEAR(m.deviation, rows[i].deviation, 0.02);
        CHECK(fabs(m.mean) < 4 * rows[i].deviation / sqrt(N));
        CHECK(m.largest <= rows[i].bound * 1.000001);
    }
    free(x);
}

TEST(an_untruncated_normal_reaches_beyond_two_deviations)
{
    float *x = malloc(N * sizeof(float));

    draw("RandomNormal", "{\"mean\": 1, \"stddev\": 0.5}", SHAPE(N), 3, x);
    CHECK_NEAR(moments(x, N).mean, 1, 0.02);
    CHECK(moments(x, N).largest > 1 + 2.5 * 0.5);
    free(x);
}

TEST(the_fans_of_a_kernel_of_a_convolution_count_its_field)
{
    float *x = malloc(N * sizeof(float));

    /* (5, 5, 16, 100): fan_in 400, fan_out 2500: bound sqrt(6 / 2900) */
    draw("glorot_uniform", "{}", SHAPE(5, 5, 16, 100), 3, x);
    CHECK_NEAR(moments(x, N).largest, sqrt(6.0 / 2900), 0.001);
    draw("he_normal", "{}", SHAPE(5, 5, 16, 100), 3, x);
    CHECK_NEAR(moments(x, N).deviation, sqrt(2.0 / 400), 0.02);
    free(x);
}

TEST(constants_and_the_identity_are_exact)
{
    float x[6];

    draw("Zeros", "{}", SHAPE(2, 3), 1, x);
    CHECK_FLOATS(x, ((float[]){0, 0, 0, 0, 0, 0}), 6, 0);
    draw("ones", "{}", SHAPE(2, 3), 1, x);
    CHECK_FLOATS(x, ((float[]){1, 1, 1, 1, 1, 1}), 6, 0);
    draw("Constant", "{\"value\": 0.25}", SHAPE(2, 3), 1, x);
    CHECK_FLOATS(x, ((float[]){0.25f, 0.25f, 0.25f, 0.25f, 0.25f, 0.25f}), 6, 0);
    draw("IdentityInitializer", "{\"gain\": 2}", SHAPE(2, 3), 1, x);
    CHECK_FLOATS(x, ((float[]){2, 0, 0, 0, 2, 0}), 6, 0);
}

/* rows of x are orthonormal times gain; x (rows, columns) or, with by_columns, its columns are */
static void check_orthogonal(const float *x, int rows, int columns, double gain, bool by_columns)
{
    int n = by_columns ? columns : rows, length = by_columns ? rows : columns;

    for (int i = 0; i < n; i++) {
        for (int j = 0; j <= i; j++) {
            double sum = 0;

            for (int k = 0; k < length; k++)
                sum += (double)(by_columns ? x[k * columns + i] : x[i * columns + k]) *
                       (double)(by_columns ? x[k * columns + j] : x[j * columns + k]);
            CHECK(fabs(sum - (i == j ? gain * gain : 0)) < 1e-5);
        }
    }
}

TEST(an_orthogonal_weight_has_orthonormal_rows_or_columns_in_every_shape)
{
    float *x = malloc(N * sizeof(float));

    draw("Orthogonal", "{}", SHAPE(17, 68), 5, x);
    check_orthogonal(x, 17, 68, 1, false);
    draw("OrthogonalInitializer", "{\"gain\": 1.1}", SHAPE(40, 9), 5, x);
    check_orthogonal(x, 40, 9, 1.1, true);
    draw("orthogonal", "{}", SHAPE(3, 3, 4, 6), 5, x);
    check_orthogonal(x, 36, 6, 1, true);
    draw("orthogonal", "{}", SHAPE(1, 1), 5, x);
    CHECK_NEAR(fabs((double)x[0]), 1, 1e-6);
    free(x);
}

TEST(orthogonal_matrices_lean_to_no_side)
{
    /* with the signs of R corrected the distribution is Haar's: the mean of the first element is 0 */
    double sum = 0;
    float x[4];

    for (uint64_t key = 0; key < 400; key++) {
        draw("Orthogonal", "{}", SHAPE(2, 2), key * 977, x);
        sum += (double)x[0];
    }
    CHECK(fabs(sum / 400) < 0.15);
}

TEST(a_shape_that_does_not_suit_is_refused_with_the_shape)
{
    OWNED(runner_free) struct runner *r = runner_new(DIALECT_KERAS_3, false);
    const struct object *orthogonal = runner_object(r, &initializer_catalogue, "Orthogonal", NULL);
    const struct object *identity = runner_object(r, &initializer_catalogue, "Identity", NULL);
    struct problem problem;
    float x[24];

    CHECK_INT(initializer(orthogonal)->fill(orthogonal->config, &SHAPE(5), 1, x, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "two dimensions, this one has the shape (5,)");
    CHECK_INT(initializer(identity)->fill(identity->config, &SHAPE(2, 3, 4), 1, x, &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "(2, 3, 4)");
}

TEST(the_same_key_gives_the_same_numbers_and_another_key_others)
{
    float x[100], y[100], z[100], longer[200];

    draw("GlorotUniform", "{}", SHAPE(10, 10), 1, x);
    draw("GlorotUniform", "{}", SHAPE(10, 10), 1, y);
    draw("GlorotUniform", "{}", SHAPE(10, 10), 2, z);
    CHECK_INT(memcmp(x, y, sizeof(x)), 0);
    CHECK(memcmp(x, z, sizeof(x)) != 0);
    draw("RandomNormal", "{}", SHAPE(100), 1, x);
    draw("RandomNormal", "{}", SHAPE(200), 1, longer);
    CHECK_INT(memcmp(x, longer, sizeof(x)), 0);
}
