/* BatchNormalization along one axis: Ioffe & Szegedy 2015, arXiv:1502.03167.
 *
 *   y = gamma (x - mean) / sqrt(variance + epsilon) + beta
 *   training: moments of the batch, and   moving = momentum moving + (1 - momentum) batch
 *
 * What differs between the versions of Keras:
 *   the variance that goes into moving_variance is biased in Keras 1 and 3; times n / (n - (1 + epsilon)) in Keras 2;
 *   unbiased, n / (n - 1), in tf.keras for images (its fused kernel) and biased for other ranks;
 *   a layer that is not trainable uses the moving moments from tf.keras on; before, still the batch's, and only Keras 1
 *   goes on updating;
 *   a mask weighs the moments in Keras 3 alone. */
#include "engine/layers/layer.h"
#include "engine/model/dialect.h"
#include "engine/ops/ops.h"

#define MASK_EPSILON 1e-7 /* Keras' backend.epsilon(), added to the number of elements under a mask */

struct batch_normalization {
    int64_t axis;
    double momentum, epsilon;
    bool center, scale, synchronized, renorm;
    const struct object *beta_initializer, *gamma_initializer, *moving_mean_initializer, *moving_variance_initializer;
    const struct object *beta_regularizer, *gamma_regularizer;
    const struct json *beta_constraint, *gamma_constraint, *renorm_clipping, *renorm_momentum;
};

static value_id blend(struct build *b, value_id old, value_id fresh, double momentum, double factor)
{
    struct formula f = {0};
    term x = f_in(&f), y = f_in(&f);

    f_out(&f, f_add(&f, f_mul(&f, x, f_const(&f, momentum)), f_mul(&f, y, f_const(&f, (1 - momentum) * factor))));
    return emit_formula(b, &f, (value_id[]){old, fresh});
}

static double variance_factor(const struct build *b, const struct batch_normalization *c, const struct shape *x)
{
    int64_t all = shape_count(x), channels = x->dim[x->rank - 1];
    double n = all > 0 && channels > 0 ? (double)(all / channels) : 0;

    if (b->dialect == DIALECT_KERAS_2 || b->dialect == DIALECT_KERAS_2_3)
        return n > 1 + c->epsilon ? n / (n - (1 + c->epsilon)) : 1;
    if (b->dialect == DIALECT_TF_KERAS && x->rank == 4)
        return n > 1 ? n / (n - 1) : 1;
    return 1;
}

static value_id formula_2(struct build *b, term (*op)(struct formula *, term, term), value_id x, value_id y)
{
    struct formula f = {0};
    term a = f_in(&f), d = f_in(&f);

    f_out(&f, op(&f, a, d));
    return emit_formula(b, &f, (value_id[]){x, y});
}

static term ratio_term(struct formula *f, term sum, term n)
{
    return f_div(f, sum, f_add(f, n, f_const(f, MASK_EPSILON)));
}

/* mask ? x - mean : 0, squared */
static value_id masked_squares(struct build *b, value_id x, value_id mean, value_id mask)
{
    struct formula f = {0};
    term v = f_in(&f), m = f_in(&f), keep = f_in(&f);

    f_out(&f, f_select(&f, keep, f_square(&f, f_sub(&f, v, m)), f_const(&f, 0)));
    return emit_formula(b, &f, (value_id[]){x, mean, mask});
}

static value_id masked(struct build *b, value_id x, value_id mask)
{
    struct formula f = {0};
    term v = f_in(&f), keep = f_in(&f);

    f_out(&f, f_select(&f, keep, v, f_const(&f, 0)));
    return emit_formula(b, &f, (value_id[]){x, mask});
}

/* Moments over the elements under the mask, then the fixed form: gradients flow through both. Keras 3's _moments. */
static struct batch_norm_out masked_norm(struct build *b, value_id x, value_id gamma, value_id beta, value_id mask,
                                         struct batch_norm how)
{
    struct shape s = shape_of(b, x), m = shape_of(b, mask);
    struct batch_norm_out r = {0};
    unsigned axes = (1u << (s.rank - 1)) - 1;
    value_id n;

    if (m.rank != s.rank - 1) {
        build_fail(b, ST_INVALID, "the mask must have one axis less than the input: the mask is %s, the input %s",
                   shape_text(&m).s, shape_text(&s).s);
        return r;
    }
    n = emit_reduce_all(b, mask, REDUCE_SUM);
    mask = mask_like(b, mask, x);
    r.mean = formula_2(b, ratio_term, emit_reduce(b, masked(b, x, mask), REDUCE_SUM, axes, false), n);
    r.variance = formula_2(b, ratio_term, emit_reduce(b, masked_squares(b, x, r.mean, mask), REDUCE_SUM, axes, false), n);
    r.y = emit_batch_norm_fixed(b, x, gamma, beta, r.mean, r.variance, how);
    return r;
}

