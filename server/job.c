/* See job.h. */
#include "server/job.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/thread.h"
#include "engine/model/names.h"
#include "storage/source.h"

struct model_ref { /* the "model" object */
    const char *name;
    const struct json *architecture;
    int64_t version;
};

static const struct field model_fields[];

struct part_list { /* of a source: x, y, w in the order of struct source */
    struct source_part part[3 * MAX_ARRAYS];
    int n;
};

const char *work_pointer(const struct work *w)
{
    static const char *const pointers[] = {"/fit", "/evaluate", "/predict"};

    return pointers[w->type];
}

/* --- model ---------------------------------------------------------------------------------------------------------------- */

/* An architecture is an object, or the text that model.to_json() returns. */
static enum status read_architecture(struct work *w, const struct json *posted, struct problem *problem)
{
    const char *text = json_text(posted);
    const struct json *object = posted;

    if (text) {
        TRY(json_parse(text, strlen(text), NULL, JSON_NAN, &w->inner[0], problem));
        object = w->inner[0];
        w->architecture = text;
    } else {
        char *printed = json_print(posted, JSON_NAN);

        w->architecture = arena_text(w->mem, printed);
        free(printed);
    }
    if (json_type(object) != JSON_OBJECT)
        return fail(problem, ST_INVALID, "/model/architecture", "is %s, it must be what model.to_json() prints",
                    json_type_name(json_type(object)));
    return model_parse(object, "/model/architecture", &w->model, problem);
}

static enum status read_base(struct work *w, struct db *db, const struct model_ref *ref, const struct json *pinned,
                             struct problem *problem)
{
    OWNED(json_free) struct json *architecture = NULL;
    int64_t version = ref->version;
    enum status status;

    (void)json_int(json_get(pinned, "version"), &version);
    status = models_get(db, ref->name, version > 0 ? version : 0, w->mem, &w->base, problem);
    if (status == ST_NOT_FOUND) {
        char detail[sizeof problem->detail];

        memcpy(detail, problem->detail, sizeof detail);
        return fail(problem, ST_INVALID, "/model", "%.300s; a new model needs \"architecture\"", detail);
    }
    TRY(status);
    w->architecture = w->base.architecture;
    TRY(json_parse(w->architecture, strlen(w->architecture), NULL, JSON_NAN, &architecture, problem));
    return model_parse(architecture, "/model/version", &w->model, problem);
}

static enum status read_model(struct work *w, struct db *db, const struct job_body *body, struct problem *problem)
{
    struct model_ref ref = {0};

    if (json_type(body->model) != JSON_OBJECT)
        return fail(problem, ST_INVALID, "/model", "is %s, it must be an object", json_type_name(json_type(body->model)));
    TRY(field_parse(model_fields, body->model, &ref, w->mem, "/model", FIELD_STRICT, NULL, problem));
    if (!name_valid(ref.name))
        return fail(problem, ST_INVALID, "/model/name",
                    "\"%.140s\" is no name: a letter or digit, then up to 127 letters, digits, '.', '_' or '-'", ref.name);
    w->name = ref.name;
    if (ref.architecture && ref.version >= 0)
        return fail(problem, ST_INVALID, "/model",
                    "\"architecture\" begins a new model, \"version\" goes on from one: say one of both");
    if (!ref.architecture)
        return read_base(w, db, &ref, body->pinned, problem);
    if (w->type != WORK_FIT)
        return fail(problem, ST_INVALID, "/model/architecture", "%s needs trained weights: name a version of the model instead",
                    work_names[w->type]);
    return read_architecture(w, ref.architecture, problem);
}

/* --- compile and arguments ------------------------------------------------------------------------------------------------- */

static enum status read_compile(struct work *w, const struct job_body *body, struct problem *problem)
{
    if (w->type == WORK_PREDICT) {
        if (body->compile)
            return fail(problem, ST_INVALID, "/compile", "predict takes no compile");
        return ST_OK;
    }
    if (body->compile)
        return compile_parse(body->compile, "/compile", w->model, w->mem, &w->compile, problem);
    if (!w->base.id || !w->base.compile)
        return fail(problem, ST_INVALID, "/compile", "is missing%s: %s needs a loss",
                    w->base.id ? ", and the version was saved without one" : "", work_names[w->type]);
    TRY(json_parse(w->base.compile, strlen(w->base.compile), NULL, JSON_NAN, &w->inner[1], problem));
    return compile_parse(w->inner[1], "/model/version", w->model, w->mem, &w->compile, problem);
}

