/* Emitting a whole step: inputs, layers, losses, metrics, gradients, optimizer.
 *
 * The gradient of a weight is written straight into its place in AT_GRAD: the value that the reverse sweep made is moved there
 * (it was a temporary of the same shape), so that the optimizer reads one flat vector and nothing is copied. The gradient of a table
 * of which a step looks up few rows stays by rows (emit_scatter_rows), and its table is a group of its own. */
#include "engine/run/program.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct output { /* of one model output, while building */
    value_id p, mask, y, w;
    value_id loss; /* scalar, unweighted */
};

struct groups { /* what the optimizer steps over, in the order of the weights */
    struct parameter_group *group;
    int n;
};

struct maker { /* what the building functions share */
    const struct program_request *r;
    struct program *p;
    struct build b;
    struct output *output;
    struct metric_spec **metrics; /* per output */
    struct arena *mem;
    struct problem *problem;
};

static enum status build_status(const struct build *b, struct problem *problem)
{
    if (b->problem.status != ST_OK)
        *problem = b->problem;
    return b->problem.status;
}

static struct shape batched(int64_t batch, const struct shape *row)
{
    struct shape s = {.rank = row->rank + 1};

    s.dim[0] = batch;
    memcpy(s.dim + 1, row->dim, sizeof row->dim[0] * (size_t)row->rank);
    return s;
}

/* The state leaves, in an order that every program has in common. */
static void emit_state(struct maker *m)
{
    struct graph *g = m->p->graph;
    struct shape scalar = SCALAR;

    m->p->updates = graph_leaf(g, AT_STATE, I64, &scalar);
    m->p->rate = graph_leaf(g, AT_STATE, F32, &scalar);
    m->p->seed = graph_leaf(g, AT_STATE, I64, &scalar);
    if (m->r->mode == PROGRAM_TRAIN) {
        m->b.training = true;
        m->b.step = m->p->updates;
        m->b.seed = m->p->seed;
    }
}

static bool only_embeddings_read(const struct model *model, int input)
{
    for (int i = 0; i < model->n_calls; i++)
        for (int k = 0; k < model->calls[i].n_in; k++)
            if (model->calls[i].in[k].call < 0 && model->calls[i].in[k].index == input &&
                strcmp(model->layers[model->calls[i].layer].type->keras, "Embedding") != 0)
                return false;
    return true;
}

/* Data of whole numbers as float32, as Keras casts it; indices of an Embedding stay exact. */
static value_id as_float(struct maker *m, int input, value_id x)
{
    struct formula f = {0};

    if (build_failed(&m->b) || value_of(&m->b, x)->type == F32 || only_embeddings_read(m->r->model, input))
        return x;
    f_out(&f, f_in(&f));
    return emit_formula(&m->b, &f, &x);
}

static enum status emit_model(struct maker *m)
{
    const struct program_request *r = m->r;
    const struct model *model = r->model;
    value_id *x = ARENA_ARRAY(m->mem, value_id, model->n_inputs), *mask = ARENA_ARRAY(m->mem, value_id, model->n_inputs);
    struct tuple in, out;

    m->p->n_x = model->n_inputs;
    m->p->x = ARENA_ARRAY(m->mem, value_id, model->n_inputs);
    for (int i = 0; i < model->n_inputs; i++) {
        struct shape shape = batched(r->batch, &r->x[i].row);

        TRY(shape_checked(&shape, model->inputs[i].name, m->problem));
        m->p->x[i] = input(&m->b, r->x[i].type, &shape);
        m->b.origin = model->inputs[i].name;
        x[i] = as_float(m, i, prepare_build(r->prepare ? r->prepare[i] : NULL, &m->b, m->p->x[i]));
    }
    TRY(build_status(&m->b, m->problem));
    in = tuple_make(&m->b, model->n_inputs, x, mask);
    TRY(model_build(model, &m->b, &in, &out, m->problem));
    m->output = ARENA_ARRAY(m->mem, struct output, model->n_outputs);
    m->p->outputs = ARENA_ARRAY(m->mem, value_id, model->n_outputs);
    for (int i = 0; i < model->n_outputs; i++) {
        m->output[i].p = m->p->outputs[i] = out.v[i];
        m->output[i].mask = out.mask ? out.mask[i] : 0;
        if (r->mode == PROGRAM_PREDICT)
            keep(&m->b, out.v[i]);
    }
    return ST_OK;
}

