/* Predict calls on their way: read one by one, computed together, answered one by one.
 *
 * A call that was read waits in a list. An HTTP thread has a list of its own, of the small calls that came in one turn of its
 * loop; a version has one for the larger ones, which request threads take from. Calls of one version that wait together become
 * one batch, up to the setting max_batch samples; nobody waits for company unless batch_delay_us says so, so a lone call is as
 * fast as without batches. A call is checked before it gets here: what goes wrong in a batch is tried again call by call, so that
 * one call's failure is not another's. */
#ifndef HORN_SERVER_BATCH_H
#define HORN_SERVER_BATCH_H

#include <pthread.h>

#include "server/registry.h"
#include "server/serving.h"

struct request;

struct call {
    struct call *next; /* in the list that has it */
    struct request *request;
    struct reply *reply;     /* filled by the batch */
    struct version *version; /* held; given back by call_done */
    struct prediction tensors;
    bool npy;      /* how to answer */
    double began;  /* clock_seconds */
    bool answered; /* the reply is made */
};

struct call_list {
    struct call *first, *last;
    int64_t samples;
};
void call_push(struct call_list *list, struct call *c);
void call_remove(struct call_list *list, const struct call *c); /* nothing if it is not there */
/* The first call and all of its version behind it, up to `samples` in all but at least one call. NULL: none. */
struct call *call_take(struct call_list *list, int64_t samples);
void call_done(struct call *c); /* gives back what it holds; NULL is fine */

/* Computes and answers a list of calls of one version. */
void batch_run(struct call *list, struct predictor *with);

/* The larger calls of a version, and who works on them. */
struct batch_queue {
    pthread_mutex_t lock; /* guards all below */
    struct call_list waiting;
    int n_running, most; /* threads that take from the list: as many as there are CPUs */
};
void batch_queue_init(struct batch_queue *q);
void batch_queue_done(struct batch_queue *q);

/* Has the call answered, in this thread or in one that is at work on the version already, and tells `answered`, after which
 * the call is no longer touched. For threads that may compute long. */
void batch_submit(struct call *c, void (*answered)(struct call *c));

#endif
