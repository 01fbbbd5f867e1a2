/* Winograd's convolution: against the reference at every SIMD level, and its error, measured against sums in double precision,
 * beside that of a convolution that multiplies everything. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/graph/plan.h"
#include "tests/cpu/compare.h"
#include "tests/test.h"

struct shapes {
    int64_t n, h, w, c, f;
    int padding;
};

/* The convolution, its three gradients, and which kernel took it. */
static struct compare convolution(const struct shapes *s, bool bias)
{
    struct compare c = compare_make();
    struct conv how = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1, .padding = s->padding};
    value_id in[3] = {compare_input(&c, F32, SHAPE(s->n, s->h, s->w, s->c)), compare_input(&c, F32, SHAPE(3, 3, s->c, s->f)),
                      bias ? compare_input(&c, F32, SHAPE(s->f)) : 0};
    value_id y = emit_conv(&c.b, in[0], in[1], in[2], how), d[3];
    value_id r = compare_input(&c, F32, shape_of(&c.b, y));

    struct shape out = shape_of(&c.b, y);
    value_id mean = emit_reduce_all(&c.b, emit_mul(&c.b, y, r), REDUCE_MEAN); /* a long sum would show its own error */

    graph_grad(&c.b, emit_scale(&c.b, mean, (double)shape_count(&out)), in, 2 + bias, d);
    return c;
}

static const char *kernel_of(const struct compare *c, const char *op)
{
    struct device *d;
    struct problem problem;
    struct plan_step step = {0};
    const char *name = NULL;

    CHECK_OK(backend_cpu()->open(0, &(struct device_options){.threads = 1}, &d, &problem));
    for (uint32_t i = 1; i < c->g->n_nodes; i++) {
        if (strcmp(c->g->nodes[i].op->name, op) != 0)
            continue;
        CHECK_OK(backend_choose(backend_cpu(), d, c->g, i, &step, &problem));
        name = step.kernel->name;
        step.kernel->release(step.prepared);
    }
    (void)backend_cpu()->close(d);
    return name;
}

TEST(it_agrees_with_the_reference_at_every_level)
{
    static const struct shapes all[] = {
        {140, 4, 4, 16, 16, PADDING_SAME},  {15, 10, 11, 16, 32, PADDING_SAME}, {16, 14, 12, 32, 16, PADDING_VALID},
        {33, 9, 10, 32, 48, PADDING_VALID}, {70, 8, 8, 16, 16, PADDING_SAME},   {8, 16, 16, 16, 64, PADDING_SAME},
        {19, 6, 30, 48, 16, PADDING_VALID}, {8, 16, 16, 112, 16, PADDING_SAME},
    };

    for (int l = 0; compare_level(l); l++)
        for (size_t i = 0; i < COUNT(all); i++) {
            struct compare c = convolution(&all[i], i % 2);

            CHECK_TEXT(kernel_of(&c, "conv"), "conv_winograd.forward");
            CHECK_TEXT(kernel_of(&c, "conv_dw"), "conv_winograd.dw");
            c.simd = compare_level(l);
            c.threads = 1 + (int)(i % 3 == 0);
            c.tolerance = 1e-5;
            compare_run(&c, true);
            compare_done(&c);
        }
}

TEST(its_bits_do_not_depend_on_the_number_of_threads)
{
    for (int l = 0; compare_level(l); l++) {
        uint64_t bits[3];

        for (int threads = 1; threads <= 3; threads++) {
            struct compare c = convolution(&(struct shapes){9, 16, 16, 32, 64, PADDING_SAME}, true);

            c.simd = compare_level(l);
            c.threads = threads;
            bits[threads - 1] = compare_bits(&c);
            compare_done(&c);
        }
        CHECK(bits[1] == bits[0]);
        CHECK(bits[2] == bits[0]);
    }
}

TEST(other_convolutions_are_left_to_other_kernels)
{
    struct compare few = convolution(&(struct shapes){20, 16, 16, 8, 16, PADDING_SAME}, false);
    struct compare waste = convolution(&(struct shapes){40, 5, 5, 16, 16, PADDING_SAME}, false);
    struct compare small = convolution(&(struct shapes){2, 16, 16, 64, 64, PADDING_SAME}, false);
    struct compare large = convolution(&(struct shapes){8, 16, 16, 512, 528, PADDING_SAME}, false);

    CHECK(strcmp(kernel_of(&large, "conv"), "conv_winograd.forward") != 0);
    CHECK(strcmp(kernel_of(&few, "conv"), "conv_winograd.forward") != 0);
    CHECK(strcmp(kernel_of(&waste, "conv"), "conv_winograd.forward") != 0);
    CHECK(strcmp(kernel_of(&small, "conv"), "conv_winograd.forward") != 0);
    compare_done(&few);
    compare_done(&waste);
    compare_done(&small);
    compare_done(&large);
}

/* Errors as parts of the largest element: most, mean. Printed, since they are what the choice of kernel rests on. */
TEST(its_error_stays_below_five_millionths)
{
    static const struct shapes all[] = {
        {2, 32, 32, 16, 16, PADDING_SAME},
        {4, 26, 26, 32, 64, PADDING_VALID},
        {32, 8, 8, 64, 48, PADDING_SAME},
    };
    static const char *const ops[] = {"conv", "conv_dx", "conv_dw"};

    for (size_t i = 0; i < COUNT(all); i++) {
        struct compare c[2];

        for (int direct = 0; direct < 2; direct++) {
            c[direct] = convolution(&all[i], false);
            c[direct].last_rows = direct;
            c[direct].tolerance = 1e-5;
            compare_run(&c[direct], true);
        }
        for (size_t o = 0; o < COUNT(ops); o++) {
            struct compare_error own = compare_error(&c[0], ops[o]), all_products = compare_error(&c[1], ops[o]);

            printf("%-7s %lldx%lld, %lld to %lld: Winograd %.1e most, %.1e mean; all products %.1e, %.1e\n", ops[o],
                   (long long)all[i].h, (long long)all[i].w, (long long)all[i].c, (long long)all[i].f, own.most, own.mean,
                   all_products.most, all_products.mean);
            CHECK(own.most > 0 && own.most < 5e-6);
            CHECK(own.mean < 5e-7);
        }
        compare_done(&c[0]);
        compare_done(&c[1]);
    }
}
