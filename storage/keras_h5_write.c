/* Writing Keras' whole-model file, a weights-only file, and a checkpoint (the same plus the group horn).
 *
 *   /                    keras_version, backend, model_config, training_config; horn_model_config and horn_training_config
 * where
 *                        Keras 3 cannot say exactly what the model or its optimizer does
 *   /model_weights       layer_names; a group for each outermost layer with weight_names, trainable ones first
 *   /optimizer_weights   iteration (int32), learning_rate (float32), then the slots in Keras 3's order
 *   /horn                version, updates, rate, epoch, step, seed, accumulators, callbacks, best
 *
 * Layouts: keras-hdf5-formats 2 and 6. All numbers are stored in the type in which the next step uses them, so that they come
 * back with the same bits. */
#include "storage/keras_h5.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/names.h"
#include "storage/keras_h5_parts.h"

#define KERAS_VERSION "3.8.0"      /* the form of configurations and slots that is written */
#define KERAS_BACKEND "tensorflow" /* kernels as cross-correlations, channels last */

struct writer {
    struct h5 *f;
    struct arena *mem;
    const struct snapshot *now;
    struct weight_group *groups;
    int n_groups;
    /* slots */
    struct names slot_names;
    const char **names;
    int n_names;
    const char *prefix;
};

static enum status put_array(struct writer *w, const char *path, enum dtype type, struct shape shape, const void *data,
                             struct problem *problem)
{
    return h5_write(w->f, path, type, &shape, data, problem);
}

/* --- weights ----------------------------------------------------------------------------------------------------------------
 * */

static enum status write_group(struct writer *w, const char *base, const struct weight_group *g, struct problem *problem)
{
    const char *path = arena_print(w->mem, "%s/%s", base, g->name), **names = ARENA_ARRAY(w->mem, const char *, g->n + 1);

    for (int i = 0; i < g->n; i++)
        names[i] = g->entry[i]->path;
    TRY(h5_group(w->f, path, problem));
    TRY(h5_put_texts(w->f, path, "weight_names", g->n, names, problem));
    for (int i = 0; i < g->n; i++) {
        const struct weight_entry *e = g->entry[i];
        TRY(put_array(w, arena_print(w->mem, "%s/%s", path, e->path), F32, e->shape, (const char *)w->now->weights + e->offset,
                      problem));
    }
    return ST_OK;
}

static enum status write_weights(struct writer *w, const char *base, struct problem *problem)
{
    const char *object = *base ? base : "/", **names = ARENA_ARRAY(w->mem, const char *, w->n_groups + 1);

    for (int i = 0; i < w->n_groups; i++)
        names[i] = w->groups[i].name;
    TRY(h5_group(w->f, object, problem));
    TRY(h5_put_text(w->f, object, "keras_version", KERAS_VERSION, problem));
    TRY(h5_put_text(w->f, object, "backend", KERAS_BACKEND, problem));
    TRY(h5_put_texts(w->f, object, "layer_names", w->n_groups, names, problem));
    for (int i = 0; i < w->n_groups; i++)
        TRY(write_group(w, base, &w->groups[i], problem));
    return ST_OK;
}

/* --- optimizer --------------------------------------------------------------------------------------------------------------
 * */

/* adam/dense_kernel_momentum, as Keras names it; a number behind it where two paths would give the same. */
static const char *slot_name(struct writer *w, const struct weight_entry *e, const struct slot_type *slot)
{
    char *variable = arena_text(w->mem, e->path);
    const char *name;

    for (char *p = variable; *p; p++)
        if (*p == '/')
            *p = '_';
    name = arena_print(w->mem, "%s/%s_%s", w->prefix, variable, slot->name);
    for (int i = 1; names_find(&w->slot_names, name) >= 0; i++)
        name = arena_print(w->mem, "%s/%s_%s_%d", w->prefix, variable, slot->name, i);
    names_put(&w->slot_names, name, 0);
    return name;
}

static enum status write_slot(void *arg, const struct slot_type *slot, const struct weight_entry *e, size_t offset,
                              struct problem *problem)
{
    struct writer *w = arg;
    const char *name = slot_name(w, e, slot);

    w->names[w->n_names++] = name;
    return put_array(w, arena_print(w->mem, "%s/%s", SLOT_PATH, name), F32, e->shape, (const char *)w->now->slots + offset,
                     problem);
}

static enum status write_optimizer(struct writer *w, struct problem *problem)
{
    const struct snapshot *now = w->now;
    char *prefix = arena_text(w->mem, now->optimizer->type->keras);
    int32_t iteration = now->updates > INT32_MAX ? INT32_MAX : (int32_t)now->updates;

