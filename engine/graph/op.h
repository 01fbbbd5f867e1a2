/* What an op must say: its name, its shape rule, its gradient and its reference kernel.
 *
 * One file of engine/ops per op (or family), ending in lines `const struct op op_NAME = {...};`, from which the build makes the
 * list of all ops. */
#ifndef HORN_GRAPH_OP_H
#define HORN_GRAPH_OP_H

#include "engine/graph/graph.h"

struct build;

struct kernel_call {
    const struct node *node;
    const struct value *values;
    void *const *in, *const *out; /* NULL where the id is 0 */
    void *scratch;                /* as asked for in prepare; 64-byte aligned; dead after the call */
    void *prepared;               /* from kernel.prepare, NULL for a reference */
    void *stream;
};

enum op_flag {
    OP_IN_PLACE =
        1, /* out[0] may lie in the memory of an input of the same bytes (any input for which op.shares says so, else in[0]) */
    OP_EFFECT = 2, /* writes leaves (its outputs are leaves); never removed, never reordered */
    OP_RANDOM = 4, /* reads seed and step */
    OP_VIEW = 8,   /* out[0] is in[0] under another shape: no kernel runs */
    OP_BFLOAT = 16 /* takes bfloat16 as it is; emit() widens the inputs of every other op to float32 */
};

struct op {
    const char *name; /* kernel tables refer to it by this name */
    unsigned flags;
    size_t attr_size;
    /* Sets shape and type of each out; all else of `out` is filled. problem->where is set by the caller to the layer. */
    enum status (*infer)(const struct node *n, const struct value *in, struct value *out, struct problem *problem);
    /* Emits nodes that compute the gradient of each input. dout[i] is 0 where no gradient flows; din[i] stays 0 for none.
     * need[i] says whether in[i]'s gradient is wanted. `n` is a copy that stays valid while emitting. NULL: not differentiable. */
    void (*grad)(struct build *b, const struct node *n, const value_id *dout, const bool *need, value_id *din);
    void (*reference)(const struct kernel_call *c); /* plain loops; the meaning of the op. NULL only for OP_VIEW */
    bool (*shares)(const struct node *n, int in);   /* NULL: in[0] only */
    double (*flops)(const struct node *n, const struct value *values); /* per run, for reports; NULL: elements of out[0] */
    double (*bytes)(const struct node *n, const struct value *values); /* read and written; NULL: all of its ins and outs */
};

/* Operations of one run, and bytes that it reads and writes at least, an input used twice once. Shapes must be known. */
double node_flops(const struct node *n, const struct value *values);
double node_bytes(const struct node *n, const struct value *values);

#define IN_VALUE(c, i)  (&(c)->values[(c)->node->in[i]])
#define OUT_VALUE(c, i) (&(c)->values[(c)->node->out[i]])

#endif
