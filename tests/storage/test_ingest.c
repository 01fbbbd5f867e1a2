/* Every format in and every way in which a file can be wrong, through datasets_put and the jailed child. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "storage/hdf5.h"
#include "storage/ingest/ingest.h"
#include "tests/storage/put.h"
#include "tests/test.h"

#define FILES "tests/storage/files/"

/* --- npy ----------------------------------------------------------------------------------------------------------------- */

TEST(npy_of_every_numeric_type_and_byte_order_keeps_its_values)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static const uint8_t bits[] = {0, 1, 1}, u1[] = {0, 7, 255}, i2_big[] = {0xff, 0xfe, 0x00, 0x05, 0x7f, 0xff},
                         f4_big[] = {0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0, 0x7f, 0xc0, 0, 0};
    static const int8_t i1[] = {-128, 0, 127};
    static const uint16_t u2[] = {0, 1, 65535}, f2[] = {0x3c00, 0x0001, 0xfc00};
    static const int16_t i2[] = {-32768, 0, 5};
    static const int32_t i4[] = {INT32_MIN, 0, INT32_MAX};
    static const uint32_t u4[] = {0, 1, UINT32_MAX};
    static const int64_t i8[] = {INT64_MIN, 0, INT64_MAX};
    static const uint64_t u8[] = {0, 1, INT64_MAX};
    static const float f4[] = {-1.5f, 0, 1e30f};
    static const double f8[] = {-1.5, 0, 1e300};
    static const struct {
        const char *descr;
        const void *body;
        size_t bytes;
        enum dtype type;
        double want[3];
    } rows[] = {
        {"|b1", bits, 3, BOOL, {0, 1, 1}},
        {"|u1", u1, 3, U8, {0, 7, 255}},
        {"|i1", i1, 3, I32, {-128, 0, 127}},
        {"<u2", u2, 6, I32, {0, 1, 65535}},
        {"<i2", i2, 6, I32, {-32768, 0, 5}},
        {">i2", i2_big, 6, I32, {-2, 5, 32767}},
        {"<i4", i4, 12, I32, {INT32_MIN, 0, INT32_MAX}},
        {"<u4", u4, 12, I64, {0, 1, 4294967295.0}},
        {"<i8", i8, 24, I64, {-9223372036854775808.0, 0, 9223372036854775807.0}},
        {"<u8", u8, 24, I64, {0, 1, 9223372036854775807.0}},
        {"<f2", f2, 6, F32, {1, 0x1p-24, -INFINITY}},
        {"<f4", f4, 12, F32, {-1.5, 0, 1.0000000150474662e30}},
        {"=f4", f4, 12, F32, {-1.5, 0, 1.0000000150474662e30}},
        {">f4", f4_big, 12, F32, {1, -2, NAN}},
        {"<f8", f8, 24, F64, {-1.5, 0, 1e300}},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};
        struct array_row row;
        struct shape three = SHAPE(3);
        double low = INFINITY, high = -INFINITY;
        size_t n;
        void *file = npy(rows[i].descr, false, "3,", rows[i].body, rows[i].bytes, &n);

        if (put_bytes(&b, "x", file, n) != ST_OK)
            problem = b.problem;
        free(file);
        CHECK_TEXT(problem.detail, "");
        const void *data = data_of(&b, "x", &row);
        CHECK_INT(row.type, rows[i].type);
        CHECK(shape_equal(&row.shape, &three));
        for (int k = 0; k < 3; k++) {
            double want = rows[i].want[k], got = row.type == F32   ? (double)((const float *)data)[k]
                                                 : row.type == F64 ? ((const double *)data)[k]
                                                 : row.type == I32 ? ((const int32_t *)data)[k]
                                                 : row.type == I64 ? (double)((const int64_t *)data)[k]
                                                                   : ((const uint8_t *)data)[k];

            if (isnan(want))
                CHECK(isnan(got));
            else
                CHECK_NEAR(got, want, 0);
            low = isnan(want) ? low : fmin(low, want);
            high = isnan(want) ? high : fmax(high, want);
        }
        CHECK_NEAR(row.max, high, 0);
        if (isinf(low)) /* JSON has no infinity: the statistic is missing */
            CHECK(isnan(row.min));
        else
            CHECK_NEAR(row.min, low, 0);
    }
}