    for (char *p = prefix; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    w->prefix = prefix;
    w->slot_names = names_make(w->mem);
    w->names = ARENA_ARRAY(w->mem, const char *, 2 + (size_t)now->optimizer->n_slots * (size_t)now->layout->n);
    w->names[w->n_names++] = arena_print(w->mem, "%s/iteration", prefix);
    w->names[w->n_names++] = arena_print(w->mem, "%s/learning_rate", prefix);
    names_put(&w->slot_names, w->names[0], 0);
    names_put(&w->slot_names, w->names[1], 0);
    TRY(h5_group(w->f, SLOT_PATH, problem));
    TRY(put_array(w, arena_print(w->mem, "%s/%s", SLOT_PATH, w->names[0]), I32, SCALAR, &iteration, problem));
    TRY(put_array(w, arena_print(w->mem, "%s/%s", SLOT_PATH, w->names[1]), F32, SCALAR, &now->rate, problem));
    TRY(each_slot(now->optimizer, now->layout, w->groups, w->n_groups, write_slot, w, problem));
    return h5_put_texts(w->f, SLOT_PATH, "weight_names", w->n_names, w->names, problem);
}

/* --- configurations ---------------------------------------------------------------------------------------------------------
 * */

static enum status put_config(struct writer *w, const char *name, const char *nearest, const char *exact_name,
                              const char *exact, struct problem *problem)
{
    TRY(h5_put_text(w->f, "/", name, nearest, problem));
    return exact ? h5_put_text(w->f, "/", exact_name, exact, problem) : ST_OK;
}

static enum status write_configs(struct writer *w, struct problem *problem)
{
    OWNED(free) char *model = NULL;
    OWNED(free) char *exact_model = NULL;
    OWNED(free) char *training = NULL;
    OWNED(free) char *exact_training = NULL;

    TRY(h5_put_text(w->f, "/", "keras_version", KERAS_VERSION, problem));
    TRY(h5_put_text(w->f, "/", "backend", KERAS_BACKEND, problem));
    config_of_model(w->now->model, &w->now->layout->input, &model, &exact_model);
    TRY(put_config(w, "model_config", model, EXACT_MODEL, exact_model, problem));
    if (!w->now->compile)
        return ST_OK;
    TRY(config_of_compile(w->now->compile, w->now->rate, &training, &exact_training, problem));
    return put_config(w, "training_config", training, EXACT_COMPILE, exact_training, problem);
}

/* --- the group horn
 * ---------------------------------------------------------------------------------------------------------- */

static enum status write_horn(struct writer *w, struct problem *problem)
{
    const struct snapshot *now = w->now;
    int64_t epoch = now->epoch, seed = (int64_t)now->seed, version = H5_CHECKPOINT_VERSION;

    TRY(h5_group(w->f, "/horn", problem));
    TRY(put_array(w, "/horn/version", I64, SCALAR, &version, problem));
    TRY(put_array(w, "/horn/updates", I64, SCALAR, &now->updates, problem));
    TRY(put_array(w, "/horn/rate", F32, SCALAR, &now->rate, problem));
    TRY(put_array(w, "/horn/epoch", I64, SCALAR, &epoch, problem));
    TRY(put_array(w, "/horn/step", I64, SCALAR, &now->step, problem));
    TRY(put_array(w, "/horn/seed", I64, SCALAR, &seed, problem));
    TRY(put_array(w, "/horn/accumulators", F64, SHAPE(now->n_accumulators), now->accumulators, problem));
    TRY(put_array(w, "/horn/callbacks", U8, SHAPE((int64_t)now->callbacks_bytes), now->callbacks, problem));
    if (now->best)
        TRY(put_array(w, "/horn/best", F32, SHAPE((int64_t)(now->layout->bytes / sizeof(float))), now->best, problem));
    return ST_OK;
}

static enum status write_all(struct writer *w, bool weights_only, bool checkpoint, struct problem *problem)
{
    weight_groups(w->now->model, w->now->layout, w->mem, &w->groups, &w->n_groups);
    if (weights_only)
        return write_weights(w, "", problem);
    TRY(write_configs(w, problem));
    TRY(write_weights(w, "/model_weights", problem));
    if (w->now->optimizer && (w->now->compile || checkpoint))
        TRY(write_optimizer(w, problem));
    return checkpoint ? write_horn(w, problem) : ST_OK;
}

enum status keras_h5_write(const char *path, const struct snapshot *now, bool weights_only, bool checkpoint,
                           struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    OWNED(h5_free) struct h5 *f = NULL;
    struct writer w = {.mem = mem, .now = now};
    enum status status;

    TRY(h5_create(path, checkpoint ? "checkpoint" : "model.h5", &f, problem));
    w.f = f;
    TRY(write_all(&w, weights_only, checkpoint, problem));
    status = h5_close(STEAL(f), problem);
    return status;
}
