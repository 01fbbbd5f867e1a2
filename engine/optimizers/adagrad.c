/* Adagrad: Duchi, Hazan, Singer 2011.
 *
 *   a += g^2;   w -= rate g / sqrt(a + epsilon)
 *
 * a begins with initial_accumulator_value. Keras 3, keras/src/optimizers/adagrad.py; Keras 1 and 2 begin with 0 and have
 * epsilon outside of the root. */
#include "engine/optimizers/optimizer.h"

struct adagrad {
    double initial_accumulator_value, epsilon;
    bool keras1_epsilon;
};

static double adagrad_initial(const void *config, int slot)
{
    (void)slot;
    return ((const struct adagrad *)config)->initial_accumulator_value;
}

static void adagrad_emit(struct build *b, const void *config, const struct update *u)
{
    const struct adagrad *c = config;
    struct formula f = {0};
    term w = f_in(&f), g = f_in(&f), rate = f_in(&f), a = f_add(&f, f_in(&f), f_square(&f, g));
    term epsilon = f_const(&f, c->epsilon);
    term root = c->keras1_epsilon ? f_add(&f, f_sqrt(&f, a), epsilon) : f_sqrt(&f, f_add(&f, a, epsilon));

    f_out(&f, f_sub(&f, w, f_div(&f, f_mul(&f, rate, g), root)));
    f_out(&f, a);
    emit_update(b, &f, (value_id[]){u->w, u->g, u->rate, u->slot[0]}, (value_id[]){u->w, u->slot[0]});
}

static const struct field adagrad_fields[] = {
    {"initial_accumulator_value", FIELD_FLOAT, offsetof(struct adagrad, initial_accumulator_value), .preset = 0.1, .min = 0,
     .max = 1e30, .doc = "first value of the sums of squares"},
    {"epsilon", FIELD_FLOAT, offsetof(struct adagrad, epsilon), .preset = 1e-7, .min = 0, .max = 1e30,
     .doc = "keeps the divisor from zero"},
    {"keras1_epsilon", FIELD_BOOL, offsetof(struct adagrad, keras1_epsilon),
     .doc = "epsilon is added outside of the root, as Keras 1 and 2 do"},
    {0},
};

static const struct slot_type adagrad_slots[] = {{"accumulator", false}, {0}};

const struct optimizer optimizer_adagrad = {"Adagrad", sizeof(struct adagrad), adagrad_fields, adagrad_slots, adagrad_emit,
                                            NULL,      adagrad_initial,        0.001};
