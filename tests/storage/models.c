/* See models.h. */
#include "tests/storage/models.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

struct json *json_of_text(const char *text)
{
    struct problem problem;
    struct json *j = NULL;

    CHECK_OK(json_parse(text, strlen(text), NULL, JSON_NAN, &j, &problem));
    return j;
}

struct json *json_of_file(const char *path)
{
    enum { ROOM = 1 << 20 };
    char *text = must_alloc(ROOM + 1);
    FILE *f = fopen(path, "rb");

    if (!f)
        fail_msg("%s is not there: run from the root of the repository", path);
    text[fread(text, 1, ROOM, f)] = 0;
    fclose(f);
    struct json *j = json_of_text(text);
    free(text);
    return j;
}

bool json_same(const struct json *a, const struct json *b)
{
    if (json_type(a) != json_type(b) || json_count(a) != json_count(b))
        return false;
    if (json_type(a) == JSON_OBJECT) {
        for (const struct json *m = json_first(a); m; m = json_next(m))
            if (!json_same(m, json_get(b, json_key(m))))
                return false;
        return true;
    }
    if (json_type(a) == JSON_ARRAY) {
        const struct json *n = json_first(b);
        for (const struct json *m = json_first(a); m; m = json_next(m), n = json_next(n))
            if (!json_same(m, n))
                return false;
        return true;
    }
    OWNED(free) char *x = json_print(a, JSON_NAN), *y = json_print(b, JSON_NAN);
    return strcmp(x, y) == 0;
}

static void build_layout(struct built *b)
{
    struct graph *g = graph_new();
    struct build build = build_make(g);
    value_id v[16], none[16] = {0};
    struct tuple out;
    struct problem problem;

    build.weights = b->layout;
    CHECK(b->model->n_inputs <= 16);
    for (int i = 0; i < b->model->n_inputs; i++) {
        struct shape s = b->model->inputs[i].shape;
        if (s.rank < 0)
            s = SHAPE(2, 6);
        s.dim[0] = 2;
        for (int d = 1; d < s.rank; d++)
            s.dim[d] = s.dim[d] < 0 ? 6 : s.dim[d];
        v[i] = input(&build, F32, &s);
    }
    struct tuple in = {.n = b->model->n_inputs, .v = v, .mask = none};
    CHECK_OK(model_build(b->model, &build, &in, &out, &problem));
    graph_free(g);
}

struct built built_make(const char *architecture)
{
    struct built b = {.mem = arena_new(), .layout = weights_new()};
    OWNED(json_free) struct json *j = json_of_text(architecture);
    struct problem problem;

    CHECK_OK(model_parse(j, "/model/architecture", &b.model, &problem));
    build_layout(&b);
    b.weights = must_alloc(b.layout->bytes + 1);
    return b;
}

void built_compile(struct built *b, const struct json *compile)
{
    struct problem problem;

    CHECK_OK(compile_parse(compile, "/compile", b->model, b->mem, &b->compile, &problem));
}

void built_slots(struct built *b)
{
    b->slot_bytes = (size_t)b->compile->optimizer.n_slots * b->layout->trainable_bytes;
    b->slots = must_alloc(b->slot_bytes + 1);
}

float pattern(const char *tag, uint32_t i)
{
    uint32_t h = 2166136261u, x;

    for (; *tag; tag++)
        h = (h ^ (unsigned char)*tag) * 16777619u;
    x = h ^ i * 2654435761u;
    x ^= x >> 15;
    x *= 0x2c1b3c6du;
    x ^= x >> 12;
    return (float)(x >> 8) / 16777216.0f - 0.5f;
}

static void fill(float *to, const struct weight_entry *e, const char *slot)
{
    char tag[400];

    snprintf(tag, sizeof tag, *slot ? "%s/%s" : "%s%s", e->path, slot);
    for (int64_t i = 0; i < shape_count(&e->shape); i++)
        to[i] = pattern(tag, (uint32_t)i);
}

void built_patterns(struct built *b)
{
    const struct optimizer_spec *o = b->compile ? &b->compile->optimizer : NULL;

    for (int i = 0; i < b->layout->n; i++)
        fill((float *)((char *)b->weights + b->layout->entry[i].offset), &b->layout->entry[i], "");
    if (!o)
        return;
    if (!b->slots)
        built_slots(b);
    for (int k = 0; k < o->n_slots; k++) {
        float *slot = (float *)((char *)b->slots + (size_t)k * b->layout->trainable_bytes);
        for (size_t i = 0; i < b->layout->trainable_bytes / sizeof(float); i++)
            slot[i] = o->type->initial ? (float)o->type->initial(o->config, o->slot[k]) : 0;
        for (int i = 0; i < b->layout->n; i++)
            if (b->layout->entry[i].trainable)
                fill((float *)((char *)slot + b->layout->entry[i].offset), &b->layout->entry[i],
                     o->type->slots[o->slot[k]].name);
    }
}

struct snapshot built_snapshot(const struct built *b)
{
    return (struct snapshot){.model = b->model,
                             .layout = b->layout,
                             .weights = b->weights,
                             .optimizer = b->compile ? &b->compile->optimizer : NULL,
                             .slots = b->slots,
                             .compile = b->compile ? b->compile->text : NULL,
                             .updates = PATTERN_UPDATES,
                             .rate = PATTERN_RATE,
                             .seed = PATTERN_SEED};
}

void built_done(struct built *b)
{
    compile_spec_done(b->compile);
    model_free(b->model);
    weights_free(b->layout);
    arena_free(b->mem);
    free(b->weights);
    free(b->slots);
}
