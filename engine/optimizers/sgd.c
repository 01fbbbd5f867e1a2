/* Stochastic gradient descent, with momentum (Polyak 1964) and Nesterov's look-ahead (Sutskever et al. 2013, eq. 3-4).
 *
 *   w -= rate g;      with momentum:  m = momentum m - rate g,   w += m,   nesterov: w += momentum m - rate g
 *
 * Keras 3, keras/src/optimizers/sgd.py; Keras 1 and 2 the same. */
#include "engine/optimizers/optimizer.h"

struct sgd {
    double momentum;
    bool nesterov;
};

static bool sgd_uses(const void *config, int slot)
{
    (void)slot;
    return ((const struct sgd *)config)->momentum != 0;
}

static void sgd_emit(struct build *b, const void *config, const struct update *u)
{
    const struct sgd *c = config;
    struct formula f = {0};
    term w = f_in(&f), g = f_in(&f), rate = f_in(&f), step = f_mul(&f, rate, g), m;

    if (c->momentum == 0) {
        f_out(&f, f_sub(&f, w, step));
        emit_update(b, &f, (value_id[]){u->w, u->g, u->rate}, (value_id[]){u->w});
        return;
    }
    m = f_sub(&f, f_mul(&f, f_const(&f, c->momentum), f_in(&f)), step);
    f_out(&f, f_add(&f, w, c->nesterov ? f_sub(&f, f_mul(&f, f_const(&f, c->momentum), m), step) : m));
    f_out(&f, m);
    emit_update(b, &f, (value_id[]){u->w, u->g, u->rate, u->slot[0]}, (value_id[]){u->w, u->slot[0]});
}

static const struct field sgd_fields[] = {
    {"momentum", FIELD_FLOAT, offsetof(struct sgd, momentum), .min = 0, .max = 1, .doc = "share of the last step kept"},
    {"nesterov", FIELD_BOOL, offsetof(struct sgd, nesterov), .doc = "whether the step looks ahead along the momentum"},
    {0},
};

static const struct slot_type sgd_slots[] = {{"momentum", false}, {0}};

const struct optimizer optimizer_sgd = {"SGD", sizeof(struct sgd), sgd_fields, sgd_slots, sgd_emit, sgd_uses, NULL, 0.01};
