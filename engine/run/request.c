/* The arguments of fit(), evaluate() and predict() from JSON: where the data is, and how to go through it.
 *
 * One table of keys for each kind of job; what Keras has and is not built yet is in the tables too, so that its name is known and
 * only a value that asks for something is refused. */
#include "engine/run/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run/spread.h"

#define MAX_BATCH   (1 << 20)
#define MAX_EPOCHS  10000000
#define MAX_CLASSES 1000000 /* rows of class_weight */

struct fit_keys {
    const struct json *x, *y, *sample_weight, *validation_data, *class_weight, *callbacks, *preprocess, *verbose, *return_dict,
        *shuffle, *validation_freq;
    int64_t batch_size, validation_batch_size, epochs, nb_epoch, initial_epoch;
    double validation_split;
    const struct json *later[12]; /* arguments that must be null, by their place in the table */
};
static const struct field fit_fields[], evaluate_fields[], predict_fields[];

struct reader {
    const struct model *m;
    struct arena *mem;
    struct problem *problem;
    const char *pointer;
    const char **input_names;
};

static const char *at_key(const struct reader *r, const char *key)
{
    return pointer_key(r->mem, r->pointer, key);
}

static bool given(const struct json *j)
{
    return json_type(j) != JSON_NOTHING && json_type(j) != JSON_NULL;
}

/* ---- arrays -------------------------------------------------------------------------------------------------------------- */

/* One array, and no list or object of arrays: a name, or numbers. A model of several inputs reads an outer list as one for each. */
static bool one_array(const struct json *j, int n)
{
    enum json_type first = json_type(json_first(j));

    if (json_text(j))
        return true;
    return json_type(j) == JSON_ARRAY && n == 1 && (first == JSON_NUMBER || first == JSON_ARRAY);
}

static enum status check_array(const struct reader *r, const struct json *j, const char *what, const char *at)
{
    const char *name = json_text(j), *slash = name ? strchr(name, '/') : NULL;

    if (name && (!slash || slash == name || !slash[1] || strchr(slash + 1, '/')))
        return fail(r->problem, ST_INVALID, at, "\"%.150s\" names no array: it is written \"dataset/array\"", name);
    if (!name && (json_type(j) != JSON_ARRAY || !json_first(j)))
        return fail(r->problem, ST_INVALID, at,
                    "%s is the name of an array (\"dataset/array\") or an array of numbers, here is %s", what,
                    json_type(j) == JSON_ARRAY ? "an empty array" : json_type_name(json_type(j)));
    return ST_OK;
}

/* kind: 'x' over the inputs, 'y' and 'w' over the outputs. */
static enum status read_arrays(const struct reader *r, const struct json *j, const char *key, const char *pointer, char kind,
                               const struct json **to, const char **at, int *n)
{
    bool inputs = kind == 'x';
    struct spread spread = {key,
                            inputs ? "input" : "output",
                            inputs ? r->input_names : r->m->output_names,
                            inputs ? r->m->n_inputs : r->m->n_outputs,
                            one_array,
                            false,
                            kind != 'w'};

    if (kind != 'w' && !given(j))
        return fail(r->problem, ST_INVALID, pointer, "is missing: %s",
                    inputs ? "the name of an array (\"dataset/array\") or numbers"
                           : "the targets that the model learns or is judged by");
    if (json_type(j) == JSON_ARRAY && !json_first(j))
        return fail(r->problem, ST_INVALID, pointer, "%s is an empty array", key);
    TRY(spread_json(&spread, j, pointer, r->mem, to, at, r->problem));
    for (int i = 0; i < spread.n; i++)
        if (to[i])
            TRY(check_array(r, to[i], key, at[i]));
    *n = kind == 'w' && !given(j) ? 0 : spread.n;
    return ST_OK;
}

static enum status read_data(const struct reader *r, const struct json *x, const struct json *y, const struct json *w,
                             const char *const pointers[3], bool targets, struct data_spec *to)
{
    TRY(read_arrays(r, x, "x", pointers[0], 'x', to->x, to->x_pointer, &to->n_x));
    if (targets) {
        TRY(read_arrays(r, y, "y", pointers[1], 'y', to->y, to->y_pointer, &to->n_y));
        TRY(read_arrays(r, w, "sample_weight", pointers[2], 'w', to->w, to->w_pointer, &to->n_w));
    }
    if (to->n_x + to->n_y + to->n_w > MAX_ARRAYS)
        return fail(r->problem, ST_INVALID, r->pointer,
                    "inputs, targets and sample weights are %d arrays, at most %d are possible", to->n_x + to->n_y + to->n_w,
                    MAX_ARRAYS);
    return ST_OK;
}

