/* The model at work: calling its layers in order to build a graph; finding inputs and outputs; preprocess lists. */
#include "engine/model/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/dialect_parts.h"
#include "engine/model/keras_layer.h"
#include "engine/model/weights.h"

struct model *model_free(struct model *m)
{
    if (m) {
        json_free(m->canonical);
        arena_free(m->mem);
        free(m);
    }
    return NULL;
}

int model_input_find(const struct model *m, const char *name)
{
    for (int i = 0; i < m->n_inputs; i++)
        if (!strcmp(m->inputs[i].name, name))
            return i;
    return -1;
}

int model_output_find(const struct model *m, const char *name)
{
    for (int i = 0; i < m->n_outputs; i++)
        if (!strcmp(m->output_names[i], name))
            return i;
    return -1;
}

/* ---- building ------------------------------------------------------------------------------------------------------------ */

/* Declared and given shape agree where both are known; the batch axis is free. */
static bool input_fits(const struct shape *declared, const struct shape *given)
{
    if (declared->rank < 0)
        return true;
    if (declared->rank != given->rank)
        return false;
    for (int i = 1; i < declared->rank; i++)
        if (declared->dim[i] >= 0 && given->dim[i] >= 0 && declared->dim[i] != given->dim[i])
            return false;
    return true;
}

static void check_inputs(const struct model *m, struct build *b, const struct tuple *in)
{
    if (in->n != m->n_inputs) {
        build_fail(b, ST_INVALID, "the model has %d inputs, %d are given", m->n_inputs, in->n);
        return;
    }
    for (int i = 0; i < m->n_inputs && !build_failed(b); i++) {
        struct shape given = shape_of(b, in->v[i]);
        b->origin = m->inputs[i].name;
        if (!input_fits(&m->inputs[i].shape, &given))
            build_fail(b, ST_INVALID, "the model's input \"%s\" has the shape %s, the data has %s", m->inputs[i].name,
                       shape_text(&m->inputs[i].shape).s, shape_text(&given).s);
    }
}

/* The inputs of one call as a tuple. */
static struct tuple gather(struct build *b, const struct model *m, const struct model_call *c, const struct tuple *in,
                           const struct tuple *made)
{
    struct arena *mem = b->graph->mem;
    value_id *v = ARENA_ARRAY(mem, value_id, c->n_in), *mask = ARENA_ARRAY(mem, value_id, c->n_in);

    for (int i = 0; i < c->n_in; i++) {
        const struct tuple *from = c->in[i].call < 0 ? in : &made[c->in[i].call];
        if (c->in[i].index >= from->n) {
            const struct layer *maker = &m->layers[m->calls[c->in[i].call].layer];
            build_fail(b, ST_INVALID, "reads output %d of layer \"%s\", which has %d", c->in[i].index, maker->name, from->n);
            break;
        }
        v[i] = from->v[c->in[i].index];
        mask[i] = from->mask ? from->mask[c->in[i].index] : 0;
    }
    return (struct tuple){.n = c->n_in, .v = v, .mask = mask};
}

static enum status build_problem(const struct build *b, struct problem *problem)
{
    *problem = b->problem;
    return problem->status;
}

/* Floats of t in another float type; t itself where nothing changes. Masks stay: they are 0 and 1 in any type. */
static struct tuple cast_floats(struct build *b, const struct tuple *t, enum dtype type)
{
    value_id *v = ARENA_ARRAY(b->graph->mem, value_id, t->n ? t->n : 1);

    for (int i = 0; i < t->n; i++) {
        enum dtype from = value_of(b, t->v[i])->type;

        v[i] = from == F32 || from == BF16 ? emit_cast(b, t->v[i], type) : t->v[i];
    }
    return (struct tuple){.n = t->n, .v = v, .mask = t->mask};
}

/* Keras' dtype policy: the layer gets and gives its compute type, its weights stay float32. */
static struct tuple call_layer(struct build *b, const struct layer *l, const struct tuple *in)
{
    struct tuple args = cast_floats(b, in, l->compute), made = {0};

