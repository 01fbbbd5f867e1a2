/* A graph or a plan as text, for people: logs at debug level, the API's dry run, failing tests.
 *
 *     %3 = weight float32 (784, 512) at 0
 *     %12 = matmul(%3, %7) float32 (128, 512)  dense_1
 */
#include <inttypes.h>

#include "engine/graph/op.h"
#include "engine/graph/plan.h"

static const char *const region_names[N_REGIONS] = {
    [AT_TEMP] = "temp", [AT_INPUT] = "input", [AT_WEIGHT] = "weight", [AT_CONST] = "const",
    [AT_GRAD] = "grad", [AT_SLOT] = "slot",   [AT_STATE] = "state",
};

static void dump_ids(struct text *t, const value_id *ids, int n)
{
    for (int i = 0; i < n; i++) {
        text_add(t, i ? ", " : "");
        if (ids[i])
            text_printf(t, "%%%" PRIu32, ids[i]);
        else
            text_add_char(t, '-');
    }
}

static void dump_node(const struct graph *g, const struct node *n, struct text *t)
{
    dump_ids(t, n->out, n->n_out);
    text_printf(t, " = %s(", n->op->name);
    dump_ids(t, n->in, n->n_in);
    text_add_char(t, ')');
    for (int i = 0; i < n->n_out; i++) {
        const struct value *v = &g->values[n->out[i]];

        text_printf(t, "%s %s %s", i ? "," : "", dtype_name(v->type), shape_text(&v->shape).s);
        if (v->at != AT_TEMP)
            text_printf(t, " in %s at %zu", region_names[v->at], v->offset);
        if (v->keep)
            text_add(t, " kept");
    }
    if (n->origin && n->origin[0])
        text_printf(t, "  %s", n->origin);
}

void graph_dump(const struct graph *g, struct text *t)
{
    for (value_id i = 1; i < g->n_values; i++) {
        const struct value *v = &g->values[i];

        if (v->producer == 0 && v->at != AT_TEMP)
            text_printf(t, "%%%" PRIu32 " = %s %s %s at %zu\n", i, region_names[v->at], dtype_name(v->type),
                        shape_text(&v->shape).s, v->offset);
    }
    for (uint32_t i = 1; i < g->n_nodes; i++) {
        dump_node(g, &g->nodes[i], t);
        text_add_char(t, '\n');
    }
}

static bool in_place(const struct plan *p, const struct node *n)
{
    const struct value *values = p->graph->values;
    value_id out = n->n_out ? n->out[0] : 0;

    if (!out || values[out].at != AT_TEMP)
        return false;
    for (int i = 0; i < n->n_in; i++) {
        if (n->in[i] && values[n->in[i]].at == AT_TEMP && p->temp_offset[n->in[i]] == p->temp_offset[out])
            return true;
    }
    return false;
}

static void dump_places(const struct plan *p, const struct node *n, struct text *t)
{
    const struct value *values = p->graph->values;

    for (int i = 0; i < n->n_out; i++) {
        value_id v = n->out[i];

        if (values[v].at == AT_TEMP)
            text_printf(t, "%s%zu+%zu", i ? ", " : "", p->temp_offset[v], value_bytes(&values[v]));
        else
            text_printf(t, "%s%s", i ? ", " : "", region_names[values[v].at]);
    }
}

void plan_dump(const struct plan *p, struct text *t)
{
    const struct plan_report *r = &p->report;
    const struct node *peak = &p->graph->nodes[r->peak_node];

    text_printf(t,
                "%" PRIu32 " steps, %" PRIu32 " in place, %" PRIu32 " by reference; %.3g flops; arena %zu bytes "
                "(%zu if nothing were shared), scratch %zu; fullest with %zu at %s %s\n",
                p->n_steps, r->in_place, r->fallbacks, r->flops, p->arena_bytes, r->unshared_bytes, p->scratch_bytes,
                r->live_bytes, r->peak_node ? peak->op->name : "-", r->peak_node && peak->origin ? peak->origin : "");
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const struct plan_step *s = &p->steps[i];
        const struct node *n = &p->graph->nodes[s->node];

        text_printf(t, "%5" PRIu32 "  %-9s ", i, s->kernel ? "kernel" : "reference");
        dump_node(p->graph, n, t);
        text_add(t, "  [");
        dump_places(p, n, t);
        if (s->scratch_bytes)
            text_printf(t, ", scratch %zu", s->scratch_bytes);
        text_add(t, in_place(p, n) ? ", in place]\n" : "]\n");
    }
}
