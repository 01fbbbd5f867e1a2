/* See runner.h. */
#include "tests/model/runner.h"

#include <stdio.h>
#include <string.h>

#include "tests/test.h"

struct runner *runner_new(int dialect, bool training)
{
    struct runner *r = must_alloc(sizeof(*r));

    r->graph = graph_new();
    r->mem = arena_new();
    r->weights = weights_new();
    r->b = build_make(r->graph);
    r->b.weights = r->weights;
    r->b.dialect = dialect;
    r->b.training = training;
    return r;
}

struct runner *runner_free(struct runner *r)
{
    if (!r)
        return NULL;
    session_free(r->session);
    plan_free(r->plan);
    if (r->device) {
        regions_done(&r->regions, r->device, backend_cpu());
        backend_cpu()->close(r->device);
    }
    weights_free(r->weights);
    graph_free(r->graph);
    arena_free(r->mem);
    for (int i = 0; i < r->n_parsed; i++)
        json_free(r->parsed[i]);
    return free_null(r);
}

value_id runner_input(struct runner *r, enum dtype type, struct shape shape, const void *data)
{
    value_id v = input(&r->b, type, &shape);

    r->inputs[r->n_inputs].v = v;
    r->inputs[r->n_inputs++].data = data;
    return v;
}

const struct json *runner_json(struct runner *r, const char *text)
{
    struct problem problem;

    CHECK_OK(json_parse(text, strlen(text), NULL, JSON_NAN, &r->parsed[r->n_parsed], &problem));
    return r->parsed[r->n_parsed++];
}

const struct object *runner_object(struct runner *r, const struct catalogue *c, const char *class_name, const char *config)
{
    char text[2000];
    const struct object *o = NULL;
    struct problem problem;

    snprintf(text, sizeof(text), "{\"class_name\": \"%s\", \"config\": %s}", class_name, config ? config : "{}");
    CHECK_OK(object_parse(c, runner_json(r, text), r->mem, "", FIELD_STRICT, NULL, &o, &problem));
    return o;
}

struct tuple runner_layer(struct runner *r, const char *class_name, const char *config, const char *name, bool trainable,
                          struct tuple in)
{
    const struct object *o = runner_object(r, &layer_catalogue, class_name, config);
    struct layer *l = ARENA_NEW(r->mem, struct layer);

    *l = (struct layer){(const struct layer_type *)o->type, name, o->config, trainable, F32};
    r->b.origin = name;
    return l->type->call(&r->b, l, &in);
}

void runner_keep(struct runner *r, value_id v)
{
    keep(&r->b, v);
}

void runner_start(struct runner *r)
{
    struct problem problem;

    if (build_failed(&r->b))
        fail_msg("%s: %s", r->b.problem.where, r->b.problem.detail);
    weights_layout(r->weights, &r->b);
    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = 1}, &r->device, &problem));
    backend_cpu()->enter(r->device);
    CHECK_OK(plan_make(r->graph, backend_cpu(), r->device, 0, &r->plan, &problem));
    CHECK_OK(regions_grow(&r->regions, r->device, backend_cpu(), r->graph->bytes, &problem));
    CHECK_OK(session_new(r->plan, &r->regions, NULL, &r->session, &problem));
    if (r->weights->bytes)
        CHECK_OK(weights_init(r->weights, 1, r->regions.base[AT_WEIGHT], &problem));
}

void runner_run(struct runner *r)
{
    struct problem problem;

    for (int i = 0; i < r->n_inputs; i++)
        session_put(r->session, r->inputs[i].v, r->inputs[i].data, value_bytes(&r->graph->values[r->inputs[i].v]));
    CHECK_OK(session_run(r->session, &problem));
}

float *runner_floats(struct runner *r, value_id v)
{
    return session_address(r->session, v);
}

float *runner_weight(struct runner *r, const char *layer, const char *name)
{
    struct weight_entry *e = weights_find(r->weights, layer, name);

    if (!e)
        fail_msg("there is no weight %s/%s", layer, name);
    return (float *)((char *)r->regions.base[AT_WEIGHT] + e->offset);
}
