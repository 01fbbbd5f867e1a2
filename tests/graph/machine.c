/* A session without devices: addresses straight from the graph and the plan. */
#include "tests/graph/machine.h"

#include <stdlib.h>
#include <string.h>

static unsigned char *filled(size_t bytes, int byte)
{
    unsigned char *p = aligned_alloc(64, (bytes + 127) / 64 * 64);

    memset(p, byte, (bytes + 127) / 64 * 64);
    return p;
}

struct machine *machine_new(const struct graph *g, const struct plan *p)
{
    struct machine *m = must_alloc(sizeof(*m));

    m->g = g;
    m->p = p;
    for (int r = 0; r < N_REGIONS; r++)
        m->base[r] = r == AT_TEMP ? filled(p ? p->arena_bytes : 0, 0xFF) : filled(g->bytes[r], 0);
    m->scratch = filled(p ? p->scratch_bytes : 0, 0xFF);
    m->own = must_alloc(sizeof(*m->own) * g->n_values);
    for (value_id v = 1; !p && v < g->n_values; v++) {
        if (g->values[v].at == AT_TEMP && g->values[v].producer && !g->values[v].view_of)
            m->own[v] = filled(value_bytes(&g->values[v]), 0xFF);
    }
    return m;
}

struct machine *machine_free(struct machine *m)
{
    if (!m)
        return NULL;
    for (int r = 0; r < N_REGIONS; r++)
        free(m->base[r]);
    for (value_id v = 1; v < m->g->n_values; v++)
        free(m->own[v]);
    free(m->own);
    free(m->scratch);
    free(m);
    return NULL;
}

void *machine_at(const struct machine *m, value_id v)
{
    const struct value *p = &m->g->values[v];

    if (v == 0)
        return NULL;
    if (p->at != AT_TEMP)
        return m->base[p->at] + p->offset;
    return m->p ? m->base[AT_TEMP] + m->p->temp_offset[v] : m->own[p->view_of ? p->view_of : v];
}

void machine_run(struct machine *m)
{
    for (uint32_t i = 1; i < m->g->n_nodes; i++) {
        const struct node *n = &m->g->nodes[i];
        void *in[n->n_in + 1], *out[n->n_out + 1];
        struct kernel_call c = {.node = n, .values = m->g->values, .in = in, .out = out, .scratch = m->scratch};

        for (int k = 0; k < n->n_in; k++)
            in[k] = machine_at(m, n->in[k]);
        for (int k = 0; k < n->n_out; k++)
            out[k] = machine_at(m, n->out[k]);
        if (!(n->op->flags & OP_VIEW))
            n->op->reference(&c);
    }
}
