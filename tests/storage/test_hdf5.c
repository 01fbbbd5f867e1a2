/* Files of our own read back, and every form that h5py writes (tests/storage/files/make.py). */
#include "storage/hdf5.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/storage/scratch.h"
#include "tests/test.h"

#define FILES "tests/storage/files/"

static struct h5 *open_file(const char *path)
{
    struct problem problem = {0};
    struct h5 *f = NULL;

    CHECK_OK(h5_open(path, "the file", &f, &problem));
    return f;
}

TEST(arrays_of_every_type_come_back_as_they_were_written)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    struct problem problem = {0};
    OWNED(h5_free) struct h5 *f = NULL;
    char path[300];
    struct shape two = SHAPE(2, 3), one = SCALAR, none = SHAPE(0, 5), shape;
    float f32[6] = {0, -1.5f, 3e30f, NAN, INFINITY, 1e-40f}, back[6];
    double f64[6] = {1, 2, 3, 4, 5, 1e300}, back64[6];
    int64_t i64[6] = {INT64_MIN, -1, 0, 1, 2, INT64_MAX}, back_i64[6];
    int32_t i32[6] = {INT32_MIN, -1, 0, 1, 2, INT32_MAX}, back_i32[6];
    uint8_t u8[6] = {0, 1, 2, 3, 254, 255}, back_u8[6], bits[6] = {0, 1, 1, 0, 0, 1};
    uint16_t half[6] = {0x3c00, 0xbc00, 0, 0x7bff, 1, 0x3555}, back_half[6];
    enum dtype type;

    snprintf(path, sizeof path, "%s/x.h5", s.folder);
    CHECK_OK(h5_create(path, "x.h5", &f, &problem));
    CHECK_OK(h5_write(f, "/deep/er/f32", F32, &two, f32, &problem));
    CHECK_OK(h5_write(f, "/f64", F64, &two, f64, &problem));
    CHECK_OK(h5_write(f, "/i64", I64, &two, i64, &problem));
    CHECK_OK(h5_write(f, "/i32", I32, &two, i32, &problem));
    CHECK_OK(h5_write(f, "/u8", U8, &two, u8, &problem));
    CHECK_OK(h5_write(f, "/bool", BOOL, &two, bits, &problem));
    CHECK_OK(h5_write(f, "/f16", F16, &two, half, &problem));
    CHECK_OK(h5_write(f, "/bf16", BF16, &two, half, &problem));
    CHECK_OK(h5_write(f, "/scalar", F32, &one, f32 + 1, &problem));
    CHECK_OK(h5_write(f, "/none", F32, &none, f32, &problem));
    CHECK_OK(h5_close(STEAL(f), &problem));

    f = open_file(path);
    CHECK_OK(h5_shape(f, "/deep/er/f32", &type, &shape, &problem));
    CHECK_INT(type, F32);
    CHECK(shape_equal(&shape, &two));
    CHECK_OK(h5_read(f, "/deep/er/f32", F32, back, &problem));
    CHECK(memcmp(back, f32, sizeof f32) == 0);
    CHECK_OK(h5_read(f, "/f64", F64, back64, &problem));
    CHECK(memcmp(back64, f64, sizeof f64) == 0);
    CHECK_OK(h5_read(f, "/i64", I64, back_i64, &problem));
    CHECK(memcmp(back_i64, i64, sizeof i64) == 0);
    CHECK_OK(h5_read(f, "/i32", I32, back_i32, &problem));
    CHECK(memcmp(back_i32, i32, sizeof i32) == 0);
    CHECK_OK(h5_read(f, "/u8", U8, back_u8, &problem));
    CHECK(memcmp(back_u8, u8, sizeof u8) == 0);
    CHECK_OK(h5_shape(f, "/bool", &type, &shape, &problem));
    CHECK_INT(type, BOOL);
    CHECK_OK(h5_read(f, "/bool", BOOL, back_u8, &problem));
    CHECK(memcmp(back_u8, bits, sizeof bits) == 0);
    CHECK_OK(h5_read(f, "/bool", F32, back, &problem));
    CHECK(back[0] == 0 && back[1] == 1 && back[5] == 1);
    CHECK_OK(h5_shape(f, "/f16", &type, &shape, &problem));
    CHECK_INT(type, F16);
    CHECK_OK(h5_read(f, "/f16", F16, back_half, &problem));
    CHECK(memcmp(back_half, half, sizeof half) == 0);
    CHECK_OK(h5_read(f, "/f16", F32, back, &problem));
    CHECK(back[0] == 1 && back[1] == -1 && back[3] == 65504 && back[4] == 0x1p-24f);
    CHECK_OK(h5_shape(f, "/bf16", &type, &shape, &problem));
    CHECK_INT(type, BF16);
    CHECK_OK(h5_read(f, "/bf16", F32, back, &problem));
    CHECK_NEAR(back[0], 0.0078125, 0);
    CHECK_OK(h5_shape(f, "/scalar", &type, &shape, &problem));
    CHECK_INT(shape.rank, 0);
    CHECK_OK(h5_read(f, "/scalar", F32, back, &problem));
    CHECK(back[0] == -1.5f);
    CHECK_OK(h5_shape(f, "/none", &type, &shape, &problem));
    CHECK(shape_equal(&shape, &none));
}

