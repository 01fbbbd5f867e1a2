/* The catalogue of ops: one documented constructor per op. Each returns the first output, 0 after a problem.
 *
 * Images are (batch, height, width, channels) from input to loss; matrices are row-major. Shapes are written in comments as
 * (batch, time, features). Attribute structs are public, since backends read them from node->attr. */
#ifndef HORN_OPS_OPS_H
#define HORN_OPS_OPS_H

#include "engine/graph/build.h"

/* --- products (matmul.c) ----------------------------------------------------------------------------------------------- */

enum matmul_flag { MATMUL_TX = 1, MATMUL_TW = 2, MATMUL_FLOAT = 4 /* y is float32 even of bfloat16 factors */ };
struct matmul {
    unsigned flags;
};
/* y = op(x) op(w), op transposing the last two axes with the flag. x (..., m, k), w (k, n) for every leading index of x, or
 * w (..., k, n) with the same leading axes; y (..., m, n). With w of rank 2 and no MATMUL_TX, x of rank 1 or more counts as
 * (rows, k). A third input, a bias (n), is added to each row when given: emit_matmul_bias. */
value_id emit_matmul(struct build *b, value_id x, value_id w, unsigned flags);
value_id emit_matmul_bias(struct build *b, value_id x, value_id w, value_id bias, unsigned flags);

/* --- convolution (conv.c) ---------------------------------------------------------------------------------------------- */

enum padding { PADDING_VALID, PADDING_SAME };
struct conv {
    int64_t stride[2], dilation[2], groups;
    int padding;       /* enum padding: emit_conv works pad out from it */
    int64_t pad[2][2]; /* [axis][before, after]; filled by emit_conv */
};
/* Cross-correlation. x (n, h, w, c), kernel (kh, kw, c / groups, f), bias (f) or 0; y (n, oh, ow, f).
 * valid: oh = floor((h - kh') / sh) + 1 with kh' = (kh - 1) dh + 1; same: oh = ceil(h / sh), total padding
 * max((oh - 1) sh + kh' - h, 0), the odd one behind (TensorFlow's rule, all of Keras 3). */
value_id emit_conv(struct build *b, value_id x, value_id kernel, value_id bias, struct conv how);
/* Output length and padding of one axis by the rule above. false: the kernel does not fit. */
bool window_geometry(int64_t n, int64_t kernel, int64_t stride, int64_t dilation, int padding, int64_t *out, int64_t pad[2]);

/* --- pooling (pool.c) -------------------------------------------------------------------------------------------------- */

enum pool_kind { POOL_MAX, POOL_AVERAGE };
struct pool {
    int kind; /* enum pool_kind */
    int64_t size[2], stride[2];
    int padding;
    int64_t pad[2][2]; /* filled by emit_pool */
};
/* x (n, h, w, c) -> y (n, oh, ow, c). The average counts real elements only; max ignores padding. Max's gradient goes to the
 * first largest element of a window in row order; max keeps that element's place in its second output, U8, when training. */
value_id emit_pool(struct build *b, value_id x, struct pool how);

/* --- normalisation (norm.c) -------------------------------------------------------------------------------------------- */

struct batch_norm {
    float epsilon;
};
struct batch_norm_out {
    value_id y, mean, variance; /* variance: biased, E[(x - mean)^2] */
};
/* Normalises over all axes but the last with the batch's own moments: y = gamma (x - mean) / sqrt(variance + epsilon) + beta.
 * x (..., c); gamma, beta (c), either may be 0; mean, variance (c). Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1. */
struct batch_norm_out emit_batch_norm(struct build *b, value_id x, value_id gamma, value_id beta, struct batch_norm how);
/* The same with given moments (inference). */
value_id emit_batch_norm_fixed(struct build *b, value_id x, value_id gamma, value_id beta, value_id mean, value_id variance,
                               struct batch_norm how);

/* --- softmax and cross-entropy (softmax.c, cross_entropy.c), last axis ------------------------------------------------- */

