/* compile() from JSON: the optimizer, and loss, weight and metrics of each output.
 *
 * Everything is written again in one canonical form, in which files carry it: full names of losses, lists in the model's order. The
 * spec's pointers lead into that canonical document, so it does not matter what becomes of the posted one. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/run/request.h"
#include "engine/run/spread.h"

struct compile_keys {
    const struct json *optimizer, *loss, *loss_weights, *metrics, *weighted_metrics;
    const struct json *sample_weight_mode, *run_eagerly, *jit_compile, *steps_per_execution, *auto_scale_loss, *target_tensors;
};
static const struct field compile_fields[];

struct reader {
    const struct model *m;
    struct arena *mem;
    struct problem *problem;
    const char *pointer;
};

/* An argument that Keras has and that changes nothing at these values. */
static enum status neutral(const struct reader *r, const struct json *j, const char *key, const char *const *accepted)
{
    OWNED(free) char *text = NULL;

    if (json_type(j) == JSON_NOTHING || json_type(j) == JSON_NULL)
        return ST_OK;
    text = json_print(j, 0);
    for (; *accepted; accepted++)
        if (!strcmp(*accepted, text))
            return ST_OK;
    return fail(r->problem, ST_UNSUPPORTED, pointer_key(r->mem, r->pointer, key),
                "compile's \"%s\" with %.100s is not built yet", key, text);
}

/* ---- optimizer ----------------------------------------------------------------------------------------------------------- */

static enum status read_optimizer(const struct reader *r, const struct json *given, struct json *canonical,
                                  struct optimizer_spec *ret)
{
    const char *at = pointer_key(r->mem, r->pointer, "optimizer");
    OWNED(json_free) struct json *rmsprop = json_new_text("rmsprop"); /* compile()'s own default */
    struct json *made;

    if (json_type(given) == JSON_NOTHING || json_type(given) == JSON_NULL)
        given = rmsprop;
    TRY(dialect_optimizer(given, at, r->m->dialect, &made, r->problem));
    json_put(canonical, "optimizer", made);
    enum status s = optimizer_parse(made, r->mem, at, ret, r->problem);
    if (s != ST_OK && json_type(given) == JSON_OBJECT) { /* the key as it was posted */
        char *last = strrchr(r->problem->where, '/');
        const char *written = last ? dialect_written_key(given, last + 1) : "";
        if (last && strcmp(written, last + 1) != 0) {
            struct problem was = *r->problem;
            last[1] = 0;
            s = fail(r->problem, was.status, arena_print(r->mem, "%s%s", r->problem->where, written), "%s", was.detail);
        }
    }
    return s;
}

/* ---- losses -------------------------------------------------------------------------------------------------------------- */

static bool one_class(const struct json *j, int n)
{
    (void)n;
    return json_text(j) || json_get(j, "class_name");
}

static bool one_number(const struct json *j, int n)
{
    (void)n;
    return json_type(j) == JSON_NUMBER;
}

/* The loss under its full name ("mean_squared_error"), or as {"class_name", "config"} where it has a configuration. */
static struct json *loss_json(const struct json *given, const struct loss *loss)
{
    const struct json *config = json_get(given, "config");
    char name[128];

    if (json_type(given) == JSON_OBJECT && json_first(config)) {
        struct json *made = json_new_object();
        json_put(made, "class_name", json_new_text(loss->keras));
        json_put(made, "config", json_copy(config));
        return made;
    }
    snake_case(loss->keras, name, sizeof name);
    return json_new_text(name);
}

static enum status read_losses(const struct reader *r, const struct json *given, struct json *canonical,
                               struct output_spec *out)
{
    int n = r->m->n_outputs, trained = 0;
    const struct json **each = ARENA_ARRAY(r->mem, const struct json *, n);
    const char **at = ARENA_ARRAY(r->mem, const char *, n), *pointer = pointer_key(r->mem, r->pointer, "loss");
    struct spread spread = {"loss", "output", r->m->output_names, n, one_class, true, false};

