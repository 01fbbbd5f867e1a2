/* See hdf5.h. Layouts and string forms: what h5py writes and reads, so that Keras opens our files and we open its.
 *
 * The library keeps global state and its Debian build is not thread-safe: every public function holds the one mutex. A fork takes
 * it, so that a child never inherits it locked.
 *
 * Problems come from HDF5's error stack: the innermost entry says what happened, and a write that failed carries the errno in
 * its text ("... errno = 28, ..."), which is how a full disk is told from the rest. */
#include "storage/hdf5.h"

#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/text.h"

#define MAX_ATTRIBUTE   64512 /* bytes of a list of names in one attribute: Keras' HDF5_OBJECT_HEADER_LIMIT */
#define MAX_CHUNKS      10000 /* attributes name0, name1 ... of one list */
#define MAX_DEPTH       64    /* of groups in a foreign file */
#define MAX_OBJECTS     200000
#define MAX_FOREIGN_DIM ((hsize_t)1 << 47)

struct h5 {
    hid_t file;
    char where[256];
};

static pthread_mutex_t library = PTHREAD_MUTEX_INITIALIZER; /* guards everything in HDF5 */
static pthread_once_t started = PTHREAD_ONCE_INIT;
static hid_t half, bfloat, boolean; /* file and memory types that HDF5 has no names for */

static void library_lock(void)
{
    pthread_mutex_lock(&library);
}
static void library_unlock(void)
{
    pthread_mutex_unlock(&library);
}

static hid_t small_float(size_t sign, size_t exponent, size_t n_exponent, size_t n_mantissa, size_t bias)
{
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);

    (void)H5Tset_fields(t, sign, exponent, n_exponent, 0, n_mantissa);
    (void)H5Tset_size(t, 2);
    (void)H5Tset_ebias(t, bias);
    return t;
}

static void library_start(void)
{
    signed char no = 0, yes = 1;

    (void)H5dont_atexit();
    (void)H5open();
    (void)H5PLset_loading_state(0);
    half = small_float(15, 10, 5, 10, 15);
    bfloat = small_float(15, 7, 8, 7, 127);
    boolean = H5Tenum_create(H5T_STD_I8LE);
    (void)H5Tenum_insert(boolean, "FALSE", &no);
    (void)H5Tenum_insert(boolean, "TRUE", &yes);
    (void)pthread_atfork(library_lock, library_unlock, library_unlock);
}

static void enter(void)
{
    static _Thread_local bool silent; /* a thread-safe HDF5 has an error stack per thread, and prints it unless told */

    (void)pthread_once(&started, library_start);
    library_lock();
    if (!silent)
        silent = H5Eset_auto2(H5E_DEFAULT, NULL, NULL) >= 0;
}

static void leave(int *unused)
{
    (void)unused;
    library_unlock();
}
/* The rest of the scope holds the mutex. */
#define LOCKED                                               \
    __attribute__((cleanup(leave), unused)) int locked_ = 0; \
    enter()

static void close_id(const hid_t *id)
{
    if (*id >= 0 && H5Iis_valid(*id) > 0)
        (void)H5Idec_ref(*id);
}
#define ID CLEAN(close_id) hid_t

/* --- problems ------------------------------------------------------------------------------------------------------------ */

struct stack_text {
    char first[160];
    bool full;
};

static herr_t read_stack(unsigned n, const H5E_error2_t *e, void *arg)
{
    struct stack_text *t = arg;

    (void)n;
    if (!e->desc)
        return 0;
    if (!*t->first)
        snprintf(t->first, sizeof t->first, "%s", e->desc);
    const char *at = strstr(e->desc, "errno = ");
    int error = at ? atoi(at + 8) : 0;
    t->full = t->full || error == ENOSPC || error == EDQUOT || error == EFBIG;
    return 0;
}

static enum status fail_h5(const struct h5 *f, const char *path, const char *doing, struct problem *problem)
{
    struct stack_text t = {.first = ""};
    char where[256];

    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, read_stack, &t);
    (void)H5Eclear2(H5E_DEFAULT);
    snprintf(where, sizeof where, "%.120s%s%.120s", f->where, path && *path ? ":" : "", path ? path : "");
    if (t.full)
        return fail(problem, ST_DISK_FULL, where, "could not %s: no space left on the disk", doing);
    return fail(problem, ST_STORAGE, where, "could not %s: %s", doing, *t.first ? t.first : "HDF5 gave no reason");
}

