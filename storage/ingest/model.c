/* A foreign .h5 written anew as a plain one: groups, text attributes, arrays of numbers; nothing else gets through.
 *
 * The copy is what the daemon opens. It was written by our own library from values that were read within limits, so whatever a
 * hostile file does to HDF5's parser, it does to the jailed child. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "storage/hdf5.h"
#include "storage/ingest/ingest.h"

#define MAX_TEXT_BYTES ((int64_t)64 << 20) /* of all attributes: a model_config of 16 MiB is the limit elsewhere */

struct copy {
    struct h5 *from, *to;
    struct output *o;
    const char *where;
    int64_t text_bytes;
};

static enum status count_text(struct copy *c, size_t bytes, struct problem *problem)
{
    c->text_bytes += (int64_t)bytes;
    if (c->text_bytes > MAX_TEXT_BYTES)
        return fail(problem, ST_TOO_LARGE, c->where, "the file's texts take more than %" PRId64 " bytes", MAX_TEXT_BYTES);
    return ST_OK;
}

static enum status copy_attributes(struct copy *c, const char *object, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    const char **names, **texts;
    int n = h5_attributes(c->from, object, mem, &names);

    for (int i = 0; i < n; i++) {
        const char *text = h5_text(c->from, object, names[i], mem);
        int m = text ? 0 : h5_texts(c->from, object, names[i], mem, &texts);

        if (text) {
            TRY(count_text(c, strlen(text), problem));
            TRY(h5_put_text(c->to, object, names[i], text, problem));
        } else if (m >= 0) {
            for (int k = 0; k < m; k++)
                TRY(count_text(c, strlen(texts[k]) + 1, problem));
            TRY(h5_put_texts(c->to, object, names[i], m, texts, problem));
        } /* numbers as attributes mean nothing in Keras' files */
    }
    return ST_OK;
}

static enum status copy_array(struct copy *c, const char *path, struct problem *problem)
{
    enum dtype type;
    struct shape shape;
    void *data;

    TRY(h5_shape(c->from, path, &type, &shape, problem));
    int64_t bytes = shape_count(&shape) * (int64_t)dtype_bytes(type);
    if (bytes > c->o->limits->bytes - c->o->bytes)
        return fail(problem, ST_TOO_LARGE, c->where,
                    "%s takes %" PRId64 " bytes, %" PRId64 " of the limit of %" PRId64 " are left", path, bytes,
                    c->o->limits->bytes - c->o->bytes, c->o->limits->bytes);
    c->o->bytes += bytes;
    if (bytes > c->o->limits->memory / 2 || !(data = calloc((size_t)bytes + 1, 1)))
        return fail(problem, ST_NO_MEMORY, c->where, "%s takes %" PRId64 " bytes, up to %" PRId64 " can be read", path, bytes,
                    c->o->limits->memory / 2);
    enum status status = h5_read(c->from, path, type, data, problem);
    if (status == ST_OK)
        status = h5_write(c->to, path, type, &shape, data, problem);
    free(data);
    return status;
}

static enum status copy_group(struct copy *c, const char *group, struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    const char **names;
    int n = h5_children(c->from, group, mem, &names);

    TRY(h5_group(c->to, group, problem));
    TRY(copy_attributes(c, group, problem));
    for (int i = 0; i < n; i++) {
        const char *path = arena_print(mem, "%s/%s", strcmp(group, "/") == 0 ? "" : group, names[i]);

        if (h5_is_array(c->from, path)) {
            TRY(copy_array(c, path, problem));
            TRY(copy_attributes(c, path, problem));
        } else {
            TRY(copy_group(c, path, problem));
        }
    }
    return ST_OK;
}

enum status read_model(const char *path, const char *where, struct output *o, struct problem *problem)
{
    OWNED(h5_free) struct h5 *from = NULL;
    OWNED(h5_free) struct h5 *to = NULL;
    struct copy c = {.o = o, .where = where};

    TRY(h5_open_foreign(path, where, &from, problem));
    TRY(h5_create("0.h5", where, &to, problem));
    c.from = from;
    c.to = to;
    TRY(copy_group(&c, "/", problem));
    return h5_close(STEAL(to), problem);
}
