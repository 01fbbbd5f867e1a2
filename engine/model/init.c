/* Initializers: the first values of a weight from its shape and a Philox key.
 *
 * An element's value follows from (key, element) alone, so the order of weights and the number of threads play no part.
 * Keys are made from the weight's path. Formulas: Keras 3 (keras/src/initializers/random_initializers.py); the
 * distributions agree with Keras, the drawn numbers are our own.
 *
 *   variance scaling    s = scale / max(1, fan);   uniform U(-sqrt(3 s), sqrt(3 s));   normal N(0, s)
 *   truncated normal    redrawn beyond 2 sigma; sigma = sqrt(s) / 0.87962566103423978, so that the variance after
 *   cutting is s fans                (a, b): a, b;   (k..., in, out): in prod(k), out prod(k);   (a): a, a
 *   orthogonal          Q of a Gaussian matrix, columns signed so that R has a positive diagonal */
#include "engine/model/weights.h"

#include <math.h>
#include <string.h>

#include "engine/base/philox.h"

/* The deviation of N(0, 1) cut at -2 and 2: scipy.stats.truncnorm.std(-2, 2), as Keras spells it. */
#define TRUNCATED_DEVIATION 0.87962566103423978

enum fan_mode { FAN_IN, FAN_OUT, FAN_AVG };
enum distribution { TRUNCATED_NORMAL, UNTRUNCATED_NORMAL, UNIFORM, NORMAL };

static const char *const fan_modes[] = {"fan_in", "fan_out", "fan_avg", NULL};
static const char *const distributions[] = {"truncated_normal", "untruncated_normal", "uniform", "normal", NULL};

/* Keras prints a seed for every random initializer and axes for the scaled ones; the job's seed and the shape decide here. */
struct seeded {
    const struct json *seed, *input_axes, *output_axes;
};
struct range {
    double minval, maxval;
    const struct json *seed;
};
struct normal {
    double mean, stddev;
    const struct json *seed;
};
struct gain {
    double gain;
    const struct json *seed;
};
struct constant {
    double value;
};
struct variance_scaling {
    double scale;
    int mode, distribution;
    const struct json *seed, *input_axes, *output_axes;
};

static void fill_constant(float *to, int64_t n, double value)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)value;
}

static void fill_uniform(uint64_t key, float *to, int64_t n, double low, double high)
{
    for (int64_t i = 0; i < n; i += 4) {
        struct philox_words r = philox(key, 0, (uint64_t)i);

        for (int64_t j = 0; j < 4 && i + j < n; j++)
            to[i + j] = (float)(low + (high - low) * (double)philox_unit(r.w[j]));
    }
}

static void fill_normal(uint64_t key, float *to, int64_t n, double mean, double deviation)
{
    for (int64_t i = 0; i < n; i += 4) {
        struct philox_words r = philox(key, 0, (uint64_t)i);
        double x[4];

        philox_normal(r.w[0], r.w[1], &x[0], &x[1]);
        philox_normal(r.w[2], r.w[3], &x[2], &x[3]);
        for (int64_t j = 0; j < 4 && i + j < n; j++)
            to[i + j] = (float)(mean + deviation * x[j]);
    }
}

/* Redraws an element until it lies within two deviations: a draw misses with probability 0.0455. */
static double truncated_draw(uint64_t key, int64_t element)
{
    for (uint64_t attempt = 0;; attempt++) {
        struct philox_words r = philox(key, attempt, (uint64_t)element);
        double x[4];

        philox_normal(r.w[0], r.w[1], &x[0], &x[1]);
        philox_normal(r.w[2], r.w[3], &x[2], &x[3]);
        for (int j = 0; j < 4; j++) {
            if (fabs(x[j]) < 2)
                return x[j];
        }
    }
}

static void fill_truncated(uint64_t key, float *to, int64_t n, double mean, double deviation)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(mean + deviation * truncated_draw(key, i));
}

static void fans(const struct shape *s, double *in, double *out)
{
    double field = 1;

    if (s->rank == 0) {
        *in = *out = 1;
        return;
    }
    for (int i = 0; i < s->rank - 2; i++)
        field *= (double)s->dim[i];
    *in = s->rank == 1 ? (double)s->dim[0] : field * (double)s->dim[s->rank - 2];
    *out = field * (double)s->dim[s->rank - 1];
}

static enum status fill_scaled(double scale, enum fan_mode mode, enum distribution distribution, const struct shape *shape,
                               uint64_t key, float *to)
{
    int64_t n = shape_count(shape);
    double in, out, fan, variance;

    fans(shape, &in, &out);
    fan = mode == FAN_IN ? in : mode == FAN_OUT ? out : (in + out) / 2;
    variance = scale / fmax(1, fan);
    switch (distribution) {
    case UNIFORM:
        fill_uniform(key, to, n, -sqrt(3 * variance), sqrt(3 * variance));
        break;
    case UNTRUNCATED_NORMAL:
        fill_normal(key, to, n, 0, sqrt(variance));
        break;
    case TRUNCATED_NORMAL:
    case NORMAL: /* Keras 2's word for the truncated one */
        fill_truncated(key, to, n, 0, sqrt(variance) / TRUNCATED_DEVIATION);
        break;
    }
    return ST_OK;
}

