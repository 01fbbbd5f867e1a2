/* Any bytes as nested arrays of numbers, compared with a JSON document and with strtof.
 *
 * What number_array takes is a JSON document of nested arrays with the same number of values, each as strtof reads the same
 * characters; number_count is never below the number of values; what is printed reads back exactly. What json_parse takes and
 * number_array refuses is not an array of numbers that fit. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/arena.h"
#include "engine/base/json.h"
#include "engine/base/number.h"
#include "engine/base/text.h"

enum { ROOM = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok)
        abort();
}

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

/* Compares each number of the text with strtof; returns how many there are. */
static size_t compare(const char *s, size_t n, const float *v)
{
    OWNED(free) char *copy = must_alloc(n + 1);
    size_t count = 0;

    memcpy(copy, s, n);
    for (char *at = copy; *at;) {
        if (*at == '-' || (*at >= '0' && *at <= '9')) {
            char *end;

            must(same_bits(strtof(at, &end), v[count++]));
            at = end;
        } else {
            at++;
        }
    }
    return count;
}

/* All values numbers within float, in arrays of equal lengths? *rank: -1 until known. */
static bool is_regular(const struct json *j, int level, int *rank, int64_t dim[])
{
    if (json_type(j) == JSON_NUMBER) {
        if (*rank < 0)
            *rank = level;
        return *rank == level && !isinf((float)json_number(j));
    }
    if (json_type(j) != JSON_ARRAY || level == 8 || (*rank >= 0 && level >= *rank))
        return false;
    if (json_count(j) == 0 && *rank < 0)
        *rank = level + 1;
    if (json_count(j) == 0 && *rank != level + 1)
        return false;
    for (const struct json *item = json_first(j); item; item = json_next(item)) {
        if (!is_regular(item, level + 1, rank, dim))
            return false;
    }
    if (dim[level] < 0)
        dim[level] = json_count(j);
    return dim[level] == json_count(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static float v[ROOM], back[ROOM];
    const char *s = (const char *)data;
    struct problem problem = {0};
    OWNED(json_free) struct json *j = NULL;
    CLEAN(text_done) struct text t = text_make(1 << 20);
    int64_t dim[8], again[8], want[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    int rank = -1, rank_again, want_rank = -1;
    size_t used = 0, n = 1;
    bool is_json;

    if (number_array(s, size, "/x", v, ROOM, &rank, dim, &used, &problem) != ST_OK) {
        must(problem.status != ST_OK && problem.detail[0]);
        if (problem.status != ST_TOO_LARGE && json_parse(s, size, NULL, 0, &j, &problem) == ST_OK)
            must(!is_regular(j, 0, &want_rank, want));
        return 0;
    }
    must(used <= size && rank >= 0 && rank <= 8);
    for (int i = 0; i < rank; i++)
        n *= (size_t)dim[i];
    must(compare(s, used, v) == n && number_count(s, size) >= n);
    is_json = json_parse(s, used, NULL, 0, &j, &problem) == ST_OK;
    must(is_json && is_regular(j, 0, &want_rank, want) && want_rank == rank);
    for (int i = 0; i < rank; i++)
        must(want[i] == dim[i]);
    number_print(&t, v, rank, dim);
    if (t.cut)
        return 0;
    must(number_array(t.s, t.length, "", back, ROOM, &rank_again, again, &used, &problem) == ST_OK);
    must(rank_again == rank && memcmp(again, dim, sizeof *dim * (size_t)rank) == 0 && memcmp(v, back, n * sizeof *v) == 0);
    return 0;
}