value_id emit_softmax(struct build *b, value_id x);
value_id emit_log_softmax(struct build *b, value_id x);
value_id emit_sparsemax(struct build *b, value_id x); /* Martins & Astudillo 2016, arXiv:1602.02068, algorithm 1 */
struct cross_entropy {
    int sparse; /* 1: y holds class numbers (any numeric type), shape x without its last axis or with 1 there */
};
/* Per row: -sum_k y_k log softmax(x)_k, computed as log sum exp; the second output keeps softmax(x). x (..., k); result (...).
 * */
value_id emit_cross_entropy(struct build *b, value_id logits, value_id y, bool sparse);

/* --- reductions (reduce.c) --------------------------------------------------------------------------------------------- */

enum reduce_kind {
    REDUCE_SUM,
    REDUCE_MEAN,
    REDUCE_MAX,
    REDUCE_SUM_SQUARES,
    REDUCE_ARGMAX /* I32, one axis, first of equals */
};
struct reduce {
    int kind;
    unsigned axes; /* bit i: axis i */
    int keepdims;
};
value_id emit_reduce(struct build *b, value_id x, enum reduce_kind kind, unsigned axes, bool keepdims);
value_id emit_reduce_all(struct build *b, value_id x, enum reduce_kind kind);  /* to a scalar */
value_id emit_reduce_last(struct build *b, value_id x, enum reduce_kind kind); /* drops the last axis; rank 0 stays */
value_id emit_sum_to(struct build *b, value_id x, const struct shape *shape);  /* undoes broadcasting; x itself if equal */
value_id emit_expand(struct build *b, value_id x, const struct shape *shape);  /* broadcasts; x itself if equal */

/* --- pointwise (pointwise.c) ------------------------------------------------------------------------------------------- */

/* attr of op "pointwise" is struct formula. Inputs of any type are read as float32 and broadcast (numpy); outputs have the
 * broadcast shape and are float32, or bfloat16 where no input is a wider float and one is bfloat16. */
value_id emit_formula(struct build *b, const struct formula *f, const value_id *in); /* returns out[0]; others by build_out */
/* The same as an effect: writes outputs into existing leaves of the broadcast shape (an optimizer's step), behind b->ok. */
void emit_update(struct build *b, const struct formula *f, const value_id *in, const value_id *out);
value_id emit_fill(struct build *b, const struct shape *shape, float value);
value_id emit_add(struct build *b, value_id x, value_id y);
value_id emit_sub(struct build *b, value_id x, value_id y);
value_id emit_mul(struct build *b, value_id x, value_id y);
value_id emit_div(struct build *b, value_id x, value_id y);
value_id emit_scale(struct build *b, value_id x, double k); /* x k */
value_id emit_shift(struct build *b, value_id x, double k); /* x + k */
value_id emit_sigmoid(struct build *b, value_id x);

/* --- activations (activation.c): Keras' names -------------------------------------------------------------------------- */

extern const char *const activation_names[]; /* ends with NULL; index 0 is "linear" */
/* which: index of activation_names, -1 counts as linear. x of any shape; softmax, log_softmax, glu and sparsemax use the last
 * axis. */
value_id emit_activation(struct build *b, value_id x, int which);
int activation_find(const char *name); /* -1: unknown; aliases and letter case as Keras has them */
/* Appends a pointwise activation to a formula; false for the ones that are not pointwise (softmax ...). */
bool activation_term(struct formula *f, int which, term x, term *ret);
value_id emit_relu(struct build *b, value_id x, double slope, double max_value /* NaN: none */, double threshold);

/* --- movement (move.c) ------------------------------------------------------------------------------------------------- */

value_id emit_reshape(struct build *b, value_id x, const struct shape *shape); /* a view; one -1 is worked out if x is known */
struct transpose {
    int rank;
    int axis[MAX_RANK]; /* output axis i is input axis axis[i] */
};
value_id emit_transpose(struct build *b, value_id x, const int *axis);
struct concat {
    int axis;
};
value_id emit_concat(struct build *b, int n, const value_id *x, int axis);
struct slice {
    int axis;
    int64_t begin, end;
};
value_id emit_slice(struct build *b, value_id x, int axis, int64_t begin, int64_t end);
struct pad {
    int64_t before[MAX_RANK], after[MAX_RANK];
    float value;
};
value_id emit_pad(struct build *b, value_id x, struct pad how);
value_id emit_copy(struct build *b, value_id x);
void emit_store(struct build *b, value_id leaf, value_id x); /* leaf = x, behind b->ok */
value_id emit_cast(struct build *b, value_id x, enum dtype type);
value_id emit_reverse(struct build *b, value_id x, int axis);