/* {"x", "y", "sample_weight"} or [x, y] or [x, y, sample_weight]. */
static enum status read_validation(const struct reader *r, const struct json *j, struct fit_spec *f)
{
    static const char *const keys[] = {"x", "y", "sample_weight"};
    const char *at = at_key(r, "validation_data"), *pointers[3];
    const struct json *part[3] = {0};
    int i = 0;

    if (!given(j))
        return ST_OK;
    for (int k = 0; k < 3; k++)
        pointers[k] = json_type(j) == JSON_ARRAY ? arena_print(r->mem, "%s/%d", at, k) : pointer_key(r->mem, at, keys[k]);
    if (json_type(j) == JSON_ARRAY) {
        if (json_count(j) != 2 && json_count(j) != 3)
            return fail(r->problem, ST_INVALID, at, "a list has x, y and perhaps sample_weight; here are %d entries",
                        json_count(j));
        for (const struct json *m = json_first(j); m; m = json_next(m))
            part[i++] = m;
    } else if (json_type(j) == JSON_OBJECT) {
        for (const struct json *m = json_first(j); m; m = json_next(m)) {
            for (i = 0; i < 3 && strcmp(keys[i], json_key(m)) != 0; i++)
                ;
            if (i == 3)
                return fail(r->problem, ST_INVALID, pointer_key(r->mem, at, json_key(m)),
                            "unknown key \"%.100s\"; known here: x, y, sample_weight", json_key(m));
            part[i] = m;
        }
    } else {
        return fail(r->problem, ST_INVALID, at, "is {\"x\", \"y\"} or [x, y], here is %s", json_type_name(json_type(j)));
    }
    TRY(read_data(r, part[0], part[1], part[2], pointers, true, &f->validation));
    f->has_validation = true;
    return ST_OK;
}

/* ---- class weights ------------------------------------------------------------------------------------------------------- */

static enum status add_class(const struct reader *r, const struct json *weight, int64_t id, const char *at, struct fit_spec *f)
{
    double w = json_number(weight);

    if (!(w >= 0) || !isfinite((float)w))
        return fail(r->problem, ST_INVALID, at, "a class weight is a number from 0, here is %s",
                    json_type(weight) == JSON_NUMBER ? "one out of range" : json_type_name(json_type(weight)));
    f->class_ids[f->n_class_weights] = id;
    f->class_weights[f->n_class_weights++] = w;
    return ST_OK;
}

static bool class_number(const char *key, int64_t *ret)
{
    char *end;

    if (key[0] < '0' || key[0] > '9' || strlen(key) > 9 || (key[0] == '0' && key[1])) /* one spelling, so no class twice */
        return false;
    *ret = strtoll(key, &end, 10);
    return *end == 0;
}

static enum status read_class_weight(const struct reader *r, const struct json *j, bool sample_weight, struct fit_spec *f)
{
    const char *at = at_key(r, "class_weight");
    int i = 0, n = json_count(j);

    if (!given(j))
        return ST_OK;
    if (json_type(j) != JSON_OBJECT && json_type(j) != JSON_ARRAY)
        return fail(r->problem, ST_INVALID, at, "is an object {\"0\": 1.0, \"1\": 2.5} or a list by class number, here is %s",
                    json_type_name(json_type(j)));
    if (r->m->n_outputs > 1)
        return fail(r->problem, ST_UNSUPPORTED, at,
                    "class weights for a model of %d outputs are not built yet: use sample_weight", r->m->n_outputs);
    if (sample_weight && r->m->dialect == DIALECT_KERAS_3)
        return fail(r->problem, ST_INVALID, at, "Keras 3 takes class_weight or sample_weight, not both");
    if (n > MAX_CLASSES)
        return fail(r->problem, ST_INVALID, at, "has %d classes, at most %d are possible", n, MAX_CLASSES);
    f->class_ids = ARENA_ARRAY(r->mem, int64_t, n ? n : 1);
    f->class_weights = ARENA_ARRAY(r->mem, double, n ? n : 1);
    for (const struct json *m = json_first(j); m; m = json_next(m), i++) {
        int64_t id = i;
        const char *where =
            json_type(j) == JSON_ARRAY ? arena_print(r->mem, "%s/%d", at, i) : pointer_key(r->mem, at, json_key(m));
        if (json_type(j) == JSON_OBJECT && !class_number(json_key(m), &id))
            return fail(r->problem, ST_INVALID, where, "\"%.60s\" is no class number (0, 1, 2 ...)", json_key(m));
        TRY(add_class(r, m, id, where, f));
    }
    if (sample_weight && r->m->dialect == DIALECT_KERAS_1)
        f->n_class_weights = 0; /* Keras 1 lets sample weights stand alone */
    return ST_OK;
}

