/* A checkpoint gives back every bit that the next step depends on, and is there whole or not at all. */
#include "storage/checkpoint.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/storage/models.h"
#include "tests/storage/scratch.h"
#include "tests/test.h"

/* HDF5 itself forgets 1 KiB, its write accumulator, when a file cannot be flushed; LeakSanitizer sees it in the test of a full
 * disk. */
const char *__lsan_default_suppressions(void) __attribute__((visibility("default")));
const char *__lsan_default_suppressions(void)
{
    return "leak:libhdf5\n";
}

#define MODEL                                                                                                             \
    "{\"class_name\":\"Sequential\",\"config\":{\"layers\":[{\"class_name\":\"InputLayer\",\"config\":{\"name\":\"in\","  \
    "\"batch_shape\":[null,5]}},{\"class_name\":\"Dense\",\"config\":{\"name\":\"d\",\"units\":3}},"                      \
    "{\"class_name\":\"BatchNormalization\",\"config\":{\"name\":\"n\"}},{\"class_name\":\"Dense\",\"config\":{\"name\":" \
    "\"e\","                                                                                                              \
    "\"units\":2}}]}}"

static const char *const optimizers[] = {
    "{\"optimizer\":\"sgd\",\"loss\":\"mse\"}",
    "{\"optimizer\":\"adagrad\",\"loss\":\"mse\"}",
    "{\"optimizer\":{\"class_name\":\"Adam\",\"config\":{\"amsgrad\":true}},\"loss\":\"mse\"}",
};

static struct built built_with(const char *compile)
{
    struct built b = built_make(MODEL);
    OWNED(json_free) struct json *j = json_of_text(compile);

    built_compile(&b, j);
    built_patterns(&b);
    return b;
}

/* Values that a careless path would change: a negative zero, the smallest number, a NaN with a payload in the unused best
 * weights. */
static void odd_values(struct built *b)
{
    float *w = b->weights;
    uint32_t denormal = 1;

    w[0] = -0.0f;
    memcpy(&w[1], &denormal, sizeof denormal);
    w[2] = 3.4e38f;
}

static const double sums[] = {0.1, 1.0 / 3, 1e300, -0.0};
static const unsigned char states[] = {0, 255, 7, 0, 1};

static struct snapshot snapshot_of(const struct built *b, const void *best)
{
    struct snapshot now = built_snapshot(b);

    now.epoch = 11;
    now.step = 1234567890123;
    now.updates = 2000000123;
    now.rate = 1e-30f;
    now.best = best;
    now.accumulators = sums;
    now.n_accumulators = 4;
    now.callbacks = states;
    now.callbacks_bytes = sizeof states;
    return now;
}

static void check_same(const struct checkpoint *c, const struct snapshot *want, size_t slot_bytes)
{
    const struct snapshot *now = &c->now;

    CHECK(memcmp(now->weights, want->weights, want->layout->bytes) == 0);
    CHECK(now->slots && memcmp(now->slots, want->slots, slot_bytes) == 0);
    CHECK_INT(now->best != NULL, want->best != NULL);
    CHECK(!want->best || memcmp(now->best, want->best, want->layout->bytes) == 0);
    CHECK_INT(now->updates, want->updates);
    CHECK(memcmp(&now->rate, &want->rate, sizeof now->rate) == 0);
    CHECK_INT(now->epoch, want->epoch);
    CHECK_INT(now->step, want->step);
    CHECK(now->seed == want->seed);
    CHECK_INT(now->n_accumulators, want->n_accumulators);
    CHECK(memcmp(now->accumulators, want->accumulators, sizeof(double) * (size_t)want->n_accumulators) == 0);
    CHECK_INT(now->callbacks_bytes, want->callbacks_bytes);
    CHECK(memcmp(now->callbacks, want->callbacks, want->callbacks_bytes) == 0);
}