TEST(fortran_order_is_turned_around)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;
    struct shape shape = SHAPE(2, 3, 4);

    CHECK_INT(put_file(&b, "x", FILES "fortran.npy"), ST_OK);
    const double *data = data_of(&b, "x", &row);
    CHECK(shape_equal(&row.shape, &shape));
    for (int i = 0; i < 24; i++)
        CHECK_NEAR(data[i], i, 0);

    b.limits.memory = 300; /* 192 bytes are more than half of that */
    CHECK_INT(put_file(&b, "x", FILES "fortran.npy"), ST_TOO_LARGE);
    CHECK_TEXT(b.problem.detail,
               "the array is in Fortran order and takes 192 bytes; up to 150 can be turned around, save it with "
               "numpy.ascontiguousarray()");
}

TEST(shapes_without_rows_or_axes_are_kept)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;
    float x = 4;
    size_t n;

    void *file = npy("<f4", false, "", &x, 4, &n);
    CHECK_INT(put_bytes(&b, "x", file, n), ST_OK);
    free(file);
    data_of(&b, "x", &row);
    CHECK_INT(row.shape.rank, 0);
    CHECK_NEAR(row.mean, 4, 0);
    file = npy("<f4", false, "0, 28", NULL, 0, &n);
    CHECK_INT(put_bytes(&b, "x", file, n), ST_OK);
    free(file);
    data_of(&b, "x", &row);
    CHECK_INT(row.shape.dim[1], 28);
    CHECK(isnan(row.mean) && isnan(row.min));
}

TEST(versions_2_and_3_of_npy_are_read_and_4_is_not)
{
    CLEAN(bench_done) struct bench b = bench_make();
    char file[200] = "\x93NUMPY\2\0", *header = file + 12;
    struct array_row row;

    int n = sprintf(header, "{\"shape\": (2L,), 'descr': \"<i4\", 'fortran_order': False}");
    file[8] = (char)n;
    memcpy(header + n, "\5\0\0\0\6\0\0\0", 8);
    for (char version = 2; version <= 3; version++) {
        file[6] = version;
        CHECK_INT(put_bytes(&b, "x", file, (size_t)(12 + n + 8)), ST_OK);
        const int32_t *data = data_of(&b, "x", &row);
        CHECK_INT(data[1], 6);
    }
    file[6] = 4;
    CHECK_INT(put_bytes(&b, "x", file, (size_t)(12 + n + 8)), ST_INVALID);
    CHECK_TEXT(b.problem.detail, ".npy format version 4.0; 1, 2 and 3 are read");
    CHECK_TEXT(b.problem.where, "d/x");
}

TEST(what_is_wrong_with_an_npy_is_said)
{
    static const struct {
        const char *descr, *shape;
        size_t body;
        enum status status;
        const char *detail;
    } rows[] = {
        {"<f4", "1000000000,", 80, ST_INVALID, "the header says 1000000000 elements of 4 bytes, the file holds 80 bytes"},
        {"<f4", "10,", 36, ST_INVALID, "the header says 10 elements of 4 bytes, the file holds 36 bytes"},
        {"<f4", "10,", 44, ST_INVALID, "the header says 10 elements of 4 bytes, the file holds 44 bytes"},
        {"<f4", "9223372036854775807, 9223372036854775807", 8, ST_TOO_LARGE, NULL},
        {"<f4", "99999999999999999999999,", 8, ST_TOO_LARGE, NULL},
        {"<f4", "-1,", 8, ST_INVALID, "the .npy header is damaged: a number of elements expected at \"-1,), }"},
        {"<f4", "1,1,1,1,1,1,1,1,1", 4, ST_INVALID, "the array has more than 8 dimensions"},
        {"|O", "1,", 8, ST_INVALID,
         "the array holds Python objects (numpy type |O); bool, integers and float16 to float64 are read"},
        {"<U3", "1,", 12, ST_INVALID, "the array holds text (numpy type <U3); bool, integers and float16 to float64 are read"},
        {"<c8", "1,", 8, ST_INVALID,
         "the array holds complex (numpy type <c8); bool, integers and float16 to float64 are read"},
        {"<M8[s]", "1,", 8, ST_INVALID,
         "the array holds dates (numpy type <M8[s]); bool, integers and float16 to float64 are read"},
        {"<f16", "1,", 16, ST_INVALID,
         "the array holds float128 (numpy type <f16); bool, integers and float16 to float64 are read"},
        {"zz", "1,", 8, ST_INVALID, "the numpy type \"zz\" is not known"},
    };
    CLEAN(bench_done) struct bench b = bench_make();
    static const char body[200];
    size_t n;

    for (size_t i = 0; i < COUNT(rows); i++) {
        void *file = npy(rows[i].descr, false, rows[i].shape, body, rows[i].body, &n);

        CHECK_INT(put_bytes(&b, "x", file, n), rows[i].status);
        free(file);
        CHECK_TEXT(b.problem.where, "d/x");
        if (rows[i].detail)
            CHECK_CONTAINS(b.problem.detail, rows[i].detail);
    }
    CHECK_INT(scratch_files(&b.s, "datasets"), 0);
}