#define MAKE_SCALED(name, scale, mode, distribution)                                                       \
    static enum status name##_fill(const void *config, const struct shape *shape, uint64_t key, float *to, \
                                   struct problem *problem)                                                \
    {                                                                                                      \
        (void)config, (void)problem;                                                                       \
        return fill_scaled(scale, mode, distribution, shape, key, to);                                     \
    }
MAKE_SCALED(glorot_uniform, 1, FAN_AVG, UNIFORM)
MAKE_SCALED(glorot_normal, 1, FAN_AVG, TRUNCATED_NORMAL)
MAKE_SCALED(he_uniform, 2, FAN_IN, UNIFORM)
MAKE_SCALED(he_normal, 2, FAN_IN, TRUNCATED_NORMAL)
MAKE_SCALED(lecun_uniform, 1, FAN_IN, UNIFORM)
MAKE_SCALED(lecun_normal, 1, FAN_IN, TRUNCATED_NORMAL)
#undef MAKE_SCALED

static enum status variance_scaling_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                         struct problem *problem)
{
    const struct variance_scaling *c = config;

    (void)problem;
    return fill_scaled(c->scale, (enum fan_mode)c->mode, (enum distribution)c->distribution, shape, key, to);
}

static enum status zeros_fill(const void *config, const struct shape *shape, uint64_t key, float *to, struct problem *problem)
{
    (void)config, (void)key, (void)problem;
    fill_constant(to, shape_count(shape), 0);
    return ST_OK;
}

static enum status ones_fill(const void *config, const struct shape *shape, uint64_t key, float *to, struct problem *problem)
{
    (void)config, (void)key, (void)problem;
    fill_constant(to, shape_count(shape), 1);
    return ST_OK;
}

static enum status constant_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                 struct problem *problem)
{
    (void)key, (void)problem;
    fill_constant(to, shape_count(shape), ((const struct constant *)config)->value);
    return ST_OK;
}

static enum status random_uniform_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                       struct problem *problem)
{
    const struct range *c = config;

    (void)problem;
    fill_uniform(key, to, shape_count(shape), c->minval, c->maxval);
    return ST_OK;
}

static enum status random_normal_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                      struct problem *problem)
{
    const struct normal *c = config;

    (void)problem;
    fill_normal(key, to, shape_count(shape), c->mean, c->stddev);
    return ST_OK;
}

static enum status truncated_normal_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                         struct problem *problem)
{
    const struct normal *c = config;

    (void)problem;
    fill_truncated(key, to, shape_count(shape), c->mean, c->stddev);
    return ST_OK;
}

static enum status identity_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                 struct problem *problem)
{
    double gain = ((const struct gain *)config)->gain;

    (void)key;
    if (shape->rank != 2)
        return fail(problem, ST_INVALID, "", "needs a weight of two dimensions, this one has the shape %s",
                    shape_text(shape).s);
    fill_constant(to, shape_count(shape), 0);
    for (int64_t i = 0; i < shape->dim[0] && i < shape->dim[1]; i++)
        to[i * shape->dim[1] + i] = (float)gain;
    return ST_OK;
}

/* Eight partial sums, so that the compiler may use vectors: 1,024 units of an LSTM take 4 * 10^9 of these. */
static double dot(const double *x, const double *y, int64_t n)
{
    double part[8] = {0}, sum = 0;
    int64_t i = 0;

    for (; i + 8 <= n; i += 8) {
        for (int j = 0; j < 8; j++)
            part[j] += x[i + j] * y[i + j];
    }
    for (; i < n; i++)
        sum += x[i] * y[i];
    for (int j = 0; j < 8; j++)
        sum += part[j];
    return sum;
}

/* Gram and Schmidt, modified, each vector cleaned twice ("twice is enough": Giraud, Langou, Rozloznik 2005). The length
 * divided by is the diagonal of R, positive: the same Q as a QR with its signs corrected. q holds `count` vectors of
 * `length`. */
static void orthonormal(double *q, int64_t count, int64_t length)
{
    for (int64_t k = 0; k < count; k++) {
        double *v = q + k * length, norm;

        for (int pass = 0; pass < 2; pass++) {
            for (int64_t j = 0; j < k; j++) {
                const double *u = q + j * length;
                double share = dot(u, v, length);

                for (int64_t i = 0; i < length; i++)
                    v[i] -= share * u[i];
            }
        }
        norm = sqrt(dot(v, v, length)); /* Gaussian vectors are independent with probability one */
        for (int64_t i = 0; i < length; i++)
            v[i] /= norm;
    }
}

