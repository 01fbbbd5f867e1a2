/* The only includer of hdf5.h, behind one process-wide mutex.
 *
 * A thin layer: files, groups, arrays of numbers, text attributes. Problems name the file as the user knows it (`where`) and the
 * path inside. Files that came from outside are opened with h5_open_foreign, which refuses external and soft links, external storage,
 * virtual datasets and filters other than deflate, shuffle and fletcher32; do that in the jailed child only. */
#ifndef HORN_STORAGE_HDF5_H
#define HORN_STORAGE_HDF5_H

#include "engine/base/arena.h"
#include "engine/graph/shape.h"

struct h5;

enum status h5_create(const char *path, const char *where, struct h5 **ret, struct problem *problem);
enum status h5_open(const char *path, const char *where, struct h5 **ret, struct problem *problem);
enum status h5_open_foreign(const char *path, const char *where, struct h5 **ret, struct problem *problem);
/* status of reading one of the daemon's own files at `path`: what would be the caller's mistake in an upload is ST_STORAGE here, and the
 * problem says that the file is missing or damaged. Other statuses stay. */
enum status h5_own(enum status status, const char *path, const char *where, struct problem *problem);
/* Reading ends, or writing is flushed and closed: its result counts (ST_DISK_FULL). f is freed in any case. NULL is fine. */
enum status h5_close(struct h5 *f, struct problem *problem);
struct h5 *h5_free(struct h5 *f); /* closes without asking for the result */
DEFINE_OWNED(struct h5, h5_free)

/* Groups on the way are made. Contiguous, little-endian, C order; rank 0 is a SCALAR dataspace. BOOL is h5py's enumeration, one
 * byte each. ST_DISK_FULL. */
enum status h5_write(struct h5 *f, const char *path, enum dtype type, const struct shape *shape, const void *data,
                     struct problem *problem);
enum status h5_group(struct h5 *f, const char *path, struct problem *problem); /* made if missing */
bool h5_exists(struct h5 *f, const char *path);
/* *type is the Horn type that holds every value of the stored one (int16 gives I32, uint32 and uint64 I64). ST_UNSUPPORTED: text,
 * compound and other types that are no numbers. */
enum status h5_shape(struct h5 *f, const char *path, enum dtype *type, struct shape *shape, struct problem *problem);
/* Converted to `type`; room for the whole array (shape from h5_shape). */
enum status h5_read(struct h5 *f, const char *path, enum dtype type, void *to, struct problem *problem);
/* Contiguous: byte offset of the data in the file, to be read by pread without HDF5. ST_UNSUPPORTED if chunked; an empty array has 0. */
enum status h5_offset(struct h5 *f, const char *path, int64_t *offset, struct problem *problem);
/* Space for a contiguous array that is then filled by pwrite at *offset, after h5_close (allocated early, not filled). */
enum status h5_reserve(struct h5 *f, const char *path, enum dtype type, const struct shape *shape, int64_t *offset,
                       struct problem *problem);
int h5_children(struct h5 *f, const char *group, struct arena *mem, const char ***names); /* in name order; -1: no group */
bool h5_is_array(struct h5 *f, const char *path);

/* Attributes: a text of any length (variable length, UTF-8), a list of texts (fixed length; split into chunks name0, name1 ... above
 * 64512 bytes, read back from either form and from every string type that Keras files hold; an empty list is float64 (0), as h5py
 * writes it). object "/" is the root. Absent, or of another kind: NULL / -1. */
enum status h5_put_text(struct h5 *f, const char *object, const char *name, const char *text, struct problem *problem);
enum status h5_put_texts(struct h5 *f, const char *object, const char *name, int n, const char *const *texts,
                         struct problem *problem);
const char *h5_text(struct h5 *f, const char *object, const char *name, struct arena *mem);
int h5_texts(struct h5 *f, const char *object, const char *name, struct arena *mem, const char ***texts);
int h5_attributes(struct h5 *f, const char *object, struct arena *mem, const char ***names); /* in name order; -1: no object */
#endif