TEST(a_structured_npy_and_broken_headers_are_refused)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static const char *const headers[][2] = {
        {"{'descr': [('a', '<f4'), ('b', '<i4')], 'fortran_order': False, 'shape': (3,)}", "the array is structured"},
        {"{'descr': '<f4', 'fortran_order': False}", "descr, fortran_order and shape expected"},
        {"{'descr': '<f4', 'fortran_order': Maybe, 'shape': (3,)}", "True or False expected"},
        {"{'descr': '<f4', 'color': 1}", "unknown key \"color\""},
        {"[1, 2]", "a dictionary expected"},
        {"{'descr", "a short text in quotes expected"},
        {"", "a dictionary expected"},
        {"{'shape': (1,), 'shape': (2,)", "each key once expected"},
    };

    for (size_t i = 0; i < COUNT(headers); i++) {
        char file[300] = "\x93NUMPY\1\0";
        size_t n = strlen(headers[i][0]);

        file[8] = (char)n;
        memcpy(file + 10, headers[i][0], n);
        CHECK_INT(put_bytes(&b, "x", file, 10 + n), ST_INVALID);
        CHECK_CONTAINS(b.problem.detail, headers[i][1]);
        CHECK_INT(put_bytes(&b, "x", file, 10 + n / 2), ST_INVALID); /* cut */
    }
    CHECK_INT(put_bytes(&b, "x", "\x93NUMPY\1", 7), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "ends within its header");
}

TEST(an_unsigned_number_above_63_bits_is_refused)
{
    CLEAN(bench_done) struct bench b = bench_make();
    uint64_t body[] = {1, UINT64_MAX};
    size_t n;
    void *file = npy("<u8", false, "2,", body, sizeof body, &n);

    CHECK_INT(put_bytes(&b, "x", file, n), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "holds 18446744073709551615; unsigned 64-bit numbers are kept up to 2^63 - 1");
    free(file);
}

TEST(nan_is_data_and_does_not_spoil_the_statistics)
{
    CLEAN(bench_done) struct bench b = bench_make();
    float body[] = {NAN, 1, 3, NAN};
    struct array_row row;
    size_t n;
    void *file = npy("<f4", false, "4,", body, sizeof body, &n);

    CHECK_INT(put_bytes(&b, "x", file, n), ST_OK);
    free(file);
    const float *data = data_of(&b, "x", &row);
    CHECK(isnan(data[0]) && isnan(data[3]) && data[2] == 3);
    CHECK_NEAR(row.min, 1, 0);
    CHECK_NEAR(row.max, 3, 0);
    CHECK_NEAR(row.mean, 2, 0);
}

TEST(an_array_beyond_the_limit_is_refused_with_both_numbers)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static const char body[4000];
    size_t n;
    void *file = npy("|i1", false, "1000,", body, 1000, &n);

    b.limits.bytes = 3999; /* int8 is kept as int32 */
    CHECK_INT(put_bytes(&b, "x", file, n), ST_TOO_LARGE);
    CHECK_TEXT(b.problem.detail, "an array of int32 (1000,) takes 4000 bytes, 3999 of the upload's limit of 3999 are left");
    b.limits.bytes = 4000;
    CHECK_INT(put_bytes(&b, "x", file, n), ST_OK);
    free(file);
}

/* --- IDX ----------------------------------------------------------------------------------------------------------------- */