/* Targets as the loss takes them: the prediction's shape, or class numbers for a sparse loss; both shapes in the message. */
static enum status check_target(struct maker *m, int i)
{
    const struct loss *loss = m->r->compile->output[i].loss;
    const char *name = m->r->model->output_names[i];
    struct shape p = shape_of(&m->b, m->output[i].p), y = batched(m->r->batch, &m->r->y[i].row);
    struct shape want = p, squeezed = y;

    if (loss->sparse)
        want = shape_without(&p, p.rank - 1);
    if (squeezed.rank == want.rank + 1 && squeezed.dim[squeezed.rank - 1] == 1)
        squeezed.rank--;
    if (!loss->sparse && want.rank == squeezed.rank + 1 && want.dim[want.rank - 1] == 1)
        want.rank--;
    if (shape_equal(&want, &squeezed))
        return ST_OK;
    if (loss->sparse)
        return fail(m->problem, ST_INVALID, name, "%s wants class numbers of shape %s, the target has %s", loss->keras,
                    shape_text(&want).s, shape_text(&y).s);
    if (strcmp(loss->keras, "CategoricalCrossentropy") == 0 && squeezed.rank == p.rank - 1)
        return fail(m->problem, ST_INVALID, name,
                    "categorical_crossentropy wants one-hot targets of shape %s, the target has %s: use "
                    "sparse_categorical_crossentropy for integer labels, or one-hot encode them",
                    shape_text(&p).s, shape_text(&y).s);
    return fail(m->problem, ST_INVALID, name, "the output has shape %s, the target %s", shape_text(&p).s, shape_text(&y).s);
}

/* Sample and class weights of output i as one value, or 0. Keras 1 lets sample weights win, Keras 2 multiplies, Keras 3 refuses both. */
static enum status emit_weights(struct maker *m, int i)
{
    const struct program_request *r = m->r;
    value_id sample = 0, classes = 0;

    if (r->w && r->w[i].row.rank >= 0) {
        struct shape shape = batched(r->batch, &r->w[i].row), p = shape_of(&m->b, m->output[i].p);

        if (shape.rank > p.rank)
            return fail(m->problem, ST_INVALID, r->model->output_names[i],
                        "sample weights have shape %s, the output %s: one weight per sample, or per sample and time step",
                        shape_text(&shape).s, shape_text(&p).s);
        for (int k = 1; k < shape.rank; k++)
            if (shape.dim[k] != p.dim[k])
                return fail(m->problem, ST_INVALID, r->model->output_names[i], "sample weights have shape %s, the output %s",
                            shape_text(&shape).s, shape_text(&p).s);
        m->p->w[i] = sample = input(&m->b, r->w[i].type, &shape);
    }
    if (i == 0 && r->class_weights && r->mode == PROGRAM_TRAIN) {
        struct shape shape = SHAPE(r->batch);

        m->p->class_weight = classes = input(&m->b, F32, &shape);
    }
    if (sample && classes && r->model->dialect == DIALECT_KERAS_3)
        return fail(m->problem, ST_INVALID, "/fit/class_weight",
                    "class_weight and sample_weight exclude each other in Keras 3");
    if (!sample || (classes && r->model->dialect != DIALECT_KERAS_1 && shape_of(&m->b, sample).rank > 1))
        m->output[i].w = classes;
    else if (!classes || r->model->dialect == DIALECT_KERAS_1)
        m->output[i].w = sample;
    else
        m->output[i].w = emit_mul(&m->b, sample, classes);
    return ST_OK;
}

static enum status emit_losses(struct maker *m)
{
    const struct program_request *r = m->r;
    value_id total = 0;

    m->p->n_y = r->model->n_outputs;
    m->p->y = ARENA_ARRAY(m->mem, value_id, r->model->n_outputs);
    m->p->w = ARENA_ARRAY(m->mem, value_id, r->model->n_outputs);
    for (int i = 0; i < r->model->n_outputs; i++) {
        const struct output_spec *spec = &r->compile->output[i];
        struct output *o = &m->output[i];

        if (!spec->loss)
            continue;
        TRY(check_target(m, i));
        m->b.origin = r->model->output_names[i];
        struct shape shape = batched(r->batch, &r->y[i].row);

        m->p->y[i] = o->y = input(&m->b, r->y[i].type, &shape);
        TRY(emit_weights(m, i));
        o->loss = loss_scalar(&m->b, spec->loss->per_sample(&m->b, spec->loss_config, o->y, o->p), o->w, o->mask);
        value_id part = spec->loss_weight == 1 ? o->loss : emit_scale(&m->b, o->loss, spec->loss_weight);

        total = total ? emit_add(&m->b, total, part) : part;
    }
    m->b.origin = "loss";
    for (int i = 0; i < m->b.n_penalties; i++)
        total = total ? emit_add(&m->b, total, m->b.penalties[i]) : m->b.penalties[i];
    m->p->loss = total;
    keep(&m->b, total);
    return build_status(&m->b, m->problem);
}

