#include "tests/test.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/philox.h"
#include "engine/base/text.h"

TEST(text_is_never_null_and_always_terminated)
{
    CLEAN(text_done) struct text t = text_make(100);

    CHECK_TEXT(t.s, "");
    text_add(&t, "");
    text_printf(&t, "%s", "");
    CHECK_TEXT(t.s, "");
    text_add(&t, "ab");
    text_add_char(&t, 'c');
    text_add_bytes(&t, "defg", 2);
    text_printf(&t, "-%d", 42);
    CHECK_TEXT(t.s, "abcde-42");
    CHECK_INT(t.length, 8);
    CHECK(!t.cut);
    text_clear(&t);
    CHECK_TEXT(t.s, "");
    text_done(&t);
    CHECK_TEXT(t.s, "");
}

TEST(text_grows_to_its_limit_and_is_cut_there)
{
    CLEAN(text_done) struct text t = text_make(1000);

    for (int i = 0; i < 500; i++)
        text_add(&t, "xyz");
    CHECK_INT(t.length, 1000);
    CHECK_INT(strlen(t.s), 1000);
    CHECK(t.cut);
    text_add(&t, "more");
    CHECK_INT(t.length, 1000);
    text_clear(&t);
    CHECK(!t.cut);
    text_printf(&t, "%2000d", 7);
    CHECK_INT(t.length, 1000);
    CHECK(t.cut);
}

TEST(a_cut_text_ends_in_front_of_a_utf8_sequence)
{
    static const char euro[] = "\xE2\x82\xAC";

    for (size_t limit = 0; limit < 12; limit++) {
        CLEAN(text_done) struct text t = text_make(limit), u = text_make(limit);

        text_add(&t, "\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC\xE2\x82\xAC");
        text_printf(&u, "%s%s%s%s", euro, euro, euro, euro);
        CHECK_INT(t.length, limit / 3 * 3);
        CHECK_INT(u.length, limit / 3 * 3);
        CHECK_INT(strlen(u.s), u.length);
        CHECK(t.cut && u.cut);
    }
}

TEST(nothing_is_added_behind_a_cut)
{
    CLEAN(text_done) struct text t = text_make(4);

    text_add(&t, "abc\xE2\x82\xAC");
    CHECK_TEXT(t.s, "abc");
    text_add(&t, "d");
    text_printf(&t, "d");
    text_add_char(&t, 'd');
    CHECK_TEXT(t.s, "abc");
}

TEST(a_stolen_text_belongs_to_the_caller)
{
    CLEAN(text_done) struct text t = text_make(100);
    OWNED(free) char *empty = text_steal(&t), *full = NULL;

    CHECK_TEXT(empty, "");
    empty[0] = 'x'; /* not the shared terminator */
    CHECK_TEXT(t.s, "");
    text_add(&t, "abc");
    full = text_steal(&t);
    CHECK_TEXT(full, "abc");
    CHECK_TEXT(t.s, "");
    text_add(&t, "again");
    CHECK_TEXT(t.s, "again");
}