TEST(idx_of_every_type_is_read_big_endian)
{
    static const struct {
        unsigned char bytes[40];
        size_t n;
        enum dtype type;
        double want[2];
    } rows[] = {
        {{0, 0, 8, 1, 0, 0, 0, 2, 7, 255}, 10, U8, {7, 255}},
        {{0, 0, 9, 1, 0, 0, 0, 2, 0x80, 1}, 10, I32, {-128, 1}},
        {{0, 0, 11, 1, 0, 0, 0, 2, 0xff, 0xfe, 1, 0}, 12, I32, {-2, 256}},
        {{0, 0, 12, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 1, 0, 0}, 16, I32, {-1, 65536}},
        {{0, 0, 13, 1, 0, 0, 0, 2, 0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0}, 16, F32, {1, -2}},
        {{0, 0, 14, 1, 0, 0, 0, 2, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0}, 24, F64, {1, -2}},
    };
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK_INT(put_bytes(&b, "x", rows[i].bytes, rows[i].n), ST_OK);
        data_of(&b, "x", &row);
        CHECK_INT(row.type, rows[i].type);
        CHECK_INT(row.shape.dim[0], 2);
        CHECK_NEAR(row.min, fmin(rows[i].want[0], rows[i].want[1]), 0);
        CHECK_NEAR(row.max, fmax(rows[i].want[0], rows[i].want[1]), 0);
    }
}

TEST(idx_that_is_cut_or_strange_is_refused)
{
    static const struct {
        unsigned char bytes[16];
        size_t n;
        const char *detail;
    } rows[] = {
        {{0, 0, 8, 1, 0, 0, 0, 9, 1, 2}, 10, "the header says 9 elements of 1 bytes, the file holds 2 bytes"},
        {{0, 0, 8, 3, 0, 0, 0, 9, 1, 2}, 10, "the IDX file ends within its 3 dimensions"},
        {{0, 0, 10, 1, 0, 0, 0, 2, 1, 2}, 10, "the IDX type 0x0a is not known; there are 08, 09, 0b, 0c, 0d, 0e"},
        {{0, 0, 8, 9, 0, 0, 0, 2, 1, 2}, 10, "the IDX file has 9 dimensions; 1 to 8 are read"},
        {{0, 0, 13, 2, 255, 255, 255, 255, 255, 255, 255, 255}, 12, NULL},
    };
    CLEAN(bench_done) struct bench b = bench_make();

    for (size_t i = 0; i < COUNT(rows); i++) {
        enum status status = put_bytes(&b, "x", rows[i].bytes, rows[i].n);

        CHECK_INT(status, rows[i].detail ? ST_INVALID : ST_TOO_LARGE);
        if (rows[i].detail)
            CHECK_TEXT(b.problem.detail, rows[i].detail);
    }
}

TEST(fashion_mnist_as_it_is_distributed_is_read)
{
    CLEAN(bench_done) struct bench b = bench_make();
    const char *file = "../shared/data/fashion-mnist/t10k-images-idx3-ubyte.gz";
    struct shape shape = SHAPE(10000, 28, 28);
    struct array_row row;

    if (access(file, R_OK) != 0)
        TEST_SKIP("../shared/data/fashion-mnist is not here");
    CHECK_INT(put_file(&b, "x", file), ST_OK);
    data_of(&b, "x", &row);
    CHECK(shape_equal(&row.shape, &shape));
    CHECK_INT(row.type, U8);
    CHECK_NEAR(row.max, 255, 0);
    CHECK_NEAR(row.mean, 73.1465697, 1e-6);
}

/* --- gzip and archives --------------------------------------------------------------------------------------------------- */

TEST(gzip_is_taken_off_first_and_a_cut_stream_is_named)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static int32_t body[50000];
    struct array_row row;
    size_t n;

    for (int i = 0; i < 50000; i++)
        body[i] = (int32_t)((unsigned)i * (unsigned)i);
    unsigned char *file = npy("<i4", false, "500, 100", body, sizeof body, &n);
    CHECK_INT(put_gzip(&b, "x", file, n), ST_OK);
    CHECK(memcmp(data_of(&b, "x", &row), body, sizeof body) == 0);
    CHECK_INT(put_gzip(&b, "x", file, n - 1), ST_INVALID); /* whole gzip, cut content */
    CHECK_TEXT(b.problem.detail, "the header says 50000 elements of 4 bytes, the file holds 199999 bytes");
    free(file);

    file = npy("<i4", false, "1000000000,", body, 80, &n);
    CHECK_INT(put_gzip(&b, "x", file, n), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "the header says 1000000000 elements of 4 bytes, the compressed file can hold at most");
    free(file);
    CHECK_INT(put_bytes(&b, "x", "\x1f\x8b\x08\0\0\0\0\0\0\3\xe3", 11), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "the gzip stream ends too early");
    CHECK_INT(put_bytes(&b, "x", "\x1f\x8b\x08\0\0\0\0\0\0\3\xff\xff\xff\xff", 14), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "the gzip stream is damaged");
}

