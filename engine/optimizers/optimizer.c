/* What all optimizers share: reading compile()'s optimizer, and the step around an optimizer's formula.
 *
 * Order of a step, as in Keras 3 (keras/src/optimizers/base_optimizer.py, apply_gradients): clip, decoupled weight decay, the
 * optimizer's own update. Keras 3 allows one kind of clipping; Keras 1 and 2 allow a norm and a value, the norm first. */
#include "engine/optimizers/optimizer.h"

#include <math.h>
#include <string.h>

/* The keys of every optimizer. Those that Horn does not have may stand at their defaults, as Keras prints them. */
struct common_keys {
    struct optimizer_common common;
    const char *name;
    const struct json *learning_rate, *ema_overwrite_frequency, *loss_scale_factor, *gradient_accumulation_steps;
    bool use_ema;
    double ema_momentum;
};

#define MAX_FIELDS 48 /* common and own */

#define FIELD_CLIP(key, text)                                                                              \
    {                                                                                                      \
#key, FIELD_FLOAT, offsetof(struct common_keys, common.key), .preset = NAN, .min = 0, .max = 1e30, \
                                                                     .flags = FIELD_NULLABLE, .doc = text  \
    }
#define FIELD_LATER(key, text)                                                                    \
    {                                                                                             \
#key, FIELD_JSON, offsetof(struct common_keys, key), .flags = FIELD_NULLABLE, .doc = text \
    }

static const struct field common_fields[] = {
    {"name", FIELD_TEXT, offsetof(struct common_keys, name), .max = 255, .flags = FIELD_NULLABLE, .doc = "read and not used"},
    {"learning_rate", FIELD_JSON, offsetof(struct common_keys, learning_rate), .doc = "step size, a number"},
    {"decay", FIELD_FLOAT, offsetof(struct common_keys, common.decay), .min = 0, .max = 1e30,
     .doc = "the step size is divided by 1 + decay * steps done (Keras 1 and 2)"},
    FIELD_CLIP(clipnorm, "largest norm of each weight's gradient"),
    FIELD_CLIP(global_clipnorm, "largest norm of all gradients together"),
    FIELD_CLIP(clipvalue, "largest absolute value of a gradient's elements"),
    FIELD_CLIP(weight_decay, "share of each weight, times the step size, taken away before a step"),
    {"use_ema", FIELD_BOOL, offsetof(struct common_keys, use_ema), .doc = "must be false"},
    {"ema_momentum", FIELD_FLOAT, offsetof(struct common_keys, ema_momentum), .preset = 0.99, .doc = "read and not used"},
    FIELD_LATER(ema_overwrite_frequency, "read and not used"),
    FIELD_LATER(loss_scale_factor, "must be null"),
    FIELD_LATER(gradient_accumulation_steps, "must be null"),
    {0},
};

static size_t aligned(size_t bytes)
{
    return (bytes + 15) & ~(size_t)15;
}

/* Common and own rows in one table, so that one parse finds every unknown key: the own struct lies behind the common one. */
static void fields_join(const struct optimizer *type, size_t own_at, struct field to[MAX_FIELDS])
{
    int n = 0;

    for (const struct field *f = common_fields; f->key; f++)
        to[n++] = *f;
    for (const struct field *f = type->fields; f && f->key; f++) {
        to[n] = *f;
        to[n++].offset += own_at;
    }
    memset(&to[n], 0, sizeof(to[n]));
}

static enum status refuse(const struct common_keys *k, const char *pointer, struct problem *problem)
{
    const char *what = k->use_ema                                              ? "use_ema"
                       : json_type(k->loss_scale_factor) > JSON_NULL           ? "loss_scale_factor"
                       : json_type(k->gradient_accumulation_steps) > JSON_NULL ? "gradient_accumulation_steps"
                                                                               : NULL;

    if (what)
        return fail(problem, ST_UNSUPPORTED, pointer, "%s of an optimizer is not supported", what);
    return ST_OK;
}