static enum status fail_at(const struct h5 *f, const char *path, enum status status, const char *detail,
                           struct problem *problem)
{
    char where[256];

    snprintf(where, sizeof where, "%.120s:%.120s", f->where, path);
    return fail(problem, status, where, "%s", detail);
}

/* --- types --------------------------------------------------------------------------------------------------------------- */

static hid_t type_of(enum dtype t)
{
    switch (t) {
    case F32:
        return H5T_IEEE_F32LE;
    case F16:
        return half;
    case BF16:
        return bfloat;
    case F64:
        return H5T_IEEE_F64LE;
    case I64:
        return H5T_STD_I64LE;
    case I32:
        return H5T_STD_I32LE;
    case U8:
        return H5T_STD_U8LE;
    case BOOL:
        return boolean;
    case N_DTYPES:
        break;
    }
    return H5I_INVALID_HID;
}

/* h5py's numpy.bool_: an enumeration of two members over int8. */
static bool is_boolean(hid_t type)
{
    return H5Tget_class(type) == H5T_ENUM && H5Tget_size(type) == 1 && H5Tget_nmembers(type) == 2;
}

static bool dtype_of(hid_t type, enum dtype *ret)
{
    size_t bytes = H5Tget_size(type);

    if (is_boolean(type)) {
        *ret = BOOL;
        return true;
    }
    if (H5Tget_class(type) == H5T_FLOAT) {
        size_t sign, exponent, n_exponent, mantissa, n_mantissa;

        if (bytes == 2 && H5Tget_fields(type, &sign, &exponent, &n_exponent, &mantissa, &n_mantissa) >= 0)
            *ret = n_exponent == 8 ? BF16 : F16;
        else
            *ret = bytes <= 4 ? F32 : F64;
        return bytes == 2 || bytes == 4 || bytes == 8;
    }
    if (H5Tget_class(type) == H5T_INTEGER) {
        bool natural = H5Tget_sign(type) == H5T_SGN_NONE;

        *ret = bytes == 1 && natural ? U8 : bytes < 4 || (bytes == 4 && !natural) ? I32 : I64;
        return bytes <= 8;
    }
    return false;
}

static hid_t space_of(const struct shape *s)
{
    hsize_t dim[MAX_RANK];

    if (s->rank == 0)
        return H5Screate(H5S_SCALAR);
    for (int i = 0; i < s->rank; i++)
        dim[i] = (hsize_t)s->dim[i];
    return H5Screate_simple(s->rank, dim, NULL);
}

/* --- files --------------------------------------------------------------------------------------------------------------- */

static struct h5 *new_file(hid_t file, const char *where)
{
    struct h5 *f = must_alloc(sizeof *f);

    f->file = file;
    snprintf(f->where, sizeof f->where, "%s", where);
    return f;
}

static enum status open_file(const char *path, const char *where, struct h5 **ret, struct problem *problem)
{
    struct h5 named = {0};
    hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);

    if (file >= 0) {
        *ret = new_file(file, where);
        return ST_OK;
    }
    snprintf(named.where, sizeof named.where, "%s", where);
    htri_t is_hdf5 = H5Fis_hdf5(path);
    (void)H5Eclear2(H5E_DEFAULT);
    if (is_hdf5 == 0)
        return fail(problem, ST_INVALID, where, "is no HDF5 file (its signature is missing)");
    return fail(problem, ST_INVALID, where, "cannot be opened as an HDF5 file: it is damaged or not complete");
}

/* --- foreign files ------------------------------------------------------------------------------------------------------- */

struct visit {
    const struct h5 *f;
    struct problem *problem;
    char path[512];
    int depth, n_objects;
    enum status status;
};

static enum status refuse(const struct visit *v, const char *what)
{
    return fail_at(v->f, v->path, ST_INVALID, what, v->problem);
}

static enum status check_foreign_array(struct visit *v, hid_t object)
{
    ID plist = H5Dget_create_plist(object), space = H5Dget_space(object);
    hsize_t dim[H5S_MAX_RANK];