TEST(npz_gives_an_array_for_each_member)
{
    static const char *const files[] = {FILES "two.npz", FILES "two.npz.gz"};
    CLEAN(bench_done) struct bench b = bench_make();
    struct shape shape = SHAPE(3, 4);
    struct array_row row;

    for (size_t i = 0; i < COUNT(files); i++) {
        CHECK_INT(put_file(&b, NULL, files[i]), ST_OK);
        CHECK_INT(b.d.n_arrays, 2);
        const float *x = data_of(&b, "x", &row);
        CHECK(shape_equal(&row.shape, &shape));
        CHECK(x[11] == 11);
        const uint8_t *y = data_of(&b, "y", &row);
        CHECK(y[0] == 2 && y[2] == 1);
    }
    CHECK_INT(put_file(&b, NULL, FILES "packed.npz"), ST_OK);
    const int64_t *y = data_of(&b, "y", &row);
    CHECK(y[99] == 99);
    CHECK_INT(put_file(&b, "only", FILES "one.npz"), ST_OK);
    const double *only = data_of(&b, "only", &row);
    CHECK(only[1] == 1 && only[5] == 5);
    CHECK_INT(b.d.n_arrays, 3); /* x and y stayed */
}

TEST(a_bad_npz_changes_nothing)
{
    CLEAN(bench_done) struct bench b = bench_make();
    static char block[2000];

    CHECK_INT(put_file(&b, "x", FILES "two.npz"), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "the archive holds 2 arrays");
    CHECK_INT(put_file(&b, NULL, FILES "words.npz"), ST_INVALID);
    CHECK_TEXT(b.problem.where, "d/x");
    CHECK_CONTAINS(b.problem.detail, "holds text (numpy type <U1)");
    CHECK_INT(put_file(&b, NULL, FILES "objects.npz"), ST_INVALID); /* its first member is fine */
    CHECK_TEXT(b.problem.where, "d/x");

    int fd = open(FILES "two.npz", O_RDONLY);
    ssize_t n = read(fd, block, sizeof block);
    close(fd);
    for (ssize_t cut = 1; cut < n; cut += 13)
        CHECK_INT(put_bytes(&b, NULL, block, (size_t)(n - cut)), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "an upload that was cut looks like this");
    for (char *p = block; p < block + n - 8; p++) /* the sum of a member no longer fits */
        if (memcmp(p, "\0\0\x80\x3f\0\0\0\x40", 8) == 0) {
            p[2] ^= 1;
            break;
        }
    CHECK_INT(put_bytes(&b, NULL, block, (size_t)n), ST_INVALID);
    CHECK_CONTAINS(b.problem.detail, "damaged in this member");
    b.limits.bytes = 40; /* x alone has 48 */
    CHECK_INT(put_file(&b, NULL, FILES "two.npz"), ST_TOO_LARGE);
    CHECK_INT(put_file(&b, NULL, FILES "packed.npz"), ST_TOO_LARGE);
    CHECK_INT(put_file(&b, NULL, FILES "two.npz.gz"), ST_TOO_LARGE);
    CHECK_CONTAINS(b.problem.detail, "unpacks to more than the limit of 40 bytes");
    CHECK_INT(scratch_files(&b.s, "datasets"), 0);
}

/* --- CSV ----------------------------------------------------------------------------------------------------------------- */

TEST(csv_is_a_matrix_of_float32)
{
    static const char *const texts[] = {
        "1,2,3\n4,5,6.5\n",
        "1,2,3\r\n4,5,6.5\r\n",
        "1,2,3\n4,5,6.5",
        "\357\273\2771,2,3\n4,5,6.5\n", /* UTF-8's mark */
        "a,b,c\n1,2,3\n4,5,6.5\n",
        "\n\"a\",\"b \"\"x\"\"\",\"c,\nd\"\n\n 1 , \"2\" ,3\n\n\"4\",5,6.5 \n\n",
        "1;2;3\n4;5;6.5\n",
        "1\t2\t3\n4\t5\t6.5\n",
        "1,+2,3e0\n4.,5.0E+0,0.65e1\n",
    };
    CLEAN(bench_done) struct bench b = bench_make();
    static const float want[] = {1, 2, 3, 4, 5, 6.5f};
    struct shape shape = SHAPE(2, 3);
    struct array_row row;

    for (size_t i = 0; i < COUNT(texts); i++) {
        CHECK_INT(put_text(&b, "x", texts[i]), ST_OK);
        const float *data = data_of(&b, "x", &row);
        CHECK_INT(row.type, F32);
        CHECK(shape_equal(&row.shape, &shape));
        CHECK_FLOATS(data, want, 6, 0);
        CHECK_NEAR(row.mean, 21.5 / 6, 1e-15);
    }
    CHECK_INT(put_gzip(&b, "x", texts[4], strlen(texts[4])), ST_OK);
    data_of(&b, "x", &row);
    CHECK_TEXT(row.columns, "[\"a\",\"b\",\"c\"]");
}

