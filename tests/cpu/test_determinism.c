/* The same bits: run after run, and for any number of threads where the order of sums is ours. */
#include <stdlib.h>
#include <string.h>

#include "tests/cpu/compare.h"
#include "tests/test.h"

/* What libraries compute (products, convolutions, and the LSTM made of products) is left out: their bits depend on the team. */
static void our_own(struct compare *c)
{
    value_id x = compare_input(c, F32, SHAPE(16, 24, 24, 32)), wrt[3] = {x}, d[3];
    value_id rows = compare_input(c, F32, SHAPE(700, 300)), labels = compare_input(c, I32, SHAPE(700));
    value_id table = compare_input(c, F32, SHAPE(200, 64)), index = compare_input(c, I32, SHAPE(40, 50));
    struct shape scalar = SCALAR;

    c->b.training = true;
    c->b.seed = compare_input(c, I64, scalar);
    c->b.step = compare_input(c, I64, scalar);
    value_id y = emit_batch_norm(&c->b, x, wrt[1] = compare_input(c, F32, SHAPE(32)), wrt[2] = compare_input(c, F32, SHAPE(32)),
                                 (struct batch_norm){1e-3f})
                     .y;

    y = emit_relu(&c->b, y, 0, __builtin_nan(""), 0);
    y = emit_pool(&c->b, y, (struct pool){.kind = POOL_MAX, .size = {3, 3}, .stride = {2, 2}, .padding = PADDING_SAME});
    y = emit_dropout(&c->b, y, 0.3, NULL);
    y = emit_pool(&c->b, y, (struct pool){.kind = POOL_AVERAGE, .size = {2, 2}, .stride = {2, 2}, .padding = PADDING_VALID});
    graph_grad(&c->b, emit_reduce_all(&c->b, emit_mul(&c->b, y, y), REDUCE_MEAN), wrt, 3, d);
    value_id loss = emit_reduce_all(&c->b, emit_cross_entropy(&c->b, rows, labels, true), REDUCE_MEAN);

    graph_grad(&c->b, loss, &rows, 1, d);
    (void)emit_softmax(&c->b, rows);
    (void)emit_reduce(&c->b, rows, REDUCE_SUM, 1, false);
    (void)emit_reduce_all(&c->b, x, REDUCE_SUM_SQUARES);
    graph_grad(&c->b, emit_reduce_all(&c->b, emit_gather(&c->b, table, index), REDUCE_SUM_SQUARES), &table, 1, d);
    (void)emit_transpose(&c->b, x, (int[]){0, 3, 1, 2});
}

static void all_of_it(struct compare *c)
{
    our_own(c);
    value_id x = compare_input(c, F32, SHAPE(8, 14, 14, 16)), k = compare_input(c, F32, SHAPE(3, 3, 16, 32)), in[3] = {x, k},
             d[3];
    struct conv how = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1, .padding = PADDING_SAME};

    in[2] = compare_input(c, F32, SHAPE(32));
    graph_grad(&c->b, emit_reduce_all(&c->b, emit_conv(&c->b, x, k, in[2], how), REDUCE_SUM_SQUARES), in, 3, d);
    value_id a = compare_input(c, F32, SHAPE(128, 300)), w = compare_input(c, F32, SHAPE(300, 200));

    graph_grad(&c->b, emit_reduce_all(&c->b, emit_matmul(&c->b, a, w, 0), REDUCE_SUM_SQUARES), (value_id[]){a, w}, 2, d);
    value_id seq = compare_input(c, F32, SHAPE(16, 10, 20)), wx = compare_input(c, F32, SHAPE(20, 128)),
             u = compare_input(c, F32, SHAPE(32, 128));
    struct rnn lstm = {.activation = activation_find("tanh"), .recurrent_activation = activation_find("sigmoid")};
    struct rnn_out out = emit_rnn(&c->b, seq, wx, u, 0, 0, 0, 0, lstm);

    graph_grad(&c->b, emit_reduce_all(&c->b, out.h, REDUCE_SUM_SQUARES), (value_id[]){seq, wx, u}, 3, d);
}

static uint64_t bits(void (*build)(struct compare *), const char *level, int threads)
{
    struct compare c = compare_make();

    build(&c);
    c.simd = level;
    c.threads = threads;
    uint64_t hash = compare_bits(&c);

    CHECK(c.n_kernels > 10);
    CHECK_INT(c.n_references, 0);
    compare_done(&c);
    return hash;
}

TEST(our_own_kernels_give_the_same_bits_for_any_number_of_threads)
{
    for (int l = 0; compare_level(l); l++) {
        uint64_t one = bits(our_own, compare_level(l), 1);

        CHECK(bits(our_own, compare_level(l), 2) == one);
        CHECK(bits(our_own, compare_level(l), 3) == one);
        CHECK(bits(our_own, compare_level(l), 4) == one);
    }
}

TEST(all_kernels_give_the_same_bits_run_after_run)
{
    for (int threads = 1; threads <= 2; threads++) {
        uint64_t first = bits(all_of_it, NULL, threads);

        for (int i = 0; i < 3; i++)
            CHECK(bits(all_of_it, NULL, threads) == first);
    }
}
