/* Adam: Kingma & Ba 2015, arXiv:1412.6980, in the form of its section 2's last lines; AMSGrad: Reddi et al. 2018.
 *
 *   rate' = rate sqrt(1 - beta_2^t) / (1 - beta_1^t)
 *   m += (g - m)(1 - beta_1);   v += (g^2 - v)(1 - beta_2);   w -= rate' m / (sqrt(v) + epsilon)
 *   amsgrad: vhat = max(vhat, v) in place of v under the root
 *
 * rate' is worked out once per step, not per element. Keras 3, keras/src/optimizers/adam.py; Keras 1 and 2 the same. */
#include "engine/optimizers/optimizer.h"

struct adam {
    double beta_1, beta_2, epsilon;
    bool amsgrad;
};

enum { ADAM_M, ADAM_V, ADAM_VHAT };

static bool adam_uses(const void *config, int slot)
{
    return slot != ADAM_VHAT || ((const struct adam *)config)->amsgrad;
}

static value_id adam_rate(struct build *b, const struct adam *c, const struct update *u)
{
    struct formula f = {0};
    term rate = f_in(&f), t = f_in(&f), unit = f_const(&f, 1);
    term root = f_sqrt(&f, f_sub(&f, unit, f_pow(&f, f_const(&f, c->beta_2), t)));

    f_out(&f, f_div(&f, f_mul(&f, rate, root), f_sub(&f, unit, f_pow(&f, f_const(&f, c->beta_1), t))));
    return emit_formula(b, &f, (value_id[]){u->rate, u->step});
}

static void adam_emit(struct build *b, const void *config, const struct update *u)
{
    const struct adam *c = config;
    value_id in[6] = {u->w, u->g, adam_rate(b, c, u), u->slot[ADAM_M], u->slot[ADAM_V]};
    value_id out[4] = {u->w, u->slot[ADAM_M], u->slot[ADAM_V]};
    struct formula f = {0};
    term w = f_in(&f), g = f_in(&f), rate = f_in(&f), m = f_in(&f), v = f_in(&f), under;

    m = f_mix(&f, m, g, 1 - c->beta_1);
    v = under = f_mix(&f, v, f_square(&f, g), 1 - c->beta_2);
    if (c->amsgrad) {
        under = f_max(&f, f_in(&f), v);
        in[5] = out[3] = u->slot[ADAM_VHAT];
    }
    f_out(&f, f_sub(&f, w, f_div(&f, f_mul(&f, m, rate), f_add(&f, f_sqrt(&f, under), f_const(&f, c->epsilon)))));
    f_out(&f, m);
    f_out(&f, v);
    if (c->amsgrad)
        f_out(&f, under);
    emit_update(b, &f, in, out);
}

static const struct field adam_fields[] = {
    {"beta_1", FIELD_FLOAT, offsetof(struct adam, beta_1), .preset = 0.9, .min = 0, .max = 0.9999999,
     .doc = "decay of the mean of gradients"},
    {"beta_2", FIELD_FLOAT, offsetof(struct adam, beta_2), .preset = 0.999, .min = 0, .max = 0.9999999,
     .doc = "decay of the mean of squares"},
    {"epsilon", FIELD_FLOAT, offsetof(struct adam, epsilon), .preset = 1e-7, .min = 0, .max = 1e30, .doc = "added to the root"},
    {"amsgrad", FIELD_BOOL, offsetof(struct adam, amsgrad), .doc = "whether the largest mean of squares is used"},
    {0},
};

static const struct slot_type adam_slots[] = {{"momentum", false}, {"velocity", false}, {"velocity_hat", true}, {0}};

const struct optimizer optimizer_adam = {"Adam",    sizeof(struct adam), adam_fields, adam_slots,
                                         adam_emit, adam_uses,           NULL,        0.001};
