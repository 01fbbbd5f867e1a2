/* A list of holes by offset. Taking chooses the smallest hole that holds the bytes, the lowest of equals; when none does, a
 * hole at the end is made longer before new memory is opened behind it. Lists stay short (tens of holes), so they are searched
 * from the front. */
#include "engine/graph/place.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"

static void hole_remove(struct places *p, uint32_t i)
{
    memmove(&p->holes[i], &p->holes[i + 1], sizeof(*p->holes) * (p->n_holes - i - 1));
    p->n_holes--;
}

static void hole_insert(struct places *p, uint32_t i, struct hole h)
{
    if (p->n_holes == p->room) {
        p->room = p->room ? 2 * p->room : 32;
        p->holes = must_realloc(p->holes, sizeof(*p->holes) * p->room);
    }
    memmove(&p->holes[i + 1], &p->holes[i], sizeof(*p->holes) * (p->n_holes - i));
    p->holes[i] = h;
    p->n_holes++;
}

size_t places_take(struct places *p, size_t bytes)
{
    uint32_t best = UINT32_MAX;
    size_t offset;

    for (uint32_t i = 0; i < p->n_holes; i++) {
        if (p->holes[i].bytes >= bytes && (best == UINT32_MAX || p->holes[i].bytes < p->holes[best].bytes))
            best = i;
    }
    p->live += bytes;
    if (best == UINT32_MAX) {
        struct hole *last = p->n_holes ? &p->holes[p->n_holes - 1] : NULL;

        offset = p->end;
        if (last && last->offset + last->bytes == p->end) {
            offset = last->offset;
            p->n_holes--;
        }
        p->end = offset + bytes;
        return offset;
    }
    offset = p->holes[best].offset;
    p->holes[best].offset += bytes;
    p->holes[best].bytes -= bytes;
    if (p->holes[best].bytes == 0)
        hole_remove(p, best);
    return offset;
}

void places_give(struct places *p, size_t offset, size_t bytes)
{
    uint32_t i = 0;

    assert(p->live >= bytes && offset + bytes <= p->end);
    p->live -= bytes;
    while (i < p->n_holes && p->holes[i].offset < offset)
        i++;
    hole_insert(p, i, (struct hole){offset, bytes});
    if (i + 1 < p->n_holes && offset + bytes == p->holes[i + 1].offset) {
        p->holes[i].bytes += p->holes[i + 1].bytes;
        hole_remove(p, i + 1);
    }
    if (i > 0 && p->holes[i - 1].offset + p->holes[i - 1].bytes == offset) {
        p->holes[i - 1].bytes += p->holes[i].bytes;
        hole_remove(p, i);
    }
}

void places_done(struct places *p)
{
    free(p->holes);
    *p = (struct places){0};
}