/* --- gather (gather.c) ------------------------------------------------------------------------------------------------- */

/* table (v, d), index (...) of any numeric type -> (..., d). An index outside 0 .. v-1 gives a row of NaN (JAX does so). The
 * gradient of the table is the op "scatter_add", summed in index order. */
value_id emit_gather(struct build *b, value_id table, value_id index);
/* The gradient of a table by rows. If v was made by scatter_add, from few rows of a large table, the same sums without the rows
 * of zeros: (n, d), n the number of indices, unused rows zero, in the order in which their rows are first looked up; *where gets
 * (rows) I32, the number of each row's sum or -1. Else 0. Never a problem; v itself then loses its readers. */
value_id emit_scatter_rows(struct build *b, value_id v, value_id *where);
/* y[...] = x[..., index[...]]; outside: NaN. */
value_id emit_pick(struct build *b, value_id x, value_id index);
value_id emit_one_hot(struct build *b, value_id index, int64_t classes); /* (...) -> (..., classes) */

/* --- random (random.c): Philox keyed by (seed, stream), counter (step, element) ---------------------------------------- */

struct dropout {
    float rate;
    uint64_t stream;    /* from b->n_random */
    struct shape noise; /* shape of the mask: x's own, or with 1 where it is shared */
};
/* Training: x kept with probability 1 - rate and divided by it, else 0; the gradient draws the same mask again. Without
 * b->training: x. noise NULL: x's shape. */
value_id emit_dropout(struct build *b, value_id x, double rate, const struct shape *noise);

/* --- recurrent sequences (rnn_seq.c) ----------------------------------------------------------------------------------- */

enum rnn_kind { RNN_LSTM };
struct rnn {
    int kind;
    int reverse;                          /* steps T-1 .. 0; the outputs stand in processing order, as Keras has it */
    int activation, recurrent_activation; /* of activation_names, pointwise ones */
    int zero_output_for_mask;
    int training; /* keep what backward needs */
};
struct rnn_out {
    value_id sequence; // (batch, time, units)
    value_id h, c;     // (batch, units): after the last step
};
/* LSTM: z = x W + h U + b, columns i f c o; i, f, o by the recurrent activation, c~ by the activation;
 * c = f c + i c~, h = o act(c). x (batch, time, in), w (in, 4 units), u (units, 4 units), bias (4 units) or 0,
 * h0, c0 (batch, units) or 0 (zeros), mask (batch, time) or 0: a masked step repeats the previous output and keeps the state.
 * Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000. */
struct rnn_out emit_rnn(struct build *b, value_id x, value_id w, value_id u, value_id bias, value_id h0, value_id c0,
                        value_id mask, struct rnn how);

/* --- state (state.c) --------------------------------------------------------------------------------------------------- */

/* F64 state (n) += x (any numeric, n elements, or a scalar for n = 1), behind b->ok. */
void emit_accumulate(struct build *b, value_id state, value_id x);
void emit_step_next(struct build *b, value_id step); /* I64 scalar += 1, behind b->ok */

