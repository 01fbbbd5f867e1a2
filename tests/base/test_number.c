#include "tests/test.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/number.h"
#include "engine/base/philox.h"

static void same_as_strtof(const char *s)
{
    const char *at = s, *end = s + strlen(s);
    float got = 0, want = strtof(s, NULL);
    uint32_t a, b;

    if (!number_float(&at, end, &got) || at != end)
        fail_msg("%s was not read", s);
    memcpy(&a, &got, sizeof a);
    memcpy(&b, &want, sizeof b);
    if (a != b)
        fail_msg("%s is read as %.9g, strtof says %.9g", s, (double)got, (double)want);
}

TEST(floats_are_read_as_strtof_reads_them)
{
    static const char *const rows[] = {
        "0",
        "-0",
        "0.0",
        "-0.0e5",
        "1",
        "1.0",
        "-1.5",
        "0.1",
        "3.4028234e38",
        "3.40282346638528859e38",
        "1e-45",
        "7e-46",
        "1e-60",
        "1.17549435e-38",
        "1.1754943e-38",
        "16777217",
        "16777216.999999999999999999",
        "16777219",
        "0.333333343267440796",
        "1e22",
        "1e23",
        "123e-30",
        "1.5e-44",
        "9007199791611905",
        "0.500000029802322387695312499999",
        "0.5000000298023223876953125",
        "0.500000029802322387695312500001",
        "1.00000017881393432617187499",
        "1.000000178813934326171875",
        "1.00000017881393432617187501",
        "12345678901234567890123456789",
        "0.00000000000000000000000000000000000000012345678901234567890",
        "2e0",
        "2E+0",
        "2e-0",
        "3.4028236e38",
        "1e39",
        "-1e400",
        "1e-400",
        "100000000000000000000000000000000000000000e-30",
        "0e999999999999",
        "1e99999999999999999999",
        "1e-99999999999999999999",
        "0.0000000000000000000000000000000000000000000000000000000000000000001e67",
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        same_as_strtof(rows[i]);
}

TEST(random_decimals_next_to_midpoints_are_read_as_strtof_reads_them)
{
    char s[64];

    for (uint64_t i = 0; i < 200000; i++) {
        struct philox_words w = philox(11, 0, i);
        uint32_t bits = w.w[0] & 0x7fffffff;
        float x, above;
        double mid;

        if (i % 3 == 0) /* everyday sizes */
            bits = (bits & 0x7fffff) | (uint32_t)(127 - 20 + w.w[2] % 40) << 23;
        memcpy(&x, &bits, sizeof x);
        above = nextafterf(x, INFINITY);
        if (!isfinite(x) || !isfinite(above))
            continue;
        mid = ((double)x + (double)above) / 2;
        if (w.w[1] % 2)
            mid = nextafter(mid, w.w[1] % 4 == 1 ? 0 : INFINITY);
        snprintf(s, sizeof s, "%.*e", (int)(w.w[3] % 30), mid);
        same_as_strtof(s);
        snprintf(s, sizeof s, "%.*g", (int)(1 + w.w[3] % 25), (double)x);
        same_as_strtof(s);
    }
}

TEST(random_doubles_are_read_as_strtod_reads_them)
{
    char s[64];

    for (uint64_t i = 0; i < 50000; i++) {
        struct philox_words w = philox(12, 0, i);
        uint64_t bits = (uint64_t)w.w[0] << 32 | w.w[1];
        const char *at = s;
        double x, got = 0;

        if (i % 2)
            bits = (bits & 0xfffffffffffff) | (uint64_t)(1023 - 30 + w.w[2] % 60) << 52;
        memcpy(&x, &bits, sizeof x);
        if (!isfinite(x))
            continue;
        snprintf(s, sizeof s, "%.*g", (int)(1 + w.w[3] % 25), x);
        if (!number_double(&at, s + strlen(s), &got) || got != strtod(s, NULL))
            fail_msg("%s is read as %.17g", s, got);
    }
}

TEST(what_is_no_json_number_is_not_read)
{
    static const char *const rows[] = {"",    "-",   "+1",       ".5",        "1.", "1.e5", "1e", "1e+",
                                       "-.5", "NaN", "Infinity", "-Infinity", "e5", "x",    " 1"};

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *at = rows[i];
        float x = 7;
        double y = 7;

        if (number_float(&at, at + strlen(at), &x) || number_double(&at, at + strlen(at), &y))
            fail_msg("\"%s\" was read", rows[i]);
        CHECK(at == rows[i] && x == 7 && y == 7);
    }
}