TEST(a_reserved_array_is_filled_by_pwrite_and_read_at_the_same_offset)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    struct problem problem = {0};
    OWNED(h5_free) struct h5 *f = NULL;
    struct shape shape = SHAPE(1000, 3), none = SHAPE(0, 3);
    static float data[3000], back[3000];
    int64_t offset, again;
    char path[300];
    struct stat st;

    for (int i = 0; i < 3000; i++)
        data[i] = (float)i / 7;
    snprintf(path, sizeof path, "%s/x.h5", s.folder);
    CHECK_OK(h5_create(path, "x.h5", &f, &problem));
    CHECK_OK(h5_reserve(f, "/data", F32, &shape, &offset, &problem));
    CHECK_OK(h5_close(STEAL(f), &problem));
    CHECK_INT(stat(path, &st), 0);
    CHECK(st.st_size >= offset + (int64_t)sizeof data);
    int fd = open(path, O_WRONLY);
    CHECK_INT(pwrite(fd, data, sizeof data, offset), sizeof data);
    CHECK_INT(close(fd), 0);

    f = open_file(path);
    CHECK_OK(h5_offset(f, "/data", &again, &problem));
    CHECK_INT(again, offset);
    CHECK_OK(h5_read(f, "/data", F32, back, &problem));
    CHECK(memcmp(back, data, sizeof data) == 0);
    f = h5_free(f);

    CHECK_OK(h5_create(path, "x.h5", &f, &problem));
    CHECK_OK(h5_reserve(f, "/data", F32, &none, &offset, &problem));
    CHECK_INT(offset, 0);
    CHECK_OK(h5_close(STEAL(f), &problem));
}

TEST(the_same_contents_give_the_same_bytes)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    struct problem problem = {0};
    struct shape shape = SHAPE(4);
    float data[4] = {1, 2, 3, 4};
    char path[2][300], block[2][8192] = {{0}};
    ssize_t n[2];

    for (int i = 0; i < 2; i++) {
        OWNED(h5_free) struct h5 *f = NULL;

        snprintf(path[i], sizeof path[i], "%s/%d.h5", s.folder, i);
        CHECK_OK(h5_create(path[i], "x", &f, &problem));
        CHECK_OK(h5_group(f, "/g", &problem));
        CHECK_OK(h5_write(f, "/g/x", F32, &shape, data, &problem));
        CHECK_OK(h5_put_text(f, "/", "model_config", "{}", &problem));
        CHECK_OK(h5_close(STEAL(f), &problem));
        int fd = open(path[i], O_RDONLY);
        n[i] = read(fd, block[i], sizeof block[i]);
        CHECK_INT(close(fd), 0);
        usleep(i ? 0 : 1100000); /* times in the file would have seconds */
    }
    CHECK_INT(n[0], n[1]);
    CHECK(memcmp(block[0], block[1], sizeof block[0]) == 0);
}

