/* Open addressing with linear probing and FNV-1a, at most half full. */
#include "engine/model/names.h"

#include <stdint.h>
#include <string.h>

static uint64_t hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3u;
    return h;
}

/* The slot of `name`, or the free one where it would go. room > 0. */
static struct name_slot *probe(const struct names *m, const char *name)
{
    size_t mask = (size_t)m->room - 1, i = hash(name) & mask;

    while (m->slot[i].name && strcmp(m->slot[i].name, name) != 0)
        i = (i + 1) & mask;
    return &m->slot[i];
}

static void grow(struct names *m)
{
    struct names bigger = {.mem = m->mem, .n = m->n, .room = m->room ? 2 * m->room : 64};

    bigger.slot = ARENA_ARRAY(m->mem, struct name_slot, bigger.room);
    for (int i = 0; i < m->room; i++)
        if (m->slot[i].name)
            *probe(&bigger, m->slot[i].name) = m->slot[i];
    *m = bigger;
}

struct names names_make(struct arena *mem)
{
    return (struct names){.mem = mem};
}

int names_find(const struct names *m, const char *name)
{
    if (!m->room)
        return -1;
    const struct name_slot *slot = probe(m, name);
    return slot->name ? slot->value : -1;
}

int names_put(struct names *m, const char *name, int value)
{
    if (2 * (m->n + 1) > m->room)
        grow(m);
    struct name_slot *slot = probe(m, name);
    int former = slot->name ? slot->value : -1;

    m->n += !slot->name;
    slot->name = name;
    slot->value = value;
    return former;
}

const char *pointer_key(struct arena *mem, const char *pointer, const char *key)
{
    size_t n = strlen(pointer), room = n + 2 * strlen(key) + 2;
    char *made = arena_alloc(mem, room), *p = made + n;

    memcpy(made, pointer, n);
    *p++ = '/';
    for (; *key; key++) {
        if (*key == '~' || *key == '/') {
            *p++ = '~';
            *p++ = *key == '~' ? '0' : '1';
        } else {
            *p++ = *key;
        }
    }
    return made;
}
