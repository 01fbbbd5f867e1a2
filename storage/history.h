/* A job's history as an HDF5 file: /epoch/epoch (int64) and /epoch/<metric> (float64), one value per finished epoch, NaN where one
 * is not a number. Made from the rows when asked for: the rows are what a crash leaves behind, the file is a view of them. */
#ifndef HORN_STORAGE_HISTORY_H
#define HORN_STORAGE_HISTORY_H

#include "storage/db.h"

/* Writes the file under tmp/ and gives its path: the caller opens and unlinks it. A '/' in a metric's name becomes '_'. */
enum status history_file(struct db *db, int64_t job, char path[512], struct problem *problem);

#endif