/* ---- callbacks and preprocess -------------------------------------------------------------------------------------------- */

/* The problem's pointer in terms of what was posted: its own key, and nothing behind a callback that is only a name. */
static enum status as_written(const struct reader *r, const struct json *posted, const char *at, enum status s)
{
    struct problem was = *r->problem;
    const char *last = strrchr(was.where, '/');

    if (s == ST_OK || !last)
        return s;
    if (json_text(posted))
        return fail(r->problem, s, at, "%s", was.detail);
    return fail(r->problem, s,
                arena_print(r->mem, "%.*s/%s", (int)(last - was.where), was.where, dialect_written_key(posted, last + 1)), "%s",
                was.detail);
}

static enum status read_callback(const struct reader *r, const struct json *j, const char *at, struct fit_spec *f)
{
    struct json *made;
    const struct object *o;

    TRY(dialect_callback(j, at, r->m->dialect, &made, r->problem));
    json_push(f->canonical, made);
    TRY(as_written(r, j, at, object_parse(&callback_catalogue, made, r->mem, at, FIELD_STRICT, NULL, &o, r->problem)));
    const struct callback *type = (const struct callback *)o->type;
    if (type->check)
        TRY(as_written(r, j, at, type->check(o->config, at, r->problem)));
    f->callbacks[f->n_callbacks++] = *o;
    return ST_OK;
}

static enum status read_callbacks(const struct reader *r, const struct json *j, struct fit_spec *f)
{
    const char *at = at_key(r, "callbacks");
    int i = 0, n = json_count(j);

    if (!given(j))
        return ST_OK;
    if (json_type(j) != JSON_ARRAY)
        return fail(r->problem, ST_INVALID, at, "must be an array, got %s", json_type_name(json_type(j)));
    if (n > 64)
        return fail(r->problem, ST_INVALID, at, "has %d callbacks, at most 64 are possible", n);
    f->canonical = json_new_array();
    f->callbacks = ARENA_ARRAY(r->mem, struct object, n + 1);
    for (const struct json *m = json_first(j); m; m = json_next(m), i++)
        TRY(read_callback(r, m, arena_print(r->mem, "%s/%d", at, i), f));
    return ST_OK;
}

/* A list of layers and no list of lists. */
static bool one_prepare(const struct json *j, int n)
{
    (void)n;
    if (json_type(j) != JSON_ARRAY)
        return false;
    for (const struct json *m = json_first(j); m; m = json_next(m))
        if (json_type(m) == JSON_ARRAY || json_type(m) == JSON_NULL)
            return false;
    return true;
}

static enum status read_preprocess(const struct reader *r, const struct json *j, struct fit_spec *f)
{
    int n = r->m->n_inputs;
    const struct json **each = ARENA_ARRAY(r->mem, const struct json *, n);
    const char **at = ARENA_ARRAY(r->mem, const char *, n);
    struct spread spread = {"preprocess", "input", r->input_names, n, one_prepare, false, false};

    if (!given(j))
        return ST_OK;
    TRY(spread_json(&spread, j, at_key(r, "preprocess"), r->mem, each, at, r->problem));
    f->prepare = ARENA_ARRAY(r->mem, struct prepare *, n);
    f->n_prepare = n;
    for (int i = 0; i < n; i++)
        if (each[i])
            TRY(prepare_parse(each[i], at[i], &f->prepare[i], r->problem));
    return ST_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

static enum status refuse_later(const struct reader *r, const struct fit_keys *k, const struct field *fields)
{
    for (const struct field *f = fields; f->key; f++) {
        size_t from = offsetof(struct fit_keys, later);
        if (f->offset < from)
            continue;
        const struct json *j = k->later[(f->offset - from) / sizeof k->later[0]];
        if (given(j) && !(json_type(j) == JSON_ARRAY && !json_first(j)))
            return fail(r->problem, ST_UNSUPPORTED, at_key(r, f->key), "the argument \"%s\" is not built yet", f->key);
    }
    return ST_OK;
}

static enum status read_epochs(const struct reader *r, const struct fit_keys *k, struct fit_spec *f)
{
    bool old = k->nb_epoch != FIELD_NULL_INT;