/* The version's own preprocessing, where the job says none. */
static enum status inherit_prepare(struct work *w, struct problem *problem)
{
    OWNED(json_free) struct json *all = NULL;

    if (!w->base.id || !w->base.prepare || w->spec->n_prepare)
        return ST_OK;
    TRY(json_parse(w->base.prepare, strlen(w->base.prepare), NULL, 0, &all, problem));
    w->spec->prepare = ARENA_ARRAY(w->mem, struct prepare *, w->model->n_inputs);
    w->spec->n_prepare = w->model->n_inputs;
    for (int i = 0; i < w->model->n_inputs; i++) {
        const struct json *list = json_get(all, w->model->inputs[i].name);

        if (list)
            TRY(prepare_parse(list, "/model/version", &w->spec->prepare[i], problem));
    }
    return ST_OK;
}

static enum status read_arguments(struct work *w, const struct job_body *body, struct problem *problem)
{
    const struct json *given[] = {body->fit, body->evaluate, body->predict};

    for (int i = 0; work_names[i]; i++) {
        char pointer[16];

        snprintf(pointer, sizeof pointer, "/%s", work_names[i]);
        if (i == (int)w->type && !given[i])
            return fail(problem, ST_INVALID, pointer, "is missing: a job of type \"%s\" has its arguments there",
                        work_names[i]);
        if (i != (int)w->type && given[i])
            return fail(problem, ST_INVALID, pointer, "does not belong into a job of type \"%s\"", work_names[w->type]);
    }
    TRY(fit_parse(given[w->type], work_pointer(w), work_names[w->type], w->model, w->mem, &w->spec, problem));
    return inherit_prepare(w, problem);
}

/* --- layers alone, before there is data ------------------------------------------------------------------------------------- */

static bool has_declared_inputs(const struct model *m)
{
    for (int i = 0; i < m->n_inputs; i++) {
        if (m->inputs[i].shape.rank < 1)
            return false;
    }
    return true;
}

/* Calls the layers on the declared inputs with an open batch axis; on the data's rows where an input declares none and there is data. */
static enum status call_layers(const struct work *w, struct graph *g, struct weights *layout, struct problem *problem)
{
    struct build b = build_make(g);
    const struct model *m = w->model;
    value_id in_ids[MAX_ARRAYS], none[MAX_ARRAYS] = {0};
    struct tuple in, out;

    b.dialect = (int)m->dialect;
    b.weights = layout;
    weights_begin(layout);
    for (int i = 0; i < m->n_inputs; i++) {
        struct shape shape = m->inputs[i].shape;

        if (shape.rank >= 1) {
            in_ids[i] = input(&b, m->inputs[i].type == I64 ? I32 : m->inputs[i].type, &shape);
            continue;
        }
        const struct source_array *a = &w->train->array[i];

        shape = (struct shape){.rank = a->row.rank + 1, .dim = {-1}};
        memcpy(shape.dim + 1, a->row.dim, sizeof shape.dim[0] * (size_t)a->row.rank);
        in_ids[i] = prepare_build(w->spec->n_prepare ? w->spec->prepare[i] : NULL, &b, input(&b, a->type, &shape));
    }
    in = tuple_make(&b, m->n_inputs, in_ids, none);
    TRY(model_build(m, &b, &in, &out, problem));
    if (build_failed(&b)) {
        *problem = b.problem;
        return problem->status;
    }
    return ST_OK;
}

/* Shapes that do not fit between layers are found here, so that the model is judged before the datasets. */
static enum status check_layers(const struct work *w, struct problem *problem)
{
    OWNED(graph_free) struct graph *g = NULL;
    OWNED(weights_free) struct weights *layout = NULL;