static value_id normalized(struct build *b, const struct layer *l, value_id x, value_id gamma, value_id beta, value_id mask)
{
    const struct batch_normalization *c = l->config;
    struct shape channels = SHAPE(last_dim(b, x)), s = shape_of(b, x);
    value_id mean =
        weight_fixed(b, l, "moving_mean", channels, c->moving_mean_initializer ? c->moving_mean_initializer : INIT_ZEROS);
    value_id variance = weight_fixed(b, l, "moving_variance", channels,
                                     c->moving_variance_initializer ? c->moving_variance_initializer : INIT_ONES);
    struct batch_norm how = {(float)c->epsilon};
    struct batch_norm_out now;

    if (build_failed(b))
        return 0;
    if (!b->training || (!l->trainable && b->dialect >= DIALECT_TF_KERAS))
        return emit_batch_norm_fixed(b, x, gamma, beta, mean, variance, how);
    now = mask && b->dialect == DIALECT_KERAS_3 ? masked_norm(b, x, gamma, beta, mask, how)
                                                : emit_batch_norm(b, x, gamma, beta, how);
    if (l->trainable || b->dialect == DIALECT_KERAS_1) {
        weight_assign(b, l, "moving_mean", blend(b, mean, now.mean, c->momentum, 1));
        weight_assign(b, l, "moving_variance", blend(b, variance, now.variance, c->momentum, variance_factor(b, c, &s)));
    }
    return now.y;
}

static struct tuple batch_norm_call(struct build *b, const struct layer *l, const struct tuple *in)
{
    const struct batch_normalization *c = l->config;
    value_id x = in->v[0], gamma = 0, beta = 0, y;
    struct shape s = shape_of(b, x), channels;
    int swap[MAX_RANK], axis;

    refuse_constraint(b, "beta_constraint", c->beta_constraint);
    refuse_constraint(b, "gamma_constraint", c->gamma_constraint);
    if (c->renorm)
        build_fail(b, ST_UNSUPPORTED, "renorm of a batch normalization is not supported");
    if (build_failed(b))
        return one(b, 0);
    axis = shape_axis(&s, (int)c->axis);
    if (s.rank < 2 || axis < 1) {
        build_fail(b, ST_INVALID, "axis %lld must be an axis of the input %s other than the batch", (long long)c->axis,
                   shape_text(&s).s);
        return one(b, 0);
    }
    for (int i = 0; i < s.rank; i++)
        swap[i] = i;
    swap[axis] = s.rank - 1;
    swap[s.rank - 1] = axis;
    if (axis != s.rank - 1)
        x = emit_transpose(b, x, swap);
    channels = SHAPE(last_dim(b, x));
    if (c->scale)
        gamma = weight(b, l, "gamma", channels, c->gamma_initializer ? c->gamma_initializer : INIT_ONES);
    if (c->center)
        beta = weight(b, l, "beta", channels, c->beta_initializer ? c->beta_initializer : INIT_ZEROS);
    if (gamma)
        regularize(b, gamma, c->gamma_regularizer);
    if (beta)
        regularize(b, beta, c->beta_regularizer);
    y = normalized(b, l, x, gamma, beta, in->mask[0]);
    return one_masked(b, axis != s.rank - 1 && y ? emit_transpose(b, y, swap) : y, in->mask[0]);
}

static const struct field batch_norm_fields[] = {
    {"axis", FIELD_INT, offsetof(struct batch_normalization, axis), .preset = -1, .min = -MAX_RANK, .max = MAX_RANK - 1,
     .doc = "axis whose elements have moments of their own, usually the channels"},
    {"momentum", FIELD_FLOAT, offsetof(struct batch_normalization, momentum), .preset = 0.99, .min = 0, .max = 1,
     .doc = "share of the old moving moments kept at each step"},
    {"epsilon", FIELD_FLOAT, offsetof(struct batch_normalization, epsilon), .preset = 1e-3, .min = 0, .max = 1e30,
     .doc = "added to the variance"},
    {"center", FIELD_BOOL, offsetof(struct batch_normalization, center), .preset = 1, .doc = "whether beta is added"},
    {"scale", FIELD_BOOL, offsetof(struct batch_normalization, scale), .preset = 1, .doc = "whether gamma is a factor"},
    FIELD_INITIALIZER(batch_normalization, beta_initializer, "Zeros"),
    FIELD_INITIALIZER(batch_normalization, gamma_initializer, "Ones"),
    FIELD_INITIALIZER(batch_normalization, moving_mean_initializer, "Zeros"),
    FIELD_INITIALIZER(batch_normalization, moving_variance_initializer, "Ones"),
    FIELD_REGULARIZER(batch_normalization, beta_regularizer),
    FIELD_REGULARIZER(batch_normalization, gamma_regularizer),
    FIELD_CONSTRAINT(batch_normalization, beta_constraint),
    FIELD_CONSTRAINT(batch_normalization, gamma_constraint),
    {"synchronized", FIELD_BOOL, offsetof(struct batch_normalization, synchronized),
     .doc = "moments over all devices: no difference on one"},
    {"renorm", FIELD_BOOL, offsetof(struct batch_normalization, renorm), .doc = "must be false"},
    {"renorm_clipping", FIELD_JSON, offsetof(struct batch_normalization, renorm_clipping), .flags = FIELD_NULLABLE,
     .doc = "read and not used"},
    {"renorm_momentum", FIELD_JSON, offsetof(struct batch_normalization, renorm_momentum), .flags = FIELD_NULLABLE,
     .doc = "read and not used"},
    {0},
};

const struct layer_type layer_batch_normalization = {"BatchNormalization", sizeof(struct batch_normalization),
                                                     batch_norm_fields, batch_norm_call};