    if (json_type(given) == JSON_NOTHING || json_type(given) == JSON_NULL)
        return fail(r->problem, ST_INVALID, r->pointer, "a loss is needed, for example \"loss\": \"categorical_crossentropy\"");
    TRY(spread_json(&spread, given, pointer, r->mem, each, at, r->problem));
    struct json *list = json_new_array();
    json_put(canonical, "loss", list);
    for (int i = 0; i < n; i++) {
        const struct object *o;
        if (!each[i]) {
            json_push(list, json_new_null());
            continue;
        }
        TRY(object_parse(&loss_catalogue, each[i], r->mem, at[i], FIELD_STRICT, NULL, &o, r->problem));
        out[i].loss = (const struct loss *)o->type;
        json_push(list, loss_json(each[i], out[i].loss));
        /* once more from the canonical document, which a configuration may borrow from */
        TRY(object_parse(&loss_catalogue, json_at(list, i), r->mem, at[i], FIELD_STRICT, NULL, &o, r->problem));
        out[i].loss_config = o->config;
        trained++;
    }
    if (!trained)
        return fail(r->problem, ST_INVALID, pointer, "no output has a loss");
    if (n == 1) {
        struct json *only = json_copy(json_first(list));
        const struct object *o;
        json_put(canonical, "loss", only);
        TRY(object_parse(&loss_catalogue, only, r->mem, at[0], FIELD_STRICT, NULL, &o, r->problem));
        out[0].loss_config = o->config;
    }
    return ST_OK;
}

static enum status read_loss_weights(const struct reader *r, const struct json *given, struct json *canonical,
                                     struct output_spec *out)
{
    int n = r->m->n_outputs;
    const struct json **each = ARENA_ARRAY(r->mem, const struct json *, n);
    const char **at = ARENA_ARRAY(r->mem, const char *, n);
    struct spread spread = {"loss_weights", "output", r->m->output_names, n, one_number, false, false};

    TRY(spread_json(&spread, given, pointer_key(r->mem, r->pointer, "loss_weights"), r->mem, each, at, r->problem));
    struct json *list = json_new_array();
    json_put(canonical, "loss_weights", list);
    for (int i = 0; i < n; i++) {
        out[i].loss_weight = 1;
        if (each[i] && json_type(each[i]) != JSON_NUMBER)
            return fail(r->problem, ST_INVALID, at[i], "a loss weight is a number, here is %s",
                        json_type_name(json_type(each[i])));
        if (each[i])
            out[i].loss_weight = json_number(each[i]);
        if (!isfinite((float)out[i].loss_weight))
            return fail(r->problem, ST_INVALID, at[i], "a loss weight is a number of float32's range");
        json_push(list, json_new_number(out[i].loss_weight));
    }
    if (json_type(given) == JSON_NOTHING || json_type(given) == JSON_NULL)
        json_put(canonical, "loss_weights", json_new_null());
    return ST_OK;
}

/* ---- metrics ------------------------------------------------------------------------------------------------------------- */

static enum status check_metric(const struct reader *r, const struct json *j, const char *at)
{
    static const char *const resolved[] = {"accuracy", "acc", "crossentropy", "ce"};
    const char *name = json_text(j) ? json_text(j) : json_text(json_get(j, "class_name"));

    if (!name)
        return fail(r->problem, ST_INVALID, at, "a metric is a name or {\"class_name\", \"config\"}, here is %s",
                    json_type_name(json_type(j)));
    for (size_t i = 0; i < COUNT(resolved); i++)
        if (json_text(j) && !strcasecmp(name, resolved[i]))
            return ST_OK;
    if (!catalogue_find(&metric_catalogue, name) && !catalogue_find(&loss_catalogue, name))
        return fail(r->problem, ST_UNSUPPORTED, at, "the metric \"%.100s\" is not built yet", name);
    return ST_OK;
}

