/* Numbers of Keras 3: each file in tests/golden/data is a small model with its weights, inputs and targets, and what
 * Keras computes from them. The same model is built here through the whole engine: outputs to 1e-5, gradients and ten
 * training steps to 1e-4 of the largest element.
 *
 * Models that compute in bfloat16, which keeps eight binary digits, are named mixed_: Keras rounds in other places (gradients of
 * weights, for one), so a few units of the last digit are allowed. */
#include "tests/test.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/run/program.h"
#include "tests/golden/golden.h"

#define FOLDER "tests/golden/data"

struct bench { /* one model being run */
    const char *name;
    struct golden g;
    struct json *architecture, *compile_json;
    struct model *model;
    struct compile_spec *compile;
    struct arena *mem;
    struct weights *weights;
    struct array_shape x[MAX_ARRAYS], y[MAX_ARRAYS], w[MAX_ARRAYS];
    int64_t batch;
    struct program *program[3]; /* by mode */
    const struct backend *backend;
    struct device *device;
    struct regions regions;
    bool kernels; /* false: by reference */
    struct text *report;
};

static void complain(struct bench *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void complain(struct bench *t, const char *format, ...)
{
    char line[600];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    text_printf(t->report, "\n  %s: %s", t->name, line);
}

static bool ok(struct bench *t, enum status s, const struct problem *problem)
{
    if (s != ST_OK)
        complain(t, "%s: %s: %s", status_name(s), problem->where, problem->detail);
    return s == ST_OK;
}

/* Differences count against the largest element: gradients of 1e-8 that ought to be 0 are not looked at. */
static void compare(struct bench *t, const char *what, const float *got, const struct golden_record *want, double tolerance)
{
    const float *w = want->data;
    int64_t n = shape_count(&want->shape), worst = 0;
    double scale = 1e-3, most = -1;

    for (int64_t i = 0; i < n; i++)
        scale = fmax(scale, fabs((double)w[i]));
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)got[i] - (double)w[i]) / scale;

        if (!(d <= most)) {
            most = isnan(d) ? INFINITY : d;
            worst = i;
        }
    }
    if (most > tolerance)
        complain(t, "%s[%lld] is %.8g, Keras has %.8g (%.2g of the largest, allowed %.0e)", what, (long long)worst,
                 (double)got[worst], (double)w[worst], most, tolerance);
}

/* The tolerance of float32, or what it is for a model that computes in bfloat16. */
static double allowed(const struct bench *t, double plain, double mixed)
{
    return strncmp(t->name, "mixed_", 6) == 0 ? mixed : plain;
}

static struct array_shape array_of(const struct golden_record *r)
{
    struct array_shape a = {r->kind == 'i' ? I32 : F32, {.rank = r->shape.rank - 1}};

    memcpy(a.row.dim, r->shape.dim + 1, sizeof(int64_t) * (size_t)a.row.rank);
    return a;
}

static bool parse(struct bench *t)
{
    const struct golden_record *model = golden_find(&t->g, "model"), *compile = golden_find(&t->g, "compile");
    struct problem problem = {0};

    if (!ok(t, json_parse(model->data, model->bytes, NULL, JSON_NAN, &t->architecture, &problem), &problem) ||
        !ok(t, model_parse(t->architecture, "/model", &t->model, &problem), &problem) ||
        !ok(t, json_parse(compile->data, compile->bytes, NULL, JSON_NAN, &t->compile_json, &problem), &problem) ||
        !ok(t, compile_parse(t->compile_json, "/compile", t->model, t->mem, &t->compile, &problem), &problem))
        return false;
    if (t->model->warnings[0])
        complain(t, "warnings: %s", t->model->warnings);
    for (int i = 0; i < t->model->n_inputs; i++)
        t->x[i] = array_of(golden_find(&t->g, "x/%d", i));
    for (int i = 0; i < t->model->n_outputs; i++) {
        const struct golden_record *s = golden_find(&t->g, "s/%d", i);

        t->y[i] = array_of(golden_find(&t->g, "y/%d", i));
        t->w[i] = s ? array_of(s) : (struct array_shape){F32, {.rank = -1}};
    }
    t->batch = golden_find(&t->g, "x/0")->shape.dim[0];
    return true;
}

static bool open_programs(struct bench *t)
{
    size_t needs[N_REGIONS] = {0}, arena_bytes = 0;
    struct problem problem = {0};

    for (int mode = 2; mode >= 0; mode--) {
        struct program_request r = {.model = t->model,
                                    .compile = mode == PROGRAM_PREDICT ? NULL : t->compile,
                                    .mode = (enum program_mode)mode,
                                    .batch = t->batch,
                                    .x = t->x,
                                    .y = mode == PROGRAM_PREDICT ? NULL : t->y,
                                    .w = mode == PROGRAM_PREDICT ? NULL : t->w,
                                    .weights = t->weights};

        if (!ok(t, program_build(&r, &t->program[mode], &problem), &problem) ||
            !ok(t, program_plan(t->program[mode], t->backend, t->device, &problem), &problem))
            return false;
        program_needs(t->program[mode], needs, &arena_bytes);
    }
    if (!ok(t, regions_grow(&t->regions, t->device, t->backend, needs, &problem), &problem))
        return false;
    for (int mode = 0; mode < 3; mode++) {
        if (!ok(t, program_start(t->program[mode], &t->regions, NULL, &problem), &problem))
            return false;
    }
    return true;
}

