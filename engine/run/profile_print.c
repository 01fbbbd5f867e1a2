/* A profile as JSON for programs and as a table for people. Four digits: more would be noise. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/json.h"
#include "engine/run/profile.h"

static struct json *number(double x)
{
    char s[40];

    if (!isfinite(x))
        return json_new_null();
    snprintf(s, sizeof s, "%.4g", x);
    return json_new_number(strtod(s, NULL));
}

static double share(const struct profile *p, double seconds)
{
    return p->nodes_seconds > 0 ? seconds / p->nodes_seconds : 0;
}

static struct json *node_json(const struct profile *p, const struct profile_node *n)
{
    struct json *j = json_new_object(), *out = json_new_array();
    bool by_flops;
    double of_ceiling = profile_of_ceiling(p, n, &by_flops);

    for (int i = 0; i < n->out.rank; i++)
        json_push(out, json_new_int(n->out.dim[i]));
    json_put(j, "node", json_new_int(n->number));
    json_put(j, "op", json_new_text(n->op));
    json_put(j, "kernel", json_new_text(n->kernel));
    json_put(j, "dtype", json_new_text(dtype_name(n->type)));
    json_put(j, "out", out);
    json_put(j, "seconds", number(n->seconds));
    json_put(j, "least_seconds", number(n->least_seconds));
    json_put(j, "share", number(share(p, n->seconds)));
    json_put(j, "flops", json_new_number(n->flops));
    json_put(j, "bytes", json_new_number(n->bytes));
    json_put(j, "of_ceiling", number(of_ceiling));
    json_put(j, "bound", isfinite(of_ceiling) ? json_new_text(by_flops ? "flops" : "bytes") : json_new_null());
    return j;
}

void profile_json(const struct profile *p, struct json *to)
{
    struct json *ceiling, *layers;

    json_put(to, "device", json_new_text(p->device));
    json_put(to, "batch_size", json_new_int(p->batch));
    json_put(to, "steps", json_new_int(p->steps));
    json_put(to, "step_seconds", number(p->step_seconds));
    json_put(to, "feed_seconds", number(p->feed_seconds));
    json_put(to, "clock_seconds", number(p->clock_seconds));
    ceiling = json_put(to, "ceiling", json_new_object());
    json_put(ceiling, "flops_per_second", number(p->flops_per_second > 0 ? p->flops_per_second : NAN));
    json_put(ceiling, "bytes_per_second", number(p->bytes_per_second > 0 ? p->bytes_per_second : NAN));
    layers = json_put(to, "layers", json_new_array());
    for (int i = 0; i < p->n_layers; i++) {
        const struct profile_layer *l = &p->layer[i];
        struct json *row = json_push(layers, json_new_object()), *nodes;

        json_put(row, "layer", json_new_text(l->name));
        json_put(row, "seconds", number(l->seconds));
        json_put(row, "share", number(share(p, l->seconds)));
        nodes = json_put(row, "nodes", json_new_array());
        for (int k = 0; k < l->n; k++)
            json_push(nodes, node_json(p, &p->node[l->first + k]));
    }
}

/* --- table --------------------------------------------------------------------------------------------------------------------- */

static void table_node(const struct profile *p, const struct profile_node *n, struct text *to)
{
    bool by_flops;
    double of_ceiling = profile_of_ceiling(p, n, &by_flops), per_ns = n->seconds > 0 ? 1e-9 / n->seconds : 0;

    text_printf(to, "  %6u  %-17s %-25s %-20s %9.1f %5.1f %8.2f %8.2f", n->number, n->op, n->kernel, shape_text(&n->out).s,
                1e6 * n->seconds, 100 * share(p, n->seconds), n->flops * per_ns, n->bytes * per_ns);
    if (isfinite(of_ceiling))
        text_printf(to, "  %4.0f %% of %s", 100 * of_ceiling, by_flops ? "flops" : "bytes");
    text_add_char(to, '\n');
}

void profile_table(const struct profile *p, struct text *to)
{
    text_printf(to, "%s\nbatch %lld: a step takes %.4g ms (median of %d), the rows of a batch %.4g ms before it\n", p->device,
                (long long)p->batch, 1e3 * p->step_seconds, p->steps, 1e3 * p->feed_seconds);
    if (p->flops_per_second > 0)
        text_printf(to, "ceilings: %.1f GFLOP/s by a large product, %.1f GB/s by a large copy\n", 1e-9 * p->flops_per_second,
                    1e-9 * p->bytes_per_second);
    text_printf(to, "\n  %6s  %-17s %-25s %-20s %9s %5s %8s %8s  %s\n", "node", "op", "kernel", "out", "us", "%", "GFLOP/s",
                "GB/s", "ceiling");
    for (int i = 0; i < p->n_layers; i++) {
        const struct profile_layer *l = &p->layer[i];

        text_printf(to, "%-74s %9.1f %5.1f\n", l->name, 1e6 * l->seconds, 100 * share(p, l->seconds));
        for (int k = 0; k < l->n; k++)
            table_node(p, &p->node[l->first + k], to);
    }
}