    if (!build_failed(b))
        made = l->type->call(b, l, &args);
    return build_failed(b) ? made : cast_floats(b, &made, l->compute);
}

enum status model_build(const struct model *m, struct build *b, const struct tuple *in, struct tuple *out,
                        struct problem *problem)
{
    struct tuple *made = ARENA_ARRAY(b->graph->mem, struct tuple, m->n_calls ? m->n_calls : 1);
    const char *origin = b->origin;

    b->dialect = m->dialect;
    if (b->weights) {
        weights_begin(b->weights);
        b->weights->layers = m->layers;
        b->weights->n_layers = m->n_layers;
        if (!b->weights->laid_out && in->n == 1)
            b->weights->input = shape_of(b, in->v[0]);
    }
    check_inputs(m, b, in);
    for (int i = 0; i < m->n_calls && !build_failed(b); i++) {
        const struct layer *l = &m->layers[m->calls[i].layer];
        b->origin = l->name;
        struct tuple args = gather(b, m, &m->calls[i], in, made);
        if (!build_failed(b))
            made[i] = call_layer(b, l, &args);
    }
    if (build_failed(b))
        return build_problem(b, problem);

    struct model_call last = {.n_in = m->n_outputs, .in = m->outputs};
    b->origin = m->name;
    *out = gather(b, m, &last, in, made);
    if (!build_failed(b)) /* losses, metrics and who asks for predictions get float32 */
        *out = cast_floats(b, out, F32);
    if (build_failed(b))
        return build_problem(b, problem);
    if (b->weights)
        weights_layout(b->weights, b);
    b->origin = origin;
    return build_failed(b) ? build_problem(b, problem) : ST_OK;
}

/* ---- preprocess ---------------------------------------------------------------------------------------------------------- */

enum status prepare_parse(const struct json *list, const char *pointer, struct prepare **ret, struct problem *problem)
{
    OWNED(prepare_free) struct prepare *p = must_alloc(sizeof *p);
    CLEAN(text_done) struct text warnings = text_make(4096);
    OWNED(free) char *text = NULL;
    int n = 0;

    p->mem = arena_new();
    TRY(dialect_layers(list, pointer, DIALECT_KERAS_3, &p->canonical, &warnings, problem));
    p->layers = ARENA_ARRAY(p->mem, struct layer, json_count(p->canonical) + 1);
    for (struct json *m = json_first(p->canonical); m; m = json_next(m), n++) {
        const char *class = json_text(json_get(m, "class_name")), *at = json_text(json_get(m, "horn_pointer"));
        at = arena_text(p->mem, at);
        if (!strcmp(class, "Sequential") || !strcmp(class, "Functional") || !strcmp(class, "InputLayer"))
            return fail(problem, ST_UNSUPPORTED, at,
                        "preprocess is a list of layers without weights; a %s is not built there yet", class);
        /* strict: a misspelt key would silently change every number */
        TRY(layer_read(m, arena_text(p->mem, json_text(json_get(m, "name"))), p->mem, NULL, &p->layers[n], problem));
    }
    p->n_layers = n;
    text = json_print(list, JSON_NAN);
    p->json = arena_text(p->mem, text);
    *ret = STEAL(p);
    return ST_OK;
}

struct prepare *prepare_free(struct prepare *p)
{
    if (p) {
        json_free(p->canonical);
        arena_free(p->mem);
        free(p);
    }
    return NULL;
}

value_id prepare_build(const struct prepare *p, struct build *b, value_id x)
{
    struct weights *weights = b->weights;
    const char *origin = b->origin;

    b->weights = NULL; /* weight() then says that layers with weights may not stand here */
    for (int i = 0; p && i < p->n_layers && !build_failed(b); i++) {
        struct tuple in = one(b, x);
        b->origin = p->layers[i].name;
        struct tuple made = p->layers[i].type->call(b, &p->layers[i], &in);
        x = made.n ? made.v[0] : 0;
    }
    b->weights = weights;
    b->origin = origin;
    return build_failed(b) ? 0 : x;
}
