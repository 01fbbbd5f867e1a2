/* Loaded model versions: immutable, counted, unloaded by last use.
 *
 *     TRY(registry_get(g, "mnist", 0, true, &v, problem));      newest version; loads it if it must (not in an HTTP thread)
 *     TRY(version_borrow(v, &p, problem));                      a predictor that no other thread uses
 *     ... predictor_run(p, ...) ...
 *     version_return(v, p);
 *     registry_release(g, v);
 *
 * A version that is replaced or deleted goes when its last reader released it. */
#ifndef HORN_SERVER_REGISTRY_H
#define HORN_SERVER_REGISTRY_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/status.h"
#include "engine/run/infer.h"
#include "storage/db.h"

struct registry;
struct batch_queue;

struct version { /* what readers see: immutable */
    char name[129];
    int64_t number;
    struct model *model;
    struct weights *layout;
    void *weights;             /* flat region on the device */
    struct prepare **prepare;  /* per input; entries may be NULL */
    struct shape *rows;        /* per input: row shape that predict takes */
    struct shape *output_rows; /* per output */
    double flops;              /* of one sample */
    int64_t bytes;
};

enum status registry_new(struct db *db, int64_t memory, struct registry **ret, struct problem *problem);
struct registry *registry_free(struct registry *g);

/* number 0: the newest. Without `may_load`, *ret is NULL and the result ST_OK where it is not in memory. ST_NOT_FOUND: no such model or version. */
enum status registry_get(struct registry *g, const char *name, int64_t number, bool may_load, struct version **ret,
                         struct problem *problem);
void registry_hold(struct registry *g, struct version *v); /* once more, for one that holds it already */
void registry_release(struct registry *g, struct version *v);

/* A predictor of the version for the calling thread alone. Without `may_make`, *ret is NULL where all are in use. */
enum status version_borrow(struct version *v, bool may_make, struct predictor **ret, struct problem *problem);
void version_return(struct version *v, struct predictor *p);
struct batch_queue *version_queue(struct version *v); /* its larger calls (batch.h) */

/* Around the commit of a new version: from begin on, requests for the newest one ask the database, so that whoever has seen the job done
 * also gets its version. number 0: it did not come to a version. */
void registry_swap_begin(struct registry *g, const char *name);
void registry_swap_end(struct registry *g, const char *name, int64_t number);
void registry_forget(struct registry *g, const char *name); /* the model was deleted */
int registry_count(struct registry *g);
int64_t registry_bytes(struct registry *g);

#endif