    if (w->model->n_inputs > MAX_ARRAYS || w->model->n_outputs > MAX_ARRAYS)
        return fail(problem, ST_UNSUPPORTED, "/model/architecture", "the model has %d inputs and %d outputs, the limit is %d",
                    w->model->n_inputs, w->model->n_outputs, MAX_ARRAYS);
    if (!has_declared_inputs(w->model))
        return ST_OK;
    g = graph_new();
    layout = weights_new();
    return call_layers(w, g, layout, problem);
}

/* Bytes of weights by the leaf, and the last value that each layer emitted. */
struct json *work_layers(const struct work *w)
{
    OWNED(graph_free) struct graph *g = graph_new();
    OWNED(weights_free) struct weights *layout = weights_new();
    const struct model *m = w->model;
    struct json *all = json_new_array();
    struct problem ignored;
    bool built = call_layers(w, g, layout, &ignored) == ST_OK;
    struct shape *shape = ARENA_ARRAY(w->mem, struct shape, m->n_calls + 1); /* output of each call */
    int *last_call = ARENA_ARRAY(w->mem, int, m->n_layers);
    uint32_t *last_node = ARENA_ARRAY(w->mem, uint32_t, m->n_layers);
    int64_t *parameters = ARENA_ARRAY(w->mem, int64_t, m->n_layers);
    struct names layers = names_make(w->mem);

    for (int i = 0; i < m->n_layers; i++)
        names_put(&layers, m->layers[i].name, i);
    for (uint32_t n = 1; built && n < g->n_nodes; n++) {
        int i = g->nodes[n].origin && g->nodes[n].n_out ? names_find(&layers, g->nodes[n].origin) : -1;

        if (i >= 0)
            last_node[i] = n;
    }
    for (int k = 0; k < w->layout->n; k++) {
        if (w->layout->entry[k].leaf >= 0)
            parameters[w->layout->entry[k].leaf] += shape_count(&w->layout->entry[k].shape);
    }
    for (int c = 0; c < m->n_calls; c++) {
        const struct model_call *call = &m->calls[c];
        uint32_t n = last_node[call->layer];

        shape[c].rank = -1;
        if (n)
            shape[c] = g->values[g->nodes[n].out[0]].shape;
        else if (built && call->n_in) /* nothing to do in it: Dropout, a linear Activation */
            shape[c] = call->in[0].call < 0 ? m->inputs[call->in[0].index].shape : shape[call->in[0].call];
        last_call[call->layer] = c + 1;
    }
    for (int i = 0; i < m->n_layers; i++) {
        struct json *row = json_push(all, json_new_object()), *dims = NULL;

        json_put(row, "name", json_new_text(m->layers[i].name));
        json_put(row, "class_name", json_new_text(m->layers[i].type->keras));
        if (last_call[i] && shape[last_call[i] - 1].rank >= 0) {
            const struct shape *s = &shape[last_call[i] - 1];

            dims = json_new_array();
            for (int d = 0; d < s->rank; d++)
                json_push(dims, s->dim[d] < 0 ? json_new_null() : json_new_int(s->dim[d]));
        }
        json_put(row, "output_shape", dims ? dims : json_new_null());
        json_put(row, "parameters", json_new_int(parameters[i]));
    }
    return all;
}

/* --- data ----------------------------------------------------------------------------------------------------------------- */

static enum status resolve(struct work *w, struct db *db, const struct json *pinned, const struct json *j, const char *pointer,
                           struct source_part *ret, struct problem *problem)
{
    const char *reference = json_text(j);
    struct array_row *row;
    int64_t id = 0;

    *ret = (struct source_part){.name = pointer, .inline_numbers = j};
    if (!reference)
        return ST_OK;
    row = ARENA_NEW(w->mem, struct array_row);
    if (pinned) {
        if (!json_int(json_get(json_get(pinned, "arrays"), reference), &id))
            return fail(problem, ST_INTERNAL, pointer, "the stored job does not say which array \"%.200s\" was", reference);
        TRY(datasets_array(db, id, w->mem, row, problem));
    } else {
        enum status status = datasets_resolve(db, reference, pointer, w->mem, row, problem);

        if (status == ST_NOT_FOUND) /* what the URL names is there; what the document names is not */
            return problem->status = ST_INVALID;
        TRY(status);
    }
    *ret = (struct source_part){.name = reference, .stored = row};
    for (int i = 0; i < w->n_arrays; i++) {
        if (w->array_ids[i] == row->id)
            return ST_OK;
    }
    w->array_ids[w->n_arrays] = row->id;
    w->references[w->n_arrays++] = reference;
    return ST_OK;
}