    if (plist < 0 || space < 0)
        return fail_h5(v->f, v->path, "look at the array", v->problem);
    if (H5Pget_layout(plist) == H5D_VIRTUAL)
        return refuse(v, "is a virtual dataset, whose data lie in other files; these are not read");
    if (H5Pget_external_count(plist) > 0)
        return refuse(v, "has its data in external files; these are not read");
    int n = H5Pget_nfilters(plist);
    for (int i = 0; i < n; i++) {
        unsigned flags, config;
        size_t no_values = 0;
        char name[64] = "", text[160];
        H5Z_filter_t id = H5Pget_filter2(plist, (unsigned)i, &flags, &no_values, NULL, sizeof name, name, &config);

        if (id == H5Z_FILTER_DEFLATE || id == H5Z_FILTER_SHUFFLE || id == H5Z_FILTER_FLETCHER32)
            continue;
        snprintf(text, sizeof text, "is stored with the filter %d (%.60s); deflate, shuffle and fletcher32 are read", (int)id,
                 name);
        return refuse(v, text);
    }
    int rank = H5Sget_simple_extent_dims(space, dim, NULL);
    if (rank > MAX_RANK)
        return refuse(v, "has more than 8 dimensions");
    for (int i = 0; i < rank; i++)
        if (dim[i] > MAX_FOREIGN_DIM)
            return refuse(v, "has a dimension above 2^47");
    return ST_OK;
}

static herr_t check_foreign(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    struct visit *v = arg;
    size_t length = strlen(v->path);

    if (length + strlen(name) + 2 > sizeof v->path) {
        v->status = refuse(v, "holds names that are too long");
        return -1;
    }
    snprintf(v->path + length, sizeof v->path - length, "/%s", name);
    if (info->type == H5L_TYPE_EXTERNAL)
        v->status = refuse(v, "is a link into another file; these are not followed");
    else if (info->type == H5L_TYPE_SOFT)
        v->status = refuse(v, "is a soft link; these are not followed");
    else if (info->type != H5L_TYPE_HARD)
        v->status = refuse(v, "is a link of an unknown kind");
    else if (++v->n_objects > MAX_OBJECTS)
        v->status = refuse(v, "is one of more than 200000 objects");
    if (v->status != ST_OK)
        return -1;

    ID object = H5Oopen(group, name, H5P_DEFAULT);
    H5I_type_t kind = object < 0 ? H5I_BADID : H5Iget_type(object);
    if (kind == H5I_DATASET) {
        v->status = check_foreign_array(v, object);
    } else if (kind == H5I_GROUP && v->depth == MAX_DEPTH) {
        v->status = refuse(v, "lies deeper than 64 groups");
    } else if (kind == H5I_GROUP) {
        v->depth++;
        if (H5Literate(object, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, check_foreign, v) < 0 && v->status == ST_OK)
            v->status = fail_h5(v->f, v->path, "look into the group", v->problem);
        v->depth--;
    } else {
        v->status = refuse(v, kind == H5I_BADID ? "cannot be opened: the file is damaged" : "is neither a group nor an array");
    }
    v->path[length] = 0;
    return v->status == ST_OK ? 0 : -1;
}

/* --- objects ------------------------------------------------------------------------------------------------------------- */

/* Each part of the path must be there before the next is asked for: H5Lexists fails on a missing middle. */
static bool exists(const struct h5 *f, const char *path)
{
    char part[1024];
    size_t n = strlen(path);

    if (strspn(path, "/") == n)
        return true;
    if (n >= sizeof part)
        return false;
    memcpy(part, path, n + 1);
    for (char *p = part + strspn(part, "/"); (p = strchr(p, '/')); *p++ = '/') {
        *p = 0;
        if (H5Lexists(f->file, part, H5P_DEFAULT) <= 0) {
            (void)H5Eclear2(H5E_DEFAULT);
            return false;
        }
    }
    bool found = H5Lexists(f->file, part, H5P_DEFAULT) > 0;
    (void)H5Eclear2(H5E_DEFAULT);
    return found;
}

static hid_t link_plist(void)
{
    hid_t p = H5Pcreate(H5P_LINK_CREATE);

    (void)H5Pset_create_intermediate_group(p, 1);
    return p;
}

static enum status create_array(struct h5 *f, const char *path, enum dtype type, const struct shape *shape, hid_t *ret,
                                struct problem *problem)
{
    ID space = space_of(shape), create = H5Pcreate(H5P_DATASET_CREATE), link = link_plist();