/* A label not yet taken: Keras 3 appends _1, Keras 1 and 2 _2. */
static const char *free_label(struct maker *m, const char *label)
{
    int next = m->r->model->dialect == DIALECT_KERAS_3 || m->r->model->dialect == DIALECT_TF_KERAS ? 1 : 2;
    const char *name = label;

    for (int i = 0; i < m->p->n_metrics; i++)
        if (strcmp(m->p->metric_names[i], name) == 0) {
            name = arena_print(m->mem, "%s_%d", label, next++);
            i = -1;
        }
    return name;
}

static bool label_taken(const struct maker *m, const char *label)
{
    for (int i = 0; i < m->p->n_metrics; i++)
        if (strcmp(m->p->metric_names[i], label) == 0)
            return true;
    return false;
}

static void metric_name(struct maker *m, const char *label)
{
    const char *name = free_label(m, label);

    m->p->metric_names[m->p->n_metrics++] = name;
}

/* With several outputs the output's name stands before the label. In Keras 3 a weighted metric whose name is taken is called so. */
static void output_metric_name(struct maker *m, int i, const char *label, bool weighted)
{
    const char *prefix = m->r->model->n_outputs > 1 ? arena_print(m->mem, "%s_", m->r->model->output_names[i]) : "";
    const char *name = arena_print(m->mem, "%s%s", prefix, label);

    if (weighted && m->r->model->dialect == DIALECT_KERAS_3 && label_taken(m, name))
        name = arena_print(m->mem, "%sweighted_%s", prefix, label);
    metric_name(m, name);
}

static enum status resolve_metrics(struct maker *m)
{
    const struct program_request *r = m->r;
    int room = 1;

    m->metrics = ARENA_ARRAY(m->mem, struct metric_spec *, r->model->n_outputs);
    for (int i = 0; i < r->model->n_outputs; i++)
        room += 1 + r->compile->output[i].n_metrics;
    m->p->metric_names = ARENA_ARRAY(m->mem, const char *, room);
    metric_name(m, "loss");
    for (int i = 0; r->model->n_outputs > 1 && i < r->model->n_outputs; i++)
        if (r->compile->output[i].loss)
            metric_name(m, arena_print(m->mem, "%s_loss", r->model->output_names[i]));
    for (int i = 0; i < r->model->n_outputs; i++) {
        const struct output_spec *spec = &r->compile->output[i];
        struct shape y = r->y ? batched(r->batch, &r->y[i].row) : SCALAR, p = shape_of(&m->b, m->output[i].p);

        m->metrics[i] = ARENA_ARRAY(m->mem, struct metric_spec, spec->n_metrics);
        for (int k = 0; k < spec->n_metrics && spec->loss; k++) {
            struct metric_spec *s = &m->metrics[i][k];

            TRY(metric_parse(spec->metrics[k], m->mem, spec->metric_pointers[k], (int)r->model->dialect, spec->loss, &y, &p, s,
                             m->problem));
            s->weighted = spec->metric_weighted[k];
            output_metric_name(m, i, s->label, s->weighted);
        }
    }
    return ST_OK;
}

/* total and count of metric k are added to the accumulators 2k and 2k + 1 at the end of the step. */
static void accumulate(struct maker *m, int *k, value_id total, value_id count)
{
    struct graph *g = m->p->graph;
    size_t at = g->values[m->p->accumulators].offset + (size_t)*k * 16;
    struct shape one_value = SHAPE(1);

    emit_accumulate(&m->b, graph_leaf_at(g, AT_STATE, F64, &one_value, at), total);
    emit_accumulate(&m->b, graph_leaf_at(g, AT_STATE, F64, &one_value, at + 8), count);
    (*k)++;
}

struct pair {
    value_id total, count;
};

/* Values first, since they read this step's weights; the sums are emitted behind the finite check (emit_sums). */
static struct pair *emit_metrics(struct maker *m)
{
    const struct program_request *r = m->r;
    struct pair *pairs = ARENA_ARRAY(m->mem, struct pair, m->p->n_metrics);
    struct shape scalar = SCALAR;
    value_id batch = emit_fill(&m->b, &scalar, (float)r->batch);
    int k = 0;

