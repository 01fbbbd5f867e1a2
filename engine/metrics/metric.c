/* Reading a metric and emitting its two sums.
 *
 * Keras 3 sums per sample and divides by the weights at the end of an epoch; Keras 1 and 2 average batch means weighted
 * by batch size, which is the same for means. Masks count as weights from tf.keras on; before, plain metrics do not see
 * them. */
#include "engine/metrics/metric.h"

#include <string.h>
#include <strings.h>

#include "engine/losses/common.h"
#include "engine/model/dialect.h"

static const char *accuracy_class(int dialect, const struct loss *loss, const struct shape *y, const struct shape *p)
{
    int64_t outputs = p->rank ? p->dim[p->rank - 1] : 1, targets = y->rank ? y->dim[y->rank - 1] : 1;

    if (dialect >= DIALECT_TF_KERAS) {
        if (outputs == 1)
            return "BinaryAccuracy";
        return y->rank < p->rank || targets == 1 ? "SparseCategoricalAccuracy" : "CategoricalAccuracy";
    }
    if (outputs == 1 || (loss && strcmp(loss->keras, "BinaryCrossentropy") == 0))
        return "BinaryAccuracy";
    return loss && loss->sparse ? "SparseCategoricalAccuracy" : "CategoricalAccuracy";
}

static const char *crossentropy_class(int dialect, const struct loss *loss, const struct shape *y, const struct shape *p)
{
    const char *accuracy = accuracy_class(dialect, loss, y, p);

    return accuracy[0] == 'B'   ? "BinaryCrossentropy"
           : accuracy[0] == 'S' ? "SparseCategoricalCrossentropy"
                                : "CategoricalCrossentropy";
}

static const char *label_of(const struct json *j, const char *class_name, struct arena *mem)
{
    char snake[128];

    if (json_text(j))
        return arena_text(mem, json_text(j));
    if (json_text(json_get(json_get(j, "config"), "name")))
        return arena_text(mem, json_text(json_get(json_get(j, "config"), "name")));
    snake_case(class_name, snake, sizeof(snake));
    return arena_text(mem, snake);
}

/* "accuracy" and "crossentropy" and their short forms stand for a class that follows from loss and shapes. */
static const char *resolved(const char *name, int dialect, const struct loss *loss, const struct shape *y,
                            const struct shape *p)
{
    if (strcasecmp(name, "accuracy") == 0 || strcasecmp(name, "acc") == 0)
        return accuracy_class(dialect, loss, y, p);
    if (dialect < DIALECT_KERAS_3 && (strcmp(name, "crossentropy") == 0 || strcmp(name, "ce") == 0))
        return crossentropy_class(dialect, loss, y, p);
    return NULL;
}

enum status metric_parse(const struct json *j, struct arena *mem, const char *pointer, int dialect, const struct loss *loss,
                         const struct shape *y, const struct shape *p, struct metric_spec *ret, struct problem *problem)
{
    const char *name = json_text(j) ? json_text(j) : json_text(json_get(j, "class_name"));
    const char *class_name = json_text(j) ? resolved(name, dialect, loss, y, p) : NULL;
    const struct catalogue *from;
    const struct object *o;
    struct metric_spec spec = {0};

    if (!name)
        return fail(problem, ST_INVALID, pointer, "a metric is a name or {\"class_name\", \"config\"}, this is %s",
                    json_type_name(json_type(j)));
    from = !catalogue_find(&metric_catalogue, class_name ? class_name : name) &&
                   catalogue_find(&loss_catalogue, class_name ? class_name : name)
               ? &loss_catalogue
               : &metric_catalogue;
    if (class_name)
        o = object_preset(from, class_name, mem);
    else
        TRY(object_parse(from, j, mem, pointer, FIELD_STRICT, NULL, &o, problem));
    if (from == &loss_catalogue)
        spec.loss = (const struct loss *)o->type;
    else
        spec.metric = (const struct metric *)o->type;
    spec.config = o->config;
    spec.label = label_of(j, o->type->keras, mem);
    *ret = spec;
    return ST_OK;
}

static value_id scalar(struct build *b, double x)
{
    return emit_fill(b, &SCALAR, (float)x);
}

/* Weights times mask, as a prefix of the values; 0 if there are none. */
static value_id joint_weights(struct build *b, value_id weights, value_id mask)
{
    struct shape w = shape_of(b, weights), m = shape_of(b, mask);

    if (!weights || !mask || build_failed(b))
        return weights ? weights : mask;
    while (w.rank < m.rank)
        w.dim[w.rank++] = 1;
    while (m.rank < w.rank)
        m.dim[m.rank++] = 1;
    return emit_mul(b, emit_reshape(b, weights, &w), emit_reshape(b, mask, &m));
}

void metric_emit(struct build *b, const struct metric_spec *m, value_id y, value_id p, value_id weights, value_id mask,
                 value_id *total, value_id *count)
{
    value_id values = m->metric ? m->metric->per_sample(b, m->config, y, p) : m->loss->per_sample(b, m->config, y, p), w;
    struct shape s;

    *total = *count = 0;
    weights = m->weighted ? weights : 0;
    mask = b->dialect >= DIALECT_TF_KERAS ? mask : 0;
    if (!prefix_fits(b, weights, values, "sample weights") || !prefix_fits(b, mask, values, "masks"))
        return;
    w = joint_weights(b, weights, mask);
    if (w && !build_failed(b)) {
        struct shape narrow = shape_of(b, w);

        values = values_meet_weights(b, values, w);
        s = shape_of(b, values);
        *total = emit_reduce_all(b, emit_mul(b, values, w), REDUCE_SUM);
        *count = emit_scale(b, emit_reduce_all(b, w, REDUCE_SUM), (double)shape_count(&s) / (double)shape_count(&narrow));
        return;
    }
    s = shape_of(b, values);
    *total = emit_reduce_all(b, values, REDUCE_SUM);
    *count = scalar(b, (double)shape_count(&s));
}
