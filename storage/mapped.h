/* Part of a file as memory to read from, with an end that is not the process's.
 *
 * A page of a mapped file that cannot be had (the file was cut, the disk failed) is a SIGBUS in whoever reads it. mapped_read() runs
 * what reads the map; a fault inside it comes back as `false`, any other SIGBUS goes where it went before. Threads that read maps must
 * not block the signal: thread_start() leaves it open.
 *
 *     struct mapped m;
 *     if (mapped_open(&m, fd, offset, bytes) && !mapped_read(&m, copy, &what))
 *         return fail(...);
 *     mapped_close(&m); */
#ifndef HORN_STORAGE_MAPPED_H
#define HORN_STORAGE_MAPPED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mapped {
    const char *data; /* the byte at `offset`; NULL: not open */
    char *base;       /* of the mapping, at a page */
    size_t length;
};

/* Maps `bytes` of the file from `offset` on, any number. false, with *m closed: the system maps no more. The descriptor is not kept. */
bool mapped_open(struct mapped *m, int fd, int64_t offset, size_t bytes);
void mapped_close(struct mapped *m); /* also one that is not open */
/* Runs body(arg). false: it read a page of m that could not be had, and was left there; it must hold nothing that it would have to let
 * go of, nor call mapped_read. Any number of threads at once. */
bool mapped_read(const struct mapped *m, void (*body)(void *arg), void *arg);

#endif
