/* Growing text with a mandatory limit. Past the limit text is cut and `cut` is set; nothing fails.
 *
 *     CLEAN(text_done) struct text t = text_make(64 << 10);
 *     text_printf(&t, "%d layers", n);
 *     use(t.s);                                   // always terminated, never NULL
 */
#ifndef HORN_BASE_TEXT_H
#define HORN_BASE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

struct text {
    char *s; /* terminated */
    size_t length, room, limit;
    bool cut;
};

struct text text_make(size_t limit); /* limit in bytes without the terminator */
void text_done(struct text *t);
void text_clear(struct text *t);
void text_add(struct text *t, const char *s);
void text_add_bytes(struct text *t, const char *s, size_t n);
void text_add_char(struct text *t, char c);
void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_add_json(struct text *t, const char *s); /* a JSON string with its quotes; bad UTF-8 becomes U+FFFD */
void text_add_number(struct text *t, double x);    /* shortest form that reads back as the same double; null if not finite */
void text_add_float(struct text *t, float x);      /* shortest form that reads back as the same float; null if not finite */
int text_sequence(const char *s, const char *end); /* length of the UTF-8 sequence at s, 1 to 4; 0 if there is none */
char *text_steal(struct text *t);                  /* the heap text; t is empty afterwards. Caller frees */

#endif