    pairs[k++] = (struct pair){emit_scale(&m->b, m->p->loss, (double)r->batch), batch};
    for (int i = 0; r->model->n_outputs > 1 && i < r->model->n_outputs; i++)
        if (r->compile->output[i].loss)
            pairs[k++] = (struct pair){emit_scale(&m->b, m->output[i].loss, (double)r->batch), batch};
    for (int i = 0; i < r->model->n_outputs; i++) {
        struct output *o = &m->output[i];

        for (int j = 0; j < r->compile->output[i].n_metrics && r->compile->output[i].loss; j++, k++)
            metric_emit(&m->b, &m->metrics[i][j], o->y, o->p, m->metrics[i][j].weighted ? o->w : 0,
                        r->model->dialect == DIALECT_KERAS_1 ? 0 : o->mask, &pairs[k].total, &pairs[k].count);
    }
    return pairs;
}

static void emit_sums(struct maker *m, const struct pair *pairs)
{
    for (int k = 0; k < m->p->n_metrics;)
        accumulate(m, &k, pairs[k].total, pairs[k].count);
}

/* The gradient `d` of weight e in its place in AT_GRAD: moved there if it is a temporary of its own, else copied. */
static void place_gradient(struct maker *m, const struct weight_entry *e, value_id d)
{
    if (m->p->graph->values[d].type != F32 || !graph_place(m->p->graph, d, AT_GRAD, e->offset))
        emit_store(&m->b, graph_leaf_at(m->p->graph, AT_GRAD, F32, &e->shape, e->offset), d);
}

static value_id emit_finite(struct build *b, value_id loss, value_id squares)
{
    struct formula f = {0};
    term l = f_in(&f), s = f_in(&f);

    f_out(&f, f_mul(&f, f_finite(&f, l), f_finite(&f, s)));
    return emit_formula(b, &f, (value_id[]){loss, squares});
}

/* Adds the group of weights and slots at begin .. end of their regions; it still wants a gradient. */
static struct parameter_group *group_at(struct maker *m, struct groups *to, size_t begin, size_t end)
{
    struct graph *g = m->p->graph;
    struct parameter_group *p = &to->group[to->n++];
    struct shape flat = SHAPE((int64_t)((end - begin) / sizeof(float)));

    p->w = graph_leaf_at(g, AT_WEIGHT, F32, &flat, begin);
    for (int k = 0; k < m->r->compile->optimizer.n_slots; k++)
        p->slots[k] = graph_leaf_at(g, AT_SLOT, F32, &flat, (size_t)k * m->r->weights->trainable_bytes + begin);
    return p;
}

/* The weights at begin .. end, whose gradients lie at the same place of AT_GRAD. */
static void dense_group(struct maker *m, struct groups *to, size_t begin, size_t end, const value_id *parts, int n_parts)
{
    struct parameter_group *p;
    struct shape flat = SHAPE((int64_t)((end - begin) / sizeof(float)));

    if (begin >= end)
        return;
    p = group_at(m, to, begin, end);
    p->g = graph_leaf_at(m->p->graph, AT_GRAD, F32, &flat, begin);
    p->parts = parts;
    p->n_parts = n_parts;
}

/* One flat vector, but for tables of which a step looks up few rows: their gradients never become as large as they are. */
static void emit_groups(struct maker *m, const struct weight_entry **entry, const value_id *d, int n, struct groups *to)
{
    value_id *parts = ARENA_ARRAY(m->mem, value_id, n + 1);
    size_t begin = 0;
    int first = 0;

    to->group = ARENA_ARRAY(m->mem, struct parameter_group, 2 * n + 1);
    for (int i = 0; i < n; i++) {
        value_id where = 0, rows = d[i] ? emit_scatter_rows(&m->b, d[i], &where) : 0;
        size_t bytes = (size_t)shape_count(&entry[i]->shape) * sizeof(float);

        if (rows) {
            dense_group(m, to, begin, entry[i]->offset, parts + first, i - first);
            struct parameter_group *p = group_at(m, to, entry[i]->offset, entry[i]->offset + bytes);

            p->g = rows;
            p->where = where;
            begin = entry[i]->offset + (bytes + REGION_ALIGN - 1) / REGION_ALIGN * REGION_ALIGN;
            first = i + 1;
            continue;
        }
        if (d[i])
            place_gradient(m, entry[i], d[i]);
        parts[i] = graph_leaf_at(m->p->graph, AT_GRAD, F32, &entry[i]->shape, entry[i]->offset);
    }
    dense_group(m, to, begin, m->r->weights->trainable_bytes, parts + first, n - first);
}

