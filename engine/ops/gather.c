/* Looking up by index: rows of a table, one element per row, one-hot rows.
 *
 * Indices may have any numeric type and are cut to whole numbers, since token ids arrive as float32 in Keras models. One
 * outside gives NaN where a number is looked up (JAX's "fill" mode), so that a wrong vocabulary size is seen at once; it adds
 * nothing to a gradient, and its one-hot row is zeros.
 *
 * The gradient of a table has two forms: scatter_add makes a table of sums, scatter_rows the sums of those rows that were looked
 * up and a list that says where they are. Each sum is the same chain of additions from zero, in index order. */
#include "engine/ops/ops.h"

#include "engine/ops/all.h"
#include "engine/ops/element.h"

static enum status gather_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct shape *index = &in[1].shape;

    (void)n;
    if (in[0].shape.rank != 2 || in[0].type != F32)
        return no_fit(problem, "a table to look up in must be float32 (rows, features), it is %s %s", dtype_name(in[0].type),
                      shape_text(&in[0].shape).s);
    if (index->rank == MAX_RANK)
        return no_fit(problem, "indices of shape %s have too many axes to look up", shape_text(index).s);
    out->shape = *index;
    out->shape.dim[out->shape.rank++] = in[0].shape.dim[1];
    out->type = F32;
    return ST_OK;
}

static void gather_reference(const struct kernel_call *c)
{
    const struct shape *table = &IN_VALUE(c, 0)->shape;
    int64_t n = shape_count(&IN_VALUE(c, 1)->shape), d = table->dim[1];

    for (int64_t i = 0; i < n; i++) {
        int64_t row = element_index(c->in[1], IN_VALUE(c, 1)->type, i, table->dim[0]);

        for (int64_t k = 0; k < d; k++)
            ((float *)c->out[0])[i * d + k] = row < 0 ? NAN : ((const float *)c->in[0])[row * d + k];
    }
}

/* Of the table or the matrix only what is looked up. */
static double looked_up_bytes(const struct node *n, const struct value *values)
{
    return (double)value_bytes(&values[n->in[1]]) + 2.0 * (double)value_bytes(&values[n->out[0]]);
}

static void gather_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    struct scatter_add how = {shape_of(b, n->in[0]).dim[0]};

    if (need[0])
        din[0] = emit(b, &op_scatter_add, &how, (value_id[]){dout[0], n->in[1]}, 2, 1);
}

static enum status scatter_add_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct scatter_add *how = n->attr;
    struct shape index = in[0].shape;
    int64_t d = index.rank ? index.dim[index.rank - 1] : -1;
    bool fits = index.rank == in[1].shape.rank + 1;

    for (int i = 0; fits && i < in[1].shape.rank; i++)
        fits = dims_agree(index.dim[i], in[1].shape.dim[i]);
    if (!fits)
        return no_fit(problem, "rows of shape %s cannot be added by indices of shape %s", shape_text(&in[0].shape).s,
                      shape_text(&in[1].shape).s);
    out->shape = SHAPE(how->rows, d);
    out->type = F32;
    return ST_OK;
}

static void scatter_add_reference(const struct kernel_call *c)
{
    const struct shape *table = &OUT_VALUE(c, 0)->shape;
    int64_t n = shape_count(&IN_VALUE(c, 1)->shape), d = table->dim[1];

    memset(c->out[0], 0, value_bytes(OUT_VALUE(c, 0)));
    for (int64_t i = 0; i < n; i++) {
        int64_t row = element_index(c->in[1], IN_VALUE(c, 1)->type, i, table->dim[0]);

        for (int64_t k = 0; row >= 0 && k < d; k++)
            ((float *)c->out[0])[row * d + k] += ((const float *)c->in[0])[i * d + k];
    }
}

static enum status scatter_rows_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct scatter_add *how = n->attr;
    int64_t count = 1;

    TRY(scatter_add_infer(n, in, out, problem));
    for (int i = 0; i < in[1].shape.rank; i++)
        count = count < 0 || in[1].shape.dim[i] < 0 ? -1 : count * in[1].shape.dim[i];
    out[0].shape.dim[0] = count;
    out[1].shape = SHAPE(how->rows);
    out[1].type = I32;
    return ST_OK;
}

static void scatter_rows_reference(const struct kernel_call *c)
{
    const struct scatter_add *how = c->node->attr;
    int64_t n = OUT_VALUE(c, 0)->shape.dim[0], d = OUT_VALUE(c, 0)->shape.dim[1];
    float *sums = c->out[0];
    int32_t *where = c->out[1], used = 0;

    memset(sums, 0, value_bytes(OUT_VALUE(c, 0)));
    for (int64_t r = 0; r < how->rows; r++)
        where[r] = -1;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = element_index(c->in[1], IN_VALUE(c, 1)->type, i, how->rows);

        if (row >= 0 && where[row] < 0)
            where[row] = used++;
        for (int64_t k = 0; row >= 0 && k < d; k++)
            sums[where[row] * d + k] += ((const float *)c->in[0])[i * d + k];
    }
}

static enum status pick_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct shape *x = &in[0].shape, *index = &in[1].shape;
    bool fits = x->rank == index->rank + 1;

    (void)n;
    for (int i = 0; fits && i < index->rank; i++)
        fits = dims_agree(x->dim[i], index->dim[i]);
    if (!fits)
        return no_fit(problem, "indices of shape %s do not pick one element of each row of %s", shape_text(index).s,
                      shape_text(x).s);
    if (in[0].type != F32)
        return no_fit(problem, "elements are picked from float32, not %s", dtype_name(in[0].type));
    out->shape = *index;
    out->type = F32;
    return ST_OK;
}

