/* Models with weights for the tests of files: built from JSON, filled with values that follow from names. */
#ifndef HORN_TESTS_STORAGE_MODELS_H
#define HORN_TESTS_STORAGE_MODELS_H

#include "engine/model/model.h"
#include "engine/model/weights.h"
#include "engine/run/request.h"
#include "engine/run/sink.h"

#define PATTERN_UPDATES 321
#define PATTERN_RATE    0.0375f
#define PATTERN_SEED    0xfedcba9876543210u

struct built {
    struct arena *mem;
    struct model *model;
    struct weights *layout;
    struct compile_spec *compile; /* NULL before built_compile */
    void *weights, *slots;        /* zeros; slots NULL before built_slots */
    size_t slot_bytes;
};

struct json *json_of_text(const char *text);
struct json *json_of_file(const char *path);
bool json_same(const struct json *a, const struct json *b); /* members of objects in any order */

/* Unknown dimensions of the inputs are taken as 6. Each must succeed. */
struct built built_make(const char *architecture);
void built_compile(struct built *b, const struct json *compile);
void built_slots(struct built *b);
/* Weights and slots, their padding aside, by pattern("dense/kernel", i) and pattern("dense/kernel/momentum", i). Padding of
 * slots begins as the slot does. */
void built_patterns(struct built *b);
struct snapshot built_snapshot(const struct built *b);
void built_done(struct built *b);

/* In [-0.5, 0.5): (x >> 8) / 2^24 - 0.5, x = h ^ i 2654435761; x ^= x >> 15; x *= 0x2c1b3c6d; x ^= x >> 12, h = FNV-1a (32) of
 * the tag. */
float pattern(const char *tag, uint32_t i);

#endif
