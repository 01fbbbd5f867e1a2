/* Fashion-MNIST of examples/ as a struct source in memory, for tests. */
#ifndef HORN_TESTS_RUN_FASHION_H
#define HORN_TESTS_RUN_FASHION_H

#include "engine/run/batch.h"

/* The first `rows` images (uint8, 28 x 28) and labels; NULL when the files are missing (tests run in the repository's root). */
struct source *fashion_source(bool test_set, int64_t rows);
char *read_file(const char *path, size_t *bytes); /* heap, terminated; NULL if it cannot be read */

#endif