static enum status orthogonal_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                   struct problem *problem)
{
    double gain = ((const struct gain *)config)->gain;
    int64_t rows, columns, length, count;
    size_t bytes;
    void *memory;
    double *q;

    if (shape->rank < 2)
        return fail(problem, ST_INVALID, "", "needs a weight of at least two dimensions, this one has the shape %s",
                    shape_text(shape).s);
    columns = shape->dim[shape->rank - 1];
    rows = columns ? shape_count(shape) / columns : 0;
    length = rows > columns ? rows : columns;
    count = rows > columns ? columns : rows;
    if (count == 0)
        return ST_OK;
    if (!size_mul((size_t)length * (size_t)count, sizeof(double), &bytes))
        return fail(problem, ST_NO_MEMORY, "", "a weight of the shape %s is too large to be made orthogonal",
                    shape_text(shape).s);
    TRY(try_alloc(bytes, "an orthogonal weight", &memory, problem));
    q = memory;
    for (int64_t i = 0; i < length * count; i += 4) {
        struct philox_words r = philox(key, 0, (uint64_t)i);
        double x[4];

        philox_normal(r.w[0], r.w[1], &x[0], &x[1]);
        philox_normal(r.w[2], r.w[3], &x[2], &x[3]);
        for (int64_t j = 0; j < 4 && i + j < length * count; j++)
            q[i + j] = x[j];
    }
    orthonormal(q, count, length);
    /* the vectors are columns of a tall weight, rows of a wide one */
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++)
            to[i * columns + j] = (float)(gain * (rows > columns ? q[j * length + i] : q[i * length + j]));
    }
    big_free(memory, bytes);
    return ST_OK;
}

/* [inner(units), ones(units), inner(2 units)], as Keras 3's LSTMCell.build draws it: three pieces with keys of their own. */
static enum status lstm_bias_fill(const void *config, const struct shape *shape, uint64_t key, float *to,
                                  struct problem *problem)
{
    const struct object *inner = config;
    const struct initializer *type = (const struct initializer *)inner->type;
    int64_t units = shape->dim[0] / 4;

    TRY(type->fill(inner->config, &SHAPE(units), key, to, problem));
    fill_constant(to + units, units, 1);
    return type->fill(inner->config, &SHAPE(2 * units), key + 1, to + 2 * units, problem);
}

/* --- tables ------------------------------------------------------------------------------------------------------------- */

#define FIELD_SEED(type)                                                                                     \
    {                                                                                                        \
        "seed", FIELD_JSON, offsetof(struct type, seed),                                                     \
            .flags = FIELD_NULLABLE, .doc = "read and not used: the job's seed and the weight's name decide" \
    }
#define FIELD_AXES(type)                                                                                                   \
    {"input_axes", FIELD_JSON, offsetof(struct type, input_axes), .flags = FIELD_NULLABLE, .doc = "read and not used"},    \
    {                                                                                                                      \
        "output_axes", FIELD_JSON, offsetof(struct type, output_axes), .flags = FIELD_NULLABLE, .doc = "read and not used" \
    }

static const struct field seeded_fields[] = {FIELD_SEED(seeded), FIELD_AXES(seeded), {0}};

static const struct field constant_fields[] = {
    {"value", FIELD_FLOAT, offsetof(struct constant, value), .preset = 0, .doc = "value of every element"},
    {0},
};

static const struct field random_uniform_fields[] = {
    {"minval", FIELD_FLOAT, offsetof(struct range, minval), .preset = -0.05, .doc = "lower end of the range"},
    {"maxval", FIELD_FLOAT, offsetof(struct range, maxval), .preset = 0.05, .doc = "upper end of the range"},
    FIELD_SEED(range),
    {0},
};

static const struct field normal_fields[] = {
    {"mean", FIELD_FLOAT, offsetof(struct normal, mean), .preset = 0, .doc = "mean of the distribution"},
    {"stddev", FIELD_FLOAT, offsetof(struct normal, stddev), .preset = 0.05, .min = 0, .max = 1e30,
     .doc = "standard deviation, before cutting"},
    FIELD_SEED(normal),
    {0},
};

static const struct field gain_fields[] = {
    {"gain", FIELD_FLOAT, offsetof(struct gain, gain), .preset = 1, .doc = "factor on every element"},
    FIELD_SEED(gain),
    {0},
};

static const struct field identity_fields[] = {
    {"gain", FIELD_FLOAT, offsetof(struct gain, gain), .preset = 1, .doc = "value on the diagonal"},
    {0},
};