    if (old && k->epochs != FIELD_NULL_INT)
        return fail(r->problem, ST_INVALID, at_key(r, "nb_epoch"),
                    "\"nb_epoch\" and \"epochs\" mean the same: give one of them");
    f->epochs = old ? k->nb_epoch : k->epochs != FIELD_NULL_INT ? k->epochs : r->m->dialect == DIALECT_KERAS_1 ? 10 : 1;
    f->initial_epoch = k->initial_epoch;
    if (f->initial_epoch >= f->epochs)
        return fail(r->problem, ST_INVALID, at_key(r, "initial_epoch"),
                    "is %lld, it must be less than epochs (%lld), which is the number of the last epoch and not how many more",
                    (long long)f->initial_epoch, (long long)f->epochs);
    return ST_OK;
}

static enum status read_how(const struct reader *r, const struct fit_keys *k, struct fit_spec *f)
{
    f->validation_freq = 1;
    if (given(k->validation_freq)) {
        if (json_type(k->validation_freq) == JSON_ARRAY)
            return fail(r->problem, ST_UNSUPPORTED, at_key(r, "validation_freq"),
                        "a list of epochs is not built yet: give a number");
        if (!json_int(k->validation_freq, &f->validation_freq) || f->validation_freq < 1)
            return fail(r->problem, ST_INVALID, at_key(r, "validation_freq"), "must be a whole number from 1");
    }
    f->shuffle = true;
    if (given(k->shuffle)) {
        if (json_is(k->shuffle, "batch"))
            return fail(r->problem, ST_UNSUPPORTED, at_key(r, "shuffle"), "shuffle \"batch\" is not built yet: true or false");
        if (json_type(k->shuffle) != JSON_BOOL)
            return fail(r->problem, ST_INVALID, at_key(r, "shuffle"), "must be true or false, got %s",
                        json_type_name(json_type(k->shuffle)));
        f->shuffle = json_true(k->shuffle);
    }
    f->validation_split = f->has_validation ? 0 : k->validation_split; /* the data wins in every version */
    if (!(f->validation_split < 1))
        return fail(r->problem, ST_INVALID, at_key(r, "validation_split"),
                    "must be less than 1: some rows must be left to train with");
    return ST_OK;
}

static enum status read_all(const struct reader *r, const struct fit_keys *k, const char *type, struct fit_spec *f)
{
    bool predict = !strcmp(type, "predict"), fit = !strcmp(type, "fit");
    const char *const pointers[] = {at_key(r, "x"), at_key(r, "y"), at_key(r, "sample_weight")};

    TRY(refuse_later(r, k, fit ? fit_fields : predict ? predict_fields : evaluate_fields));
    TRY(read_data(r, k->x, k->y, k->sample_weight, pointers, !predict, &f->data));
    f->batch_size = k->batch_size != FIELD_NULL_INT ? k->batch_size : 32;
    f->validation_batch_size = k->validation_batch_size != FIELD_NULL_INT ? k->validation_batch_size : f->batch_size;
    TRY(read_preprocess(r, k->preprocess, f));
    if (!fit)
        return ST_OK;
    TRY(read_validation(r, k->validation_data, f));
    TRY(read_epochs(r, k, f));
    TRY(read_how(r, k, f));
    TRY(read_class_weight(r, k->class_weight, f->data.n_w > 0, f));
    return read_callbacks(r, k->callbacks, f);
}

enum status fit_parse(const struct json *j, const char *pointer, const char *type, const struct model *m, struct arena *mem,
                      struct fit_spec **ret, struct problem *problem)
{
    struct reader r = {.m = m, .mem = mem, .problem = problem, .pointer = pointer};
    struct fit_spec *f = ARENA_NEW(mem, struct fit_spec);
    struct fit_keys keys = {0};
    const struct field *fields = !strcmp(type, "fit")       ? fit_fields
                                 : !strcmp(type, "predict") ? predict_fields
                                                            : evaluate_fields;

