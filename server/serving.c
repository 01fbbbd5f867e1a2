/* Predict calls.
 *
 * The numbers of a JSON body are never a tree: the few keys around them are walked here, the arrays go through number.h into
 * floats. A call is small when about 50 us will do; handing it to another thread costs some 30 us of latency. */
#include "server/serving.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/number.h"
#include "server/npy.h"

enum {
    SMALL_BYTES = 64 << 10, /* of body: reading makes 0.5 to 1 GB/s */
    PIECE = 128             /* rows between two looks at a stop: what a predictor runs at once, so that no bit changes */
};
#define SMALL_FLOPS 4e6 /* a core makes 50 to 150 GFLOP/s in products of matrices, some 10 in single rows, bound by memory */

/* Small tensors are plain memory: clearing, counting and aligning it costs more than filling it. */
static enum status floats_alloc(size_t bytes, const char *what, float **ret, struct problem *problem)
{
    void *memory;

    if (bytes <= SMALL_BYTES)
        memory = must_realloc(NULL, bytes);
    else
        TRY(try_alloc(bytes, what, &memory, problem));
    *ret = memory;
    return ST_OK;
}

static void floats_free(float *p, size_t bytes)
{
    if (bytes <= SMALL_BYTES)
        free(p);
    else
        big_free(p, bytes);
}

void prediction_done(struct prediction *p)
{
    for (int i = 0; i < p->n_x; i++) {
        if (!p->borrowed)
            floats_free(p->x[i], p->x_bytes[i]);
        p->x[i] = NULL;
    }
    for (int i = 0; i < p->n_y; i++) {
        floats_free(p->y[i], p->y_bytes[i]);
        p->y[i] = NULL;
    }
}

bool serving_is_small(const struct version *v, size_t bytes, int64_t n)
{
    return bytes <= SMALL_BYTES && v->flops * (double)n <= SMALL_FLOPS;
}

/* --- inputs ------------------------------------------------------------------------------------------------------------------- */

/* The batch axis is the caller's, all others exactly the model's. */
static enum status check_shape(const struct version *v, int i, const char *pointer, const struct shape *got,
                               struct prediction *p, struct problem *problem)
{
    const struct shape *row = &v->rows[i];
    struct shape want = {.rank = row->rank + 1, .dim = {-1}}, open = *got;

    memcpy(want.dim + 1, row->dim, sizeof row->dim[0] * (size_t)row->rank);
    open.dim[0] = -1;
    if (!shape_equal(&open, &want))
        return fail(problem, ST_INVALID, pointer, "input %s has shape %s, the model takes %s%s", v->model->inputs[i].name,
                    shape_text(got).s, shape_text(&want).s,
                    got->rank == row->rank ? "; one sample needs the batch axis too: [[...]]" : "");
    if (got->dim[0] < 1)
        return fail(problem, ST_INVALID, pointer, "input %s has no sample", v->model->inputs[i].name);
    if (p->n && p->n != got->dim[0])
        return fail(problem, ST_INVALID, pointer, "input %s has %lld samples, another input %lld", v->model->inputs[i].name,
                    (long long)got->dim[0], (long long)p->n);
    p->n = got->dim[0];
    return ST_OK;
}

static enum status input_alloc(struct prediction *p, int i, int64_t count, struct problem *problem)
{
    TRY(floats_alloc((size_t)count * sizeof(float), "the inputs", &p->x[i], problem));
    p->x_bytes[i] = (size_t)count * sizeof(float);
    return ST_OK;
}

static enum status read_array(const struct version *v, int i, const char *pointer, const char **at, const char *end,
                              struct prediction *p, struct problem *problem)
{
    size_t room = number_count(*at, (size_t)(end - *at)), used;
    struct shape got = {0};

    if (p->x[i])
        return fail(problem, ST_MALFORMED, pointer, "input %s is given twice", v->model->inputs[i].name);
    TRY(input_alloc(p, i, (int64_t)(room ? room : 1), problem));
    TRY(number_array(*at, (size_t)(end - *at), pointer, p->x[i], room, &got.rank, got.dim, &used, problem));
    *at += used;
    return check_shape(v, i, pointer, &got, p, problem);
}

/* --- the JSON around them ------------------------------------------------------------------------------------------------------ */

struct scan {
    const char *begin, *at, *end;
};

