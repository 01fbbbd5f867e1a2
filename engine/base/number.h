/* Nested arrays of JSON numbers straight into a tensor, and back, without a tree.
 *
 * Strict JSON grammar; each float is the one nearest to the decimal text (as strtof rounds), the locale
 * plays no part. Bounded by the caller's buffer and MAX_RANK levels. */
#ifndef HORN_BASE_NUMBER_H
#define HORN_BASE_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/status.h"
#include "engine/base/text.h"

/* One JSON number at *at (no leading blanks), moved behind it. false if there is none. */
bool number_float(const char **at, const char *end, float *ret);
bool number_double(const char **at, const char *end, double *ret); /* both: beyond the range is an infinity */

/* Reads a number or nested arrays of numbers of equal lengths from text[0..bytes).
 * rank and dim get the nesting (0 for a lone number; at most 8); to has room for `room` floats; *used is the number of bytes
 * read, blanks before included. ST_INVALID with the position for ragged rows, ST_TOO_LARGE past `room`, ST_MALFORMED else.
 * NaN, Infinity and values beyond the range of float are errors that say so. `where` begins each message. */
enum status number_array(const char *text, size_t bytes, const char *where, float *to, size_t room, int *rank, int64_t dim[8],
                         size_t *used, struct problem *problem);

/* An upper bound for `room`: one more than the commas of the array at text. */
size_t number_count(const char *text, size_t bytes);

/* Prints values as nested arrays of shape dim[0..rank), shortest form that reads back as the same float. */
void number_print(struct text *t, const float *v, int rank, const int64_t *dim);

#endif
