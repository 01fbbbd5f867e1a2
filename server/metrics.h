/* Counters of the daemon, and the Prometheus page made of them. Any thread counts, without a lock. */
#ifndef HORN_SERVER_METRICS_H
#define HORN_SERVER_METRICS_H

#include <stdint.h>

#include "engine/base/text.h"

struct server;

void metrics_request(int code);                        /* an answered HTTP request */
void metrics_predict(double seconds, int64_t samples); /* an answered predict call */
void metrics_batch(void);                              /* calls that were computed together, or one alone */
void metrics_samples(int64_t n);                       /* rows that went through a training step */
void metrics_attempt(void);                            /* a job was claimed */
void metrics_checkpoint(double seconds);

/* The page in text format 0.0.4. Reads the queue's lengths from the database. */
void metrics_print(struct server *s, struct text *t);

#endif
