#include "tests/test.h"

#include <math.h>

#include "engine/base/philox.h"
#include "engine/base/scope.h"

/* Random123's kat_vectors for philox4x32 with 10 rounds: counter words 0..3, key words 0..1. */
TEST(philox_gives_the_published_words)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        const uint32_t *c = rows[i].counter, *k = rows[i].key;
        struct philox_words got = philox((uint64_t)k[1] << 32 | k[0], (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0]);

        for (int j = 0; j < 4; j++)
            CHECK_INT(got.w[j], rows[i].want[j]);
    }
}

TEST(units_lie_in_zero_to_below_one)
{
    double sum = 0;

    CHECK(philox_unit(0) == 0);
    CHECK(philox_unit(~0u) < 1);
    for (uint64_t i = 0; i < 100000; i++)
        sum += (double)philox_unit(philox(7, 0, i).w[0]);
    CHECK_NEAR(sum / 100000, 0.5, 0.01); /* standard deviation of the mean: 0.0009 */
}

TEST(normals_have_mean_zero_and_variance_one)
{
    double sum = 0, squares = 0;
    int n = 20000;

    for (int i = 0; i < n; i++) {
        struct philox_words w = philox(9, 1, (uint64_t)i);
        double x, y;

        philox_normal(w.w[0], w.w[1], &x, &y);
        CHECK(isfinite(x) && isfinite(y));
        sum += x + y;
        squares += x * x + y * y;
    }
    CHECK(fabs(sum / (2 * n)) < 0.025); /* five standard deviations */
    CHECK_NEAR(squares / (2 * n), 1, 0.036);
}

TEST(the_rarest_words_give_finite_normals)
{
    double x, y;

    philox_normal(0, 0, &x, &y);
    CHECK(isfinite(x) && isfinite(y));
    philox_normal(~0u, ~0u, &x, &y);
    CHECK(isfinite(x) && isfinite(y));
}

TEST(text_hash_is_fnv_1a)
{
    CHECK(text_hash("") == 0xcbf29ce484222325u);
    CHECK(text_hash("a") == 0xaf63dc4c8601ec8cu);
    CHECK(text_hash("foobar") == 0x85944171f73967e8u);
}
