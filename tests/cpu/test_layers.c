/* Convolution, pooling, normalisation, recurrence, movement and lookup against the references. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/ops/all.h"
#include "tests/cpu/compare.h"
#include "tests/test.h"

/* The gradient of sum(y * r) with respect to `wrt`, r random, so that every kernel of the way back runs too. */
static void run_with_gradient(struct compare *c, value_id y, const value_id *wrt, int n, bool want_kernel)
{
    value_id d[16], r = compare_input(c, F32, shape_of(&c->b, y));

    graph_grad(&c->b, emit_reduce_all(&c->b, emit_mul(&c->b, y, r), REDUCE_SUM), wrt, n, d);
    compare_run(c, want_kernel);
}

static void convolutions(bool last_rows)
{
    static const struct {
        int64_t n, h, w, c, kh, kw, f, groups;
        int64_t stride[2], dilation[2];
        int padding;
    } rows[] = {
        {2, 9, 8, 3, 3, 3, 8, 1, {1, 1}, {1, 1}, PADDING_SAME},    {3, 7, 7, 16, 3, 3, 32, 1, {1, 1}, {1, 1}, PADDING_VALID},
        {1, 1, 1, 1, 1, 1, 1, 1, {1, 1}, {1, 1}, PADDING_VALID},   {2, 11, 13, 5, 3, 2, 7, 1, {2, 3}, {1, 1}, PADDING_SAME},
        {2, 12, 12, 4, 3, 3, 6, 1, {1, 1}, {2, 3}, PADDING_VALID}, {2, 8, 8, 8, 3, 3, 8, 8, {1, 1}, {1, 1}, PADDING_SAME},
        {2, 8, 8, 6, 3, 3, 12, 6, {2, 2}, {1, 1}, PADDING_SAME},   {3, 6, 6, 12, 3, 3, 9, 3, {1, 1}, {1, 1}, PADDING_VALID},
        {2, 5, 6, 32, 1, 1, 64, 1, {1, 1}, {1, 1}, PADDING_VALID}, {2, 10, 10, 16, 1, 1, 8, 1, {2, 2}, {1, 1}, PADDING_VALID},
        {9, 17, 1, 3, 5, 1, 17, 1, {1, 1}, {1, 1}, PADDING_SAME},  {2, 28, 28, 1, 3, 3, 32, 1, {1, 1}, {1, 1}, PADDING_VALID},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        for (int bias = 0; bias < 2; bias++)
            for (int threads = 1; threads <= 2; threads++) {
                struct compare c = compare_make();
                struct conv how = {.groups = rows[i].groups, .padding = rows[i].padding};
                value_id in[3] = {compare_input(&c, F32, SHAPE(rows[i].n, rows[i].h, rows[i].w, rows[i].c)),
                                  compare_input(&c, F32, SHAPE(rows[i].kh, rows[i].kw, rows[i].c / rows[i].groups, rows[i].f)),
                                  bias ? compare_input(&c, F32, SHAPE(rows[i].f)) : 0};

                memcpy(how.stride, rows[i].stride, sizeof how.stride);
                memcpy(how.dilation, rows[i].dilation, sizeof how.dilation);
                c.threads = threads;
                c.last_rows = last_rows;
                c.tolerance = 5e-6;
                run_with_gradient(&c, emit_conv(&c.b, in[0], in[1], in[2], how), in, 2 + bias, true);
                compare_done(&c);
            }
}

TEST(convolutions_and_their_gradients_agree_with_the_reference)
{
    convolutions(false);
}

TEST(convolutions_as_matrix_products_agree_with_the_reference)
{
    convolutions(true);
}

TEST(pooling_and_its_gradient_agree_with_the_reference_at_every_level)
{
    static const struct {
        int64_t n, h, w, c, size[2], stride[2];
        int padding;
    } rows[] = {
        {2, 8, 8, 64, {2, 2}, {2, 2}, PADDING_VALID}, {2, 9, 7, 3, {2, 2}, {2, 2}, PADDING_VALID},
        {3, 9, 7, 17, {3, 3}, {2, 2}, PADDING_SAME},  {1, 5, 5, 1, {3, 2}, {1, 1}, PADDING_SAME},
        {2, 6, 6, 70, {3, 3}, {1, 2}, PADDING_VALID}, {2, 16, 16, 5, {16, 16}, {16, 16}, PADDING_VALID},
        {2, 5, 5, 4, {1, 1}, {2, 2}, PADDING_SAME},   {40, 12, 12, 16, {2, 2}, {2, 2}, PADDING_VALID},
    };

    for (int l = 0; compare_level(l); l++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            for (int kind = POOL_MAX; kind <= POOL_AVERAGE; kind++)
                for (int threads = 1; threads <= 2; threads++) {
                    struct compare c = compare_make();
                    struct pool how = {.kind = kind, .padding = rows[i].padding};
                    value_id x = compare_input(&c, F32, SHAPE(rows[i].n, rows[i].h, rows[i].w, rows[i].c));

                    memcpy(how.size, rows[i].size, sizeof how.size);
                    memcpy(how.stride, rows[i].stride, sizeof how.stride);
                    c.simd = compare_level(l);
                    c.threads = threads;
                    c.b.training = true;
                    c.tolerance = 1e-5; /* of the sum at the end, whose terms cancel */
                    run_with_gradient(&c, emit_pool(&c.b, x, how), &x, 1, true);
                    compare_done(&c);
                }
}

TEST(the_largest_of_equals_is_the_first_and_a_nan_is_the_largest)
{
    struct compare c = compare_make();
    value_id x = compare_input(&c, F32, SHAPE(1, 2, 4, 1));
    const float data[8] = {1, 1, NAN, 5, 1, 0, 7, NAN};

    compare_put(&c, x, data);
    c.b.training = true;
    (void)emit_pool(&c.b, x, (struct pool){.kind = POOL_MAX, .size = {2, 2}, .stride = {2, 2}, .padding = PADDING_VALID});
    compare_run(&c, true);
    compare_done(&c);
}

TEST(batch_normalisation_and_its_gradient_agree_with_the_reference_at_every_level)
{
    static const struct shape shapes[] = {{2, {3, 1}}, {2, {33, 7}}, {4, {5, 6, 7, 16}}, {3, {40, 30, 65}}, {2, {5000, 3}}};

    for (int l = 0; compare_level(l); l++)
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            for (int which = 0; which < 4; which++)
                for (int fixed = 0; fixed < 2; fixed++) {
                    struct compare c = compare_make();
                    int64_t n = shapes[i].dim[shapes[i].rank - 1];
                    value_id x = compare_input(&c, F32, shapes[i]), wrt[3] = {x}, y;
                    value_id gamma = which & 1 ? compare_input(&c, F32, SHAPE(n)) : 0;
                    value_id beta = which & 2 ? compare_input(&c, F32, SHAPE(n)) : 0;
                    int k = 1;

                    if (gamma)
                        wrt[k++] = gamma;
                    if (beta)
                        wrt[k++] = beta;
                    c.simd = compare_level(l);
                    c.threads = 1 + fixed;
                    c.tolerance = 1e-5;
                    if (fixed) {
                        value_id variance = compare_input(&c, F32, SHAPE(n));
                        float *v = malloc((size_t)n * sizeof *v);

                        for (int64_t j = 0; j < n; j++)
                            v[j] = 0.5f + (float)(j % 3);
                        compare_put(&c, variance, v);
                        free(v);
                        y = emit_batch_norm_fixed(&c.b, x, gamma, beta, compare_input(&c, F32, SHAPE(n)), variance,
                                                  (struct batch_norm){1e-3f});
                    } else {
                        y = emit_batch_norm(&c.b, x, gamma, beta, (struct batch_norm){1e-3f}).y;
                    }
                    run_with_gradient(&c, y, wrt, k, true);
                    compare_done(&c);
                }
}

static void lstm(const char *level, int threads, int64_t batch, int64_t time, int64_t in, int64_t units, int parts,
                 const char *inner, const char *gate, bool reverse, bool zero_output, bool training)
{
    struct compare c = compare_make();
    value_id leaf[6] = {compare_input(&c, F32, SHAPE(batch, time, in)),
                        compare_input(&c, F32, SHAPE(in, 4 * units)),
                        compare_input(&c, F32, SHAPE(units, 4 * units)),
                        parts & 1 ? compare_input(&c, F32, SHAPE(4 * units)) : 0,
                        parts & 2 ? compare_input(&c, F32, SHAPE(batch, units)) : 0,
                        parts & 2 ? compare_input(&c, F32, SHAPE(batch, units)) : 0};
    value_id mask = parts & 4 ? compare_input(&c, BOOL, SHAPE(batch, time)) : 0, wrt[6];
    struct rnn how = {.kind = RNN_LSTM,
                      .reverse = reverse,
                      .activation = activation_find(inner),
                      .recurrent_activation = activation_find(gate),
                      .zero_output_for_mask = zero_output};
    int n = 0;

    /* weights as they are in use: sums stay of the order of one */
    for (int k = 1; k < 3; k++) {
        int64_t count = shape_count(&c.g->values[leaf[k]].shape);
        float *w = malloc((size_t)count * sizeof *w);

        for (int64_t i = 0; i < count; i++)
            w[i] = 0.4f * sinf((float)(i * 7 % 101));
        compare_put(&c, leaf[k], w);
        free(w);
    }
    c.simd = level;
    c.threads = threads;
    c.tolerance = 2e-5;
    c.b.training = training;
    struct rnn_out out = emit_rnn(&c.b, leaf[0], leaf[1], leaf[2], leaf[3], leaf[4], leaf[5], mask, how);

    for (int i = 0; i < 6; i++)
        if (leaf[i])
            wrt[n++] = leaf[i];
    if (training) {
        value_id all =
            emit_concat(&c.b, 3, (value_id[]){emit_reshape(&c.b, out.sequence, &SHAPE(batch, time * units)), out.h, out.c}, 1);

        run_with_gradient(&c, all, wrt, n, true);
    } else {
        compare_run(&c, true);
    }
    compare_done(&c);
}

TEST(an_lstm_agrees_with_the_reference_forward_and_backward)
{
    for (int l = 0; compare_level(l); l++)
        for (int parts = 0; parts < 8; parts++)
            for (int form = 0; form < 4; form++)
                for (int training = 0; training < 2; training++)
                    lstm(compare_level(l), 1 + (parts & 1), 5, 7, 3, 17, parts, "tanh", "sigmoid", form & 1, form & 2,
                         training);
    lstm(NULL, 2, 1, 1, 1, 1, 7, "tanh", "sigmoid", false, false, true);
    lstm(NULL, 2, 33, 4, 20, 32, 3, "tanh", "sigmoid", false, false, true);
}

TEST(an_lstm_of_other_activations_agrees_with_the_reference)
{
    static const char *const pairs[][2] = {{"tanh", "hard_sigmoid"}, {"relu", "sigmoid"}, {"softsign", "keras1_hard_sigmoid"},
                                           {"linear", "sigmoid"},    {"gelu", "sigmoid"}, {"elu", "silu"}};

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        for (int parts = 1; parts < 8; parts += 2)
            for (int training = 0; training < 2; training++)
                lstm(NULL, 1 + (i & 1), 3, 5, 4, 6, parts, pairs[i][0], pairs[i][1], false, false, training);
}

TEST(moves_of_every_type_agree_with_the_reference)
{
    static const int orders[][4] = {{0, 1, 3, 2}, {3, 2, 1, 0}, {0, 2, 3, 1}, {1, 0, 2, 3}, {0, 3, 1, 2}, {2, 3, 0, 1}};

    for (int type = 0; type < N_DTYPES; type++)
        for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
            struct compare c = compare_make();
            value_id x = compare_input(&c, (enum dtype)type, SHAPE(3, 5, 20, 33)),
                     y = compare_input(&c, (enum dtype)type, SHAPE(3, 2, 20, 33));

            c.threads = 1 + (int)(i & 1);
            c.tolerance = 0;
            (void)emit_transpose(&c.b, x, orders[i]);
            (void)emit_concat(&c.b, 3, (value_id[]){x, y, x}, 1);
            (void)emit_slice(&c.b, x, (int)i % 4, 1, 3);
            (void)emit_copy(&c.b, x);
            (void)emit_reverse(&c.b, x, (int)i % 4);
            (void)emit_pad(
                &c.b, x,
                (struct pad){.before = {0, (int64_t)i, 1, 0}, .after = {1, 0, (int64_t)i, i & 1}, .value = i & 1 ? 1 : 0});
            compare_run(&c, true);
            compare_done(&c);
        }
}

TEST(transposes_of_odd_shapes_agree_with_the_reference)
{
    static const struct shape shapes[] = {{2, {1, 1}}, {2, {1, 7}}, {2, {17, 1}}, {2, {257, 130}}, {2, {3, 1000}}};

    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct compare c = compare_make();

        c.threads = 2;
        c.tolerance = 0;
        (void)emit_transpose(&c.b, compare_input(&c, F32, shapes[i]), (int[]){1, 0});
        compare_run(&c, true);
        compare_done(&c);
    }
}

