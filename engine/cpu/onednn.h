/* What the kernels that run oneDNN's primitives share: attributes, and the handles of one run. */
#ifndef HORN_CPU_ONEDNN_H
#define HORN_CPU_ONEDNN_H
#ifdef HORN_ONEDNN

#include <stdio.h>
#include <stdlib.h>

#include "engine/cpu/cpu.h"

static inline bool is_ok(dnnl_status_t s)
{
    return s == dnnl_success;
}

/* Attributes under which a primitive takes its scratch from the caller; NULL if there is no memory. */
static inline dnnl_primitive_attr_t user_pad(void)
{
    dnnl_primitive_attr_t a = NULL;

    if (is_ok(dnnl_primitive_attr_create(&a)))
        (void)dnnl_primitive_attr_set_scratchpad_mode(a, dnnl_scratchpad_mode_user);
    return a;
}

/* What cannot fail but for a handful of bytes ends the process, as must_alloc does. */
static inline void must(dnnl_status_t s)
{
    if (is_ok(s))
        return;
    fprintf(stderr, "oneDNN failed in a prepared primitive (%d)\n", (int)s);
    abort();
}

struct handles { /* of one run: the tensors of a primitive, and the stream that it runs in */
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_exec_arg_t arg[6];
    int n;
};

static inline struct handles handles_make(const struct device *d)
{
    struct handles h = {.engine = d->engine};

    must(dnnl_stream_create(&h.stream, h.engine, dnnl_stream_default_flags));
    return h;
}

static inline void handles_done(struct handles *h)
{
    (void)dnnl_stream_destroy(h->stream);
}

static inline void handle(struct handles *h, int what, const dnnl_memory_desc_t *md, void *data)
{
    h->arg[h->n].arg = what;
    must(dnnl_memory_create(&h->arg[h->n++].memory, md, h->engine, data));
}

/* Runs the primitive on the handles given since the last one, and drops them. */
static inline void execute(struct handles *h, dnnl_primitive_t primitive)
{
    must(dnnl_primitive_execute(primitive, h->stream, h->n, h->arg));
    must(dnnl_stream_wait(h->stream));
    while (h->n)
        (void)dnnl_memory_destroy(h->arg[--h->n].memory);
}

#endif
#endif