    /* Early and unfilled: the place is known at once, and nothing is written twice. */
    (void)H5Pset_layout(create, H5D_CONTIGUOUS);
    (void)H5Pset_alloc_time(create, H5D_ALLOC_TIME_EARLY);
    (void)H5Pset_fill_time(create, H5D_FILL_TIME_NEVER);
    (void)H5Pset_obj_track_times(create, false); /* the same weights give the same bytes */
    *ret = H5Dcreate2(f->file, path, type_of(type), space, link, create, H5P_DEFAULT);
    return *ret < 0 ? fail_h5(f, path, "make the array", problem) : ST_OK;
}

static enum status open_array(struct h5 *f, const char *path, hid_t *ret, struct problem *problem)
{
    if (!exists(f, path))
        return fail_at(f, path, ST_INVALID, "is missing in the file", problem);
    *ret = H5Dopen2(f->file, path, H5P_DEFAULT);
    if (*ret < 0) {
        (void)H5Eclear2(H5E_DEFAULT);
        return fail_at(f, path, ST_INVALID, "is no array", problem);
    }
    return ST_OK;
}

/* --- attributes ---------------------------------------------------------------------------------------------------------- */

static enum status put_attribute(struct h5 *f, const char *object, const char *name, hid_t type, hid_t space, const void *data,
                                 struct problem *problem)
{
    ID o = H5Oopen(f->file, object, H5P_DEFAULT);

    if (o < 0)
        return fail_h5(f, object, "open the object of an attribute", problem);
    if (H5Aexists(o, name) > 0 && H5Adelete(o, name) < 0)
        return fail_h5(f, object, "replace an attribute", problem);
    ID a = H5Acreate2(o, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    if (a < 0 || (data && H5Awrite(a, type, data) < 0))
        return fail_h5(f, object, "write an attribute", problem);
    return ST_OK;
}

static hid_t text_type(size_t bytes, H5T_str_t padding, H5T_cset_t set)
{
    hid_t t = H5Tcopy(H5T_C_S1);

    (void)H5Tset_size(t, bytes);
    (void)H5Tset_strpad(t, padding);
    (void)H5Tset_cset(t, set);
    return t;
}

static enum status put_chunk(struct h5 *f, const char *object, const char *name, int n, const char *const *texts,
                             size_t longest, struct problem *problem)
{
    char *block = must_alloc((size_t)n * longest);
    hsize_t dim = (hsize_t)n;
    ID type = text_type(longest, H5T_STR_NULLPAD, H5T_CSET_ASCII), space = H5Screate_simple(1, &dim, NULL);

    for (int i = 0; i < n; i++)
        memcpy(block + (size_t)i * longest, texts[i], strlen(texts[i]));
    enum status status = put_attribute(f, object, name, type, space, block, problem);
    free(block);
    return status;
}

/* A text or a list of texts; -1: absent or of another kind. scalar: which of both is asked for. */
static int read_texts(struct h5 *f, const char *object, const char *name, bool scalar, struct arena *mem, const char ***ret)
{
    ID o = exists(f, object) ? H5Oopen(f->file, object, H5P_DEFAULT) : H5I_INVALID_HID;

    if (o < 0 || H5Aexists(o, name) <= 0)
        return -1;
    ID a = H5Aopen(o, name, H5P_DEFAULT), type = H5Aget_type(a), space = H5Aget_space(a);
    if (a < 0 || type < 0 || space < 0)
        return -1;
    hssize_t n = H5Sget_simple_extent_npoints(space);
    if (n < 0 || n > 10000000)
        return -1;
    if (scalar != (H5Sget_simple_extent_type(space) == H5S_SCALAR))
        return -1;
    if (n == 0) { /* of any type: h5py's empty list is one of float64 */
        *ret = ARENA_ARRAY(mem, const char *, 1);
        return 0;
    }
    if (H5Tget_class(type) != H5T_STRING)
        return -1;

    const char **texts = ARENA_ARRAY(mem, const char *, n);
    if (H5Tis_variable_str(type) > 0) {
        char **read = must_alloc(sizeof *read * (size_t)n);
        ID memory = text_type(H5T_VARIABLE, H5T_STR_NULLTERM, H5Tget_cset(type));

        if (H5Aread(a, memory, read) < 0) {
            free(read);
            return -1;
        }
        for (hssize_t i = 0; i < n; i++)
            texts[i] = arena_text(mem, read[i] ? read[i] : "");
        (void)H5Dvlen_reclaim(memory, space, H5P_DEFAULT, read);
        free(read);
    } else {
        size_t bytes = H5Tget_size(type), all;

        if (!size_mul(bytes, (size_t)n, &all) || all > (size_t)256 << 20)
            return -1;
        char *block = must_alloc(all + 1);
        if (H5Aread(a, type, block) < 0) {
            free(block);
            return -1;
        }
        for (hssize_t i = 0; i < n; i++) {
            const char *at = block + (size_t)i * bytes;
            size_t length = strnlen(at, bytes);

            if (H5Tget_strpad(type) == H5T_STR_SPACEPAD)
                while (length > 0 && at[length - 1] == ' ')
                    length--;
            texts[i] = arena_print(mem, "%.*s", (int)length, at);
        }
        free(block);
    }
    *ret = texts;
    return (int)n;
}

struct names {
    struct arena *mem;
    int n, room;
    const char **v;
};

static void names_add(struct names *l, const char *name)
{
    if (l->n == l->room) {
        const char **grown = ARENA_ARRAY(l->mem, const char *, l->room * 2 + 16);

        if (l->n)
            memcpy(grown, l->v, sizeof *grown * (size_t)l->n);
        l->v = grown;
        l->room = l->room * 2 + 16;
    }
    l->v[l->n++] = arena_text(l->mem, name);
}

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *arg)
{
    (void)group, (void)info;
    names_add(arg, name);
    return 0;
}