    if (json_type(j) != JSON_OBJECT)
        return fail(problem, ST_INVALID, pointer, "must be an object, got %s", json_type_name(json_type(j)));
    if (m->n_inputs > MAX_ARRAYS || m->n_outputs > MAX_ARRAYS)
        return fail(problem, ST_INVALID, pointer, "the model has %d inputs and %d outputs, at most %d of each can be fed",
                    m->n_inputs, m->n_outputs, MAX_ARRAYS);
    r.input_names = ARENA_ARRAY(mem, const char *, m->n_inputs);
    for (int i = 0; i < m->n_inputs; i++)
        r.input_names[i] = m->inputs[i].name;
    keys.nb_epoch = keys.epochs = keys.validation_batch_size = FIELD_NULL_INT;
    TRY(field_parse(fields, j, &keys, mem, pointer, FIELD_STRICT, NULL, problem));
    enum status s = read_all(&r, &keys, type, f);
    if (s != ST_OK) {
        fit_spec_done(f);
        return s;
    }
    *ret = f;
    return ST_OK;
}

void fit_spec_done(struct fit_spec *f)
{
    for (int i = 0; f && i < f->n_prepare; i++)
        f->prepare[i] = prepare_free(f->prepare[i]);
    if (f)
        f->canonical = json_free(f->canonical);
}

#define ANYTHING(member, text)                                                                       \
    {                                                                                                \
#member, FIELD_JSON, offsetof(struct fit_keys, member), .flags = FIELD_NULLABLE, .doc = text \
    }
#define LATER(i, name)                                                                                        \
    {                                                                                                         \
        name, FIELD_JSON, offsetof(struct fit_keys, later[i]), .flags = FIELD_NULLABLE, .doc = "must be null" \
    }
#define COMMON                                                                                                                \
    ANYTHING(x, "array or arrays of inputs: \"dataset/array\" or numbers; a list in the model's order or an object by name"), \
        {"batch_size",                                                                                                        \
         FIELD_INT,                                                                                                           \
         offsetof(struct fit_keys, batch_size),                                                                               \
         .preset = 32,                                                                                                        \
         .min = 1,                                                                                                            \
         .max = MAX_BATCH,                                                                                                    \
         .flags = FIELD_NULLABLE,                                                                                             \
         .doc = "rows in a step"},                                                                                            \
        ANYTHING(preprocess, "layers without weights put before the inputs, here and in predict"),                            \
        ANYTHING(verbose, "read and not used")
#define TARGETS                                      \
    ANYTHING(y, "array or arrays of targets, as x"), \
        ANYTHING(sample_weight, "array of weights of the rows; for several outputs as y, null for none")

static const struct field fit_fields[] = {
    COMMON,
    TARGETS,
    {"epochs", FIELD_INT, offsetof(struct fit_keys, epochs), .preset = NAN, .min = 1, .max = MAX_EPOCHS,
     .doc = "number of the last epoch; 1 by default, 10 for Keras 1"},
    {"nb_epoch", FIELD_INT, offsetof(struct fit_keys, nb_epoch), .preset = NAN, .min = 1, .max = MAX_EPOCHS,
     .doc = "the same under its name in Keras 1"},
    {"initial_epoch", FIELD_INT, offsetof(struct fit_keys, initial_epoch), .min = 0, .max = MAX_EPOCHS,
     .doc = "epochs counted as done"},
    ANYTHING(shuffle, "whether the rows are mixed anew in every epoch"),
    {"validation_split", FIELD_FLOAT, offsetof(struct fit_keys, validation_split), .min = 0, .max = 1,
     .doc = "share of the rows at the end that is judged and not trained with"},
    ANYTHING(validation_data, "{\"x\", \"y\", \"sample_weight\"} or a list of them"),
    {"validation_batch_size", FIELD_INT, offsetof(struct fit_keys, validation_batch_size), .preset = NAN, .min = 1,
     .max = MAX_BATCH, .flags = FIELD_NULLABLE, .doc = "rows in a step of validation; batch_size by default"},
    ANYTHING(validation_freq, "epochs from one validation to the next"),
    ANYTHING(class_weight, "weight of each class: an object by number, or a list"),
    ANYTHING(callbacks, "a list of names or {\"class_name\", \"config\"}"),
    LATER(0, "steps_per_epoch"),
    LATER(1, "validation_steps"),
    LATER(2, "samples_per_epoch"),
    LATER(3, "nb_val_samples"),
    LATER(4, "max_queue_size"),
    LATER(5, "workers"),
    LATER(6, "use_multiprocessing"),
    {0},
};

static const struct field evaluate_fields[] = {
    COMMON, TARGETS, ANYTHING(return_dict, "read and not used"), LATER(0, "steps"), LATER(1, "callbacks"), {0},
};

static const struct field predict_fields[] = {COMMON, LATER(0, "steps"), LATER(1, "callbacks"), {0}};