TEST(every_bit_of_a_snapshot_comes_back_for_every_kind_of_optimizer)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    struct problem problem;

    for (size_t i = 0; i < COUNT(optimizers); i++) {
        CLEAN(built_done) struct built b = built_with(optimizers[i]);
        CLEAN(built_done) struct built best = built_with(optimizers[i]);
        OWNED(checkpoint_free) struct checkpoint *c = NULL;
        char path[128];
        odd_values(&b);
        ((float *)best.weights)[0] = NAN;
        struct snapshot now = snapshot_of(&b, i == 1 ? NULL : best.weights);
        CHECK_OK(checkpoint_save(db, 7, (int64_t)i + 1, &now, path, &problem));
        CHECK_OK(checkpoint_load(db, path, b.model, b.layout, &b.compile->optimizer, &c, &problem));
        check_same(c, &now, b.slot_bytes);
    }
    CHECK_INT(scratch_files(&s, "jobs/7"), 3);
    CHECK_INT(scratch_files(&s, "tmp"), 0);
}

TEST(a_snapshot_without_sums_and_callbacks_comes_back)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    CLEAN(built_done) struct built b = built_with(optimizers[2]);
    OWNED(checkpoint_free) struct checkpoint *c = NULL;
    struct snapshot now = snapshot_of(&b, NULL);
    struct problem problem;
    char path[128];

    now.accumulators = NULL;
    now.callbacks = NULL;
    now.n_accumulators = 0;
    now.callbacks_bytes = 0;
    CHECK_OK(checkpoint_save(db, 1, 1, &now, path, &problem));
    CHECK_TEXT(path, "jobs/1/1.ckpt.h5");
    CHECK_OK(checkpoint_load(db, path, b.model, b.layout, &b.compile->optimizer, &c, &problem));
    CHECK_INT(c->now.n_accumulators, 0);
    CHECK_INT(c->now.callbacks_bytes, 0);
}

TEST(a_checkpoint_for_another_optimizer_or_model_is_refused)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    OWNED(db_close) struct db *db = scratch_db(&s);
    CLEAN(built_done) struct built b = built_with(optimizers[0]);
    CLEAN(built_done) struct built adam = built_with(optimizers[2]);
    OWNED(checkpoint_free) struct checkpoint *c = NULL;
    struct snapshot now = snapshot_of(&b, NULL);
    struct problem problem;
    char path[128];

    CHECK_OK(checkpoint_save(db, 1, 1, &now, path, &problem));
    CHECK_INT(checkpoint_load(db, path, adam.model, adam.layout, &adam.compile->optimizer, &c, &problem), ST_STORAGE);
    CHECK_CONTAINS(problem.detail, "does not fit the job's optimizer");
    CHECK(!c);
}

TEST(a_full_disk_is_said_and_leaves_nothing_half_written)
{
    CLEAN(scratch_done) struct scratch s = scratch_make();
    struct problem problem;
    char path[128], fill[300];
    static char block[1 << 16];

    if (!scratch_mount(&s, 1 << 20))
        TEST_SKIP("a tmpfs cannot be mounted here");
    OWNED(db_close) struct db *db = scratch_db(&s);
    CLEAN(built_done) struct built b = built_with(optimizers[2]);
    struct snapshot now = snapshot_of(&b, NULL);
    CHECK_OK(checkpoint_save(db, 1, 1, &now, path, &problem));
    snprintf(fill, sizeof fill, "%s/fill", s.folder);
    int fd = open(fill, O_WRONLY | O_CREAT, 0600);
    for (size_t step = sizeof block; step; step /= 2)
        while (write(fd, block, step) > 0)
            ;
    close(fd);
    CHECK_INT(checkpoint_save(db, 1, 2, &now, path, &problem), ST_DISK_FULL);
    CHECK_TEXT(path, "jobs/1/1.ckpt.h5");
    CHECK_INT(scratch_files(&s, "jobs/1"), 1);
    CHECK_INT(scratch_files(&s, "tmp"), 0);

    OWNED(checkpoint_free) struct checkpoint *c = NULL;
    CHECK_OK(checkpoint_load(db, path, b.model, b.layout, &b.compile->optimizer, &c, &problem));
    (void)unlink(fill);
    CHECK_OK(checkpoint_save(db, 1, 2, &now, path, &problem));
}