static enum status open_data(struct work *w, struct db *db, const struct json *pinned, const struct data_spec *d,
                             struct source **ret, struct problem *problem)
{
    struct part_list *l = ARENA_NEW(w->mem, struct part_list);
    int n_w = 0;

    for (int i = 0; i < d->n_x; i++)
        TRY(resolve(w, db, pinned, d->x[i], d->x_pointer[i], &l->part[l->n++], problem));
    for (int i = 0; i < d->n_y; i++) {
        if (d->y[i])
            TRY(resolve(w, db, pinned, d->y[i], d->y_pointer[i], &l->part[l->n++], problem));
        else
            l->part[l->n++] = l->part[0]; /* an output without a loss: its target is never read */
    }
    for (int i = 0; i < d->n_w; i++) {
        if (!d->w[i])
            continue;
        TRY(resolve(w, db, pinned, d->w[i], d->w_pointer[i], &l->part[l->n++], problem));
        n_w++;
    }
    return source_open(db, l->part, d->n_x, d->n_y, n_w, memory_bytes(), ret, problem);
}

/* --- the whole step -------------------------------------------------------------------------------------------------------- */

static enum status build_step(const struct work *w, const struct source *s, const struct data_spec *d, enum program_mode mode,
                              int64_t batch, struct program **ret, struct problem *problem)
{
    struct array_shape x[MAX_ARRAYS], y[MAX_ARRAYS], weights[MAX_ARRAYS];
    int at = 0, outputs = w->model->n_outputs;
    struct program_request r = {.model = w->model,
                                .compile = w->compile,
                                .prepare = w->spec->prepare,
                                .mode = mode,
                                .batch = batch,
                                .x = x,
                                .y = mode == PROGRAM_PREDICT ? NULL : y,
                                .w = s->n_weights ? weights : NULL,
                                .class_weights = mode == PROGRAM_TRAIN && w->spec->n_class_weights > 0,
                                .weights = w->layout};

    for (int i = 0; i < s->n_inputs; i++, at++)
        x[i] = (struct array_shape){s->array[at].type, s->array[at].row};
    for (int i = 0; i < s->n_targets; i++, at++)
        y[i] = (struct array_shape){s->array[at].type, s->array[at].row};
    for (int i = 0; i < outputs; i++) {
        weights[i] = (struct array_shape){.row.rank = -1};
        if (i < d->n_w && d->w[i]) {
            weights[i] = (struct array_shape){s->array[at].type, s->array[at].row};
            at++;
        }
    }
    return program_build(&r, ret, problem);
}

static int64_t real_batch(const struct work *w)
{
    return w->spec->batch_size < w->train->rows ? w->spec->batch_size : w->train->rows;
}

static enum program_mode mode_of(const struct work *w)
{
    return w->type == WORK_FIT ? PROGRAM_TRAIN : w->type == WORK_EVALUATE ? PROGRAM_TEST : PROGRAM_PREDICT;
}

static enum status check_step(struct work *w, struct problem *problem)
{
    OWNED(program_free) struct program *step = NULL;
    OWNED(program_free) struct program *test = NULL;
    int64_t rows = w->validation ? w->validation->rows : 0;

    TRY(build_step(w, w->train, &w->spec->data, mode_of(w), real_batch(w), &step, problem));
    if (!w->validation)
        return ST_OK;
    if (rows > w->spec->validation_batch_size)
        rows = w->spec->validation_batch_size;
    return build_step(w, w->validation, &w->spec->validation, PROGRAM_TEST, rows, &test, problem);
}