TEST(numbers_of_every_width_and_byte_order_are_converted)
{
    OWNED(h5_free) struct h5 *f = open_file(FILES "numbers.h5");
    static const struct {
        const char *name;
        enum dtype type;
    } rows[] = {{"f2", F16}, {"f4", F32}, {"f8", F64}, {"i1", I32}, {"i2", I32},     {"i4", I32},    {"i8", I64},
                {"u1", U8},  {"u2", I32}, {"u4", I64}, {"u8", I64}, {"big_f4", F32}, {"big_i2", I32}};
    static const float want[6] = {0, 1, 2, 3, 4, 100};
    struct problem problem = {0};
    struct shape shape;
    enum dtype type;
    float got[6];

    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK_OK(h5_shape(f, rows[i].name, &type, &shape, &problem));
        CHECK_INT(type, rows[i].type);
        CHECK_OK(h5_read(f, rows[i].name, F32, got, &problem));
        CHECK_FLOATS(got, want, 6, 0);
    }
    static float packed[1000];
    CHECK_OK(h5_read(f, "/packed", F32, packed, &problem));
    CHECK(packed[0] == 0 && packed[523] == 523 && packed[999] == 999);
    int64_t offset;
    CHECK_INT(h5_offset(f, "/packed", &offset, &problem), ST_UNSUPPORTED);
    CHECK_TEXT(problem.where, "the file:/packed");
    CHECK_INT(h5_shape(f, "/text", &type, &shape, &problem), ST_UNSUPPORTED);
    CHECK_INT(h5_shape(f, "/pair", &type, &shape, &problem), ST_UNSUPPORTED);
    CHECK_INT(h5_shape(f, "/missing/x", &type, &shape, &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "the file:/missing/x");
    CHECK_TEXT(problem.detail, "is missing in the file");
}

TEST(texts_of_every_kind_that_h5py_writes_are_read)
{
    OWNED(h5_free) struct h5 *f = open_file(FILES "texts.h5");
    OWNED(arena_free) struct arena *mem = arena_new();
    const char **v;

    CHECK_TEXT(h5_text(f, "/", "str", mem), "na\xc3\xafve");
    CHECK_TEXT(h5_text(f, "/", "bytes", mem), "plain");
    CHECK_TEXT(h5_text(f, "/", "fixed", mem), "exactly8");
    CHECK_TEXT(h5_text(f, "/", "empty", mem), "");
    CHECK_INT(strlen(h5_text(f, "/", "long", mem)), 100000);
    CHECK(!h5_text(f, "/", "absent", mem));
    CHECK(!h5_text(f, "/", "number", mem));
    CHECK(!h5_text(f, "/nowhere", "str", mem));
    CHECK_INT(h5_texts(f, "/", "list", mem, &v), 3);
    CHECK_TEXT(v[1], "bcd");
    CHECK_TEXT(v[2], "");
    CHECK_INT(h5_texts(f, "/", "fixed_list", mem, &v), 2);
    CHECK_TEXT(v[0], "conv");
    CHECK_TEXT(v[1], "dense_1");
    CHECK(!h5_text(f, "/", "list", mem));
    CHECK_INT(h5_texts(f, "/", "str", mem, &v), -1);
    CHECK_INT(h5_texts(f, "/", "none", mem, &v), 0);
    CHECK_INT(h5_texts(f, "/", "absent", mem, &v), -1);
    CHECK_INT(h5_texts(f, "/", "split", mem, &v), 7);
    CHECK_TEXT(v[0], "layer_0000");
    CHECK_TEXT(v[6], "layer_0006");
    CHECK_INT(h5_children(f, "/", mem, &v), 2);
    CHECK_TEXT(v[0], "a");
    CHECK_TEXT(v[1], "b");
    CHECK_INT(h5_children(f, "/nowhere", mem, &v), -1);
    CHECK(h5_exists(f, "/b/inner") && !h5_exists(f, "/b/outer") && !h5_exists(f, "/c/d/e"));
    CHECK(!h5_is_array(f, "/b"));
    CHECK_INT(h5_attributes(f, "/", mem, &v), 12);
    CHECK_TEXT(v[0], "bytes");
    CHECK_INT(h5_attributes(f, "/b/inner", mem, &v), 0);
}