/* Metrics of one output: one of them or a list. They are appended to `list`, their pointers to `at`. */
static enum status add_metrics(const struct reader *r, const struct json *j, const char *pointer, struct json *list,
                               const char **at, int room)
{
    int i = 0;

    if (!j || json_type(j) == JSON_NULL)
        return ST_OK;
    if (json_type(j) != JSON_ARRAY) {
        TRY(check_metric(r, j, pointer));
        at[json_count(list)] = pointer;
        json_push(list, json_copy(j));
        return ST_OK;
    }
    for (const struct json *m = json_first(j); m; m = json_next(m), i++) {
        const char *where = arena_print(r->mem, "%s/%d", pointer, i);
        if (json_type(m) == JSON_NULL)
            continue;
        if (json_count(list) == room)
            return fail(r->problem, ST_INVALID, where, "an output has at most %d metrics", room);
        TRY(check_metric(r, m, where));
        at[json_count(list)] = where;
        json_push(list, json_copy(m));
    }
    return ST_OK;
}

static bool one_metric_list(const struct json *j, int n)
{
    if (json_type(j) != JSON_ARRAY)
        return one_class(j, n);
    for (const struct json *m = json_first(j); m; m = json_next(m))
        if (json_type(m) == JSON_ARRAY || json_type(m) == JSON_NULL)
            return n == 1 && json_type(m) == JSON_NULL; /* a list of lists: one for each output */
    return true;
}

/* Keras 3 reads a list for a model of several outputs as one entry for each output; before, as metrics of every output. */
static bool one_metric_list_keras3(const struct json *j, int n)
{
    return n == 1 ? one_metric_list(j, n) : json_type(j) != JSON_ARRAY && one_class(j, n);
}

enum { MOST_METRICS = 32 };

static enum status read_metrics(const struct reader *r, const struct json *given, const char *key, struct json *canonical,
                                const char **at /* n rows of MOST_METRICS */)
{
    int n = r->m->n_outputs;
    const struct json **each = ARENA_ARRAY(r->mem, const struct json *, n);
    const char **where = ARENA_ARRAY(r->mem, const char *, n);
    bool by_output = r->m->dialect == DIALECT_KERAS_3;
    struct spread spread = {key,  "output", r->m->output_names, n, by_output ? one_metric_list_keras3 : one_metric_list,
                            true, false};

    TRY(spread_json(&spread, given, pointer_key(r->mem, r->pointer, key), r->mem, each, where, r->problem));
    struct json *list = json_put(canonical, key, json_new_array());
    bool any = false;
    for (int i = 0; i < n; i++) {
        struct json *own = n == 1 ? list : json_push(list, json_new_array());
        TRY(add_metrics(r, each[i], where[i], own, &at[i * MOST_METRICS], MOST_METRICS));
        any = any || json_first(own);
    }
    if (!any)
        json_put(canonical, key, json_new_null());
    return ST_OK;
}

/* The canonical lists of both kinds as the output's row of metrics. */
static void join_metrics(const struct reader *r, struct json *canonical, const char **plain_at, const char **weighted_at,
                         struct output_spec *out)
{
    const struct json *lists[] = {json_get(canonical, "metrics"), json_get(canonical, "weighted_metrics")};
    const char **at[] = {plain_at, weighted_at};

    for (int i = 0; i < r->m->n_outputs; i++) {
        const struct json *own[2] = {lists[0], lists[1]};
        for (int k = 0; k < 2; k++)
            own[k] = r->m->n_outputs > 1 ? json_at(lists[k], i) : lists[k];
        int n = (json_type(own[0]) == JSON_ARRAY ? json_count(own[0]) : 0) +
                (json_type(own[1]) == JSON_ARRAY ? json_count(own[1]) : 0);
        out[i].metrics = ARENA_ARRAY(r->mem, const struct json *, n + 1);
        out[i].metric_pointers = ARENA_ARRAY(r->mem, const char *, n + 1);
        out[i].metric_weighted = ARENA_ARRAY(r->mem, bool, n + 1);
        for (int k = 0; k < 2; k++) {
            int j = 0;
            for (const struct json *m = json_type(own[k]) == JSON_ARRAY ? json_first(own[k]) : NULL; m; m = json_next(m), j++) {
                out[i].metrics[out[i].n_metrics] = m;
                out[i].metric_pointers[out[i].n_metrics] = at[k][i * MOST_METRICS + j];
                out[i].metric_weighted[out[i].n_metrics++] = k == 1;
            }
        }
    }
}

/* ---- compile() ----------------------------------------------------------------------------------------------------------- */

