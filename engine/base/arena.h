/* Bump memory with one lifetime, and the two heap allocators.
 *
 * An arena hands out zeroed memory that is freed all at once. It belongs to one thread at a time.
 * Under ASan memory not handed out is poisoned. Control memory ends the process when there is none
 * (the queue is durable, systemd restarts); memory whose size a user chose comes from try_alloc. */
#ifndef HORN_BASE_ARENA_H
#define HORN_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/scope.h"
#include "engine/base/status.h"

struct arena;

struct arena *arena_new(void);
struct arena *arena_free(struct arena *a); /* NULL is fine; returns NULL */
DEFINE_OWNED(struct arena, arena_free)

void *arena_alloc(struct arena *a, size_t bytes); /* zeroed, aligned to 16, never NULL */
char *arena_text(struct arena *a, const char *s); /* a copy; NULL gives NULL */
char *arena_print(struct arena *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
size_t arena_bytes(const struct arena *a); /* handed out so far */

#define ARENA_NEW(a, type)      ((type *)arena_alloc((a), sizeof(type)))
#define ARENA_ARRAY(a, type, n) ((type *)arena_alloc((a), sizeof(type) * (size_t)(n)))

void *must_alloc(size_t bytes);            /* zeroed; ends the process when there is none */
void *must_realloc(void *p, size_t bytes); /* new part is not zeroed */
char *must_text(const char *s);            /* heap copy */
void *free_null(void *p);                  /* free, returns NULL */
static inline void free_owned(void *p)
{
    free_null(*(void **)p);
} /* OWNED(free) */

/* 64-byte aligned, zeroed, huge pages advised above 4 MiB. Freed by big_free with the same size.
 * ST_NO_MEMORY names the bytes and `what`. */
enum status try_alloc(size_t bytes, const char *what, void **ret, struct problem *problem);
void big_free(void *p, size_t bytes);

/* What all try_alloc of the process may hold together (0: no limit), and what they hold now. A request beyond it fails with
 * ST_NO_MEMORY and both numbers before the system is asked, since Linux overcommits and malloc never says no. */
void memory_limit_set(size_t bytes);
size_t memory_limit(void);
size_t memory_used(void);

/* a * b and a + b without overflow; false if it would. */
static inline int size_mul(size_t a, size_t b, size_t *ret)
{
    return !__builtin_mul_overflow(a, b, ret);
}

#endif
