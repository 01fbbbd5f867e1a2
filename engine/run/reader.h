/* A thread that runs one task again and again when asked to, beside its owner: who gathers the next batch while a step runs.
 *
 *     r = reader_new(gather, feed);
 *     reader_start(r);      gather(feed) begins in the reader's thread
 *     ...                   what the task reads and writes is the task's until
 *     reader_wait(r);
 */
#ifndef HORN_RUN_READER_H
#define HORN_RUN_READER_H

struct reader;

struct reader *reader_new(void (*task)(void *context), void *context); /* of the caller's priority */
void reader_start(struct reader *r);                                   /* not while a task runs */
void reader_wait(struct reader *r);                                    /* at once if none runs */
struct reader *reader_free(struct reader *r);                          /* waits first; NULL is fine */

#endif