TEST(long_lists_of_names_are_split_as_keras_splits_them)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    OWNED(h5_free) struct h5 *f = NULL;
    static char name[3001][64];
    static const char *names[3001];
    const char **v;
    char path[300];

    for (int i = 0; i < 3001; i++) {
        snprintf(name[i], sizeof name[i], "block_%04d/a_rather_long_name_for_a_layer_%05d", i, i);
        names[i] = name[i];
    }
    snprintf(path, sizeof path, "%s/x.h5", s.folder);
    CHECK_OK(h5_create(path, "x", &f, &problem));
    CHECK_OK(h5_group(f, "/g", &problem));
    CHECK_OK(h5_put_texts(f, "/g", "weight_names", 3001, names, &problem));
    CHECK_OK(h5_put_texts(f, "/g", "few", 3, names, &problem));
    CHECK_OK(h5_put_texts(f, "/g", "few", 2, names + 1, &problem)); /* replaces */
    CHECK_OK(h5_put_texts(f, "/g", "none", 0, NULL, &problem));
    CHECK_OK(h5_put_texts(f, "/g", "blank", 1, (const char *[]){""}, &problem));
    CHECK_OK(h5_close(STEAL(f), &problem));
    f = open_file(path);
    CHECK_INT(h5_texts(f, "/g", "weight_names", mem, &v), 3001);
    for (int i = 0; i < 3001; i++)
        CHECK_TEXT(v[i], names[i]);
    /* 45 bytes each: 135,045 bytes, so three parts of 1001, 1000 and 1000 */
    CHECK_INT(h5_texts(f, "/g", "weight_names0", mem, &v), 1001);
    CHECK_INT(h5_texts(f, "/g", "weight_names1", mem, &v), 1000);
    CHECK_INT(h5_texts(f, "/g", "weight_names3", mem, &v), -1);
    CHECK_INT(h5_texts(f, "/g", "few", mem, &v), 2);
    CHECK_TEXT(v[0], names[1]);
    CHECK_INT(h5_texts(f, "/g", "none", mem, &v), 0);
    CHECK_INT(h5_texts(f, "/g", "blank", mem, &v), 1);
    CHECK_TEXT(v[0], "");
}

TEST(a_text_above_64_kib_is_kept_whole_and_may_be_replaced)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};
    OWNED(h5_free) struct h5 *f = NULL;
    char *text = must_alloc(300001), path[300];

    memset(text, 'j', 300000);
    snprintf(path, sizeof path, "%s/x.h5", s.folder);
    CHECK_OK(h5_create(path, "x", &f, &problem));
    CHECK_OK(h5_put_text(f, "/", "model_config", "short", &problem));
    CHECK_OK(h5_put_text(f, "/", "model_config", text, &problem));
    CHECK_OK(h5_put_text(f, "/", "empty", "", &problem));
    CHECK_INT(h5_put_text(f, "/nowhere", "x", "y", &problem), ST_STORAGE);
    CHECK_OK(h5_close(STEAL(f), &problem));
    f = open_file(path);
    CHECK_TEXT(h5_text(f, "/", "model_config", mem), text);
    CHECK_TEXT(h5_text(f, "/", "empty", mem), "");
    free(text);
}

TEST(what_a_foreign_file_may_not_hold_is_refused_by_its_path)
{
    static const struct {
        const char *file, *where, *detail;
    } rows[] = {
        {"external_link.h5", "up.h5:/x", "is a link into another file; these are not followed"},
        {"soft_link.h5", "up.h5:/x", "is a soft link; these are not followed"},
        {"external_data.h5", "up.h5:/g/x", "has its data in external files; these are not read"},
        {"virtual.h5", "up.h5:/x", "is a virtual dataset, whose data lie in other files; these are not read"},
        {"filter.h5", "up.h5:/x", "is stored with the filter 32000 (lzf); deflate, shuffle and fletcher32 are read"},
        {"named_type.h5", "up.h5:/x", "is neither a group nor an array"},
        {"two.npz", "up.h5", "is no HDF5 file (its signature is missing)"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};
        struct h5 *f = NULL;
        char path[200];

        snprintf(path, sizeof path, FILES "%s", rows[i].file);
        CHECK_INT(h5_open_foreign(path, "up.h5", &f, &problem), ST_INVALID);
        CHECK_TEXT(problem.where, rows[i].where);
        CHECK_TEXT(problem.detail, rows[i].detail);
        CHECK(!f);
    }
}

