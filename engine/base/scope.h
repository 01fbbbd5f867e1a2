/* Cleanup declared where a thing is acquired, so that early returns are safe.
 *
 *     DEFINE_OWNED(struct plan, plan_free)          once, beside the destructor
 *     OWNED(plan_free) struct plan *p = NULL;       freed at the end of the scope
 *     CLEAN(text_done) struct text t = text_make(4096);
 *     *ret = STEAL(p);                              handed over: p is NULL now
 *
 * Destructors accept NULL. */
#ifndef HORN_BASE_SCOPE_H
#define HORN_BASE_SCOPE_H

#define DEFINE_OWNED(type, fn)              \
    static inline void fn##_owned(type **p) \
    {                                       \
        (void)fn(*p);                       \
    }
#define OWNED(fn) __attribute__((cleanup(fn##_owned)))
#define CLEAN(fn) __attribute__((cleanup(fn)))
#define STEAL(p)                     \
    ({                               \
        __typeof__(p) stolen_ = (p); \
        (p) = NULL;                  \
        stolen_;                     \
    })

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