enum status work_cost(const struct work *w, struct work_cost *ret, struct problem *problem)
{
    OWNED(program_free) struct program *step = NULL;
    OWNED(plan_free) struct plan *plan = NULL;
    int n_slots = w->compile && w->type == WORK_FIT ? w->compile->optimizer.n_slots : 0;

    *ret = (struct work_cost){.batch = real_batch(w)};
    TRY(build_step(w, w->train, &w->spec->data, mode_of(w), ret->batch, &step, problem));
    TRY(plan_make(step->graph, NULL, NULL, 0, &plan, problem));
    ret->weights = w->layout->bytes;
    ret->gradients = step->graph->bytes[AT_GRAD];
    ret->slots = (size_t)n_slots * w->layout->trainable_bytes;
    ret->activations = plan->arena_bytes + plan->scratch_bytes + step->graph->bytes[AT_INPUT];
    /* the second: callbacks' best weights, or what an evaluation reads its weights into */
    ret->total = 2 * ret->weights + ret->gradients + ret->slots + ret->activations;
    ret->flops = plan->report.flops;
    return ST_OK;
}

enum status work_profile(const struct work *w, uint64_t seed, const struct backend *b, struct device *d, struct profile **ret,
                         struct problem *problem)
{
    const struct profile_setup setup = {.model = w->model,
                                        .weights = w->layout,
                                        .compile = w->compile,
                                        .spec = w->spec,
                                        .mode = mode_of(w),
                                        .backend = b,
                                        .device = d,
                                        .seed = seed,
                                        .source = w->train};

    return profile_run(&setup, ret, problem);
}

/* --- all of it -------------------------------------------------------------------------------------------------------------- */

static enum status read_all(struct work *w, struct db *db, const struct job_body *body, struct problem *problem)
{
    int most;

    TRY(read_model(w, db, body, problem));
    TRY(check_layers(w, problem));
    TRY(read_compile(w, body, problem));
    TRY(read_arguments(w, body, problem));
    most = w->spec->data.n_x + w->spec->data.n_y + w->spec->data.n_w;
    if (w->spec->has_validation)
        most += w->spec->validation.n_x + w->spec->validation.n_y + w->spec->validation.n_w;
    w->array_ids = ARENA_ARRAY(w->mem, int64_t, most + 1);
    w->references = ARENA_ARRAY(w->mem, const char *, most + 1);
    TRY(open_data(w, db, body->pinned, &w->spec->data, &w->train, problem));
    if (w->spec->has_validation)
        TRY(open_data(w, db, body->pinned, &w->spec->validation, &w->validation, problem));
    return check_step(w, problem);
}

static const struct field stored_fields[];

enum status job_read(const char *text, struct arena *mem, struct json **document, struct job_body *ret, struct problem *problem)
{
    TRY(json_parse(text, strlen(text), &(struct json_limits){.bytes = 1u << 31}, JSON_NAN, document, problem));
    return field_parse(stored_fields, *document, ret, mem, "", FIELD_STRICT, NULL, problem);
}

enum status work_open(struct db *db, const struct job_body *body, struct work **ret, struct problem *problem)
{
    OWNED(work_free) struct work *w = must_alloc(sizeof *w);

    w->mem = arena_new();
    w->type = (enum work_type)body->type;
    w->layout = weights_new();
    TRY(read_all(w, db, body, problem));
    *ret = STEAL(w);
    return ST_OK;
}

struct work *work_free(struct work *w)
{
    if (!w)
        return NULL;
    source_close(w->train);
    source_close(w->validation);
    if (w->compile)
        compile_spec_done(w->compile);
    if (w->spec)
        fit_spec_done(w->spec);
    weights_free(w->layout);
    model_free(w->model);
    json_free(w->inner[0]);
    json_free(w->inner[1]);
    arena_free(w->mem);
    return free_null(w);
}

char *work_document(const struct work *w, const struct json *posted)
{
    OWNED(json_free) struct json *copy = json_copy(posted);
    struct json *pinned = json_put(copy, "horn", json_new_object());
    struct json *arrays = json_put(pinned, "arrays", json_new_object());

    for (int i = 0; i < w->n_arrays; i++)
        json_put(arrays, w->references[i], json_new_int(w->array_ids[i]));
    if (w->base.id)
        json_put(pinned, "version", json_new_int(w->base.version));
    return json_print(copy, JSON_NAN);
}

