/* Weights and optimizer state out of a Keras file.
 *
 * Groups that carry weights are matched with the model's layers: by name where the names are the same on both sides, else by
 * order, as Keras does. A nested model is one group; Keras 1 writes the layers of a nested Sequential one by one, so a group
 * whose arrays are not all of a nested model's is taken for one of its layers. What a layer's arrays become is
 * keras_h5_convert.c's matter. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/model/names.h"
#include "storage/keras_h5_parts.h"

struct file_group { /* a group that carries weights */
    const char *name;
    struct stored *array;
    int n;
};

struct reader {
    struct h5 *f;
    struct arena *mem;
    const struct weights *layout;
    struct origin from;
    const char *base;            /* "/model_weights", or "" for the root */
    struct weight_group *groups; /* of the model: those with weights alone */
    int n_groups;
    struct file_group *file;
    int n_file;
};

/* --- the file's side
 * ---------------------------------------------------------------------------------------------------------- */

static enum status no_keras_file(struct problem *problem)
{
    return fail(
        problem, ST_INVALID, "layer_names",
        "the file has no attribute layer_names, neither at its root nor at /model_weights: it is not one that Keras' save() or "
        "save_weights() wrote as .h5 (a .weights.h5 of Keras 3 is laid out in another way)");
}

/* Keras 1 says its version at the root alone; weights-only files of Keras 1 say nothing. */
static bool by_keras_1(struct reader *r)
{
    const char *version = h5_text(r->f, *r->base ? r->base : "/", "keras_version", r->mem);

    if (!version)
        version = h5_text(r->f, "/", "keras_version", r->mem);
    return !version || strncmp(version, "1.", 2) == 0;
}

/* The backend that wrote the weights. Keras 1 does not say it; TensorFlow's variables have a ":0" behind their names. */
static bool by_theano(struct reader *r, bool keras_1)
{
    const char *backend = h5_text(r->f, *r->base ? r->base : "/", "backend", r->mem);

    if (!backend)
        backend = h5_text(r->f, "/", "backend", r->mem);
    if (backend)
        return strcmp(backend, "theano") == 0;
    for (int g = 0; keras_1 && g < r->n_file; g++)
        for (int i = 0; i < r->file[g].n; i++) {
            const char *path = r->file[g].array[i].path;
            size_t n = strlen(path);
            if (n > 2 && strcmp(path + n - 2, ":0") == 0)
                return false;
        }
    return keras_1;
}

static enum status array_read(struct reader *r, const char *group, const char *name, struct stored *ret,
                              struct problem *problem)
{
    const char *last = strrchr(name, '/');
    enum dtype type;

    ret->path = arena_print(r->mem, "%s/%s", group, name);
    if (last && !h5_exists(r->f, ret->path))
        ret->path = arena_print(r->mem, "%s/%s", group, last + 1);
    return h5_shape(r->f, ret->path, &type, &ret->shape, problem);
}

static enum status file_groups(struct reader *r, struct problem *problem)
{
    const char **names;
    int n = -1;

    r->base = "/model_weights";
    if (h5_exists(r->f, r->base))
        n = h5_texts(r->f, r->base, "layer_names", r->mem, &names);
    if (n < 0) {
        r->base = "";
        n = h5_texts(r->f, "/", "layer_names", r->mem, &names);
    }
    if (n < 0)
        return no_keras_file(problem);
    r->file = ARENA_ARRAY(r->mem, struct file_group, n + 1);
    for (int i = 0; i < n; i++) {
        const char *path = arena_print(r->mem, "%s/%s", r->base, names[i]), **arrays;
        struct file_group *g = &r->file[r->n_file];
        if (!h5_exists(r->f, path))
            return fail(problem, ST_INVALID, path, "layer_names lists \"%s\", and the file has no such group", names[i]);
        g->n = h5_texts(r->f, path, "weight_names", r->mem, &arrays);
        if (g->n < 0)
            return fail(problem, ST_INVALID, path, "the group has no attribute weight_names");
        if (g->n == 0)
            continue;
        g->name = names[i];
        g->array = ARENA_ARRAY(r->mem, struct stored, g->n);
        for (int k = 0; k < g->n; k++)
            TRY(array_read(r, path, arrays[k], &g->array[k], problem));
        r->n_file++;
    }
    return ST_OK;
}