TEST(a_single_column_is_a_vector_and_of_integers_if_it_can_be)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    CHECK_INT(put_text(&b, "y", "label\n3\n-16777217\n2147483647\n"), ST_OK);
    const int32_t *whole = data_of(&b, "y", &row);
    CHECK_INT(row.shape.rank, 1);
    CHECK_INT(row.type, I32);
    CHECK(whole[0] == 3 && whole[1] == -16777217 && whole[2] == INT32_MAX);
    CHECK_INT(put_text(&b, "y", "3\n2147483648\nnan\n-inf\n"), ST_OK);
    const float *real = data_of(&b, "y", &row);
    CHECK_INT(row.type, F32);
    CHECK(real[0] == 3 && real[1] == 2147483648.0f && isnan(real[2]) && isinf(real[3]));
    CHECK(!row.columns);
}

TEST(a_csv_data_set_has_its_matrix_and_each_named_column)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    CHECK_INT(put_text(&b, NULL, "age,fare (USD),label,data\n22,7.25,0,1\n38,71.5,1,2\n26,8,1,3\n"), ST_OK);
    CHECK_INT(b.d.n_arrays, 3); /* age, data, label */
    const float *all = data_of(&b, "data", &row);
    CHECK_INT(row.shape.rank, 2);
    CHECK_INT(row.shape.dim[0], 3);
    CHECK_INT(row.shape.dim[1], 4);
    CHECK(all[1] == 7.25f && all[5] == 71.5f && all[11] == 3);
    CHECK_TEXT(row.columns, "[\"age\",\"fare (USD)\",\"label\",\"data\"]");
    const int32_t *label = data_of(&b, "label", &row);
    CHECK_INT(row.type, I32);
    CHECK(label[0] == 0 && label[1] == 1 && label[2] == 1);
    CHECK_NEAR(row.mean, 2.0 / 3, 1e-15);
    CHECK_INT(put_text(&b, NULL, "1,2\n3,4\n"), ST_OK);
    data_of(&b, "data", &row);
    CHECK_INT(row.shape.dim[1], 2);
}

TEST(many_rows_and_columns_cross_every_buffer)
{
    CLEAN(bench_done) struct bench b = bench_make();
    CLEAN(text_done) struct text t = text_make(8 << 20);
    struct array_row row;

    for (int c = 0; c < 30; c++)
        text_printf(&t, "%sc%d", c ? "," : "", c);
    for (int r = 0; r < 9000; r++)
        for (int c = 0; c < 30; c++)
            text_printf(&t, "%s%d", c ? "," : "\n", r * 30 + c);
    CHECK_INT(put_text(&b, NULL, t.s), ST_OK);
    const float *all = data_of(&b, "data", &row);
    for (int i = 0; i < 270000; i++)
        if (all[i] != (float)i)
            CHECK_INT(all[i], i);
    const int32_t *column = data_of(&b, "c29", &row);
    for (int i = 0; i < 9000; i++)
        if (column[i] != i * 30 + 29)
            CHECK_INT(column[i], i * 30 + 29);
}

TEST(a_cell_that_is_no_number_is_named_by_line_and_column)
{
    static const struct {
        const char *text, *detail;
    } rows[] = {
        {"a,b\n1,2\n3,x\n", "line 3, column 2 (b) is \"x\", not a number"},
        {"1,2\n3,\n", "line 2, column 2 is empty; every cell must be a number"},
        {"1,2\n\n3,0x10\n", "line 3, column 2 is \"0x10\", not a number"},
        {"1,2\n3,4,5\n", "line 2 has more than the 2 columns of the first row"},
        {"1,2,3\n4,5\n", "line 2 has 2 columns, the first row has 3"},
        {"1,2\n3,1e39\n", "line 2, column 2 is \"1e39\", which is beyond float32"},
        {"1,2\n3,--4\n", "line 2, column 2 is \"--4\", not a number"},
        {"1,2\n3,\"4\n5,6\n", "the quote opened in line 2 is never closed"},
        {"1,2\n\"3\"x,4\n", "line 2 has text behind a closing quote"},
        {"a,b\n", "the file has a header of 2 columns and no rows"},
        {"\n\n \n", "the file holds no rows"},
        {"a,b,a\n1,2,3\n", NULL},
    };
    CLEAN(bench_done) struct bench b = bench_make();

    for (size_t i = 0; i < COUNT(rows) - 1; i++) {
        CHECK_INT(put_text(&b, "x", rows[i].text), ST_INVALID);
        CHECK_TEXT(b.problem.detail, rows[i].detail);
    }
    CHECK_INT(put_text(&b, NULL, rows[COUNT(rows) - 1].text), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "columns 1 and 3 are both called \"a\"");
    CHECK_INT(scratch_files(&b.s, "datasets"), 0);
}