static enum status refuse_later(const struct reader *r, const struct compile_keys *k)
{
    static const char *const no[] = {"false", "\"auto\"", NULL}, *const once[] = {"1", "\"auto\"", NULL},
                             *const any_bool[] = {"false", "true", NULL}, *const none[] = {NULL};

    TRY(neutral(r, k->run_eagerly, "run_eagerly", no));
    TRY(neutral(r, k->jit_compile, "jit_compile", no));
    TRY(neutral(r, k->steps_per_execution, "steps_per_execution", once));
    TRY(neutral(r, k->auto_scale_loss, "auto_scale_loss", any_bool));
    TRY(neutral(r, k->sample_weight_mode, "sample_weight_mode", none));
    return neutral(r, k->target_tensors, "target_tensors", none);
}

static enum status read_compile(const struct reader *r, const struct compile_keys *k, struct compile_spec *c)
{
    int n = r->m->n_outputs;
    const char **plain_at = ARENA_ARRAY(r->mem, const char *, n *MOST_METRICS);
    const char **weighted_at = ARENA_ARRAY(r->mem, const char *, n *MOST_METRICS);

    c->output = ARENA_ARRAY(r->mem, struct output_spec, n);
    c->canonical = json_new_object();
    TRY(read_optimizer(r, k->optimizer, c->canonical, &c->optimizer));
    TRY(read_losses(r, k->loss, c->canonical, c->output));
    TRY(read_loss_weights(r, k->loss_weights, c->canonical, c->output));
    TRY(read_metrics(r, k->metrics, "metrics", c->canonical, plain_at));
    TRY(read_metrics(r, k->weighted_metrics, "weighted_metrics", c->canonical, weighted_at));
    TRY(refuse_later(r, k));
    join_metrics(r, c->canonical, plain_at, weighted_at, c->output);
    return ST_OK;
}

enum status compile_parse(const struct json *compile, const char *pointer, const struct model *m, struct arena *mem,
                          struct compile_spec **ret, struct problem *problem)
{
    struct reader r = {.m = m, .mem = mem, .problem = problem, .pointer = pointer};
    struct compile_spec *c = ARENA_NEW(mem, struct compile_spec);
    struct compile_keys keys = {0};

    if (m->n_outputs > MAX_ARRAYS)
        return fail(problem, ST_INVALID, pointer, "the model has %d outputs, at most %d can be trained", m->n_outputs,
                    MAX_ARRAYS);
    if (json_type(compile) != JSON_OBJECT)
        return fail(problem, ST_INVALID, pointer, "must be an object, got %s", json_type_name(json_type(compile)));
    TRY(field_parse(compile_fields, compile, &keys, mem, pointer, FIELD_STRICT, NULL, problem));
    enum status s = read_compile(&r, &keys, c);
    if (s != ST_OK) {
        compile_spec_done(c);
        return s;
    }
    OWNED(free) char *text = json_print(c->canonical, 0);
    c->text = arena_text(mem, text);
    *ret = c;
    return ST_OK;
}

void compile_spec_done(struct compile_spec *c)
{
    if (c)
        c->canonical = json_free(c->canonical);
}

#define ARGUMENT(member, text)                                                                           \
    {                                                                                                    \
#member, FIELD_JSON, offsetof(struct compile_keys, member), .flags = FIELD_NULLABLE, .doc = text \
    }

static const struct field compile_fields[] = {
    ARGUMENT(optimizer, "a name or {\"class_name\", \"config\"}; rmsprop by default"),
    ARGUMENT(loss, "a name or {\"class_name\", \"config\"}, or a list or object of them for several outputs"),
    ARGUMENT(loss_weights, "a number for each output; 1 by default"),
    ARGUMENT(metrics, "names or objects, for every output or a list for each"),
    ARGUMENT(weighted_metrics, "as metrics, with the sample weights"),
    ARGUMENT(sample_weight_mode, "must be null"),
    ARGUMENT(run_eagerly, "false"),
    ARGUMENT(jit_compile, "false or \"auto\""),
    ARGUMENT(steps_per_execution, "1"),
    ARGUMENT(auto_scale_loss, "read and not used: neither float32 nor bfloat16 needs it"),
    ARGUMENT(target_tensors, "must be null"),
    {0},
};
