/* The list of metrics, from the definition lines of this folder. */
#include "engine/metrics/metric.h"

#define X(id) extern const struct metric id;
#include "metrics.inc"
#undef X

static const struct class *const rows[] = {
#define X(id) (const struct class *)&id,
#include "metrics.inc"
#undef X
    NULL,
};

const struct catalogue metric_catalogue = {"metric", rows, NULL};
