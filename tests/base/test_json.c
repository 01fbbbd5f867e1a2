#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/json.h"
#include "engine/base/text.h"
#include "engine/base/thread.h"

static struct json *parse_with(const char *s, unsigned flags)
{
    struct problem problem;
    struct json *j = NULL;

    CHECK_OK(json_parse(s, strlen(s), NULL, flags, &j, &problem));
    return j;
}

static struct json *parse(const char *s)
{
    return parse_with(s, 0);
}

/* Both must equal: text -> tree -> text. */
static void check_print(const char *s, const char *want)
{
    OWNED(json_free) struct json *j = parse(s);
    OWNED(free) char *got = json_print(j, 0);

    CHECK_TEXT(got, want);
}

TEST(documents_print_as_they_were_read)
{
    static const char *const rows[][2] = {
        {"null", "null"},
        {" true ", "true"},
        {"\t[\r\n1 , -2.5,\"x\" ]", "[1,-2.5,\"x\"]"},
        {"{}", "{}"},
        {"[]", "[]"},
        {"[[],{},[{}]]", "[[],{},[{}]]"},
        {"{\"b\":1,\"a\":{\"c\":[false,null]}}", "{\"b\":1,\"a\":{\"c\":[false,null]}}"},
        {"\"\\u00e9\\ud83d\\ude00\\/\\b\\f\\n\\r\\t\\\"\\\\\"", "\"\xC3\xA9\xF0\x9F\x98\x80/\\b\\f\\n\\r\\t\\\"\\\\\""},
        {"{\"\":0,\"a b\":1}", "{\"\":0,\"a b\":1}"},
        {"0.30000000000000004", "0.30000000000000004"},
        {"1e-400", "0"},
        {"9223372036854775807", "9223372036854775807"},
        {"-9223372036854775808", "-9223372036854775808"},
        {"18446744073709551615", "18446744073709551615"},
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        check_print(rows[i][0], rows[i][1]);
}

TEST(malformed_documents_are_refused_with_their_position)
{
    static const struct {
        const char *s, *where, *detail;
    } rows[] = {
        {"", "", "line 1, column 1: a value is expected, not the end of the text"},
        {"  \n ", "", "line 2, column 2: a value is expected"},
        {"[1,2", "", "line 1, column 5: ',' or ']' is expected, not the end of the text"},
        {"[1 2]", "", "line 1, column 4: ',' or ']' is expected, not '2'"},
        {"[1,]", "", "nothing follows the ','"},
        {"{\"a\":1,}", "", "nothing follows the ','"},
        {"[,1]", "/0", "a value is expected, not ','"},
        {"{a:1}", "", "a key in double quotes is expected, not 'a'"},
        {"{\"a\" 1}", "", "':' is expected behind the key, not '1'"},
        {"{\"a\":{\"b/c\":[1,x]}}", "/a/b~1c/1", "column 16: a value is expected, not 'x'"},
        {"[\n\n  \"\xC3\xA9\", y]", "/1", "line 3, column 8: a value is expected, not 'y'"},
        {"1 2", "", "the document ends before this place, but '2' follows"},
        {"{} {}", "", "the document ends before this place"},
        {"01", "", "the document ends before this place, but '1' follows"},
        {"-", "", "this is not a number of JSON"},
        {"1.", "", "this is not a number of JSON"},
        {".5", "", "a value is expected, not '.'"},
        {"+1", "", "a value is expected, not '+'"},
        {"1e", "", "this is not a number of JSON"},
        {"-.5", "", "this is not a number of JSON"},
        {"0x10", "", "but 'x' follows"},
        {"1e400", "", "beyond the range of a double"},
        {"nul", "", "a value is expected, not 'n'"},
        {"nulll", "", "but 'l' follows"},
        {"True", "", "a value is expected, not 'T'"},
        {"'a'", "", "a value is expected, not '''"},
        {"\"abc", "", "line 1, column 1: the text that begins here has no end"},
        {"\"abc\\\"", "", "has no end"},
        {"\"\\x\"", "", "no escape of a backslash and 'x'"},
        {"\"\\u12g4\"", "", "four hexadecimal digits"},
        {"\"\\u12\"", "", "four hexadecimal digits"},
        {"\"\\u0000\"", "", "\\u0000 is not taken"},
        {"\"\\ud800\"", "", "\\ud800 is half of a surrogate pair"},
        {"\"\\ud800x\"", "", "\\ud800 is half of a surrogate pair"},
        {"\"\\ud800\\u0041\"", "", "\\ud800 is half of a surrogate pair"},
        {"\"\\udc00\\ud800\"", "", "\\udc00 is half of a surrogate pair"},
        {"\"a\nb\"", "", "the control character 0x0a in a text must be escaped"},
        {"\"\xFF\"", "", "the byte 0xff is not UTF-8"},
        {"\"\xC0\x80\"", "", "the byte 0xc0 is not UTF-8"},
        {"\"\xED\xA0\x80\"", "", "the byte 0xed is not UTF-8"},
        {"\"\xE2\x82\"", "", "the byte 0xe2 is not UTF-8"},
        {"\xEF\xBB\xBF{}", "", "byte order mark"},
        {"[NaN]", "/0", "NaN is not a number of JSON; send a finite number or null"},
        {"-Infinity", "", "-Infinity is not a number of JSON"},
        {"[1]]", "", "but ']' follows"},
        {"[1}", "", "',' or ']' is expected, not '}'"},
        {"\x01", "", "the byte 0x01"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};
        struct json *j = NULL;
        size_t n = strlen(rows[i].s);
        OWNED(free) char *exact = must_alloc(n + 1); /* without a terminator behind it, for ASan */

        exact = must_realloc(exact, n ? n : 1);
        memcpy(exact, rows[i].s, n);
        if (json_parse(exact, n, NULL, 0, &j, &problem) != ST_MALFORMED)
            fail_msg("%s was not refused", rows[i].s);
        CHECK(!j);
        CHECK_TEXT(problem.where, rows[i].where);
        CHECK_CONTAINS(problem.detail, rows[i].detail);
    }
}

TEST(a_key_that_is_there_twice_is_named_by_its_pointer)
{
    struct problem problem = {0};
    struct json *j = NULL;
    const char *s = "{\"fit\": {\"x\": 1, \"y~\": 2, \"z\": 3, \"y~\": 4}}";
    const char *escaped = "{\"a\": 1, \"\\u0061\": 2}";

    CHECK_INT(json_parse(s, strlen(s), NULL, 0, &j, &problem), ST_MALFORMED);
    CHECK_TEXT(problem.where, "/fit/y~0");
    CHECK_TEXT(problem.detail, "the key is there twice");
    CHECK_INT(json_parse(escaped, strlen(escaped), NULL, 0, &j, &problem), ST_MALFORMED);
    CHECK_TEXT(problem.where, "/a");
}

TEST(keys_that_differ_in_case_are_two_keys)
{
    OWNED(json_free) struct json *j = parse("{\"a\": 1, \"A\": 2}");

    CHECK_INT(json_number(json_get(j, "A")), 2);
    CHECK_INT(json_number(json_get(j, "a")), 1);
}

TEST(a_byte_zero_in_the_text_is_refused)
{
    struct problem problem = {0};
    struct json *j = NULL;

    CHECK_INT(json_parse("[1\0]", 4, NULL, 0, &j, &problem), ST_MALFORMED);
    CHECK_CONTAINS(problem.detail, "the byte 0x00");
    CHECK_INT(json_parse("\"a\0b\"", 5, NULL, 0, &j, &problem), ST_MALFORMED);
    CHECK_CONTAINS(problem.detail, "control character 0x00");
}

TEST(limits_are_answered_quickly_and_with_their_numbers)
{
    size_t n = 1 << 20;
    OWNED(free) char *s = must_alloc(n + 1);
    struct problem problem = {0};
    struct json *j = NULL;
    double start = clock_seconds();

    memset(s, '[', n);
    CHECK_INT(json_parse(s, n, NULL, 0, &j, &problem), ST_TOO_LARGE);
    CHECK_TEXT(problem.detail, "line 1, column 129: arrays and objects are nested deeper than 128 levels");
    for (size_t i = 0; i < n; i++)
        s[i] = i == 0 ? '[' : i == n - 1 ? ']' : i % 2 ? '0' : ',';
    s[n - 2] = ' ';
    CHECK_INT(json_parse(s, n, &(struct json_limits){.nodes = 1000}, 0, &j, &problem), ST_TOO_LARGE);
    CHECK_CONTAINS(problem.detail, "more than 1000 values");
    CHECK_INT(json_parse(s, n, &(struct json_limits){.bytes = 1000}, 0, &j, &problem), ST_TOO_LARGE);
    CHECK_TEXT(problem.detail, "the document has 1048576 bytes, at most 1000 are read");
    CHECK(clock_seconds() - start < 2);
    CHECK(!j);
}

TEST(limits_count_exactly)
{
    struct problem problem = {0};
    struct json *j = NULL;
    const char *s = "{\"a\": [1, 2, {}], \"b,[\": \"[{,\\\"[\", \"c\": [ ]}"; /* 7 values, 3 levels */

    CHECK_OK(json_parse(s, strlen(s), &(struct json_limits){.nodes = 7, .depth = 3, .bytes = strlen(s)}, 0, &j, &problem));
    json_free(j);
    CHECK_INT(json_parse(s, strlen(s), &(struct json_limits){.nodes = 6}, 0, &j, &problem), ST_TOO_LARGE);
    CHECK_INT(json_parse(s, strlen(s), &(struct json_limits){.depth = 2}, 0, &j, &problem), ST_TOO_LARGE);
    CHECK_INT(json_parse(s, strlen(s), &(struct json_limits){.bytes = strlen(s) - 1}, 0, &j, &problem), ST_TOO_LARGE);
}

TEST(the_deepest_document_is_read_copied_and_freed)
{
    char s[2001];
    struct problem problem;
    OWNED(json_free) struct json *j = NULL, *copy = NULL;

    memset(s, '[', 1000);
    memset(s + 1000, ']', 1000);
    CHECK_OK(json_parse(s, 2000, &(struct json_limits){.depth = 100000}, 0, &j, &problem));
    copy = json_copy(j);
    CHECK_INT(json_count(copy), 1);
}

TEST(not_finite_numbers_are_read_and_printed_with_json_nan_only)
{
    OWNED(json_free) struct json *j = parse_with("[NaN, Infinity, -Infinity, \"NaN, -Infinity\", {\"NaN\": 1}]", JSON_NAN);
    OWNED(free) char *with = json_print(j, JSON_NAN), *without = json_print(j, 0);

    CHECK(isnan(json_number(json_at(j, 0))));
    CHECK_INT(json_type(json_at(j, 0)), JSON_NUMBER);
    CHECK(json_number(json_at(j, 1)) == INFINITY);
    CHECK(json_number(json_at(j, 2)) == -INFINITY);
    CHECK_TEXT(json_text(json_at(j, 3)), "NaN, -Infinity");
    CHECK_TEXT(with, "[NaN,Infinity,-Infinity,\"NaN, -Infinity\",{\"NaN\":1}]");
    CHECK_TEXT(without, "[null,null,null,\"NaN, -Infinity\",{\"NaN\":1}]");
}

TEST(integers_keep_all_their_digits)
{
    static const struct {
        const char *s;
        bool ok;
        int64_t n;
    } rows[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"3.0", true, 3},
        {"1e3", true, 1000},
        {"-17", true, -17},
        {"9007199254740991", true, 9007199254740991},
        {"9007199254740993", true, 9007199254740993}, /* 2^53 + 1, no double */
        {"-9007199254740993", true, -9007199254740993},
        {"9223372036854775807", true, INT64_MAX},
        {"-9223372036854775808", true, INT64_MIN},
        {"9223372036854775808", false, 0},
        {"-9223372036854775809", false, 0},
        {"99999999999999999999999999", false, 0},
        {"1e30", false, 0},
        {"2.5", false, 0},
        {"\"3\"", false, 0},
        {"true", false, 0},
        {"null", false, 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(json_free) struct json *j = parse(rows[i].s), *copy = json_copy(j);
        int64_t n = 0;

        if (json_int(copy, &n) != rows[i].ok)
            fail_msg("%s: json_int says %d", rows[i].s, !rows[i].ok);
        CHECK_INT(n, rows[i].n);
    }
    for (int64_t x = INT64_MAX - 2; x > 0; x /= 3) {
        OWNED(json_free) struct json *j = json_new_int(-x);
        OWNED(free) char *s = json_print(j, 0);
        int64_t n = 0;

        CHECK(json_int(j, &n));
        CHECK_INT(n, -x);
        CHECK_INT(strtoll(s, NULL, 10), -x);
    }
}

TEST(doubles_are_read_as_strtod_reads_them)
{
    static const char *const rows[] = {
        "0.1",
        "1e22",
        "1e23",
        "123456789.123456789",
        "1.7976931348623157e308",
        "2.2250738585072011e-308",
        "4.9e-324",
        "8.442911973260991817129021e-309",
        "9007199254740992.99999999999999999999",
        "0.000000000000000000000000000000000000000000000000000000000000000000000000000000001",
        "1000000000000000000000000000000000000000000000000000000000000000000000000000000000000000.5"};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(json_free) struct json *j = parse(rows[i]);

        CHECK(json_number(j) == strtod(rows[i], NULL));
    }
}

