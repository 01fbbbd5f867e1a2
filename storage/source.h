/* Opens the arrays of a job as a struct source (engine/run/batch.h): files mapped, inline arrays from memory.
 *
 * Lanes read without HDF5 and its lock: the offset was learned when the array was stored. */
#ifndef HORN_STORAGE_SOURCE_H
#define HORN_STORAGE_SOURCE_H

#include "engine/run/request.h"
#include "storage/datasets.h"

/* One array of the source to be: a stored one (file) or an inline one (numbers as JSON). */
struct source_part {
    const char *name;               /* "mnist/x_train", or the JSON pointer of an inline array */
    const struct array_row *stored; /* or NULL */
    const struct json *inline_numbers;
};
/* parts: n_x inputs, n_y targets, n_w weights. ST_INVALID if lengths differ (all are named with their lengths), if rows is 0, or an
 * inline array is ragged. memory: bytes of this process and its page cache (memory_bytes()); an array of more than half of them is not
 * counted on to stay, and its rows are asked for batch by batch. */
enum status source_open(struct db *db, const struct source_part *parts, int n_x, int n_y, int n_w, uint64_t memory,
                        struct source **ret, struct problem *problem);

#endif
