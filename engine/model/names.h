/* Names of layers: a map from them to small numbers, so that ten thousand layers are checked for doubles in linear time; JSON pointers.
 *
 * Names are borrowed. Memory is the arena's, nothing to free. */
#ifndef HORN_MODEL_NAMES_H
#define HORN_MODEL_NAMES_H

#include "engine/base/arena.h"

struct names {
    struct arena *mem;
    struct name_slot {
        const char *name;
        int value;
    } * slot; /* open addressing; room is a power of two */
    int n, room;
};

struct names names_make(struct arena *mem);
int names_find(const struct names *m, const char *name);     /* -1: not there */
int names_put(struct names *m, const char *name, int value); /* value >= 0; the former value, -1 if it is new */

/* A JSON pointer one key longer: pointer/key with ~ and / of the key escaped (RFC 6901). */
const char *pointer_key(struct arena *mem, const char *pointer, const char *key);

#endif