static enum status rate_read(const struct json *j, double preset, const char *pointer, double *ret, struct problem *problem)
{
    *ret = preset;
    if (json_type(j) == JSON_NOTHING)
        return ST_OK;
    if (json_type(j) == JSON_OBJECT)
        return fail(problem, ST_UNSUPPORTED, pointer, "schedules (\"%s\") as learning_rate are not supported; give a number",
                    json_text(json_get(j, "class_name")) ? json_text(json_get(j, "class_name")) : "an object");
    *ret = json_number(j);
    if (!(*ret >= 0 && *ret <= 1e30))
        return fail(problem, ST_INVALID, pointer, "learning_rate must be a number from 0 on, it is %s",
                    json_type(j) == JSON_NUMBER ? "out of range" : json_type_name(json_type(j)));
    return ST_OK;
}

enum status optimizer_parse(const struct json *j, struct arena *mem, const char *pointer, struct optimizer_spec *ret,
                            struct problem *problem)
{
    const struct json *config = json_get(j, "config");
    const char *name = json_text(j) ? json_text(j) : json_text(json_get(j, "class_name"));
    const char *at = json_text(j) ? pointer : arena_print(mem, "%s/config", pointer);
    size_t own_at = aligned(sizeof(struct common_keys));
    struct field fields[MAX_FIELDS];
    const struct optimizer *type;
    struct optimizer_spec spec = {.json = j};
    struct common_keys *keys;

    if (!name)
        return fail(problem, ST_INVALID, pointer, "an optimizer is a name or {\"class_name\", \"config\"}, this is %s",
                    json_type_name(json_type(j)));
    type = (const struct optimizer *)catalogue_find(&optimizer_catalogue, name);
    if (!type)
        return fail(problem, ST_UNSUPPORTED, pointer, "the optimizer \"%s\" is not supported", name);
    keys = arena_alloc(mem, own_at + type->config_size);
    spec.type = type;
    spec.config = (char *)keys + own_at;
    fields_join(type, own_at, fields);
    if (json_type(config) == JSON_NOTHING || json_type(config) == JSON_NULL) {
        OWNED(json_free) struct json *empty = json_new_object();

        TRY(field_parse(fields, empty, keys, mem, at, FIELD_STRICT, NULL, problem));
        keys->learning_rate = NULL;
    } else {
        TRY(field_parse(fields, config, keys, mem, at, FIELD_STRICT, NULL, problem));
    }
    TRY(refuse(keys, at, problem));
    TRY(rate_read(keys->learning_rate, type->learning_rate ? type->learning_rate : 0.001,
                  arena_print(mem, "%s/learning_rate", at), &keys->common.learning_rate, problem));
    spec.common = keys->common;
    for (int i = 0; type->slots && type->slots[i].name; i++) {
        if (!type->uses || type->uses(spec.config, i))
            spec.slot[spec.n_slots++] = i;
    }
    *ret = spec;
    return ST_OK;
}

/* g c / max(norm, c): the gradient's length is at most c. */
static term clipped(struct formula *f, term g, term norm, double c)
{
    return f_mul(f, g, f_div(f, f_const(f, c), f_max(f, norm, f_const(f, c))));
}

static value_id root(struct build *b, value_id squares)
{
    struct formula f = {0};

    f_out(&f, f_sqrt(&f, f_in(&f)));
    return emit_formula(b, &f, &squares);
}

value_id gradient_squares(struct build *b, const struct parameter_group *group, int n)
{
    value_id sum = 0;

    for (int i = 0; i < n; i++) {
        value_id squares = emit_reduce_all(b, group[i].g, REDUCE_SUM_SQUARES);

        sum = sum ? emit_add(b, sum, squares) : squares;
    }
    return sum;
}

