/* A folder of a test's own, and a database in it. */
#ifndef HORN_TESTS_STORAGE_SCRATCH_H
#define HORN_TESTS_STORAGE_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

#include "storage/db.h"

struct scratch {
    char folder[256]; /* exists, empty */
    bool mounted;
};
struct scratch scratch_make(void);
/* A tmpfs of that many bytes; false where mounting is not possible. */
bool scratch_mount(struct scratch *s, size_t bytes);
void scratch_done(struct scratch *s);
struct db *scratch_db(struct scratch *s); /* db_open on folder/data; must succeed */
/* A file with that content: for uploads. path is folder/data/tmp/... of the database. */
void scratch_upload(struct db *db, const void *bytes, size_t n, char path[512]);
int scratch_files(struct scratch *s, const char *sub); /* regular files under folder/data/sub, all levels */

#endif
