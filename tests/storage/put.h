/* Uploads of the tests of datasets and of ingest. */
#ifndef HORN_TESTS_STORAGE_PUT_H
#define HORN_TESTS_STORAGE_PUT_H

#include "storage/datasets.h"
#include "tests/storage/scratch.h"

struct bench { /* a database and room for rows */
    struct scratch s;
    struct db *db;
    struct arena *mem;
    struct dataset_row d; /* of the last put */
    struct problem problem;
    struct ingest_limits limits;
};
/* CHECK_OK for a call that fills b.problem, with a struct bench b in scope. */
#define BENCH_OK(call)                                                                                   \
    do {                                                                                                 \
        if ((call) != ST_OK)                                                                             \
            fail_msg("%s:%d: %s: %s: %s", __FILE__, __LINE__, #call, b.problem.where, b.problem.detail); \
    } while (0)
struct bench bench_make(void);
void bench_done(struct bench *b);

/* PUT /datasets/d[/array]: result and problem in b. */
enum status put_bytes(struct bench *b, const char *array, const void *bytes, size_t n);
enum status put_text(struct bench *b, const char *array, const char *text);
enum status put_file(struct bench *b, const char *array, const char *path);
enum status put_gzip(struct bench *b, const char *array, const void *bytes, size_t n);
/* A version 1 .npy of that header and body; malloc'ed. */
void *npy(const char *descr, bool fortran, const char *shape, const void *body, size_t n, size_t *bytes);
/* The data of array `name` of the last put, as stored. */
const void *data_of(struct bench *b, const char *name, struct array_row *row);

#endif
