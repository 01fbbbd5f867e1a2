/* One group's arrays as other versions of Keras and other backends stored them.
 *
 *   Keras 1, LSTM        12 arrays, W U b of the gates i c f o one after the other, unless consume_less was "gpu": joined by
 * columns
 *                        in the order i f c o
 *   Keras 1, th          kernels (out, in, rows, columns) become (rows, columns, in, out)
 *   Theano               convolutions turn the kernel by 180 degrees: rows and columns are reversed
 *
 * keras 2.3.1 engine/saving.py, preprocess_weights_for_loading; keras-hdf5-formats 4.1 and 4.2. */
#include <string.h>

#include "storage/keras_h5_parts.h"

enum { GATE_ARRAYS = 12 };
/* Where kernel, recurrent kernel and bias of the gates i f c o stand among Keras 1's arrays. */
static const int gate_at[3][4] = {{0, 6, 3, 9}, {1, 7, 4, 10}, {2, 8, 5, 11}};

static bool is_layer(const struct origin *from, const struct weight_entry *e, const char *class)
{
    return e->leaf >= 0 && strcmp(from->m->layers[e->leaf].type->keras, class) == 0;
}

/* The leaf's configuration in the canonical document, or NULL. */
static const struct json *find_config(const struct json *model, const char *path)
{
    for (const struct json *m = json_first(json_get(json_get(model, "config"), "layers")); m; m = json_next(m)) {
        const char *name = json_text(json_get(m, "name"));
        size_t n = name ? strlen(name) : 0;
        const struct json *found = NULL;
        if (!name || strncmp(path, name, n) != 0)
            continue;
        if (path[n] == 0)
            return json_get(m, "config");
        if (path[n] == '/')
            found = find_config(m, path + n + 1);
        if (found)
            return found;
    }
    return NULL;
}

static bool channels_first(const struct origin *from, const struct weight_entry *e)
{
    return json_is(json_get(find_config(from->m->canonical, e->layer), "data_format"), "channels_first");
}

/* Whether the arrays from `a` on are Keras 1's twelve: the first is of one gate. */
static bool is_gates(const struct origin *from, const struct weight_entry *e, const struct stored *a)
{
    return from->keras_1 && is_layer(from, e, "LSTM") && strcmp(e->name, "kernel") == 0 && a->shape.rank == 2 &&
           a->shape.dim[1] * 4 == e->shape.dim[1];
}

/* Entries and arrays that are read in one step. */
static int step_of(const struct origin *from, const struct weight_group *g, int at, const struct stored *a, int *arrays)
{
    int entries = 1;

    *arrays = 1;
    if (!is_gates(from, g->entry[at], a))
        return 1;
    while (at + entries < g->n && g->entry[at + entries]->leaf == g->entry[at]->leaf &&
           g->entry[at + entries]->trainable == g->entry[at]->trainable)
        entries++;
    *arrays = GATE_ARRAYS;
    return entries;
}

int convert_count(const struct origin *from, const struct weight_group *g, const struct stored *a, int n)
{
    int used = 0, arrays;

    for (int i = 0; i < g->n;) {
        if (used >= n)
            return -1;
        i += step_of(from, g, i, &a[used], &arrays);
        used += arrays;
    }
    return used > n ? -1 : used;
}

static enum status misfit(const struct weight_entry *e, const struct shape *stored, struct problem *problem)
{
    return fail(problem, ST_INVALID, e->layer, "the weight \"%s\" has the shape %s in the file, the model has %s", e->name,
                shape_text(stored).s, shape_text(&e->shape).s);
}

static enum status read_gates(struct h5 *f, const struct weight_entry *e, const struct stored *a, float *to,
                              struct problem *problem)
{
    int part = strcmp(e->name, "kernel") == 0 ? 0 : strcmp(e->name, "recurrent_kernel") == 0 ? 1 : 2;
    int64_t columns = e->shape.dim[e->shape.rank - 1], units = columns / 4, rows = shape_count(&e->shape) / columns;
    struct shape gate = shape_with(&e->shape, e->shape.rank - 1, units);
    size_t bytes = (size_t)(rows * units) * sizeof(float);
    void *block;