static void put_weights(struct bench *t)
{
    for (int i = 0; i < t->weights->n; i++) {
        const struct weight_entry *e = &t->weights->entry[i];
        const struct golden_record *r = golden_find(&t->g, "w/%s", e->path);

        if (!r || !shape_equal(&r->shape, &e->shape)) {
            complain(t, "the weight %s of shape %s is not one of Keras", e->path, shape_text(&e->shape).s);
            continue;
        }
        memcpy((char *)t->regions.base[AT_WEIGHT] + e->offset, r->data, r->bytes);
    }
}

static void put_slots(struct bench *t)
{
    const struct optimizer_spec *o = &t->compile->optimizer;
    size_t n = t->weights->trainable_bytes / sizeof(float);
    float *at = t->regions.base[AT_SLOT];

    for (int k = 0; k < o->n_slots; k++, at += n) {
        for (size_t i = 0; i < n && o->type->initial; i++)
            at[i] = (float)o->type->initial(o->config, o->slot[k]);
    }
}

static void put_arrays(struct bench *t, struct program *p)
{
    for (int i = 0; i < p->n_x; i++) {
        const struct golden_record *r = golden_find(&t->g, "x/%d", i);

        session_put(p->session, p->x[i], r->data, r->bytes);
    }
    for (int i = 0; i < p->n_y; i++) {
        const struct golden_record *y = golden_find(&t->g, "y/%d", i), *s = golden_find(&t->g, "s/%d", i);

        session_put(p->session, p->y[i], y->data, y->bytes);
        if (s)
            session_put(p->session, p->w[i], s->data, s->bytes);
    }
}

static bool run(struct bench *t, struct program *p)
{
    struct problem problem = {0};
    uint32_t bad = 0;

    if (t->kernels)
        return ok(t, session_run(p->session, &problem), &problem);
    if (!ok(t, session_check(p->session, false, &bad, &problem), &problem))
        return false;
    if (bad)
        complain(t, "node %s of \"%s\" gives NaN or infinity", p->graph->nodes[bad].op->name, p->graph->nodes[bad].origin);
    return bad == 0;
}

static bool is_bfloat(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return (bits & 0xffff) == 0;
}

/* Outputs that Keras gives as bfloat16 are numbers of that type here too. */
static void check_rounding(struct bench *t, const struct golden_record *want, const float *got)
{
    int64_t n = shape_count(&want->shape);
    bool mixed = true;

    for (int64_t i = 0; i < n; i++)
        mixed = mixed && is_bfloat(((const float *)want->data)[i]);
    for (int64_t i = 0; mixed && i < n; i++)
        if (!is_bfloat(got[i])) {
            complain(t, "%s[%lld] is %.8g, which is not rounded to bfloat16", want->name, (long long)i, (double)got[i]);
            return;
        }
}

static void check_outputs(struct bench *t)
{
    struct program *p = t->program[PROGRAM_PREDICT];

    put_arrays(t, p);
    if (!run(t, p))
        return;
    for (int i = 0; i < t->model->n_outputs; i++) {
        const struct golden_record *r = golden_find(&t->g, "out/%d", i);
        struct shape s = p->graph->values[p->outputs[i]].shape;

        if (shape_equal(&s, &r->shape)) {
            compare(t, r->name, session_address(p->session, p->outputs[i]), r, allowed(t, 1e-5, 0x1p-6));
            check_rounding(t, r, session_address(p->session, p->outputs[i]));
        } else {
            complain(t, "the output has the shape %s, Keras has %s", shape_text(&s).s, shape_text(&r->shape).s);
        }
    }
}

static void check_metrics(struct bench *t)
{
    struct program *p = t->program[PROGRAM_TEST];
    const struct golden_record *names = golden_find(&t->g, "test_names"), *values = golden_find(&t->g, "test");
    double zeros[128] = {0}, sums[128];
    struct problem problem = {0};
    OWNED(json_free) struct json *list = NULL;
    int i = 0;

    session_put(p->session, p->accumulators, zeros, sizeof(double) * 2 * (size_t)p->n_metrics);
    put_arrays(t, p);
    if (!run(t, p) || !ok(t, json_parse(names->data, names->bytes, NULL, 0, &list, &problem), &problem))
        return;
    session_get(p->session, p->accumulators, sums, sizeof(double) * 2 * (size_t)p->n_metrics);
    for (const struct json *n = json_first(list); n; n = json_next(n), i++) {
        struct golden_record want = {.shape = SHAPE(1), .data = (const float *)values->data + i};
        int k = 0;

        while (k < p->n_metrics && strcmp(p->metric_names[k], json_text(n)) != 0)
            k++;
        if (k == p->n_metrics) {
            complain(t, "there is no metric \"%s\"", json_text(n));
            continue;
        }
        compare(t, json_text(n), &(float){(float)(sums[2 * k] / sums[2 * k + 1])}, &want, allowed(t, 1e-5, 0x1p-6));
    }
}