static void pick_reference(const struct kernel_call *c)
{
    int64_t n = shape_count(&OUT_VALUE(c, 0)->shape), width = width_of(&IN_VALUE(c, 0)->shape);

    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[1], IN_VALUE(c, 1)->type, i, width);

        ((float *)c->out[0])[i] = k < 0 ? NAN : ((const float *)c->in[0])[i * width + k];
    }
}

static void pick_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    if (need[0])
        din[0] = emit(b, &op_pick_dx, &(struct pick_dx){last_dim(b, n->in[0])}, (value_id[]){dout[0], n->in[1]}, 2, 1);
}

static enum status pick_dx_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct pick_dx *how = n->attr;

    (void)problem;
    out->shape = in[0].shape;
    out->shape.dim[out->shape.rank++] = how->width; /* one axis fewer than pick's x had */
    out->type = F32;
    return ST_OK;
}

static void pick_dx_reference(const struct kernel_call *c)
{
    int64_t n = shape_count(&IN_VALUE(c, 0)->shape), width = width_of(&OUT_VALUE(c, 0)->shape);

    memset(c->out[0], 0, value_bytes(OUT_VALUE(c, 0)));
    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[1], IN_VALUE(c, 1)->type, i, width);

        if (k >= 0)
            ((float *)c->out[0])[i * width + k] = ((const float *)c->in[0])[i];
    }
}

static enum status one_hot_infer(const struct node *n, const struct value *in, struct value *out, struct problem *problem)
{
    const struct one_hot *how = n->attr;

    if (in->shape.rank == MAX_RANK || how->classes < 1)
        return no_fit(problem, "indices of shape %s cannot become rows of %lld classes", shape_text(&in->shape).s,
                      (long long)how->classes);
    out->shape = in->shape;
    out->shape.dim[out->shape.rank++] = how->classes;
    out->type = F32;
    return ST_OK;
}

static void one_hot_reference(const struct kernel_call *c)
{
    const struct one_hot *how = c->node->attr;
    int64_t n = shape_count(&IN_VALUE(c, 0)->shape);

    memset(c->out[0], 0, value_bytes(OUT_VALUE(c, 0)));
    for (int64_t i = 0; i < n; i++) {
        int64_t k = element_index(c->in[0], IN_VALUE(c, 0)->type, i, how->classes);

        if (k >= 0)
            ((float *)c->out[0])[i * how->classes + k] = 1;
    }
}

/* Steps have derivative 0. */
static void one_hot_grad(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din)
{
    (void)b, (void)n, (void)dout, (void)need, (void)din;
}

value_id emit_gather(struct build *b, value_id table, value_id index)
{
    return table && index ? emit(b, &op_gather, NULL, (value_id[]){table, index}, 2, 1) : 0;
}

/* By rows where they are at most half of a table's rows, and the table has so many elements that a second sum and update cost
 * less than they save (some 10 us). */
#define LARGE_TABLE 65536

value_id emit_scatter_rows(struct build *b, value_id v, value_id *where)
{
    const struct node *n = &b->graph->nodes[value_of(b, v)->producer];
    struct shape table = shape_of(b, v);
    const char *origin = b->origin;
    struct scatter_add how;
    value_id in[2], sums;

    if (build_failed(b) || n->op != &op_scatter_add || !shape_known(&table))
        return 0;
    how = *(const struct scatter_add *)n->attr;
    memcpy(in, n->in, sizeof in);
    struct shape index = shape_of(b, in[1]);

    if (!shape_known(&index) || value_of(b, in[0])->type != F32 || 2 * shape_count(&index) > how.rows || how.rows > INT32_MAX ||
        shape_count(&table) < LARGE_TABLE)
        return 0;
    b->origin = n->origin; /* the layer, which a profile names */
    sums = emit(b, &op_scatter_rows, &how, in, 2, 2);
    b->origin = origin;
    *where = build_out(b, sums, 1);
    return sums;
}

value_id emit_pick(struct build *b, value_id x, value_id index)
{
    return x && index ? emit(b, &op_pick, NULL, (value_id[]){x, index}, 2, 1) : 0;
}

value_id emit_one_hot(struct build *b, value_id index, int64_t classes)
{
    return index ? emit(b, &op_one_hot, &(struct one_hot){classes}, &index, 1, 1) : 0;
}

const struct op op_gather = {
    .name = "gather",
    .infer = gather_infer,
    .grad = gather_grad,
    .reference = gather_reference,
    .bytes = looked_up_bytes,
};

const struct op op_scatter_add = {
    .name = "scatter_add",
    .attr_size = sizeof(struct scatter_add),
    .infer = scatter_add_infer,
    .reference = scatter_add_reference,
};

const struct op op_scatter_rows = {
    .name = "scatter_rows",
    .attr_size = sizeof(struct scatter_add),
    .infer = scatter_rows_infer,
    .reference = scatter_rows_reference,
};

const struct op op_pick = {
    .name = "pick",
    .infer = pick_infer,
    .grad = pick_grad,
    .reference = pick_reference,
    .bytes = looked_up_bytes,
};

const struct op op_pick_dx = {
    .name = "pick_dx",
    .attr_size = sizeof(struct pick_dx),
    .infer = pick_dx_infer,
    .reference = pick_dx_reference,
};

const struct op op_one_hot = {
    .name = "one_hot",
    .attr_size = sizeof(struct one_hot),
    .infer = one_hot_infer,
    .grad = one_hot_grad,
    .reference = one_hot_reference,
};