/* Into the gradient's own place if it is a leaf, for a flat vector that is read afterwards; else a new value. */
static value_id clip_norm(struct build *b, double c, value_id g, value_id norm, bool in_place)
{
    struct formula f = {0};
    term x = f_in(&f), length = f_in(&f);

    f_out(&f, clipped(&f, x, length, c));
    if (!in_place)
        return emit_formula(b, &f, (value_id[]){g, norm});
    emit_update(b, &f, (value_id[]){g, norm}, &g);
    return g;
}

static void clip_each(struct build *b, double c, struct parameter_group *p)
{
    if (p->where)
        p->g = clip_norm(b, c, p->g, root(b, emit_reduce_all(b, p->g, REDUCE_SUM_SQUARES)), false);
    else
        for (int i = 0; i < p->n_parts; i++)
            (void)clip_norm(b, c, p->parts[i], root(b, emit_reduce_all(b, p->parts[i], REDUCE_SUM_SQUARES)), true);
}

/* norm: of all gradients, 0 where none is asked for. Rows that a gradient by rows leaves out are zeros here as there. */
static value_id clip_all(struct build *b, const struct optimizer_common *c, value_id gradient, value_id norm)
{
    struct formula f = {0};
    value_id in[2] = {gradient, norm};
    term g = f_in(&f);

    if (!norm && isnan(c->clipvalue))
        return gradient;
    if (norm)
        g = clipped(&f, g, f_in(&f), c->global_clipnorm);
    if (!isnan(c->clipvalue))
        g = f_clip(&f, g, -c->clipvalue, c->clipvalue);
    f_out(&f, g);
    return emit_formula(b, &f, in);
}

void optimizer_first_slots(const struct optimizer_spec *o, size_t n, float *slots)
{
    for (int k = 0; k < o->n_slots; k++) {
        float value = o->type->initial ? (float)o->type->initial(o->config, o->slot[k]) : 0;

        for (size_t i = 0; i < n; i++)
            slots[(size_t)k * n + i] = value;
    }
}

/* rate / (1 + decay * updates): Keras 1 and 2. */
static value_id decayed(struct build *b, double decay, value_id rate0, value_id updates)
{
    struct formula f = {0};
    term rate = f_in(&f), n = f_in(&f);

    if (decay == 0)
        return rate0;
    f_out(&f, f_div(&f, rate, f_add(&f, f_const(&f, 1), f_mul(&f, f_const(&f, decay), n))));
    return emit_formula(b, &f, (value_id[]){rate0, updates});
}

static void decay_weights(struct build *b, double decay, value_id w, value_id rate)
{
    struct formula f = {0};
    term x = f_in(&f), r = f_in(&f);

    f_out(&f, f_sub(&f, x, f_mul(&f, f_mul(&f, x, f_const(&f, decay)), r)));
    emit_update(b, &f, (value_id[]){w, rate}, &w);
}

void optimizer_step(struct build *b, const struct optimizer_spec *o, struct parameter_group *group, int n, value_id rate0,
                    value_id updates)
{
    const struct optimizer_common *c = &o->common;
    value_id norm = 0, rate, step;

    for (int i = 0; i < n && !isnan(c->clipnorm); i++)
        clip_each(b, c->clipnorm, &group[i]);
    if (!isnan(c->global_clipnorm))
        norm = root(b, gradient_squares(b, group, n));
    for (int i = 0; i < n; i++)
        group[i].g = clip_all(b, c, group[i].g, norm);
    rate = decayed(b, c->decay, rate0, updates);
    step = emit_shift(b, updates, 1);
    for (int i = 0; i < n; i++) {
        struct update u = {.w = group[i].w, .g = group[i].g, .rate = rate, .step = step, .slot = group[i].slots};

        if (!isnan(c->weight_decay) && c->weight_decay != 0)
            decay_weights(b, c->weight_decay, u.w, rate);
        b->by_rows = group[i].where ? u.g : 0;
        b->where = group[i].where;
        o->type->emit(b, o->config, &u);
        b->by_rows = b->where = 0;
    }
}