/* --- both sides
 * --------------------------------------------------------------------------------------------------------------- */

static void drop_empty(struct reader *r)
{
    int n = 0;

    for (int i = 0; i < r->n_groups; i++)
        if (r->groups[i].n)
            r->groups[n++] = r->groups[i];
    r->n_groups = n;
}

/* Puts the model's groups into the file's order if both have the same names. */
static void order_by_name(struct reader *r)
{
    struct names places = names_make(r->mem);
    struct weight_group *sorted = ARENA_ARRAY(r->mem, struct weight_group, r->n_groups + 1);
    bool *taken = ARENA_ARRAY(r->mem, bool, r->n_groups + 1);

    if (r->n_file != r->n_groups)
        return;
    for (int i = 0; i < r->n_groups; i++)
        names_put(&places, r->groups[i].name, i);
    for (int i = 0; i < r->n_file; i++) {
        int at = names_find(&places, r->file[i].name);
        if (at < 0 || taken[at])
            return;
        taken[at] = true;
        sorted[i] = r->groups[at];
    }
    r->groups = sorted;
}

static enum status reader_open(struct reader *r, struct problem *problem)
{
    TRY(file_groups(r, problem));
    r->from.keras_1 = by_keras_1(r);
    r->from.theano = by_theano(r, r->from.keras_1);
    weight_groups(r->from.m, r->layout, r->mem, &r->groups, &r->n_groups);
    drop_empty(r);
    order_by_name(r);
    return ST_OK;
}

static enum status count_misfit(struct reader *r, struct problem *problem)
{
    char first[2][120] = {"none", "none"};

    if (r->n_file)
        snprintf(first[0], sizeof first[0], "the first is \"%.100s\"", r->file[0].name);
    if (r->n_groups)
        snprintf(first[1], sizeof first[1], "the first is \"%.100s\"", r->groups[0].name);
    return fail(problem, ST_INVALID, "layer_names", "the file has %d layers with weights (%s), the model has %d (%s)",
                r->n_file, first[0], r->n_groups, first[1]);
}

static enum status group_misfit(const struct weight_group *g, const struct file_group *file, struct problem *problem)
{
    return fail(problem, ST_INVALID, g->name, "the layer has %d weights, the file's group \"%s\" for it has %d arrays", g->n,
                file->name, file->n);
}

/* Reads group by group; nested models as a whole or by their leaves. */
static enum status read_groups(struct reader *r, void *to, struct problem *problem)
{
    int at = 0;

    for (int i = 0; i < r->n_groups; i++) {
        struct weight_group *leaves, *g = &r->groups[i];
        if (at == r->n_file)
            return count_misfit(r, problem);
        if (convert_count(&r->from, g, r->file[at].array, r->file[at].n) == r->file[at].n) {
            TRY(convert_read(r->f, &r->from, g, r->file[at].array, to, problem));
            at++;
            continue;
        }
        int n = weight_leaves(r->from.m, g, r->mem, &leaves);
        if (n < 2 || !r->from.keras_1)
            return group_misfit(g, &r->file[at], problem);
        for (int k = 0; k < n; k++, at++) {
            if (at == r->n_file)
                return count_misfit(r, problem);
            if (convert_count(&r->from, &leaves[k], r->file[at].array, r->file[at].n) != r->file[at].n)
                return group_misfit(&leaves[k], &r->file[at], problem);
            TRY(convert_read(r->f, &r->from, &leaves[k], r->file[at].array, to, problem));
        }
    }
    return at < r->n_file ? count_misfit(r, problem) : ST_OK;
}

enum status keras_h5_read_weights(struct h5 *f, const struct model *m, const struct weights *layout, void *to,
                                  struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct reader r = {.f = f, .mem = mem, .layout = layout, .from.m = m};

    TRY(reader_open(&r, problem));
    if (r.n_file != r.n_groups && !r.from.keras_1)
        return count_misfit(&r, problem);
    memset(to, 0, layout->bytes);
    return read_groups(&r, to, problem);
}