static void blanks(struct scan *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool skip(struct scan *s, char c)
{
    blanks(s);
    if (s->at == s->end || *s->at != c)
        return false;
    s->at++;
    return true;
}

static enum status malformed(const struct scan *s, const char *wanted, struct problem *problem)
{
    if (s->at >= s->end)
        return fail(problem, ST_MALFORMED, "", "the body ends where %s is expected", wanted);
    return fail(problem, ST_MALFORMED, "", "byte %zu of the body is '%c' where %s is expected", (size_t)(s->at - s->begin),
                *s->at >= 0x20 && *s->at < 0x7F ? *s->at : '?', wanted);
}

/* A member's key, unescaped, and its colon. */
static enum status read_key(struct scan *s, char key[256], struct problem *problem)
{
    OWNED(json_free) struct json *text = NULL;
    const char *begin;

    blanks(s);
    begin = s->at;
    if (s->at == s->end || *s->at != '"')
        return malformed(s, "a key in quotes", problem);
    for (s->at++; s->at < s->end && *s->at != '"'; s->at++)
        s->at += *s->at == '\\' && s->at + 1 < s->end;
    if (s->at == s->end)
        return malformed(s, "the end of a key", problem);
    s->at++;
    TRY(json_parse(begin, (size_t)(s->at - begin), NULL, 0, &text, problem));
    if (strlen(json_text(text)) > 255)
        return fail(problem, ST_INVALID, "", "a key is longer than 255 bytes");
    strcpy(key, json_text(text));
    return skip(s, ':') ? ST_OK : malformed(s, "':'", problem);
}

static const char *known_inputs(const struct model *m, struct text *t)
{
    for (int i = 0; i < m->n_inputs; i++)
        text_printf(t, "%s%s", i ? ", " : "", m->inputs[i].name);
    return t->s;
}

static enum status read_named(const struct version *v, struct scan *s, struct prediction *p, struct problem *problem)
{
    CLEAN(text_done) struct text names = text_make(200);

    s->at++; /* the brace */
    blanks(s);
    if (skip(s, '}'))
        return fail(problem, ST_INVALID, "/inputs", "is empty; the model has the inputs %s", known_inputs(v->model, &names));
    do {
        char key[256], pointer[300];
        int i;

        TRY(read_key(s, key, problem));
        i = model_input_find(v->model, key);
        if (i < 0)
            return fail(problem, ST_INVALID, "/inputs", "\"%.100s\" is no input of the model, which has %s", key,
                        known_inputs(v->model, &names));
        strcpy(pointer, "/inputs/");
        strcat(pointer, key);
        blanks(s);
        TRY(read_array(v, i, pointer, &s->at, s->end, p, problem));
    } while (skip(s, ','));
    return skip(s, '}') ? ST_OK : malformed(s, "',' or '}'", problem);
}

static enum status read_inputs(const struct version *v, struct scan *s, struct prediction *p, struct problem *problem)
{
    CLEAN(text_done) struct text names = text_make(200);

    blanks(s);
    if (s->at < s->end && *s->at == '{')
        return read_named(v, s, p, problem);
    if (s->at < s->end && *s->at != '[' && *s->at != '-' && (*s->at < '0' || *s->at > '9'))
        return fail(problem, ST_INVALID, "/inputs", "must be nested arrays of numbers, or an object of them by input name");
    if (v->model->n_inputs != 1)
        return fail(problem, ST_INVALID, "/inputs", "the model has %d inputs: give an object with %s", v->model->n_inputs,
                    known_inputs(v->model, &names));
    return read_array(v, 0, "/inputs", &s->at, s->end, p, problem);
}

static enum status check_all_given(const struct version *v, const struct prediction *p, struct problem *problem)
{
    for (int i = 0; i < v->model->n_inputs; i++) {
        if (!p->x[i])
            return fail(problem, ST_INVALID, "/inputs", "input %s is missing", v->model->inputs[i].name);
    }
    return ST_OK;
}

enum status serving_read_json(const struct version *v, const char *body, size_t bytes, struct prediction *p,
                              struct problem *problem)
{
    struct scan s = {body, body, body + bytes};
    bool given = false;

    p->n_x = v->model->n_inputs;
    if (!skip(&s, '{'))
        return malformed(&s, "an object {\"inputs\": ...}", problem);
    if (!skip(&s, '}')) {
        do {
            char key[256];

            TRY(read_key(&s, key, problem));
            if (strcmp(key, "inputs") != 0)
                return fail(problem, ST_INVALID, "", "\"%.100s\" is no key of a predict call; there is \"inputs\"", key);
            if (given)
                return fail(problem, ST_MALFORMED, "/inputs", "the key stands twice");
            given = true;
            TRY(read_inputs(v, &s, p, problem));
        } while (skip(&s, ','));
        if (!skip(&s, '}'))
            return malformed(&s, "',' or '}'", problem);
    }
    blanks(&s);
    if (s.at != s.end)
        return malformed(&s, "the end", problem);
    if (!given)
        return fail(problem, ST_INVALID, "/inputs", "is missing");
    return check_all_given(v, p, problem);
}

enum status serving_read_npy(const struct version *v, const char *body, size_t bytes, struct prediction *p,
                             struct problem *problem)
{
    struct npy a;

    p->n_x = v->model->n_inputs;
    if (v->model->n_inputs != 1)
        return fail(problem, ST_INVALID, "", "the model has %d inputs: send JSON, with an object of them", v->model->n_inputs);
    TRY(npy_read(body, bytes, &a, problem));
    TRY(check_shape(v, 0, "", &a.shape, p, problem));
    if (a.type == F32 && (uintptr_t)a.data % sizeof(float) == 0) {
        p->x[0] = (float *)(uintptr_t)a.data; /* only read */
        p->borrowed = true;
        return ST_OK;
    }
    TRY(input_alloc(p, 0, a.count, problem));
    npy_floats(&a, p->x[0]);
    return ST_OK;
}

/* --- the model and the answer ------------------------------------------------------------------------------------------------------ */

static enum status run_piece(const struct version *v, struct predictor *with, const struct prediction *p, int64_t from,
                             int64_t n, struct problem *problem)
{
    const float *x[MAX_ARRAYS];
    float *y[MAX_ARRAYS];

    for (int i = 0; i < p->n_x; i++)
        x[i] = p->x[i] + from * shape_count(&v->rows[i]);
    for (int i = 0; i < p->n_y; i++)
        y[i] = p->y[i] + from * shape_count(&v->output_rows[i]);
    return predictor_run(with, x, n, y, problem);
}

enum status serving_outputs(const struct version *v, struct prediction *p, struct problem *problem)
{
    p->n_y = v->model->n_outputs;
    for (int i = 0; i < p->n_y; i++) {
        size_t bytes;

        if (p->y[i])
            continue;
        if (!size_mul((size_t)shape_count(&v->output_rows[i]) * sizeof(float), (size_t)p->n, &bytes))
            return fail(problem, ST_TOO_LARGE, "", "the outputs of %lld samples are too large", (long long)p->n);
        TRY(floats_alloc(bytes ? bytes : 1, "the outputs", &p->y[i], problem));
        p->y_bytes[i] = bytes ? bytes : 1;
    }
    return ST_OK;
}

enum status serving_run(struct version *v, struct predictor *with, struct prediction *p, struct problem *problem)
{
    TRY(serving_outputs(v, p, problem));
    for (int64_t from = 0; from < p->n; from += PIECE) {
        if (from && p->ending && atomic_load(p->ending))
            return fail(problem, ST_BUSY, "", "the daemon is stopping");
        TRY(run_piece(v, with, p, from, p->n - from < PIECE ? p->n - from : PIECE, problem));
    }
    return ST_OK;
}

static struct shape output_shape(const struct version *v, const struct prediction *p, int i)
{
    const struct shape *row = &v->output_rows[i];
    struct shape s = {.rank = row->rank + 1, .dim = {p->n}};

    memcpy(s.dim + 1, row->dim, sizeof row->dim[0] * (size_t)row->rank);
    return s;
}

void serving_print_json(const struct version *v, const struct prediction *p, struct text *t)
{
    text_printf(t, "{\"model\":\"%s\",\"version\":%lld,\"outputs\":", v->name,
                (long long)v->number); /* a name needs no escapes */
    for (int i = 0; i < p->n_y; i++) {
        struct shape s = output_shape(v, p, i);

        if (p->n_y > 1) {
            text_add_char(t, i ? ',' : '{');
            text_add_json(t, v->model->output_names[i]);
            text_add_char(t, ':');
        }
        number_print(t, p->y[i], s.rank, s.dim);
    }
    text_add(t, p->n_y > 1 ? "}}" : "}");
}

void serving_print_npy(const struct version *v, const struct prediction *p, struct text *t)
{
    struct shape s = output_shape(v, p, 0);

    npy_print(t, p->y[0], &s);
}
