/* Between the daemon and the child that reads what strangers sent.
 *
 *   daemon                                         child (hornd --ingest, or a fork in tests)
 *   folder tmp/XXXXXX/ with the upload as "in"  -> enters the folder, gives up everything else (jail.c), reads "in",
 *   checks the answer as it would a stranger's  <- writes "0.h5", "1.h5" ... and one line of JSON on a pipe
 *
 * A reader of a format is a function that takes an input and writes arrays by an output. Both are bounded: memory by the block
 * size, files by limits.bytes. What the daemon knows about the upload it says in `where`; readers add what is inside. */
#ifndef HORN_STORAGE_INGEST_INGEST_H
#define HORN_STORAGE_INGEST_INGEST_H

#include "storage/datasets.h"

#define MAX_INGEST_ARRAYS 1024
#define INGEST_BLOCK      (256 << 10) /* bytes read or written at a time */

/* --- the daemon's side: run.c -------------------------------------------------------------------------------------------- */

struct ingest_array {
    const char *name; /* NULL: the one array of the upload */
    const char *file; /* in the folder */
    enum dtype type;
    struct shape shape;
    int64_t bytes, offset;
    double min, max, mean;
    const char *columns;
};

struct ingest_answer {
    int n;
    struct ingest_array *array; /* in arena */
};

/* format: "npy", "npz", "idx", "csv", "model" or "" (by the first bytes). array: the name it is put under, NULL: the file names its
 * arrays. Problems are the child's, or ST_INVALID when the file made it exceed its limits or end. */
enum status ingest_run(const char *folder, const char *format, const char *array, const char *where,
                       const struct ingest_limits *limits, struct arena *mem, struct ingest_answer *ret,
                       struct problem *problem);

/* --- the child's side ---------------------------------------------------------------------------------------------------- */

/* What is read: the file itself, what gzip holds, or a member of an archive. */
struct input {
    const char *where;
    int64_t size; /* bytes in all; -1: unknown, then size_limit says what they can be at most */
    int64_t size_limit;
    int64_t taken;                                                                                       /* bytes read so far */
    enum status (*read)(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem); /* got 0: the end */
    enum status (*rewind)(struct input *in, struct problem *problem);                                    /* NULL: cannot */
    void *state;
};
/* Reads until `bytes` are there or the input ends. */
enum status input_fill(struct input *in, void *to, size_t bytes, size_t *got, struct problem *problem);
/* "the header says 10 elements of 4 bytes, the file holds 36 bytes": compares with what is left; exact where the size is known. */
enum status input_expect(const struct input *in, int64_t elements, size_t element_bytes, struct problem *problem);
/* The same, found while reading: `got` bytes of the body were there. */
enum status input_short(const struct input *in, int64_t elements, size_t element_bytes, int64_t got, struct problem *problem);
/* A file, through gzip if its first bytes say so. */
enum status input_open(int fd, const char *where, struct input *ret, struct problem *problem);
void input_close(struct input *in);

/* How the elements of a format lie in its file, and what Horn stores for them. */
struct element {
    const char *name; /* numpy's: "int16" */
    char kind;        /* as in numpy's type codes: b i u f */
    size_t bytes;
    enum dtype stored;
};
const struct element *element_find(char kind, size_t bytes); /* NULL: not a number that Horn stores */
struct statistics {
    double min, max, sum;
    int64_t n; /* numbers; NaN aside */
};
/* n elements from `in` (foreign: the other byte order) to `out` as e->stored. ST_INVALID: an uint64 above 2^63 - 1. */
enum status element_convert(const struct element *e, bool foreign, const void *in, int64_t n, void *out, struct statistics *s,
                            const char *where, struct problem *problem);

/* Files of the answer. */
struct output {
    const struct ingest_limits *limits;
    struct arena *mem;
    int64_t bytes; /* of all arrays so far */
    int n;
    struct ingest_array *array; /* room for MAX_INGEST_ARRAYS */
};
struct output_array {
    int fd;
    int64_t at, end; /* in the file */
    struct ingest_array *row;
    struct statistics s;
};
/* Reserves the array's file. ST_TOO_LARGE against limits.bytes. name NULL: the upload's one array. */
enum status output_begin(struct output *o, const char *name, enum dtype type, const struct shape *shape, const char *where,
                         struct output_array *ret, struct problem *problem);
enum status output_write(struct output_array *a, const void *data, size_t bytes, const char *where, struct problem *problem);
enum status output_end(struct output_array *a, const char *where, struct problem *problem); /* statistics into the row */
void output_drop(struct output_array *a);                                                   /* for CLEAN */

/* Elements from the input to a new array: the common end of npy and IDX. fortran: the first index runs fastest. */
enum status copy_elements(struct input *in, struct output *o, const char *name, const struct element *e, bool foreign,
                          bool fortran, const struct shape *shape, struct problem *problem);

/* Readers. `named`: arrays are to be named by the file. */
enum status read_npy(struct input *in, struct output *o, const char *name, struct problem *problem);
enum status read_idx(struct input *in, struct output *o, const char *name, struct problem *problem);
enum status read_npz(int fd, const char *where, struct output *o, bool named, struct problem *problem);
enum status read_csv(struct input *in, struct output *o, bool named, struct problem *problem);
enum status read_model(const char *path, const char *where, struct output *o, struct problem *problem);

/* The whole upload `fd` by format. */
enum status read_upload(int fd, const char *format, bool named, const char *where, struct output *o, struct problem *problem);

/* Gives up what the child does not need; afterwards only the working directory can be reached. */
enum status jail_enter(const struct ingest_limits *limits, struct problem *problem);
/* Enters the jail, reads "in" of the working directory, answers on `answer`, does not return. */
_Noreturn void ingest_child(const char *format, bool named, const char *where, const struct ingest_limits *limits, int answer);

#endif