/* --- optimizer
 * ---------------------------------------------------------------------------------------------------------------- */

struct slot_reader {
    struct h5 *f;
    struct stored *array;
    int n, at;
    void *slots; /* NULL: shapes are compared, nothing is read */
};

static enum status take_slot(void *arg, const struct slot_type *slot, const struct weight_entry *e, size_t offset,
                             struct problem *problem)
{
    struct slot_reader *s = arg;

    if (s->at == s->n)
        return fail(problem, ST_INVALID, e->path,
                    "the file has %d arrays of optimizer state, too few: the %s of %.100s is missing", s->n, slot->name,
                    e->path);
    if (!shape_equal(&s->array[s->at].shape, &e->shape))
        return fail(problem, ST_INVALID, e->path,
                    "array %d of the file's optimizer state has the shape %s, the %s of %.100s has %s", s->at,
                    shape_text(&s->array[s->at].shape).s, slot->name, e->path, shape_text(&e->shape).s);
    if (s->slots)
        TRY(h5_read(s->f, s->array[s->at].path, F32, (char *)s->slots + offset, problem));
    s->at++;
    return ST_OK;
}

static enum status slot_arrays(struct reader *r, struct slot_reader *s, char note[256], struct problem *problem)
{
    const char **names;

    s->n = h5_exists(r->f, SLOT_PATH) ? h5_texts(r->f, SLOT_PATH, "weight_names", r->mem, &names) : -1;
    if (s->n < 1) {
        s->n = 0;
        snprintf(note, 256, "the file has no optimizer state");
        return ST_OK;
    }
    s->array = ARENA_ARRAY(r->mem, struct stored, s->n);
    for (int i = 0; i < s->n; i++)
        TRY(array_read(r, SLOT_PATH, names[i], &s->array[i], problem));
    return ST_OK;
}

/* Where a weight begins and ends there is padding; it starts as the slots themselves do, so that a state comes back bit by
 * bit. */
static void fill_slots(const struct optimizer_spec *o, const struct weights *layout, float *slots)
{
    size_t n = layout->trainable_bytes / sizeof(float);

    for (int k = 0; k < o->n_slots; k++) {
        float value = o->type->initial ? (float)o->type->initial(o->config, o->slot[k]) : 0;
        for (size_t i = 0; i < n; i++)
            slots[(size_t)k * n + i] = value;
    }
}

enum status keras_h5_read_optimizer(struct h5 *f, const struct model *m, const struct weights *layout,
                                    const struct optimizer_spec *o, void *slots, int64_t *updates, double *rate, bool *found,
                                    char note[256], struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct reader r = {.f = f, .mem = mem, .layout = layout, .from.m = m};
    struct slot_reader s = {.f = f};
    struct problem misfit;
    int64_t iteration;
    float stored_rate = NAN;
    int first = 1;

    *found = false;
    note[0] = 0;
    TRY(slot_arrays(&r, &s, note, problem));
    if (!s.n)
        return ST_OK;
    TRY(reader_open(&r, problem));
    if (r.from.keras_1 || s.array[0].shape.rank != 0) {
        snprintf(note, 256, "the optimizer state is in the order of Keras 1, which is not read");
        return ST_OK;
    }
    if (s.n > 1 && s.array[1].shape.rank == 0)
        first = 2;
    s.at = first;
    if (each_slot(o, layout, r.groups, r.n_groups, take_slot, &s, &misfit) != ST_OK) {
        snprintf(note, 256, "%.255s", misfit.detail);
        return ST_OK;
    }
    if (s.at != s.n) {
        snprintf(note, 256, "the file has %d arrays of optimizer state, %s needs %d", s.n, o->type->keras, s.at);
        return ST_OK;
    }
    TRY(h5_read(f, s.array[0].path, I64, &iteration, problem));
    if (first == 2)
        TRY(h5_read(f, s.array[1].path, F32, &stored_rate, problem));
    fill_slots(o, layout, slots);
    s.slots = slots;
    s.at = first;
    TRY(each_slot(o, layout, r.groups, r.n_groups, take_slot, &s, problem));
    *updates = iteration;
    *rate = stored_rate;
    *found = true;
    return ST_OK;
}
