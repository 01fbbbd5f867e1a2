/* Lanes: each is one thread that owns one device (a share of the CPU's cores) and runs one job at a time.
 *
 * A lane claims a job, reads it (job.h), runs fit, evaluate or predict with a sink that writes to storage, and publishes. The row in the
 * database tells what was committed; while a job runs, its lane keeps a snapshot that is newer, under a mutex. */
#ifndef HORN_SERVER_LANE_H
#define HORN_SERVER_LANE_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/json.h"
#include "engine/base/status.h"

struct backend;
struct device;
struct lanes;
struct server;

/* Opens the devices and starts the threads. settings.threads are shared out: the first lanes get one more where they do not divide. */
enum status lanes_start(struct server *s, struct lanes **ret, struct problem *problem);
/* Running jobs are checkpointed and queued again, the threads end. Requests may still ask afterwards, until lanes_free. NULL is fine. */
void lanes_stop(struct lanes *l);
void lanes_free(struct lanes *l);

void lanes_notify(struct lanes *l); /* a job was queued */
/* Tells the lane that runs job `id` to cancel it and waits until it has, at most `seconds`. */
void lanes_cancel(struct lanes *l, int64_t id, double seconds);

/* Calls run(context, ...) in the thread of a lane, which is the only one to use that device then: the lane that runs job `id`, between two of
 * its steps, else one without a job, else the first. Returns what it returned. ST_TOO_MANY while another is under way in the
 * daemon, ST_BUSY when the lane has not begun within `seconds` or the daemon stops; then it was not called. For request threads. */
typedef enum status lane_errand_run(void *context, const struct backend *b, struct device *d, struct problem *problem);
enum status lanes_errand(struct lanes *l, int64_t id, double seconds, lane_errand_run *run, void *context,
                         struct problem *problem);

/* Progress and metrics of a job that runs now, as {"progress":{...},"metrics":{...}}; NULL if no lane runs it. Caller frees. */
struct json *lanes_progress(struct lanes *l, int64_t id);

int lanes_count(const struct lanes *l);
int lanes_busy(struct lanes *l);
const char *lanes_device(const struct lanes *l, int i);   /* "cpu:0" */
const char *lanes_describe(const struct lanes *l, int i); /* the backend's words on it */
int64_t lanes_job(struct lanes *l, int i);                /* that it runs now; 0: none */

#endif
