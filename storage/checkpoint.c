/* Checkpoints: see checkpoint.h. The file's form is keras_h5_write.c's; here are the place and the way back. */
#include "storage/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/keras_h5_parts.h"

static enum status write_aside(struct db *db, const char *temp, const char *to, const struct snapshot *now,
                               struct problem *problem)
{
    TRY(keras_h5_write(temp, now, false, true, problem));
    return db_place(db, temp, to, problem);
}

enum status checkpoint_save(struct db *db, int64_t job, int64_t number, const struct snapshot *now, char path[128],
                            struct problem *problem)
{
    char temp[512], to[128];
    int fd;

    snprintf(to, sizeof to, "jobs/%" PRId64 "/%" PRId64 ".ckpt.h5", job, number);
    TRY(db_temp(db, temp, &fd, problem));
    (void)close(fd); /* HDF5 opens it again by its name */
    enum status status = write_aside(db, temp, to, now, problem);
    if (status != ST_OK)
        (void)unlink(temp);
    else
        memcpy(path, to, sizeof to);
    return status;
}

/* --- reading
 * ------------------------------------------------------------------------------------------------------------------ */

struct loader {
    struct h5 *f;
    const char *path;
    struct checkpoint *c;
    struct problem *problem;
};

static enum status read_scalar(struct loader *l, const char *name, enum dtype type, void *to)
{
    enum dtype stored;
    struct shape shape;

    TRY(h5_shape(l->f, name, &stored, &shape, l->problem));
    if (shape.rank != 0)
        return fail(l->problem, ST_STORAGE, l->path, "%s has the shape %s, it must be a scalar", name, shape_text(&shape).s);
    return h5_read(l->f, name, type, to, l->problem);
}

/* A vector of any length into memory of its own; never NULL. */
static enum status read_vector(struct loader *l, const char *name, enum dtype type, void **ret, int64_t *n)
{
    enum dtype stored;
    struct shape shape;

    TRY(h5_shape(l->f, name, &stored, &shape, l->problem));
    if (shape.rank != 1 || stored != type)
        return fail(l->problem, ST_STORAGE, l->path, "%s is %s %s, it must be a vector of %s", name, dtype_name(stored),
                    shape_text(&shape).s, dtype_name(type));
    *n = shape.dim[0];
    *ret = must_alloc((size_t)*n * dtype_bytes(type) + 1);
    return *n ? h5_read(l->f, name, type, *ret, l->problem) : ST_OK;
}

static enum status read_counters(struct loader *l)
{
    struct snapshot *now = &l->c->now;
    int64_t version, epoch, seed, n;

    TRY(read_scalar(l, "/horn/version", I64, &version));
    if (version != H5_CHECKPOINT_VERSION)
        return fail(l->problem, ST_STORAGE, l->path,
                    "the checkpoint's layout is version %" PRId64 ", this hornd reads version %d", version,
                    H5_CHECKPOINT_VERSION);
    TRY(read_scalar(l, "/horn/updates", I64, &now->updates));
    TRY(read_scalar(l, "/horn/rate", F32, &now->rate));
    TRY(read_scalar(l, "/horn/epoch", I64, &epoch));
    TRY(read_scalar(l, "/horn/step", I64, &now->step));
    TRY(read_scalar(l, "/horn/seed", I64, &seed));
    TRY(read_vector(l, "/horn/accumulators", F64, (void **)&l->c->accumulators, &n));
    now->epoch = (int)epoch;
    now->seed = (uint64_t)seed;
    now->n_accumulators = (int)n;
    now->accumulators = l->c->accumulators;
    TRY(read_vector(l, "/horn/callbacks", U8, &l->c->callbacks, &n));
    l->c->callback_bytes = (size_t)n;
    now->callbacks = l->c->callbacks;
    now->callbacks_bytes = (uint64_t)n;
    return ST_OK;
}

static enum status read_best(struct loader *l, const struct weights *layout)
{
    struct shape shape, want = SHAPE((int64_t)(layout->bytes / sizeof(float)));
    enum dtype stored;

    if (!h5_exists(l->f, "/horn/best"))
        return ST_OK;
    TRY(h5_shape(l->f, "/horn/best", &stored, &shape, l->problem));
    if (!shape_equal(&shape, &want))
        return fail(l->problem, ST_STORAGE, l->path, "the best weights have the shape %s, the model has %s",
                    shape_text(&shape).s, shape_text(&want).s);
    TRY(try_alloc(layout->bytes, "the best weights", &l->c->best, l->problem));
    l->c->now.best = l->c->best;
    return h5_read(l->f, "/horn/best", F32, l->c->best, l->problem);
}

static enum status read_state(struct loader *l, const struct model *m, const struct weights *layout,
                              const struct optimizer_spec *o)
{
    struct checkpoint *c = l->c;
    char note[256];
    int64_t updates;
    double rate;
    bool found;

    TRY(try_alloc(c->weight_bytes, "the checkpoint's weights", &c->weights, l->problem));
    TRY(try_alloc(c->slot_bytes, "the checkpoint's optimizer state", &c->slots, l->problem));
    TRY(keras_h5_read_weights(l->f, m, layout, c->weights, l->problem));
    TRY(keras_h5_read_optimizer(l->f, m, layout, o, c->slots, &updates, &rate, &found, note, l->problem));
    if (!found)
        return fail(l->problem, ST_STORAGE, l->path, "the checkpoint does not fit the job's optimizer: %s", note);
    c->now.weights = c->weights;
    c->now.slots = c->slots;
    TRY(read_counters(l));
    return read_best(l, layout);
}

enum status checkpoint_load(struct db *db, const char *path, const struct model *m, const struct weights *layout,
                            const struct optimizer_spec *o, struct checkpoint **ret, struct problem *problem)
{
    OWNED(checkpoint_free) struct checkpoint *c = must_alloc(sizeof *c);
    OWNED(h5_free) struct h5 *f = NULL;
    char full[4352];

    snprintf(full, sizeof full, "%s/%s", db_folder(db), path);
    TRY(h5_own(h5_open(full, path, &f, problem), full, path, problem));
    c->weight_bytes = layout->bytes;
    c->slot_bytes =
        (size_t)o->n_slots * layout->trainable_bytes + REGION_ALIGN; /* never nothing: slots say that there is a state */
    c->now = (struct snapshot){.model = m, .layout = layout, .optimizer = o};
    struct loader l = {.f = f, .path = path, .c = c, .problem = problem};
    TRY(h5_own(read_state(&l, m, layout, o), full, path, problem));
    *ret = STEAL(c);
    return ST_OK;
}

struct checkpoint *checkpoint_free(struct checkpoint *c)
{
    if (!c)
        return NULL;
    big_free(c->weights, c->weight_bytes);
    big_free(c->slots, c->slot_bytes);
    big_free(c->best, c->weight_bytes);
    free_null(c->callbacks);
    free_null(c->accumulators);
    free(c);
    return NULL;
}