TEST(getters_take_null_and_wrong_types)
{
    OWNED(json_free) struct json *j = parse("{\"t\": \"x\", \"a\": [1], \"yes\": true, \"no\": false}");
    int64_t n = 5;

    CHECK_INT(json_type(NULL), JSON_NOTHING);
    CHECK(!json_get(NULL, "a") && !json_at(NULL, 0) && !json_first(NULL) && !json_next(NULL) && !json_key(NULL));
    CHECK_INT(json_count(NULL), 0);
    CHECK(!json_text(NULL) && isnan(json_number(NULL)) && !json_int(NULL, &n) && !json_true(NULL) && !json_is(NULL, "x"));
    CHECK_INT(n, 5);
    CHECK(!json_copy(NULL) && !json_free(NULL));
    CHECK(!json_get(json_get(j, "a"), "t") && !json_get(j, "missing") && !json_at(json_get(j, "a"), 1));
    CHECK(!json_at(json_get(j, "a"), -1) && !json_first(json_get(j, "t")));
    CHECK(isnan(json_number(json_get(j, "t"))) && !json_text(json_get(j, "a")));
    CHECK(json_true(json_get(j, "yes")) && !json_true(json_get(j, "no")) && !json_true(json_get(j, "t")));
    CHECK(json_is(json_get(j, "t"), "x") && !json_is(json_get(j, "t"), "X") && !json_is(json_get(j, "a"), "x"));
    CHECK_TEXT(json_type_name(JSON_NUMBER), "a number");
    CHECK_TEXT(json_type_name(json_type(json_get(j, "a"))), "an array");
}

