/* Shapes: counting, limits, broadcasting, text. */
#include <string.h>

#include "engine/graph/shape.h"
#include "tests/test.h"

#define NONE_DIM (-1)

static void check_broadcast(struct shape a, struct shape b, const char *want)
{
    struct shape r;

    CHECK_TEXT(shape_broadcast(&a, &b, &r) ? shape_text(&r).s : "no", want);
    CHECK_TEXT(shape_broadcast(&b, &a, &r) ? shape_text(&r).s : "no", want);
}

TEST(shapes_broadcast_as_numpy_does)
{
    check_broadcast(SHAPE(3, 4), SHAPE(4), "(3, 4)");
    check_broadcast(SHAPE(3, 1), SHAPE(1, 5), "(3, 5)");
    check_broadcast(SHAPE(2, 1, 4), SHAPE(3, 1), "(2, 3, 4)");
    check_broadcast(SCALAR, SHAPE(7), "(7,)");
    check_broadcast(SCALAR, SCALAR, "()");
    check_broadcast(SHAPE(3), SHAPE(4), "no");
    check_broadcast(SHAPE(2, 3), SHAPE(3, 2), "no");
    check_broadcast(SHAPE(0), SHAPE(1), "(0,)");
    check_broadcast(SHAPE(0), SHAPE(2), "no");
}

TEST(an_unknown_dimension_passes_and_takes_the_other_sides_length)
{
    check_broadcast(SHAPE(NONE_DIM, 4), SHAPE(5, 4), "(5, 4)");
    check_broadcast(SHAPE(NONE_DIM), SHAPE(1), "(None,)");
    check_broadcast(SHAPE(NONE_DIM), SHAPE(NONE_DIM), "(None,)");
}

TEST(counts_are_exact_or_saturate)
{
    struct shape s = SHAPE(3, 5, 7), none = SHAPE(3, NONE_DIM), empty = SHAPE((int64_t)1 << 62, 0, (int64_t)1 << 62);
    struct shape huge = SHAPE((int64_t)1 << 40, (int64_t)1 << 40), scalar = SCALAR;

    CHECK_INT(shape_count(&s), 105);
    CHECK_INT(shape_count(&scalar), 1);
    CHECK_INT(shape_count(&none), -1);
    CHECK_INT(shape_count(&empty), 0);
    CHECK_INT(shape_count(&huge), INT64_MAX);
}

TEST(a_tensor_of_2_to_the_44_elements_is_the_largest)
{
    struct problem problem;
    struct shape most = SHAPE((int64_t)1 << 22, (int64_t)1 << 22), more = SHAPE((int64_t)1 << 22, (int64_t)1 << 22, 2);
    struct shape bad = SHAPE(2, -3), overflow = SHAPE(INT64_MAX, INT64_MAX), hidden = SHAPE(0, INT64_MAX, 2);

    CHECK_INT(shape_checked(&most, "x", &problem), ST_OK);
    CHECK_INT(shape_checked(&more, "x", &problem), ST_TOO_LARGE);
    CHECK_TEXT(problem.where, "x");
    CHECK_CONTAINS(problem.detail, "(4194304, 4194304, 2)");
    CHECK_INT(shape_checked(&overflow, "x", &problem), ST_TOO_LARGE);
    CHECK_INT(shape_checked(&hidden, "x", &problem), ST_TOO_LARGE);
    CHECK_INT(shape_checked(&bad, "x", &problem), ST_INVALID);
    CHECK_CONTAINS(problem.detail, "(2, -3)");
}

TEST(axes_count_from_either_end)
{
    struct shape s = SHAPE(2, 3, 4), without, with;

    CHECK_INT(shape_axis(&s, -1), 2);
    CHECK_INT(shape_axis(&s, 0), 0);
    CHECK_INT(shape_axis(&s, 3), -1);
    CHECK_INT(shape_axis(&s, -4), -1);
    without = shape_without(&s, 1);
    with = shape_with(&s, 2, 9);
    CHECK_TEXT(shape_text(&without).s, "(2, 4)");
    CHECK_TEXT(shape_text(&with).s, "(2, 3, 9)");
    CHECK(!shape_equal(&s, &with));
    CHECK(!shape_equal(&s, &without));
}

TEST(text_has_room_for_the_longest_shape)
{
    struct shape s = {.rank = MAX_RANK};

    for (int i = 0; i < MAX_RANK; i++)
        s.dim[i] = INT64_MIN;
    CHECK_INT(strlen(shape_text(&s).s), MAX_RANK * 20 + (MAX_RANK - 1) * 2 + 2);
}

TEST(every_type_is_found_by_its_name_again)
{
    enum dtype t;

    for (int i = 0; i < N_DTYPES; i++) {
        CHECK(dtype_find(dtype_name((enum dtype)i), &t));
        CHECK_INT(t, i);
    }
    CHECK_INT(dtype_bytes(BF16), 2);
    CHECK(!dtype_find("complex64", &t));
}
