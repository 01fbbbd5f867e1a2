/* What an optimizer is: fields, slots, and a formula over flat vectors.
 *
 * All trainable parameters are one flat vector; slots have its layout. A table whose gradient comes by rows is a group of its own, what
 * lies before and behind it others. A line `const struct optimizer optimizer_x = {` puts a file into
 * the list. The step is behind build.ok (emit_update). Learning rate, decay, clipping and weight decay are common to all and are
 * no business of an optimizer: optimizer_step() does them around emit(). */
#ifndef HORN_OPTIMIZERS_OPTIMIZER_H
#define HORN_OPTIMIZERS_OPTIMIZER_H

#include "engine/base/field.h"
#include "engine/ops/ops.h"

#define MAX_SLOTS 4
struct parameter_group {
    value_id w, g;             // (n) flat; g by rows: (any, d), see emit_scatter_rows
    value_id where;            /* of a gradient by rows; 0: g is flat */
    value_id slots[MAX_SLOTS]; // (n) each, in the order of the slots in use
    const value_id *parts;     /* views of a flat g, one per weight: clipnorm is per weight */
    int n_parts;
};

struct update {           /* one parameter group */
    value_id w, g;        // (n) flat
    value_id rate;        /* scalar F32: the rate of this step, decay applied */
    value_id step;        /* scalar F32: 1 at the first update */
    const value_id *slot; // (n) each, in the order of the slots in use
};

struct slot_type {
    const char *name; /* as in Keras' files: adam/<variable>_momentum */
    bool at_the_end;  /* in files all of this slot follow the others (Adam's velocity_hat) instead of interleaving by weight */
};

struct optimizer {
    CLASS_MEMBERS
    const struct slot_type *slots; /* ends with an empty row */
    void (*emit)(struct build *b, const void *config, const struct update *u);
    bool (*uses)(const void *config, int slot);      /* NULL: all slots */
    double (*initial)(const void *config, int slot); /* first value; NULL: 0 */
    double learning_rate;                            /* where the configuration has none; 0: Keras' usual 0.001 */
};

extern const struct catalogue optimizer_catalogue;

struct optimizer_common { /* canonical Keras 3 keys, and decay of Keras 1 and 2: rate / (1 + decay * updates done) */
    double learning_rate, decay, clipnorm, global_clipnorm, clipvalue, weight_decay; /* NaN: none */
};

struct optimizer_spec {
    const struct optimizer *type;
    const void *config;
    struct optimizer_common common;
    int n_slots;             /* in use */
    int slot[MAX_SLOTS];     /* index into type->slots of each slot in use */
    const struct json *json; /* canonical configuration, for files; borrowed from the document */
};

/* Reads {"class_name", "config"} or a name, already canonical (dialect_optimizer). Strict: unknown keys are ST_INVALID, use_ema,
 * loss_scale_factor, gradient_accumulation_steps when set and schedules as learning_rate ST_UNSUPPORTED. */
enum status optimizer_parse(const struct json *j, struct arena *mem, const char *pointer, struct optimizer_spec *ret,
                            struct problem *problem);

/* First values of the slots in use, one after the other, n each. */
void optimizer_first_slots(const struct optimizer_spec *o, size_t n, float *slots);

/* The finite check's and the global norm's sum over all groups: scalar. */
value_id gradient_squares(struct build *b, const struct parameter_group *group, int n);

/* The whole step: clipping, decay, weight decay, emit for each group. rate0 scalar F32 in AT_STATE, updates scalar I64 (done before
 * this step). Order as in Keras 3 (base_optimizer.py) with global norm before value clipping, as Keras 1 has them when both are
 * given. Clipping changes group[i].g. */
void optimizer_step(struct build *b, const struct optimizer_spec *o, struct parameter_group *group, int n, value_id rate0,
                    value_id updates);

#endif