TEST(a_number_ends_where_the_grammar_ends_it)
{
    static const struct {
        const char *s;
        int used;
    } rows[] = {{"01", 1}, {"1,2", 1}, {"-0x", 2}, {"1.5.5", 3}, {"1e5e5", 3}, {"0x10", 1}, {"1f", 1}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *at = rows[i].s;
        float x;

        CHECK(number_float(&at, at + strlen(at), &x));
        CHECK_INT(at - rows[i].s, rows[i].used);
    }
}

TEST(the_text_need_not_be_terminated)
{
    const char *s = "0.500000029802322387695312500001999"; /* next to a midpoint: the slow way */
    char *exact = must_alloc(32);
    const char *at = exact;
    float x;

    memcpy(exact, s, 32);
    CHECK(number_float(&at, exact + 32, &x));
    CHECK(x == 0.50000006f);
    CHECK(at == exact + 32);
    free_null(exact);
}

/* A locale with a decimal comma: an installed one, else one compiled for this test. */
static bool comma_locale(void)
{
    char folder[] = "/tmp/horn-locale-XXXXXX", command[200];
    bool ok = setlocale(LC_ALL, "de_DE.UTF-8") || setlocale(LC_ALL, "fr_FR.UTF-8");

    if (ok || !mkdtemp(folder))
        return ok;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder);
    if (system(command) == 0 && setenv("LOCPATH", folder, 1) == 0)
        ok = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 && ok;
}

TEST(the_locale_plays_no_part)
{
    CLEAN(text_done) struct text t = text_make(100);
    const char *at = "1.5", *near = "0.500000029802322387695312500001";
    float x = 0;

    if (!comma_locale())
        TEST_SKIP("no locale with a decimal comma is installed");
    CHECK(number_float(&at, at + 3, &x));
    CHECK(x == 1.5f);
    CHECK(number_float(&near, near + strlen(near), &x));
    CHECK(x == 0.50000006f);
    text_add_float(&t, 1.5e-30f);
    text_add_char(&t, ' ');
    text_add_number(&t, 0.1);
    setlocale(LC_ALL, "C");
    CHECK_TEXT(t.s, "1.5e-30 0.1");
}