static const struct field variance_scaling_fields[] = {
    {"scale", FIELD_FLOAT, offsetof(struct variance_scaling, scale), .preset = 1, .min = 1e-30, .max = 1e30,
     .doc = "variance times the fan"},
    {"mode", FIELD_CHOICE, offsetof(struct variance_scaling, mode), .choices = fan_modes, .preset = FAN_IN,
     .doc = "which fan divides the scale"},
    {"distribution", FIELD_CHOICE, offsetof(struct variance_scaling, distribution), .choices = distributions,
     .preset = TRUNCATED_NORMAL, .doc = "\"normal\" is the truncated one too"},
    FIELD_SEED(variance_scaling),
    FIELD_AXES(variance_scaling),
    {0},
};

static const struct initializer zeros_type = {"Zeros", 0, NULL, zeros_fill};
static const struct initializer ones_type = {"Ones", 0, NULL, ones_fill};
static const struct initializer constant_type = {"Constant", sizeof(struct constant), constant_fields, constant_fill};
static const struct initializer random_uniform_type = {"RandomUniform", sizeof(struct range), random_uniform_fields,
                                                       random_uniform_fill};
static const struct initializer random_normal_type = {"RandomNormal", sizeof(struct normal), normal_fields, random_normal_fill};
static const struct initializer truncated_normal_type = {"TruncatedNormal", sizeof(struct normal), normal_fields,
                                                         truncated_normal_fill};
static const struct initializer variance_scaling_type = {"VarianceScaling", sizeof(struct variance_scaling),
                                                         variance_scaling_fields, variance_scaling_fill};
static const struct initializer glorot_uniform_type = {"GlorotUniform", sizeof(struct seeded), seeded_fields,
                                                       glorot_uniform_fill};
static const struct initializer glorot_normal_type = {"GlorotNormal", sizeof(struct seeded), seeded_fields, glorot_normal_fill};
static const struct initializer he_uniform_type = {"HeUniform", sizeof(struct seeded), seeded_fields, he_uniform_fill};
static const struct initializer he_normal_type = {"HeNormal", sizeof(struct seeded), seeded_fields, he_normal_fill};
static const struct initializer lecun_uniform_type = {"LecunUniform", sizeof(struct seeded), seeded_fields, lecun_uniform_fill};
static const struct initializer lecun_normal_type = {"LecunNormal", sizeof(struct seeded), seeded_fields, lecun_normal_fill};
static const struct initializer orthogonal_type = {"Orthogonal", sizeof(struct gain), gain_fields, orthogonal_fill};
static const struct initializer identity_type = {"Identity", sizeof(struct gain), identity_fields, identity_fill};

static const struct class *const initializer_rows[] = {
    (const struct class *)&zeros_type,
    (const struct class *)&ones_type,
    (const struct class *)&constant_type,
    (const struct class *)&random_uniform_type,
    (const struct class *)&random_normal_type,
    (const struct class *)&truncated_normal_type,
    (const struct class *)&variance_scaling_type,
    (const struct class *)&glorot_uniform_type,
    (const struct class *)&glorot_normal_type,
    (const struct class *)&he_uniform_type,
    (const struct class *)&he_normal_type,
    (const struct class *)&lecun_uniform_type,
    (const struct class *)&lecun_normal_type,
    (const struct class *)&orthogonal_type,
    (const struct class *)&identity_type,
    NULL,
};

static const char *const initializer_aliases[][2] = {
    {"zero", "Zeros"},
    {"one", "Ones"},
    {"uniform", "RandomUniform"},
    {"normal", "RandomNormal"},
    {"OrthogonalInitializer", "Orthogonal"},
    {"IdentityInitializer", "Identity"},
    {NULL, NULL},
};

const struct catalogue initializer_catalogue = {"initializer", initializer_rows, initializer_aliases};

static const struct range uniform_config = {-0.05, 0.05, NULL};
static const struct seeded glorot_config;
static const struct gain orthogonal_config = {1, NULL};

static const struct initializer lstm_bias_type = {"unit_forget_bias", 0, NULL, lstm_bias_fill};

const struct object init_zeros = {(const struct class *)&zeros_type, NULL};
const struct object init_ones = {(const struct class *)&ones_type, NULL};
const struct object init_glorot_uniform = {(const struct class *)&glorot_uniform_type, &glorot_config};
const struct object init_orthogonal = {(const struct class *)&orthogonal_type, &orthogonal_config};
const struct object init_uniform = {(const struct class *)&random_uniform_type, &uniform_config};

const struct object *init_lstm_bias(struct build *b, const struct object *inner)
{
    struct object *o;

    if (!b->weights)
        return INIT_ZEROS;
    o = ARENA_NEW(b->weights->mem, struct object);
    o->type = (const struct class *)&lstm_bias_type;
    o->config = inner ? inner : INIT_ZEROS;
    return o;
}
