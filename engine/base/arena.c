/* Arenas, and the two heap allocators.
 *
 * An arena is a chain of blocks, newest first; allocating moves a mark. Blocks double from 4 KiB to 256 KiB, what is larger
 * gets a block of its own behind the newest, so that the rest of that one stays usable. Blocks come zeroed from calloc and are
 * never used twice, hence nothing is cleared again. Under ASan a block is poisoned until it is handed out, and 16 poisoned
 * bytes stay between two pieces, so that running over one's end is found as on the heap.
 *
 * try_alloc counts before it asks: Linux promises more memory than it has and kills the process when the pages are touched, so
 * the only "no" a request can be answered with is our own. Pieces from 4 MiB are mapped, aligned to 2 MiB: zeroed by the system
 * page by page on first use, in huge pages where it has them, and given back at once. */
#include "engine/base/arena.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define UNDER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ASAN 1
#endif
#endif
#ifdef UNDER_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(p, n)   ASAN_POISON_MEMORY_REGION(p, n)
#define UNPOISON(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
enum { GAP = 16 };
static const size_t most_bytes = (size_t)1 << 39; /* ASan ends the process from 1 TiB on instead of saying no */
#else
#define POISON(p, n)   ((void)(p), (void)(n))
#define UNPOISON(p, n) ((void)(p), (void)(n))
enum { GAP = 0 };
static const size_t most_bytes = PTRDIFF_MAX;
#endif

enum { ALIGN = 16, FIRST_BLOCK = 4 << 10, LAST_BLOCK = 256 << 10 };
enum { LINE = 64 };
static const size_t huge_page = (size_t)2 << 20, map_from = (size_t)4 << 20;

struct block {
    struct block *next;
    size_t used, room; /* of data */
    _Alignas(ALIGN) char data[];
};

struct arena {
    struct block *newest;
    size_t block_room; /* of the next ordinary block */
    size_t bytes;
};

static _Atomic size_t limit, used; /* of all try_alloc together */

static void *end_process(size_t bytes)
{
    fprintf(stderr, "hornd: out of memory: %zu bytes\n", bytes);
    abort();
}

static size_t round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static struct block *block_new(size_t room)
{
    struct block *b = must_alloc(sizeof *b + room);

    b->room = room;
    POISON(b->data, room);
    return b;
}

static void *block_take(struct block *b, size_t bytes, size_t step)
{
    void *p = b->data + b->used;

    b->used += step;
    UNPOISON(p, bytes);
    return p;
}

struct arena *arena_new(void)
{
    struct arena *a = must_alloc(sizeof *a);

    a->block_room = FIRST_BLOCK;
    return a;
}

struct arena *arena_free(struct arena *a)
{
    if (!a)
        return NULL;
    for (struct block *b = a->newest, *next; b; b = next) {
        next = b->next;
        UNPOISON(b->data, b->room);
        free(b);
    }
    free(a);
    return NULL;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
    size_t step;
    struct block *b = a->newest;

    if (bytes > PTRDIFF_MAX - (size_t)LAST_BLOCK)
        end_process(bytes);
    step = round_up(bytes ? bytes : 1, ALIGN) + GAP;
    a->bytes += bytes;
    if (b && b->room - b->used >= step)
        return block_take(b, bytes, step);
    if (step > a->block_room / 2 && b) { /* alone, behind the newest */
        struct block *own = block_new(step);

        own->next = b->next;
        b->next = own;
        return block_take(own, bytes, step);
    }
    b = block_new(step > a->block_room ? step : a->block_room);
    b->next = a->newest;
    a->newest = b;
    if (a->block_room < LAST_BLOCK)
        a->block_room *= 2;
    return block_take(b, bytes, step);
}

char *arena_text(struct arena *a, const char *s)
{
    size_t n;

    if (!s)
        return NULL;
    n = strlen(s) + 1;
    return memcpy(arena_alloc(a, n), s, n);
}

char *arena_print(struct arena *a, const char *format, ...)
{
    va_list args, again;
    char *to;
    int n;

    va_start(args, format);
    va_copy(again, args);
    n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    to = arena_alloc(a, (n < 0 ? 0 : (size_t)n) + 1);
    if (n > 0)
        vsnprintf(to, (size_t)n + 1, format, again);
    va_end(again);
    return to;
}

size_t arena_bytes(const struct arena *a)
{
    return a->bytes;
}

void *must_alloc(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);

    return p ? p : end_process(bytes);
}

void *must_realloc(void *p, size_t bytes)
{
    void *moved = realloc(p, bytes ? bytes : 1);

    return moved ? moved : end_process(bytes);
}

char *must_text(const char *s)
{
    size_t n;

    if (!s)
        return NULL;
    n = strlen(s) + 1;
    return memcpy(must_alloc(n), s, n);
}

void *free_null(void *p)
{
    free(p);
    return NULL;
}

/* Under ASan all pieces come from its heap, which watches their ends; a mapping has none to watch. */
static bool is_mapped(size_t bytes)
{
#ifdef UNDER_ASAN
    (void)bytes;
    return false;
#else
    return bytes >= map_from;
#endif
}

/* A mapping aligned to huge pages: one page more is asked for, and what lies before and behind goes back. */
static void *map(size_t bytes)
{
    size_t room = bytes + huge_page, before;
    char *p = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    before = round_up((uintptr_t)p, huge_page) - (uintptr_t)p;
    if (before)
        (void)munmap(p, before);
    if (huge_page - before)
        (void)munmap(p + before + bytes, huge_page - before);
    (void)madvise(p + before, bytes, MADV_HUGEPAGE); /* a wish: kernels without huge pages say EINVAL */
    return p + before;
}

static void *take(size_t bytes)
{
    void *p = NULL;

    if (is_mapped(bytes))
        return map(round_up(bytes, huge_page));
    if (bytes > most_bytes || posix_memalign(&p, bytes >= map_from ? huge_page : LINE, bytes) != 0)
        return NULL;
    return memset(p, 0, bytes);
}

/* Counts `bytes` as held; false if they would pass the limit. `now` gets what is held without them. */
static bool reserve(size_t bytes, size_t most, size_t *now)
{
    *now = atomic_load(&used);
    do {
        if (bytes > SIZE_MAX - *now || (most && (bytes > most || *now > most - bytes)))
            return false;
    } while (!atomic_compare_exchange_weak(&used, now, *now + bytes));
    return true;
}

enum status try_alloc(size_t bytes, const char *what, void **ret, struct problem *problem)
{
    size_t most = atomic_load(&limit), now;
    void *p;

    if (!reserve(bytes, most, &now))
        return fail(problem, ST_NO_MEMORY, what, "%zu bytes for %s do not fit: %zu of %zu bytes (memory limit) are in use",
                    bytes, what, now, most);
    p = bytes > PTRDIFF_MAX - huge_page * 2 ? NULL : take(bytes ? bytes : 1);
    if (!p) {
        atomic_fetch_sub(&used, bytes);
        return fail(problem, ST_NO_MEMORY, what, "the system has no %zu bytes for %s (%zu bytes are in use)", bytes, what, now);
    }
    *ret = p;
    return ST_OK;
}

void big_free(void *p, size_t bytes)
{
    if (!p)
        return;
    atomic_fetch_sub(&used, bytes);
    if (is_mapped(bytes))
        (void)munmap(p, round_up(bytes, huge_page));
    else
        free(p);
}

void memory_limit_set(size_t bytes)
{
    atomic_store(&limit, bytes);
}

size_t memory_limit(void)
{
    return atomic_load(&limit);
}

size_t memory_used(void)
{
    return atomic_load(&used);
}