    for (int i = 0; i < 4; i++)
        if (!shape_equal(&a[gate_at[part][i]].shape, &gate))
            return fail(problem, ST_INVALID, e->layer,
                        "array %d of the layer has the shape %s in the file, a gate of \"%s\" has %s", gate_at[part][i],
                        shape_text(&a[gate_at[part][i]].shape).s, e->name, shape_text(&gate).s);
    TRY(try_alloc(bytes, "a gate's weights", &block, problem));
    enum status status = ST_OK;
    for (int i = 0; i < 4 && status == ST_OK; i++) {
        status = h5_read(f, a[gate_at[part][i]].path, F32, block, problem);
        for (int64_t r = 0; r < rows && status == ST_OK; r++)
            memcpy(to + r * columns + i * units, (float *)block + r * units, (size_t)units * sizeof(float));
    }
    big_free(block, bytes);
    return status;
}

/* A kernel (rows, columns, in, out) out of one stored as th and perhaps turned. */
static void turn(const struct weight_entry *e, const float *from, float *to, bool th, bool flip)
{
    int64_t rows = e->shape.dim[0], columns = e->shape.dim[1], in = e->shape.dim[2], out = e->shape.dim[3];

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) {
            int64_t y = flip ? rows - 1 - r : r, x = flip ? columns - 1 - c : c;
            for (int64_t i = 0; i < in; i++)
                for (int64_t o = 0; o < out; o++)
                    *to++ = th ? from[((o * in + i) * rows + y) * columns + x] : from[((y * columns + x) * in + i) * out + o];
        }
}

static enum status read_kernel(struct h5 *f, const struct origin *from, const struct weight_entry *e, const struct stored *a,
                               float *to, struct problem *problem)
{
    bool th = from->keras_1 && channels_first(from, e);
    struct shape want = e->shape;
    size_t bytes = (size_t)shape_count(&e->shape) * sizeof(float);
    void *block;

    if (th)
        want = SHAPE(e->shape.dim[3], e->shape.dim[2], e->shape.dim[0], e->shape.dim[1]);
    if (!shape_equal(&a->shape, &want) && th)
        return fail(problem, ST_INVALID, e->layer,
                    "the weight \"%s\" has the shape %s in the file, for dim_ordering \"th\" the model has %s", e->name,
                    shape_text(&a->shape).s, shape_text(&want).s);
    if (!shape_equal(&a->shape, &want))
        return misfit(e, &a->shape, problem);
    TRY(try_alloc(bytes, "a kernel", &block, problem));
    enum status status = h5_read(f, a->path, F32, block, problem);
    if (status == ST_OK)
        turn(e, block, to, th, from->theano);
    big_free(block, bytes);
    return status;
}

static enum status read_one(struct h5 *f, const struct origin *from, const struct weight_entry *e, const struct stored *a,
                            float *to, struct problem *problem)
{
    if ((from->keras_1 || from->theano) && is_layer(from, e, "Conv2D") && e->shape.rank == 4)
        return read_kernel(f, from, e, a, to, problem);
    if (!shape_equal(&a->shape, &e->shape))
        return misfit(e, &a->shape, problem);
    return h5_read(f, a->path, F32, to, problem);
}

enum status convert_read(struct h5 *f, const struct origin *from, const struct weight_group *g, const struct stored *a,
                         void *to, struct problem *problem)
{
    for (int i = 0, used = 0; i < g->n;) {
        int arrays, entries = step_of(from, g, i, &a[used], &arrays);
        for (int k = 0; k < entries; k++) {
            const struct weight_entry *e = g->entry[i + k];
            float *at = (float *)((char *)to + e->offset);
            if (arrays == GATE_ARRAYS)
                TRY(read_gates(f, e, &a[used], at, problem));
            else
                TRY(read_one(f, from, e, &a[used], at, problem));
        }
        i += entries;
        used += arrays;
    }
    return ST_OK;
}