/* --- the choice of the format -------------------------------------------------------------------------------------------- */

static enum status put_as(struct bench *b, const char *format, const char *content_type, const char *text)
{
    char path[512];

    scratch_upload(b->db, text, strlen(text), path);
    return datasets_put(b->db, "d", "x", path, format, content_type, &b->limits, b->mem, &b->d, &b->problem);
}

TEST(the_format_is_what_is_asked_for_or_the_content_type_or_the_first_bytes)
{
    CLEAN(bench_done) struct bench b = bench_make();

    CHECK_INT(put_as(&b, "csv", "application/x-npy", "1,2\n"), ST_OK);
    CHECK_INT(put_as(&b, "", "text/CSV; charset=utf-8", "1,2\n"), ST_OK);
    CHECK_INT(put_as(&b, NULL, "application/octet-stream", "1,2\n"), ST_OK);
    CHECK_INT(put_as(&b, "", "application/x-www-form-urlencoded", "1,2\n"), ST_OK);
    CHECK_INT(put_as(&b, "", NULL, "1,2\n"), ST_OK);
    CHECK_INT(put_as(&b, "", "application/x-npy", "1,2\n"), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "is no .npy file: it does not begin with \\x93NUMPY");
    CHECK_INT(put_as(&b, "idx", "", "1,2\n"), ST_INVALID);
    CHECK_INT(put_as(&b, "npz", "", "1,2\n"), ST_INVALID);
    CHECK_INT(put_as(&b, "parquet", "", "1,2\n"), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "format \"parquet\" is not known; there are npy, npz, idx and csv");
    CHECK_INT(put_as(&b, "", "application/json", "1,2\n"), ST_MEDIA);
    CHECK_CONTAINS(b.problem.detail, "datasets are not read from application/json");
    CHECK_INT(put_as(&b, "", "", ""), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "the upload is empty");
}

TEST(bytes_of_an_unknown_kind_are_shown)
{
    CLEAN(bench_done) struct bench b = bench_make();
    float x = 0;
    size_t n;
    void *file = npy("<f4", false, "1,", &x, 4, &n);

    CHECK_INT(put_bytes(&b, "x", "\x89PNG\r\n\x1a\n....", 12), ST_MEDIA);
    CHECK_CONTAINS(b.problem.detail, "(it begins with the bytes 89 50 4e 47 0d 0a 1a 0a )");
    CHECK_INT(put_file(&b, "x", FILES "numbers.h5"), ST_MEDIA);
    CHECK_CONTAINS(b.problem.detail, "is an HDF5 file");
    CHECK_INT(put_bytes(&b, NULL, file, n), ST_INVALID);
    CHECK_TEXT(b.problem.detail, "a .npy file holds one array without a name; PUT it at d/NAME");
    free(file);
}

/* --- the jail ------------------------------------------------------------------------------------------------------------ */