TEST(groups_that_contain_themselves_end_at_a_depth)
{
    struct problem problem = {0};
    struct h5 *f = NULL;

    CHECK_INT(h5_open_foreign(FILES "cycle.h5", "up.h5", &f, &problem), ST_INVALID);
    CHECK_TEXT(problem.detail, "lies deeper than 64 groups");
}

TEST(ordinary_foreign_files_are_opened)
{
    struct problem problem = {0};
    struct h5 *f = NULL;

    CHECK_OK(h5_open_foreign(FILES "numbers.h5", "up.h5", &f, &problem));
    CHECK_OK(h5_close(f, &problem));
    CHECK_OK(h5_open_foreign(FILES "texts.h5", "up.h5", &f, &problem));
    CHECK_OK(h5_close(f, &problem));
}

TEST(a_cut_or_missing_file_is_a_problem_without_output_from_the_library)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    struct problem problem = {0};
    struct h5 *f = NULL;
    static char block[1 << 16];
    char path[300];

    int from = open(FILES "numbers.h5", O_RDONLY);
    ssize_t n = read(from, block, sizeof block);
    CHECK_INT(close(from), 0);
    CHECK(n > 3000);
    snprintf(path, sizeof path, "%s/cut.h5", s.folder);
    int to = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK_INT(write(to, block, (size_t)n / 2), n / 2);
    CHECK_INT(close(to), 0);
    CHECK_INT(h5_open(path, "cut.h5", &f, &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "cut.h5");
    CHECK_CONTAINS(problem.detail, "damaged or not complete");
    CHECK_INT(h5_open("/nowhere/x.h5", "x.h5", &f, &problem), ST_INVALID);
    CHECK_INT(h5_create("/nowhere/x.h5", "x.h5", &f, &problem), ST_STORAGE);
    CHECK_TEXT(problem.where, "x.h5");
}

TEST(a_full_disk_is_found_at_the_latest_when_the_file_is_closed)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    if (!scratch_mount(&s, 1 << 20))
        TEST_SKIP("a tmpfs cannot be mounted here");
    struct problem problem = {0};
    struct shape shape = SHAPE(100000);
    float *data = must_alloc(sizeof *data * 100000);
    char path[300];
    int before = dup(0);

    for (int round = 0; round < 3; round++) {
        struct h5 *f = NULL;
        enum status status = ST_OK;

        snprintf(path, sizeof path, "%s/%d.h5", s.folder, round);
        CHECK_OK(h5_create(path, "weights", &f, &problem));
        for (int i = 0; i < 10 && status == ST_OK; i++) {
            char name[20];

            snprintf(name, sizeof name, "/layer_%d", i);
            status = h5_write(f, name, F32, &shape, data, &problem);
        }
        if (status == ST_OK)
            status = h5_close(f, &problem);
        else
            h5_free(f);
        CHECK_INT(status, ST_DISK_FULL);
        CHECK_CONTAINS(problem.detail, "no space left on the disk");
        CHECK_INT(unlink(path), 0);
    }
    free(data);
    /* Nothing stays open: the next descriptor is the one after `before`. */
    int after = dup(0);
    CHECK_INT(after, before + 1);
    close(before);
    close(after);

    OWNED(h5_free) struct h5 *f = NULL;
    CHECK_OK(h5_create(path, "weights", &f, &problem));
    CHECK_OK(h5_put_text(f, "/", "a", "b", &problem));
    CHECK_OK(h5_close(STEAL(f), &problem));
}