/* d: gradients of the n weights in `entry`, 0 where the loss does not depend on one. */
static enum status emit_optimizer(struct maker *m, const struct weight_entry **entry, const value_id *d, int n)
{
    struct groups to = {0};

    if (!m->r->weights->trainable_bytes) /* nothing to train: the step only measures */
        return ST_OK;
    emit_groups(m, entry, d, n, &to);
    m->b.origin = "optimizer";
    m->p->ok = emit_finite(&m->b, m->p->loss, gradient_squares(&m->b, to.group, to.n));
    keep(&m->b, m->p->ok);
    m->b.ok = m->p->ok;
    optimizer_step(&m->b, &m->r->compile->optimizer, to.group, to.n, m->p->rate, m->p->updates);
    return build_status(&m->b, m->problem);
}

static enum status emit_gradients(struct maker *m)
{
    struct weights *w = m->r->weights;
    int n = 0;
    value_id *wrt = ARENA_ARRAY(m->mem, value_id, w->n), *d = ARENA_ARRAY(m->mem, value_id, w->n);
    const struct weight_entry **entry = ARENA_ARRAY(m->mem, const struct weight_entry *, w->n);

    for (int i = 0; i < w->n; i++)
        if (w->entry[i].trainable && w->entry[i].leaf_value) {
            entry[n] = &w->entry[i];
            wrt[n++] = w->entry[i].leaf_value;
        }
    m->b.origin = "gradient";
    graph_grad(&m->b, m->p->loss, wrt, n, d);
    TRY(build_status(&m->b, m->problem));
    return emit_optimizer(m, entry, d, n);
}

static void emit_assigned(struct maker *m)
{
    struct weights *w = m->r->weights;

    for (int i = 0; i < w->n; i++)
        if (w->entry[i].current != w->entry[i].leaf_value)
            emit_store(&m->b, w->entry[i].leaf_value, w->entry[i].current);
}

static enum status emit_all(struct maker *m)
{
    const struct program_request *r = m->r;
    struct pair *pairs;

    emit_state(m);
    TRY(emit_model(m));
    if (r->mode == PROGRAM_PREDICT)
        return ST_OK;
    TRY(resolve_metrics(m));
    struct shape sums = SHAPE(2 * (int64_t)m->p->n_metrics);

    m->p->accumulators = graph_leaf(m->p->graph, AT_STATE, F64, &sums);
    TRY(emit_losses(m));
    pairs = emit_metrics(m);
    if (r->mode == PROGRAM_TRAIN) {
        TRY(emit_gradients(m));
        emit_assigned(m);
    }
    m->b.origin = "metrics";
    emit_sums(m, pairs);
    if (r->mode == PROGRAM_TRAIN)
        emit_step_next(&m->b, m->p->updates);
    return build_status(&m->b, m->problem);
}

enum status program_build(const struct program_request *r, struct program **ret, struct problem *problem)
{
    OWNED(program_free) struct program *p = must_alloc(sizeof *p);

    p->graph = graph_new();
    p->mode = r->mode;
    p->batch = r->batch;
    struct maker m = {.r = r, .p = p, .b = build_make(p->graph), .mem = p->graph->mem, .problem = problem};

    m.b.weights = r->weights;
    m.b.dialect = (int)r->model->dialect;
    TRY(emit_all(&m));
    graph_rewrite(p->graph);
    if (r->constants)
        graph_constants(p->graph);
    *ret = STEAL(p);
    return ST_OK;
}

enum status program_plan(struct program *p, const struct backend *backend, struct device *device, struct problem *problem)
{
    return plan_make(p->graph, backend, device, 0, &p->plan, problem);
}

void program_needs(const struct program *p, size_t needs[N_REGIONS], size_t *arena_bytes)
{
    for (int at = 0; at < N_REGIONS; at++)
        if (needs[at] < p->graph->bytes[at])
            needs[at] = p->graph->bytes[at];
    if (*arena_bytes < p->plan->arena_bytes)
        *arena_bytes = p->plan->arena_bytes;
}

enum status program_start(struct program *p, const struct regions *regions, void *arena, struct problem *problem)
{
    return session_new(p->plan, regions, arena, &p->session, problem);
}

struct program *program_free(struct program *p)
{
    if (!p)
        return NULL;
    session_free(p->session);
    plan_free(p->plan);
    graph_free(p->graph);
    return free_null(p);
}
