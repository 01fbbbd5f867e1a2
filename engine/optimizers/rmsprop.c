/* RMSprop: Tieleman & Hinton 2012, lecture 6.5 of "Neural networks for machine learning".
 *
 *   v = rho v + (1 - rho) g^2;   centered: a = rho a + (1 - rho) g,  d = v - a^2,  else d = v
 *   r = rate g / sqrt(d + epsilon);   momentum: m = momentum m + r,  w -= m,  else w -= r
 *
 * Keras 3 (keras/src/optimizers/rmsprop.py) has epsilon inside the root; Keras 1 and 2 outside: rate g / (sqrt(v) +
 * epsilon). */
#include "engine/optimizers/optimizer.h"

struct rmsprop {
    double rho, momentum, epsilon;
    bool centered, keras1_epsilon;
};

enum { RMS_VELOCITY, RMS_MOMENTUM, RMS_AVERAGE };

static bool rmsprop_uses(const void *config, int slot)
{
    const struct rmsprop *c = config;

    return slot == RMS_VELOCITY || (slot == RMS_MOMENTUM ? c->momentum > 0 : c->centered);
}

static void rmsprop_emit(struct build *b, const void *config, const struct update *u)
{
    const struct rmsprop *c = config;
    value_id in[6] = {u->w, u->g, u->rate, u->slot[0]}, out[4] = {u->w, u->slot[0]};
    int n_slots = 1;
    struct formula f = {0};
    term w = f_in(&f), g = f_in(&f), rate = f_in(&f), v = f_in(&f);
    term epsilon = f_const(&f, c->epsilon), under, root, step, m = 0, a = 0;

    v = under = f_mix(&f, v, f_square(&f, g), 1 - c->rho);
    if (c->momentum > 0) {
        in[3 + n_slots] = out[1 + n_slots] = u->slot[n_slots];
        n_slots++;
        m = f_mul(&f, f_in(&f), f_const(&f, c->momentum));
    }
    if (c->centered) {
        in[3 + n_slots] = out[1 + n_slots] = u->slot[n_slots];
        a = f_mix(&f, f_in(&f), g, 1 - c->rho);
        under = f_sub(&f, v, f_square(&f, a));
    }
    root = c->keras1_epsilon ? f_add(&f, f_sqrt(&f, under), epsilon) : f_sqrt(&f, f_add(&f, under, epsilon));
    step = f_div(&f, f_mul(&f, rate, g), root);
    if (c->momentum > 0)
        step = m = f_add(&f, m, step);
    f_out(&f, f_sub(&f, w, step));
    f_out(&f, v);
    if (c->momentum > 0)
        f_out(&f, m);
    if (c->centered)
        f_out(&f, a);
    emit_update(b, &f, in, out);
}

static const struct field rmsprop_fields[] = {
    {"rho", FIELD_FLOAT, offsetof(struct rmsprop, rho), .preset = 0.9, .min = 0, .max = 1,
     .doc = "decay of the mean of squares"},
    {"momentum", FIELD_FLOAT, offsetof(struct rmsprop, momentum), .min = 0, .max = 1, .doc = "share of the last step kept"},
    {"epsilon", FIELD_FLOAT, offsetof(struct rmsprop, epsilon), .preset = 1e-7, .min = 0, .max = 1e30,
     .doc = "keeps the divisor from zero"},
    {"centered", FIELD_BOOL, offsetof(struct rmsprop, centered),
     .doc = "whether the variance is used, not the mean of squares"},
    {"keras1_epsilon", FIELD_BOOL, offsetof(struct rmsprop, keras1_epsilon),
     .doc = "epsilon is added outside of the root, as Keras 1 and 2 do"},
    {0},
};

static const struct slot_type rmsprop_slots[] = {{"velocity", false}, {"momentum", true}, {"average_gradient", true}, {0}};

const struct optimizer optimizer_rmsprop = {"RMSprop",    sizeof(struct rmsprop), rmsprop_fields, rmsprop_slots,
                                            rmsprop_emit, rmsprop_uses,           NULL,           0.001};