/* --- what backends see: inputs, outputs and attributes of every op
 * ------------------------------------------------------------
 *
 * op                 attr               inputs                                     outputs
 * matmul             matmul             x, w [, bias]                              y
 * conv               conv               x, kernel, bias or 0                       y
 * conv_dx            conv_grad          dy, kernel                                 dx
 * conv_dw            conv_grad          x, dy                                      dw [, dbias]
 * pool               pool               x                                          y [, place: maximum only]
 * pool_dx            pool_grad          dy [, place]                               dx
 * batch_norm         batch_norm         x, gamma or 0, beta or 0                   y, mean, variance, inverse deviation
 * batch_norm_dx      batch_norm         dy, x, gamma or 0, mean, inverse deviation dx, dgamma, dbeta
 * softmax ...        none               x                                          y
 * softmax_dx ...     none               y, dy                                      dx         (softmax, log_softmax, sparsemax)
 * cross_entropy      cross_entropy      logits, y                                  loss (...), probabilities (..., k)
 * cross_entropy_dx   cross_entropy      probabilities, y, dloss                    dlogits
 * reduce             reduce             x                                          y: F32, or I32 for argmax
 * expand             expand             x                                          y: x broadcast to the shape
 * pointwise          formula            as the formula                             as the formula, F32
 * pointwise_update   formula            as the formula                             leaves that it writes (effect)
 * update_rows        update_rows        as the formula, where                      leaves that it writes (effect)
 * fill               fill               none                                       y
 * reshape            reshape            x                                          y (view)
 * transpose, concat, slice, pad, reverse, copy: any type                           y
 * cast               cast               x                                          y
 * store              none               x [, ok]                                   leaf (effect)
 * gather             none               table, index                               y
 * scatter_add        scatter_add        dy, index                                  dtable (rows, d)
 * scatter_rows       scatter_add        dy, index                                  sums (n, d), where (rows): I32
 * pick               none               x, index                                   y
 * pick_dx            pick_dx            dy, index                                  dx (..., width)
 * one_hot            one_hot            index                                      y
 * dropout            dropout            x, seed, step                              y
 * rnn_seq            rnn                x, w, u, bias, h0, c0, mask                sequence, h, c [, gates, cells]
 * rnn_seq_dx         rnn                x, w, u, bias, h0, c0, mask, sequence, gates, cells, dsequence, dh, dc
 *                                                                                  dw, du, dbias, dh0, dc0 [, dx]
 * accumulate         none               x [, ok]                                   F64 state (effect)
 * step_next          none               [ok]                                       I64 step (effect)
 *
 * ok is a scalar F32 or BOOL: the effect happens only where it is not 0. In rnn_seq any input from bias on may be 0, in
 * rnn_seq_dx also the last three. */
struct conv_grad { /* how comes first, so the three conv ops may be read as struct conv */
    struct conv how;
    struct shape shape; /* of the result: x for conv_dx, kernel for conv_dw */
};
struct pool_grad {
    struct pool how;
    struct shape shape; /* of x */
};
/* place: for each y, number of the window's element (row * size[1] + column, padding counted), U8; I32 for windows of more than
 * 256 elements. */

struct expand {
    struct shape shape;
};
struct fill {
    struct shape shape;
    float value;
};
struct update_rows {
    struct formula formula;
    int by_rows; /* input that has rows (n, d): row r of the others takes its row where[r], zeros if that is -1 */
};
struct reshape {
    struct shape shape;
};
struct cast {
    enum dtype type;
};
struct reverse {
    int axis;
};
struct scatter_add {
    int64_t rows;
};
struct pick_dx {
    int64_t width;
};
struct one_hot {
    int64_t classes;
};

/* dropout: element e of the noise shape is kept where philox_unit(philox(dropout_key(seed, stream), step, e / 4).w[e % 4]) >=
 * rate. The stream's number is spread over the key by the finalizer of SplitMix64 (Steele, Lea, Flood 2014), since
 * neighbouring streams and neighbouring seeds must not meet. */
static inline uint64_t dropout_key(uint64_t seed, uint64_t stream)
{
    uint64_t z = stream + 0x9E3779B97F4A7C15u;

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return seed ^ z ^ (z >> 31);
}

/* What rnn_seq keeps when training, in processing order: gates (time, batch, 4 units), columns i f c o after their
 * activations, or before them if rnn_keeps_sums(); cells (time, batch, units), the cell state after each step. Of a masked
 * step the gates are zeros and the cell state is the one before. */
bool rnn_keeps_sums(
    const struct rnn *how); /* an activation's derivative cannot be had from its value; false for tanh, sigmoid */

#endif