char *work_prepare(const struct work *w, char **raw_shapes)
{
    OWNED(json_free) struct json *lists = json_new_object();
    OWNED(json_free) struct json *shapes = json_new_object();

    *raw_shapes = NULL;
    for (int i = 0; i < w->model->n_inputs; i++) {
        const struct prepare *p = w->spec->n_prepare ? w->spec->prepare[i] : NULL;
        const struct shape *row = &w->train->array[i].row;
        OWNED(json_free) struct json *list = NULL;
        struct problem ignored;
        struct json *dims;

        if (!p && w->model->inputs[i].shape.rank >= 0)
            continue;
        if (p && json_parse(p->json, strlen(p->json), NULL, 0, &list, &ignored) == ST_OK)
            json_put(lists, w->model->inputs[i].name, STEAL(list));
        dims = json_put(shapes, w->model->inputs[i].name, json_new_array());
        for (int d = 0; d < row->rank; d++)
            json_push(dims, json_new_int(row->dim[d]));
    }
    if (json_count(shapes))
        *raw_shapes = json_print(shapes, 0);
    return json_count(lists) ? json_print(lists, 0) : NULL;
}

const char *const work_names[] = {"fit", "evaluate", "predict", NULL};

static const struct field model_fields[] = {
    {"name", FIELD_TEXT, offsetof(struct model_ref, name), .max = 128, .flags = FIELD_REQUIRED,
     .doc = "name of the model; its versions are numbered"},
    {"architecture", FIELD_JSON, offsetof(struct model_ref, architecture), .doc = "what model.to_json() prints, of any Keras"},
    {"version", FIELD_INT, offsetof(struct model_ref, version), .preset = -1, .min = 1, .max = INT32_MAX,
     .doc = "version to go on from or to use; absent: the newest"},
    {0},
};

#define JOB_ROWS                                                                                                          \
    {"type",                                                                                                              \
     FIELD_CHOICE,                                                                                                        \
     offsetof(struct job_body, type),                                                                                     \
     .choices = work_names,                                                                                               \
     .flags = FIELD_REQUIRED,                                                                                             \
     .doc = "what is to be done"},                                                                                        \
        {"model", FIELD_JSON, offsetof(struct job_body, model), .flags = FIELD_REQUIRED, .doc = "the model"},             \
        {"compile", FIELD_JSON, offsetof(struct job_body, compile), .doc = "arguments of compile()"},                     \
        {"fit", FIELD_JSON, offsetof(struct job_body, fit), .doc = "arguments of fit()"},                                 \
        {"evaluate", FIELD_JSON, offsetof(struct job_body, evaluate), .doc = "arguments of evaluate()"},                  \
        {"predict", FIELD_JSON, offsetof(struct job_body, predict), .doc = "arguments of predict()"},                     \
        {"device",                                                                                                        \
         FIELD_TEXT,                                                                                                      \
         offsetof(struct job_body, device),                                                                               \
         .max = 32,                                                                                                       \
         .preset_text = "auto",                                                                                           \
         .doc = "auto, cpu, or one lane's device as cpu:0"},                                                              \
        {"seed",                                                                                                          \
         FIELD_INT,                                                                                                       \
         offsetof(struct job_body, seed),                                                                                 \
         .preset = -1,                                                                                                    \
         .min = 0,                                                                                                        \
         .max = 0x1p63,                                                                                                   \
         .doc = "of everything random; absent: one is drawn and shown"},                                                  \
    {                                                                                                                     \
        "priority", FIELD_INT, offsetof(struct job_body, priority), .min = -1000, .max = 1000, .doc = "higher goes first" \
    }

const struct field job_fields[] = {JOB_ROWS, {0}};
static const struct field stored_fields[] = {
    JOB_ROWS,
    {"horn", FIELD_JSON, offsetof(struct job_body, pinned), .doc = "what the posting saw"},
    {0},
};