TEST(members_are_walked_in_their_order)
{
    OWNED(json_free) struct json *j = parse("{\"c\": 1, \"a\": 2, \"b\": 3}");
    CLEAN(text_done) struct text t = text_make(100);

    for (const struct json *m = json_first(j); m; m = json_next(m))
        text_printf(&t, "%s%.0f ", json_key(m), json_number(m));
    CHECK_TEXT(t.s, "c1 a2 b3 ");
    CHECK_INT(json_count(j), 3);
}

TEST(trees_are_built_changed_and_taken_apart)
{
    OWNED(json_free) struct json *j = json_new_object(), *taken = NULL, *copy = NULL;
    struct json *list = json_put(j, "list", json_new_array());
    OWNED(free) char *s = NULL, *t = NULL;

    for (int i = 0; i < 3; i++)
        json_push(list, json_new_number(i * 0.5));
    json_push(list, NULL);
    json_put(j, "name", json_new_text("a"));
    json_put(j, "x", json_new_int(1));
    json_put(j, "name", json_new_text("b")); /* replaces, in place */
    json_put(j, "none", json_new_text(NULL));
    json_put(j, "yes", json_new_bool(true));
    json_rename(j, "x", "y");
    json_rename(j, "absent", "z");
    json_rename(j, "yes", "yes");
    json_remove(j, "absent");
    copy = json_copy(json_get(j, "list"));
    CHECK(!json_key(copy));
    json_push(copy, json_new_null()); /* a copied list still grows at its end */
    json_put(j, "copy", STEAL(copy));
    s = json_print(j, 0);
    CHECK_TEXT(s, "{\"list\":[0,0.5,1,null],\"name\":\"b\",\"y\":1,\"none\":null,\"yes\":true,\"copy\":[0,0.5,1,null,null]}");
    json_rename(j, "y", "name"); /* takes the place of the other */
    taken = json_detach(j, "list");
    CHECK_INT(json_count(taken), 4);
    CHECK(!json_key(taken));
    CHECK(!json_detach(j, "list"));
    json_remove(j, "copy");
    t = json_print(j, 0);
    CHECK_TEXT(t, "{\"name\":1,\"none\":null,\"yes\":true}");
}

TEST(printed_numbers_read_back_as_the_same_double)
{
    static const double rows[] = {0.1, 1.0 / 3, 1e100, 1.0000000000000002, 2.2250738585072014e-308, -0.0, 123456789.123};

    for (size_t i = 0; i < COUNT(rows); i++) {
        OWNED(json_free) struct json *j = json_new_number(rows[i]), *back = NULL;
        OWNED(free) char *s = json_print(j, 0);

        back = parse(s);
        CHECK(json_number(back) == rows[i]);
    }
}

TEST(a_large_object_with_many_keys_is_read_quickly)
{
    CLEAN(text_done) struct text t = text_make(SIZE_MAX);
    OWNED(json_free) struct json *j = NULL;
    double start;

    text_add(&t, "{");
    for (int i = 0; i < 100000; i++)
        text_printf(&t, "%s\"k%d\":[%d]", i ? "," : "", i, i);
    text_add(&t, "}");
    start = clock_seconds();
    j = parse(t.s);
    CHECK_INT(json_count(j), 100000);
    CHECK(clock_seconds() - start < 5);
}
