#include "tests/test.h"

#include <string.h>

#include "engine/base/status.h"

TEST(every_status_has_its_http_code_name_and_title)
{
    CHECK_INT(status_http(ST_OK), 200);
    CHECK_INT(status_http(ST_INVALID), 422);
    CHECK_INT(status_http(ST_TOO_LARGE), 413);
    CHECK_INT(status_http(ST_DISK_FULL), 507);
    CHECK_TEXT(status_name(ST_NO_MEMORY), "NO_MEMORY");
    CHECK_TEXT(status_title(ST_INVALID), "a value or a shape does not fit");
    for (int s = ST_OK; s <= ST_DISK_FULL; s++)
        CHECK(status_http((enum status)s) >= 200 && strlen(status_title((enum status)s)) > 1);
}

TEST(a_number_that_is_no_status_is_an_internal_error)
{
    CHECK_INT(status_http((enum status)999), 500);
    CHECK_TEXT(status_name((enum status)999), "UNKNOWN");
}

TEST(fail_fills_the_problem_and_returns_its_status)
{
    struct problem p = {0};

    CHECK_INT(fail(&p, ST_INVALID, "/fit/x", "%d is not %s", 3, "four"), ST_INVALID);
    CHECK_INT(p.status, ST_INVALID);
    CHECK_TEXT(p.where, "/fit/x");
    CHECK_TEXT(p.detail, "3 is not four");
}

TEST(fail_takes_no_problem_too)
{
    CHECK_INT(fail(NULL, ST_BUSY, "", "x"), ST_BUSY);
}

TEST(a_problem_may_be_reworded_with_its_own_texts)
{
    struct problem p = {0};

    fail(&p, ST_INVALID, "/a", "first");
    fail(&p, ST_CONFLICT, p.where, "second, because: %s", p.detail);
    CHECK_TEXT(p.where, "/a");
    CHECK_TEXT(p.detail, "second, because: first");
}

TEST(long_texts_are_cut_in_front_of_a_utf8_sequence)
{
    struct problem p = {0};
    char longer[600];

    memset(longer, 'x', sizeof longer);
    memcpy(longer + 510, "\xE2\x82\xAC", 4); /* the euro sign from byte 510 on: its first byte would fit */
    fail(&p, ST_INVALID, longer, "%s", longer);
    CHECK_INT(strlen(p.where), sizeof p.where - 1);
    CHECK_INT(strlen(p.detail), 510);
    memcpy(longer + 508, "\xE2\x82\xAC", 4); /* whole */
    fail(&p, ST_INVALID, "", "%sxxxx", longer);
    CHECK_INT(strlen(p.detail), 511);
    CHECK_INT((unsigned char)p.detail[507], 'x');
    CHECK_TEXT(p.detail + 508, "\xE2\x82\xAC");
}