TEST(json_strings_are_escaped_and_bad_utf8_replaced)
{
    static const char *const rows[][2] = {
        {"plain", "\"plain\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\b\f\n\r\t\x01\x1f\x7f", "\"\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\""},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\""},
        {"a\xFFz", "\"a\xEF\xBF\xBDz\""},
        {"\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                 /* overlong */
        {"\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""}, /* a surrogate */
        {"\xE2\x82", "\"\xEF\xBF\xBD\xEF\xBF\xBD\""},                 /* ends too early */
        {"", "\"\""},
        {NULL, "null"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text t = text_make(100);

        text_add_json(&t, rows[i][0]);
        CHECK_TEXT(t.s, rows[i][1]);
    }
}

TEST(text_sequence_follows_the_unicode_table)
{
    static const struct {
        const char *s;
        int n;
    } rows[] = {{"a", 1},
                {"\x80", 0},
                {"\xC1\xBF", 0},
                {"\xC2\x80", 2},
                {"\xE0\x9F\xBF", 0},
                {"\xE0\xA0\x80", 3},
                {"\xED\x9F\xBF", 3},
                {"\xED\xA0\x80", 0},
                {"\xEF\xBF\xBF", 3},
                {"\xF0\x8F\xBF\xBF", 0},
                {"\xF0\x90\x80\x80", 4},
                {"\xF4\x8F\xBF\xBF", 4},
                {"\xF4\x90\x80\x80", 0},
                {"\xF5\x80\x80\x80", 0},
                {"\xE2\x82", 0},
                {"", 0}};

    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK_INT(text_sequence(rows[i].s, rows[i].s + strlen(rows[i].s)), rows[i].n);
}

TEST(numbers_print_in_their_shortest_form)
{
    static const struct {
        double x;
        const char *s;
    } rows[] = {{0, "0"},
                {-0.0, "-0"},
                {1, "1"},
                {-17, "-17"},
                {0.1, "0.1"},
                {0.1 + 0.2, "0.30000000000000004"},
                {1e300, "1e+300"},
                {5e-324, "5e-324"},
                {1e15, "1e+15"},
                {123456789012, "123456789012"},
                {NAN, "null"},
                {INFINITY, "null"},
                {9007199254740993.0, "9007199254740992"},
                {2.5e-10, "2.5e-10"},
                {1.0 / 3, "0.3333333333333333"}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text t = text_make(100);

        text_add_number(&t, rows[i].x);
        CHECK_TEXT(t.s, rows[i].s);
    }
}

TEST(floats_print_in_their_shortest_form)
{
    static const struct {
        float x;
        const char *s;
    } rows[] = {{0, "0"},
                {-0.0f, "-0"},
                {1, "1"},
                {-1.5f, "-1.5"},
                {0.1f, "0.1"},
                {1.0f / 3, "0.33333334"},
                {0.001f, "0.001"},
                {1e-7f, "1e-07"},
                {1.5e-7f, "1.5e-07"},
                {0.00012f, "0.00012"},
                {16777216, "16777216"},
                {3.4028235e38f, "3.4028235e+38"},
                {1e-45f, "1e-45"},
                {123456.79f, "123456.79"},
                {1e8f, "1e+08"},
                {NAN, "null"},
                {-INFINITY, "null"},
                {0.99999994f, "0.99999994"},
                {1.0000001f, "1.0000001"}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        CLEAN(text_done) struct text t = text_make(100);

        text_add_float(&t, rows[i].x);
        CHECK_TEXT(t.s, rows[i].s);
    }
}

/* Digits of a printed number, without leading and trailing zeros. */
static int digits_of(const char *s)
{
    int n = 0, zeros = 0;

    for (; *s && *s != 'e'; s++) {
        if (*s == '0' && n)
            zeros++;
        if (*s >= '1' && *s <= '9') {
            n += zeros + 1;
            zeros = 0;
        }
    }
    return n;
}

TEST(any_float_reads_back_and_none_is_longer_than_printf_makes_it)
{
    CLEAN(text_done) struct text t = text_make(100);
    char want[64];

    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t word = philox(1, 0, i).w[0];
        float x, back;

        if (i % 2) /* of everyday size */
            word = (word & 0x807fffff) | (uint32_t)(127 - 40 + philox(2, 0, i).w[0] % 70) << 23;
        memcpy(&x, &word, sizeof x);
        if (!isfinite(x))
            continue;
        text_clear(&t);
        text_add_float(&t, x);
        back = strtof(t.s, NULL);
        for (int digits = 1; digits <= 9; digits++) {
            snprintf(want, sizeof want, "%.*g", digits, (double)x);
            if (strtof(want, NULL) == x)
                break;
        }
        /* of as many digits, the nearest to x, which is what printf gives */
        if (back != x || digits_of(t.s) > digits_of(want) ||
            (digits_of(t.s) == digits_of(want) && strtod(t.s, NULL) != strtod(want, NULL)))
            fail_msg("%.9g printed as %s, printf can say %s", (double)x, t.s, want);
    }
}

TEST(any_double_reads_back)
{
    CLEAN(text_done) struct text t = text_make(100);

    for (uint64_t i = 0; i < 50000; i++) {
        struct philox_words w = philox(3, 0, i);
        uint64_t word = (uint64_t)w.w[0] << 32 | w.w[1];
        double x;

        memcpy(&x, &word, sizeof x);
        if (!isfinite(x))
            continue;
        text_clear(&t);
        text_add_number(&t, x);
        if (strtod(t.s, NULL) != x)
            fail_msg("%.17g printed as %s", x, t.s);
    }
}