static void check_gradients(struct bench *t)
{
    for (int i = 0; i < t->weights->n; i++) {
        const struct weight_entry *e = &t->weights->entry[i];
        const struct golden_record *r = golden_find(&t->g, "g/%s", e->path);
        char what[300];

        if (e->trainable != (r != NULL))
            complain(t, "%s is %strained here, not so in Keras", e->path, e->trainable ? "" : "not ");
        snprintf(what, sizeof(what), "g/%s", e->path);
        if (r)
            compare(t, what, (const float *)((char *)t->regions.base[AT_GRAD] + e->offset), r, allowed(t, 1e-4, 0x1p-6));
    }
}

static void check_steps(struct bench *t)
{
    struct program *p = t->program[PROGRAM_TRAIN];
    const struct golden_record *want = golden_find(&t->g, "losses");
    float rate = (float)t->compile->optimizer.common.learning_rate, losses[32];
    int64_t zero = 0;

    session_put(p->session, p->rate, &rate, sizeof(rate));
    session_put(p->session, p->updates, &zero, sizeof(zero));
    session_put(p->session, p->seed, &zero, sizeof(zero));
    put_slots(t);
    for (int step = 0; step < (int)want->shape.dim[0]; step++) {
        put_arrays(t, p);
        if (!run(t, p))
            return;
        session_get(p->session, p->loss, &losses[step], sizeof(float));
        if (step == 0 && isnan(t->compile->optimizer.common.clipnorm)) /* clipnorm writes into the gradients */
            check_gradients(t);
    }
    compare(t, "losses", losses, want, allowed(t, 1e-4, 0x1p-6));
    for (int i = 0; i < t->weights->n; i++) {
        const struct weight_entry *e = &t->weights->entry[i];
        const struct golden_record *r = golden_find(&t->g, "t/%s", e->path);
        char what[300];

        snprintf(what, sizeof(what), "t/%s", e->path);
        if (r)
            compare(t, what, (const float *)((char *)t->regions.base[AT_WEIGHT] + e->offset), r, allowed(t, 1e-4, 0x1p-6));
    }
}

static void golden_run(struct bench *t, const char *path)
{
    golden_read(path, &t->g);
    t->mem = arena_new();
    t->weights = weights_new();
    if (parse(t) && open_programs(t)) {
        put_weights(t);
        check_outputs(t);
        check_metrics(t);
        check_steps(t);
    }
    for (int i = 0; i < 3; i++)
        t->program[i] = program_free(t->program[i]);
    regions_done(&t->regions, t->device, t->backend);
    weights_free(t->weights);
    if (t->compile)
        compile_spec_done(t->compile);
    model_free(t->model);
    json_free(t->architecture);
    json_free(t->compile_json);
    arena_free(t->mem);
    golden_done(&t->g);
}

static int is_golden(const struct dirent *d)
{
    const char *only = getenv("HORN_GOLDEN"), *end = strrchr(d->d_name, '.');

    return end && strcmp(end, ".bin") == 0 && (!only || strstr(d->d_name, only));
}

static void all_files(bool kernels)
{
    CLEAN(text_done) struct text report = text_make(1 << 16);
    struct dirent **files = NULL;
    struct device *device = NULL;
    struct problem problem = {0};
    int n = scandir(FOLDER, &files, is_golden, alphasort);

    if (n <= 0)
        fail_msg("there are no files in %s", FOLDER);
    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = 1}, &device, &problem));
    backend_cpu()->enter(device);
    for (int i = 0; i < n; i++) {
        struct bench t = {
            .name = files[i]->d_name, .backend = backend_cpu(), .device = device, .kernels = kernels, .report = &report};
        char path[512];

        snprintf(path, sizeof(path), "%s/%s", FOLDER, files[i]->d_name);
        golden_run(&t, path);
        free(files[i]);
    }
    free(files);
    backend_cpu()->close(device);
    if (report.length)
        fail_msg("%s", report.s);
}

TEST(outputs_gradients_and_ten_steps_agree_with_keras_by_reference_kernels)
{
    all_files(false);
}

TEST(outputs_gradients_and_ten_steps_agree_with_keras_by_the_kernels_of_the_cpu)
{
    all_files(true);
}