static herr_t add_attribute(hid_t object, const char *name, const H5A_info_t *info, void *arg)
{
    (void)object, (void)info;
    names_add(arg, name);
    return 0;
}

/* --- public -------------------------------------------------------------------------------------------------------------- */

enum status h5_create(const char *path, const char *where, struct h5 **ret, struct problem *problem)
{
    LOCKED;
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    struct h5 *f = new_file(file, where);

    if (file < 0) {
        enum status status = fail_h5(f, "", "make the file", problem);
        free(f);
        return status;
    }
    *ret = f;
    return ST_OK;
}

enum status h5_open(const char *path, const char *where, struct h5 **ret, struct problem *problem)
{
    LOCKED;
    return open_file(path, where, ret, problem);
}

enum status h5_open_foreign(const char *path, const char *where, struct h5 **ret, struct problem *problem)
{
    LOCKED;
    struct h5 *f;

    TRY(open_file(path, where, &f, problem));
    struct visit v = {.f = f, .problem = problem};
    if (H5Literate(f->file, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, check_foreign, &v) < 0 && v.status == ST_OK)
        v.status = fail_h5(f, "/", "look into the file", problem);
    (void)H5Eclear2(H5E_DEFAULT);
    if (v.status != ST_OK) {
        (void)H5Fclose(f->file);
        free(f);
        return v.status;
    }
    *ret = f;
    return ST_OK;
}

enum status h5_own(enum status status, const char *path, const char *where, struct problem *problem)
{
    char detail[sizeof problem->detail];

    if (status != ST_INVALID && status != ST_UNSUPPORTED)
        return status;
    if (access(path, R_OK) < 0)
        return fail(problem, ST_STORAGE, where, "the stored file cannot be read: %s", strerror(errno));
    memcpy(detail, problem->detail, sizeof detail);
    return fail(problem, ST_STORAGE, where, "the stored file is damaged: %.900s", detail);
}

enum status h5_close(struct h5 *f, struct problem *problem)
{
    enum status status = ST_OK;

    if (!f)
        return ST_OK;
    LOCKED;
    /* Flush first: its errors are plain, and a file that failed it is closed anyway. */
    if (H5Fflush(f->file, H5F_SCOPE_LOCAL) < 0)
        status = fail_h5(f, "", "write the file", problem);
    if (H5Fclose(f->file) < 0 && status == ST_OK)
        status = fail_h5(f, "", "close the file", problem);
    (void)H5Eclear2(H5E_DEFAULT);
    free(f);
    return status;
}

struct h5 *h5_free(struct h5 *f)
{
    if (!f)
        return NULL;
    LOCKED;
    (void)H5Fclose(f->file);
    (void)H5Eclear2(H5E_DEFAULT);
    free(f);
    return NULL;
}

