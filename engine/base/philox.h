/* Counter-based random numbers, Philox4x32-10: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers:
 * as easy as 1, 2, 3". The same key and counter give the same four words on every machine and backend, so
 * nothing random is ever stored: an element's number follows from (key, counter). */
#ifndef HORN_BASE_PHILOX_H
#define HORN_BASE_PHILOX_H

#include <math.h>
#include <stdint.h>

struct philox_words {
    uint32_t w[4];
};

static inline struct philox_words philox(uint64_t key, uint64_t counter_high, uint64_t counter_low)
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = (uint32_t)counter_low, c1 = (uint32_t)(counter_low >> 32);
    uint32_t c2 = (uint32_t)counter_high, c3 = (uint32_t)(counter_high >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;

        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (struct philox_words){{c0, c1, c2, c3}};
}

/* [0, 1) with 24 bits */
static inline float philox_unit(uint32_t word)
{
    return (float)(word >> 8) * 0x1p-24f;
}

/* Two independent N(0, 1) from two words (Box and Muller 1958); double inside, so that it is the same everywhere. */
static inline void philox_normal(uint32_t a, uint32_t b, double *x, double *y)
{
    double r = sqrt(-2 * log(((double)a + 1) * 0x1p-32)), turn = 6.283185307179586 * ((double)b * 0x1p-32);

    *x = r * cos(turn);
    *y = r * sin(turn);
}

/* FNV-1a, to make a key from a name: key = seed ^ text_hash("dense/kernel"). */
static inline uint64_t text_hash(const char *s)
{
    uint64_t h = 0xcbf29ce484222325u;

    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3u;
    return h;
}

#endif
