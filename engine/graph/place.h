/* Places in one growing stretch of memory: best fit, freed neighbours join. Used by plan.c, tested through it.
 *
 * Sizes are multiples of REGION_ALIGN; so are all places. */
#ifndef HORN_GRAPH_PLACE_H
#define HORN_GRAPH_PLACE_H

#include <stddef.h>
#include <stdint.h>

struct hole {
    size_t offset, bytes;
};

struct places {
    struct hole *holes; /* by offset; no two touch */
    uint32_t n_holes, room;
    size_t end;  /* bytes of the stretch so far */
    size_t live; /* bytes taken now */
};

size_t places_take(struct places *p, size_t bytes);
void places_give(struct places *p, size_t offset, size_t bytes);
void places_done(struct places *p);

#endif