/* Runs try() in a jailed child in an empty folder; its exit code. */
static int in_jail(struct bench *b, int (*try)(void))
{
    struct problem problem;
    int status;

    pid_t pid = fork();
    if (pid == 0) {
        if (chdir(b->s.folder) < 0 || jail_enter(&b->limits, &problem) != ST_OK)
            _exit(100);
        _exit(try());
    }
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int try_work(void)
{
    int fd = open("made", O_RDWR | O_CREAT, 0600);

    return fd >= 0 && pwrite(fd, "x", 1, 0) == 1 && close(fd) == 0 ? 0 : 1;
}

static int try_outside(void)
{
    return open("/etc/passwd", O_RDONLY) < 0 && open("../x", O_WRONLY | O_CREAT, 0600) < 0 ? 0 : 1;
}

static int try_system(void)
{
    char *argv[] = {"true", NULL};

    if (socket(AF_INET, SOCK_STREAM, 0) >= 0)
        return 1;
    if (fork() >= 0)
        return 2;
    (void)execv("/bin/true", argv);
    return errno == EPERM ? 0 : 3;
}

TEST(the_child_can_work_in_its_folder)
{
    CLEAN(bench_done) struct bench b = bench_make();

    CHECK_INT(in_jail(&b, try_work), 0);
}

TEST(the_child_reaches_no_file_outside_its_folder)
{
    CLEAN(bench_done) struct bench b = bench_make();

    if (syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* asks for the version */) < 0)
        TEST_SKIP("this kernel has no Landlock");
    CHECK_INT(in_jail(&b, try_outside), 0);
}

/* Under the filter even the question is refused. */
static int try_filter(void)
{
    return prctl(PR_GET_SECCOMP) == 0 ? 1 : 0;
}

TEST(the_child_makes_no_socket_and_no_process)
{
    CLEAN(bench_done) struct bench b = bench_make();

    if (in_jail(&b, try_filter) != 0)
        TEST_SKIP("built without libseccomp");
    CHECK_INT(in_jail(&b, try_system), 0);
}

TEST(the_child_may_be_the_program_started_again)
{
    CLEAN(bench_done) struct bench b = bench_make();
    struct array_row row;

    ingest_program("/proc/self/exe");
    enum status one = put_text(&b, "x", "1\n2\n"), named = put_file(&b, NULL, FILES "two.npz");
    enum status bad = put_text(&b, "x", "1\nx\n");
    ingest_program(NULL);
    CHECK_INT(one, ST_OK);
    CHECK_INT(named, ST_OK);
    CHECK_INT(bad, ST_INVALID);
    CHECK_TEXT(b.problem.where, "d/x");
    CHECK_TEXT(b.problem.detail, "line 2, column 1 is \"x\", not a number");
    const float *x = data_of(&b, "x", &row);
    CHECK(x[11] == 11);
}

TEST(a_program_that_cannot_be_started_is_a_problem)
{
    CLEAN(bench_done) struct bench b = bench_make();

    ingest_program("/nowhere/hornd");
    enum status status = put_text(&b, "x", "1,2\n");
    ingest_program(NULL);
    CHECK_INT(status, ST_INTERNAL);
    CHECK_TEXT(b.problem.detail, "the reader of uploads, /nowhere/hornd, cannot be started");
}

TEST(a_child_that_dies_without_an_answer_is_a_problem)
{
    CLEAN(bench_done) struct bench b = bench_make();

    ingest_program("/bin/false");
    enum status status = put_text(&b, "x", "1,2\n");
    ingest_program("/bin/echo"); /* its words go to /dev/null */
    enum status second = put_text(&b, "x", "1,2\n");
    ingest_program(NULL);
    CHECK_INT(status, ST_INTERNAL);
    CHECK_INT(second, ST_INTERNAL);
    CHECK_TEXT(b.problem.detail, "the reader of uploads ended with code 0 and no answer");
}

TEST(a_full_disk_refuses_the_upload_and_keeps_the_old_array)
{
    CLEAN(bench_done) struct bench b = {.s = scratch_make(), .limits = {.bytes = 1 << 28, .seconds = 20, .memory = 64 << 20}};
    if (!scratch_mount(&b.s, 3 << 20))
        TEST_SKIP("a tmpfs cannot be mounted here");
    b.db = scratch_db(&b.s);
    b.mem = arena_new();
    float *body = must_alloc(1800000);
    struct array_row row;
    size_t n;
    void *file = npy("<f4", false, "450000,", body, 1800000, &n);
    CHECK_INT(put_text(&b, "x", "1\n2\n"), ST_OK);
    for (int i = 0; i < 3; i++) {
        CHECK_INT(put_bytes(&b, "x", file, n), ST_DISK_FULL);
        CHECK_TEXT(b.problem.where, "d/x");
        CHECK_CONTAINS(b.problem.detail, "o space left on");
    }
    CHECK_INT(datasets_get(b.db, "d", b.mem, &b.d, &b.problem), ST_OK);
    const int32_t *data = data_of(&b, "x", &row);
    CHECK(data[0] == 1 && data[1] == 2);
    CHECK_INT(scratch_files(&b.s, "datasets"), 1);
    free(file);
    free(body);
}