enum status h5_write(struct h5 *f, const char *path, enum dtype type, const struct shape *shape, const void *data,
                     struct problem *problem)
{
    LOCKED;
    ID array = H5I_INVALID_HID;

    TRY(create_array(f, path, type, shape, &array, problem));
    if (shape_count(shape) > 0 && H5Dwrite(array, type_of(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        return fail_h5(f, path, "write the array", problem);
    return ST_OK;
}

enum status h5_group(struct h5 *f, const char *path, struct problem *problem)
{
    LOCKED;
    if (exists(f, path))
        return ST_OK;
    ID link = link_plist(), create = H5Pcreate(H5P_GROUP_CREATE);
    ID group = H5Gcreate2(f->file, path, link, create, H5P_DEFAULT);
    return group < 0 ? fail_h5(f, path, "make the group", problem) : ST_OK;
}

bool h5_exists(struct h5 *f, const char *path)
{
    LOCKED;
    return exists(f, path);
}

enum status h5_shape(struct h5 *f, const char *path, enum dtype *type, struct shape *shape, struct problem *problem)
{
    LOCKED;
    ID array = H5I_INVALID_HID;
    hsize_t dim[H5S_MAX_RANK] = {0};
    struct shape s = SCALAR;

    TRY(open_array(f, path, &array, problem));
    ID stored = H5Dget_type(array), space = H5Dget_space(array);
    if (stored < 0 || space < 0)
        return fail_h5(f, path, "look at the array", problem);
    if (!dtype_of(stored, type))
        return fail_at(f, path, ST_UNSUPPORTED, "holds no numbers (float16, 32, 64, integers up to 64 bits, bool)", problem);
    if (H5Sget_simple_extent_type(space) == H5S_NULL)
        return fail_at(f, path, ST_UNSUPPORTED, "has no data at all (a null dataspace)", problem);
    s.rank = H5Sget_simple_extent_ndims(space);
    if (s.rank < 0 || s.rank > MAX_RANK)
        return fail_at(f, path, ST_UNSUPPORTED, "has more than 8 dimensions", problem);
    (void)H5Sget_simple_extent_dims(space, dim, NULL);
    for (int i = 0; i < s.rank; i++)
        s.dim[i] = dim[i] > MAX_FOREIGN_DIM ? (int64_t)MAX_FOREIGN_DIM : (int64_t)dim[i];
    TRY(shape_checked(&s, f->where, problem));
    *shape = s;
    return ST_OK;
}

enum status h5_read(struct h5 *f, const char *path, enum dtype type, void *to, struct problem *problem)
{
    LOCKED;
    ID array = H5I_INVALID_HID;

    TRY(open_array(f, path, &array, problem));
    ID stored = H5Dget_type(array);
    /* An enumeration becomes a number by way of int8, and comes back as the enumeration only from its like. */
    hid_t memory = type == BOOL && !is_boolean(stored) ? H5T_STD_U8LE : type_of(type);
    if (H5Dread(array, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0)
        return fail_h5(f, path, "read the array", problem);
    return ST_OK;
}

enum status h5_offset(struct h5 *f, const char *path, int64_t *offset, struct problem *problem)
{
    LOCKED;
    ID array = H5I_INVALID_HID;

    TRY(open_array(f, path, &array, problem));
    ID create = H5Dget_create_plist(array), space = H5Dget_space(array);
    if (H5Pget_layout(create) != H5D_CONTIGUOUS)
        return fail_at(f, path, ST_UNSUPPORTED, "is not contiguous", problem);
    haddr_t at = H5Dget_offset(array);
    (void)H5Eclear2(H5E_DEFAULT);
    if (at == HADDR_UNDEF && H5Sget_simple_extent_npoints(space) > 0)
        return fail_at(f, path, ST_UNSUPPORTED, "has no space in the file yet", problem);
    *offset = at == HADDR_UNDEF ? 0 : (int64_t)at;
    return ST_OK;
}

enum status h5_reserve(struct h5 *f, const char *path, enum dtype type, const struct shape *shape, int64_t *offset,
                       struct problem *problem)
{
    {
        LOCKED;
        ID array = H5I_INVALID_HID;

        TRY(create_array(f, path, type, shape, &array, problem));
    }
    return h5_offset(f, path, offset, problem);
}

int h5_children(struct h5 *f, const char *group, struct arena *mem, const char ***names)
{
    LOCKED;
    struct names l = {.mem = mem};
    ID g = exists(f, group) ? H5Gopen2(f->file, group, H5P_DEFAULT) : H5I_INVALID_HID;

    if (g < 0 || H5Literate(g, H5_INDEX_NAME, H5_ITER_INC, NULL, add_link, &l) < 0) {
        (void)H5Eclear2(H5E_DEFAULT);
        return -1;
    }
    *names = l.v;
    return l.n;
}

bool h5_is_array(struct h5 *f, const char *path)
{
    LOCKED;
    ID o = exists(f, path) ? H5Oopen(f->file, path, H5P_DEFAULT) : H5I_INVALID_HID;

    bool array = o >= 0 && H5Iget_type(o) == H5I_DATASET;
    (void)H5Eclear2(H5E_DEFAULT);
    return array;
}

enum status h5_put_text(struct h5 *f, const char *object, const char *name, const char *text, struct problem *problem)
{
    LOCKED;
    ID type = text_type(H5T_VARIABLE, H5T_STR_NULLTERM, H5T_CSET_UTF8), space = H5Screate(H5S_SCALAR);

    return put_attribute(f, object, name, type, space, &text, problem);
}

/* How Keras splits: into the fewest parts, nearly equal as numpy.array_split makes them, none of them above the limit. */
static int parts_of(int n, size_t longest)
{
    int parts = 1;

    while ((size_t)((n + parts - 1) / parts) * longest > MAX_ATTRIBUTE)
        parts++;
    return parts;
}

enum status h5_put_texts(struct h5 *f, const char *object, const char *name, int n, const char *const *texts,
                         struct problem *problem)
{
    LOCKED;
    size_t longest = 1;

    if (n == 0) {
        hsize_t none = 0;
        ID space = H5Screate_simple(1, &none, NULL);

        return put_attribute(f, object, name, H5T_IEEE_F64LE, space, NULL, problem);
    }
    for (int i = 0; i < n; i++)
        longest = strlen(texts[i]) > longest ? strlen(texts[i]) : longest;
    if (longest > MAX_ATTRIBUTE)
        return fail(problem, ST_INVALID, f->where, "a name of %zu bytes does not fit into the attribute %s; at most %d do",
                    longest, name, MAX_ATTRIBUTE);
    int parts = parts_of(n, longest);
    if (parts == 1)
        return put_chunk(f, object, name, n, texts, longest, problem);
    for (int i = 0, at = 0; i < parts; i++) {
        int length = n / parts + (i < n % parts);
        char part[300];

        snprintf(part, sizeof part, "%.256s%d", name, i);
        TRY(put_chunk(f, object, part, length, texts + at, longest, problem));
        at += length;
    }
    return ST_OK;
}

const char *h5_text(struct h5 *f, const char *object, const char *name, struct arena *mem)
{
    LOCKED;
    const char **texts;
    int n = read_texts(f, object, name, true, mem, &texts);

    (void)H5Eclear2(H5E_DEFAULT);
    return n == 1 ? texts[0] : NULL;
}

int h5_texts(struct h5 *f, const char *object, const char *name, struct arena *mem, const char ***texts)
{
    LOCKED;
    struct names all = {.mem = mem};
    int n = read_texts(f, object, name, false, mem, texts);

    for (int i = 0; n < 0 && i < MAX_CHUNKS; i++) {
        char part[300];
        const char **some;

        snprintf(part, sizeof part, "%.256s%d", name, i);
        int m = read_texts(f, object, part, false, mem, &some);
        if (m < 0) {
            if (i > 0) {
                *texts = all.v;
                n = all.n;
            }
            break;
        }
        for (int k = 0; k < m; k++)
            names_add(&all, some[k]);
    }
    (void)H5Eclear2(H5E_DEFAULT);
    return n;
}

int h5_attributes(struct h5 *f, const char *object, struct arena *mem, const char ***names)
{
    LOCKED;
    struct names l = {.mem = mem};
    ID o = exists(f, object) ? H5Oopen(f->file, object, H5P_DEFAULT) : H5I_INVALID_HID;

    if (o < 0 || H5Aiterate2(o, H5_INDEX_NAME, H5_ITER_INC, NULL, add_attribute, &l) < 0) {
        (void)H5Eclear2(H5E_DEFAULT);
        return -1;
    }
    *names = l.v;
    return l.n;
}