TEST(casts_agree_with_the_reference_at_the_edges_of_each_type)
{
    static const float edges[] = {0,     -0.0f,  1.5f,     -1.5f,     255, 256,   -1,    3e9f, -3e9f,
                                  1e20f, -1e20f, INFINITY, -INFINITY, NAN, 65504, 65520, 1e-7f};
    enum { N = sizeof edges / sizeof edges[0] };

    for (int l = 0; compare_level(l); l++)
        for (int type = 0; type < N_DTYPES; type++) {
            struct compare c = compare_make();
            value_id x = compare_input(&c, F32, SHAPE(N)), y = compare_input(&c, (enum dtype)type, SHAPE(1000));

            c.simd = compare_level(l);
            compare_put(&c, x, edges);
            (void)emit_cast(&c.b, x, (enum dtype)type);
            (void)emit_cast(&c.b, y, F32);
            compare_run(&c, true);
            compare_done(&c);
        }
}

TEST(halves_are_read_as_the_numbers_they_stand_for)
{
    for (int l = 0; compare_level(l); l++) {
        struct compare c = compare_make();
        value_id x = compare_input(&c, F16, SHAPE(65536));
        uint16_t *all = malloc(65536 * sizeof *all);

        for (int i = 0; i < 65536; i++)
            all[i] = (uint16_t)i;
        compare_put(&c, x, all);
        free(all);
        c.simd = compare_level(l);
        c.tolerance = 0;
        (void)emit_cast(&c.b, x, F32);
        compare_run(&c, true);
        compare_done(&c);
    }
}

TEST(lookups_and_their_gradients_agree_with_the_reference)
{
    static const enum dtype types[] = {I32, I64, F32, U8};

    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++)
        for (int outside = 0; outside < 2; outside++) {
            struct compare c = compare_make();
            value_id table = compare_input(&c, F32, SHAPE(50, 40)), index = compare_input(&c, types[t], SHAPE(6, 70));
            value_id rows = compare_input(&c, F32, SHAPE(6, 70, 50));

            c.whole_below = 50 + 9 * outside;
            c.threads = 1 + (int)(t & 1);
            value_id y = emit_gather(&c.b, table, index), z = emit_pick(&c.b, rows, index);

            (void)emit_one_hot(&c.b, index, 50);
            run_with_gradient(&c, emit_reduce_last(&c.b, y, REDUCE_SUM), &table, 1, true);
            run_with_gradient(&c, z, &rows, 1, true);
            compare_done(&c);
        }
}
