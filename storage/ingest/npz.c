/* numpy's .npz: a zip archive whose members are .npy files, stored or deflated.
 *
 * The directory of the archive says how large each member is; the member's header must agree with it, and every array counts against
 * the limit of the upload before a byte of it is unpacked, so a zip bomb costs what its directory costs. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include "storage/ingest/ingest.h"

static enum status read_member(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem)
{
    zip_file_t *f = in->state;
    zip_int64_t n = zip_fread(f, to, bytes);

    if (n < 0)
        return fail(problem, ST_INVALID, in->where, "the archive is damaged in this member: %s",
                    zip_error_strerror(zip_file_get_error(f)));
    *got = (size_t)n;
    in->taken += n;
    return ST_OK;
}

/* "x_train.npy" -> "x_train" in the arena, unique among those before. */
static enum status member_name(const zip_stat_t *st, const char *where, const struct output *o, const char **ret,
                               struct problem *problem)
{
    size_t n = st->valid & ZIP_STAT_NAME ? strlen(st->name) : 0;

    if (n < 5 || strcmp(st->name + n - 4, ".npy") != 0)
        return fail(problem, ST_INVALID, where, "the archive's member \"%.128s\" is no .npy file", n ? st->name : "");
    const char *name = arena_print(o->mem, "%.*s", (int)(n - 4 < 200 ? n - 4 : 200), st->name);
    if (!name_valid(name))
        return fail(problem, ST_INVALID, where,
                    "the archive's member \"%.128s\" cannot name an array: letters, digits and ._- (not first), at most 128",
                    name);
    for (int i = 0; i < o->n; i++)
        if (strcmp(o->array[i].name, name) == 0)
            return fail(problem, ST_INVALID, where, "the archive has two members \"%.128s.npy\"", name);
    *ret = name;
    return ST_OK;
}

static enum status read_entry(zip_t *z, zip_uint64_t i, const char *where, struct output *o, bool named,
                              struct problem *problem)
{
    zip_stat_t st;
    const char *name = NULL;

    if (zip_stat_index(z, i, 0, &st) < 0)
        return fail(problem, ST_INVALID, where, "the archive's directory is damaged: %s", zip_strerror(z));
    TRY(member_name(&st, where, o, &name, problem));
    struct input in = {
        .where = named ? arena_print(o->mem, "%.120s/%.120s", where, name) : where, .read = read_member, .size = -1};
    if ((st.valid & ZIP_STAT_ENCRYPTION_METHOD) && st.encryption_method != ZIP_EM_NONE)
        return fail(problem, ST_INVALID, in.where, "the archive's member is encrypted");
    if (!(st.valid & ZIP_STAT_SIZE) || st.size > INT64_MAX)
        return fail(problem, ST_INVALID, in.where, "the archive does not say how large this member is");
    in.size = in.size_limit = (int64_t)st.size;
    in.state = zip_fopen_index(z, i, 0);
    if (!in.state)
        return fail(problem, ST_INVALID, in.where, "this member cannot be unpacked: %s", zip_strerror(z));
    enum status status = read_npy(&in, o, name, problem);
    (void)zip_fclose(in.state);
    return status;
}

enum status read_npz(int fd, const char *where, struct output *o, bool named, struct problem *problem)
{
    int error = 0, own = dup(fd);
    enum status status = ST_OK;

    if (own < 0)
        return fail_errno(problem, errno, where, "open the archive");
    zip_t *z = zip_fdopen(own, 0, &error);
    if (!z) {
        zip_error_t e;

        zip_error_init_with_code(&e, error);
        status = fail(problem, ST_INVALID, where,
                      "is no complete .npz (zip) archive: %s; an upload that was cut looks like this", zip_error_strerror(&e));
        zip_error_fini(&e);
        (void)close(own);
        return status;
    }
    zip_int64_t n = zip_get_num_entries(z, 0);
    if (n < 1)
        status = fail(problem, ST_INVALID, where, "the archive holds no arrays");
    else if (!named && n != 1)
        status = fail(problem, ST_INVALID, where,
                      "the archive holds %lld arrays; PUT it without an array's name, each gets its own", (long long)n);
    else if (n > MAX_INGEST_ARRAYS)
        status = fail(problem, ST_TOO_LARGE, where, "the archive holds %lld arrays, at most %d are read", (long long)n,
                      MAX_INGEST_ARRAYS);
    for (zip_int64_t i = 0; status == ST_OK && i < n; i++)
        status = read_entry(z, (zip_uint64_t)i, where, o, named, problem);
    zip_discard(z);
    return status;
}