TEST(nested_arrays_are_read_with_their_shape)
{
    static const struct {
        const char *s;
        int rank;
        int64_t dim[4];
        int n;
    } rows[] = {
        {"3.5", 0, {0}, 1},
        {" [ ] ", 1, {0}, 0},
        {"[1]", 1, {1}, 1},
        {"[1,2,3]", 1, {3}, 3},
        {"[[1,2,3],[4,5,6]]", 2, {2, 3}, 6},
        {"\n[ [ [1] , [2] ] , [ [3] , [4] ] , [ [5] , [6] ] ]", 3, {3, 2, 1}, 6},
        {"[[],[]]", 2, {2, 0}, 0},
        {"[[[]]]", 3, {1, 1, 0}, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem;
        float v[16] = {0};
        int rank = -1;
        int64_t dim[8];
        size_t used = 0;

        CHECK_OK(number_array(rows[i].s, strlen(rows[i].s), "/x", v, 16, &rank, dim, &used, &problem));
        CHECK_INT(rank, rows[i].rank);
        for (int k = 0; k < rank; k++)
            CHECK_INT(dim[k], rows[i].dim[k]);
        for (int k = 1; rank > 0 && k < rows[i].n; k++)
            CHECK(v[k] == v[k - 1] + 1);
        CHECK(rank > 0 || v[0] == 3.5f);
        CHECK_INT(used, strlen(rows[i].s) - (rows[i].s[strlen(rows[i].s) - 1] == ' '));
        CHECK(number_count(rows[i].s, strlen(rows[i].s)) >= (size_t)rows[i].n);
        if (rows[i].n)
            CHECK_INT(number_count(rows[i].s, strlen(rows[i].s)), rows[i].n);
    }
}

TEST(the_bound_of_a_long_text_ends_with_its_array)
{
    CLEAN(text_done) struct text t = text_make(100000);

    text_add(&t, "[[");
    for (int i = 0; i < 1000; i++)
        text_printf(&t, "%s%d.25", i == 0 ? "" : i % 100 ? ", " : "],\n[", i);
    text_add(&t, "]], [1,2,3]");
    CHECK_INT(number_count(t.s, t.length), 1000);
}

TEST(reading_stops_behind_the_array)
{
    const char *s = "[1,2], \"more\": [3]";
    struct problem problem;
    float v[2];
    int rank;
    int64_t dim[8];
    size_t used = 0;

    CHECK_OK(number_array(s, strlen(s), "/x", v, 2, &rank, dim, &used, &problem));
    CHECK_INT(used, 5);
    CHECK_INT(number_count(s, strlen(s)), 2);
}

TEST(what_does_not_fit_is_refused_with_its_place)
{
    static const struct {
        const char *s;
        enum status status;
        const char *where, *detail;
    } rows[] = {
        {"[[1,2],[3]]", ST_INVALID, "/x/1", "this row has 1 values, the rows before it have 2 (byte 9)"},
        {"[[1,2],[3,4,5]]", ST_INVALID, "/x/1", "this row has 3 values"},
        {"[[1,2],3]", ST_INVALID, "/x/1", "a number stands where the values before it are arrays"},
        {"[1,[2]]", ST_INVALID, "/x/1", "an array stands where the values before it are numbers"},
        {"[[[1]],[2]]", ST_INVALID, "/x/1/0", "a number stands where"},
        {"[[1],[]]", ST_INVALID, "/x/1", "this row has 0 values, the rows before it have 1"},
        {"[[[1]],[]]", ST_INVALID, "/x/1", "an array without values"},
        {"[[[[[[[[[1]]]]]]]]]", ST_INVALID, "/x/0/0/0/0/0/0/0/0", "nested deeper than 8 levels"},
        {"[1,2,3,4,5,6,7]", ST_TOO_LARGE, "/x/6", "more than 6 numbers"},
        {"[1,NaN]", ST_MALFORMED, "/x/1", "NaN is not a number of JSON; every value must be a finite number (byte 3)"},
        {"[-Infinity]", ST_MALFORMED, "/x/0", "-Infinity is not a number"},
        {"[1e39]", ST_MALFORMED, "/x/0", "beyond the range of float"},
        {"[null]", ST_MALFORMED, "/x/0", "a number is expected, not null"},
        {"[\"1\"]", ST_MALFORMED, "/x/0", "a number is expected, not a text"},
        {"[{}]", ST_MALFORMED, "/x/0", "not an object"},
        {"[1,]", ST_MALFORMED, "/x/1", "a number is expected, not the byte 0x5d"},
        {"[1 2]", ST_MALFORMED, "/x/1", "',' or ']' is expected, not the byte 0x32"},
        {"[01]", ST_MALFORMED, "/x/1", "',' or ']' is expected"},
        {"[1.]", ST_MALFORMED, "/x/0", "this is not a number of JSON"},
        {"[1", ST_MALFORMED, "/x/1", "not the end of the text"},
        {"[", ST_MALFORMED, "/x/0", "a number is expected, not the end of the text"},
        {"", ST_MALFORMED, "/x", "a number is expected, not the end of the text"},
        {"[1}", ST_MALFORMED, "/x/1", "not the byte 0x7d"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};
        float v[6];
        int rank = -5;
        int64_t dim[8];
        size_t used = 77;

        if (number_array(rows[i].s, strlen(rows[i].s), "/x", v, 6, &rank, dim, &used, &problem) != rows[i].status)
            fail_msg("%s: %s %s", rows[i].s, status_name(problem.status), problem.detail);
        CHECK_TEXT(problem.where, rows[i].where);
        CHECK_CONTAINS(problem.detail, rows[i].detail);
        CHECK_INT(rank, -5);
        CHECK_INT(used, 77);
    }
}

TEST(printed_arrays_read_back_exactly)
{
    CLEAN(text_done) struct text t = text_make(1 << 20);
    struct problem problem;
    float v[4 * 3 * 5], back[60];
    int64_t dim[3] = {4, 3, 5}, got[8];
    int rank;
    size_t used;

    for (int i = 0; i < 60; i++)
        v[i] = (philox_unit(philox(5, 0, (uint64_t)i).w[0]) - 0.5f) * powf(10, (float)(i % 20 - 10));
    number_print(&t, v, 3, dim);
    CHECK_INT(number_count(t.s, t.length), 60);
    CHECK_OK(number_array(t.s, t.length, "", back, 60, &rank, got, &used, &problem));
    CHECK_INT(rank, 3);
    CHECK_INT(got[0] * 100 + got[1] * 10 + got[2], 435);
    CHECK_INT(memcmp(v, back, sizeof v), 0);
}

TEST(arrays_print_with_brackets_by_shape)
{
    static const float v[] = {1, 2.5f, -3, NAN, 0.1f, 6};
    static const struct {
        int rank;
        int64_t dim[3];
        const char *s;
    } rows[] = {{0, {0}, "1"},          {1, {0}, "[]"},
                {1, {3}, "[1,2.5,-3]"}, {2, {2, 3}, "[[1,2.5,-3],[null,0.1,6]]"},
                {2, {2, 0}, "[[],[]]"}, {3, {1, 2, 1}, "[[[1],[2.5]]]"}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text t = text_make(1000);

        number_print(&t, v, rows[i].rank, rows[i].dim);
        CHECK_TEXT(t.s, rows[i].s);
    }
}
