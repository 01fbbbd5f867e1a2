/* Datasets: a name over named arrays, each one complete file in Horn's own HDF5 form (one contiguous array "/data").
 *
 * An upload is streamed to a temporary file, read by a jailed child (ingest/) that writes Horn's form, then placed and given
 * rows. A PUT over an array writes a new file; a job holds the rows (array ids) it saw; the old file goes with its last job. */
#ifndef HORN_STORAGE_DATASETS_H
#define HORN_STORAGE_DATASETS_H

#include "engine/run/batch.h"
#include "storage/db.h"

struct array_row {
    int64_t id;
    const char *name; /* of the array */
    enum dtype type;
    struct shape shape;
    int64_t bytes, file_offset; /* of the data in the file */
    const char *path;           /* under the folder */
    double min, max, mean;      /* NaN for an empty array */
    const char *columns;        /* CSV: JSON array of header names, or NULL */
};

struct dataset_row {
    int64_t id;
    const char *name;
    int n_arrays;
    struct array_row *arrays; /* in name order */
    int64_t created_ms;
};

struct ingest_limits {
    int64_t bytes; /* of Horn's form */
    int seconds;
    int64_t memory; /* of the child */
};

/* How to start the jailed child: argv[0] of hornd (for tests: a path), NULL: run in a forked child of this process. */
void ingest_program(const char *path);
/* stop: children that read now are ended and no more are started (ST_BUSY), until it is called with false. */
void ingest_stop(bool stop);
/* The hidden argument of hornd: main hands over when argv[1] is "--ingest". Returns the exit code. */
int ingest_main(int argc, char **argv);

/* upload: finished temporary file of db_temp; taken: it is gone afterwards, whatever the outcome. format: "npy", "npz", "idx", "csv", ""
 * or NULL (by content_type, then by the first bytes); each may be gzipped. array NULL: the file names its arrays; those that the data
 * set has beside them stay. ST_INVALID, ST_MEDIA, ST_TOO_LARGE with where "mnist/x_train". ret, all arrays of the set, in mem.
 *
 * npz: each member "NAME.npy" is the array NAME. CSV with array NULL: "data", float32 (rows, columns), and with a header each column
 * whose name can name an array (the first 64) once more as an array (rows). CSV as one array: (rows, columns), float32; a lone column
 * (rows). A column by itself is int32 if all of its cells are integers that fit, else float32.
 * Stored types: bool, uint8 as they are; int8, int16, uint16, int32 as int32; uint32, int64, uint64 as int64; float16, float32 as
 * float32; float64. Statistics leave NaN aside. */
enum status datasets_put(struct db *db, const char *dataset, const char *array, const char *upload, const char *format,
                         const char *content_type, const struct ingest_limits *limits, struct arena *mem,
                         struct dataset_row *ret, struct problem *problem);
enum status datasets_get(struct db *db, const char *name, struct arena *mem, struct dataset_row *ret, struct problem *problem);
enum status datasets_list(struct db *db, struct arena *mem, struct dataset_row **rows, int *n, struct problem *problem);
enum status datasets_delete(struct db *db, const char *name,
                            struct problem *problem); /* ST_CONFLICT: a job that is not over uses it */
/* "mnist/x_train" now; where for problems. ST_NOT_FOUND says which of both is missing and lists what there is. */
enum status datasets_resolve(struct db *db, const char *reference, const char *where, struct arena *mem, struct array_row *ret,
                             struct problem *problem);
enum status datasets_array(struct db *db, int64_t id, struct arena *mem, struct array_row *ret, struct problem *problem);

/* A result of a bulk prediction: rows appended as they come, then named as an array of a dataset. */
struct array_writer;
enum status array_writer_new(struct db *db, const struct shape *shape, struct array_writer **ret, struct problem *problem);
enum status array_writer_add(struct array_writer *w, const float *rows, int64_t n, struct problem *problem);
/* All rows must be there. May be called again after ST_DISK_FULL. */
enum status array_writer_finish(struct array_writer *w, const char *dataset, const char *array, struct problem *problem);
struct array_writer *array_writer_free(struct array_writer *w);
DEFINE_OWNED(struct array_writer, array_writer_free)

#endif
