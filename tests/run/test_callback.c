/* Callbacks, epoch by epoch: counting by each dialect's rule, and file names. */
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/callbacks/callback.h"
#include "engine/callbacks/file_name.h"
#include "engine/model/dialect.h"

struct bench { /* one callback and what it has done */
    struct json *json;
    struct arena *mem;
    const struct callback *type;
    const void *config;
    void *state;
    struct fit_control c;
};

static struct bench bench_make(const char *class_name, const char *config, int dialect)
{
    struct bench t = {.mem = arena_new(), .c = {.dialect = dialect, .epochs = 100, .rate = 1}};
    const struct object *o = NULL;
    struct problem problem;
    char text[1000];

    snprintf(text, sizeof(text), "{\"class_name\": \"%s\", \"config\": %s}", class_name, config);
    CHECK_OK(json_parse(text, strlen(text), NULL, 0, &t.json, &problem));
    CHECK_OK(object_parse(&callback_catalogue, t.json, t.mem, "/cb", FIELD_STRICT, NULL, &o, &problem));
    t.type = (const struct callback *)o->type;
    t.config = o->config;
    t.state = arena_alloc(t.mem, t.type->state_size + 1);
    if (t.type->check)
        CHECK_OK(t.type->check(t.config, "/cb", &problem));
    if (t.type->begin)
        t.type->begin(t.config, t.state, &t.c);
    return t;
}

static void bench_done(struct bench *t)
{
    arena_free(t->mem);
    json_free(t->json);
}

static void epoch(struct bench *t, const char *name, double value)
{
    struct callback_logs logs = {2, (const char *const[]){"loss", name}, (const double[]){1, value}};

    t->c.keep_best = t->c.restore_best = false;
    t->c.file[0] = t->c.note[0] = 0;
    t->type->epoch_end(t->config, t->state, &logs, &t->c);
    t->c.epoch++;
}

/* Epochs until the stop on the given values of val_loss (the last one repeats); 0: none in 30. */
static int epochs_until_stop(const char *config, int dialect, const double *values, int n)
{
    CLEAN(bench_done) struct bench t = bench_make("EarlyStopping", config, dialect);

    for (int i = 0; i < 30; i++) {
        epoch(&t, "val_loss", values[i < n ? i : n - 1]);
        if (t.c.stop)
            return i + 1;
    }
    return 0;
}

TEST(early_stopping_waits_one_epoch_more_in_keras_1)
{
    static const double flat[] = {1};

    CHECK_INT(epochs_until_stop("{\"patience\": 2}", DIALECT_KERAS_1, flat, 1), 4);
    CHECK_INT(epochs_until_stop("{\"patience\": 2}", DIALECT_KERAS_2, flat, 1), 3);
    CHECK_INT(epochs_until_stop("{\"patience\": 2}", DIALECT_TF_KERAS, flat, 1), 3);
    CHECK_INT(epochs_until_stop("{\"patience\": 2}", DIALECT_KERAS_3, flat, 1), 3);
    CHECK_INT(epochs_until_stop("{\"patience\": 0}", DIALECT_KERAS_1, flat, 1), 2);
    CHECK_INT(epochs_until_stop("{}", DIALECT_KERAS_3, flat, 1), 2);
}

TEST(early_stopping_counts_again_after_an_improvement_of_min_delta)
{
    static const double values[] = {1, 1.1, 0.95, 0.94, 0.93, 0.7, 0.8};

    CHECK_INT(epochs_until_stop("{\"patience\": 2}", DIALECT_KERAS_3, values, 7), 8);
    CHECK_INT(epochs_until_stop("{\"patience\": 2, \"min_delta\": 0.2}", DIALECT_KERAS_3, values, 7), 3);
    CHECK_INT(epochs_until_stop("{\"patience\": 3, \"min_delta\": -0.1}", DIALECT_KERAS_3, values, 7), 4);
}

TEST(larger_is_better_for_accuracies_or_when_the_mode_says_so)
{
    CLEAN(bench_done)
    struct bench t = bench_make("EarlyStopping", "{\"monitor\": \"val_accuracy\", \"patience\": 1}", DIALECT_KERAS_3);
    static const double rising[] = {1, 2, 3};

    epoch(&t, "val_acc", 0.5);
    epoch(&t, "val_acc", 0.6);
    CHECK(!t.c.stop);
    epoch(&t, "val_acc", 0.6);
    CHECK(t.c.stop);
    CHECK_CONTAINS(t.c.note, "was best in epoch 2 with 0.6");
    CHECK_INT(epochs_until_stop("{\"patience\": 1, \"mode\": \"max\"}", DIALECT_KERAS_3, rising, 3), 4);
    CHECK_INT(epochs_until_stop("{\"patience\": 1}", DIALECT_KERAS_3, rising, 3), 2);
}

TEST(best_weights_come_back_at_the_stop_and_in_keras_3_at_the_end_in_any_case)
{
    static const int dialects[] = {DIALECT_KERAS_2_3, DIALECT_TF_KERAS, DIALECT_KERAS_3};

    for (size_t i = 0; i < COUNT(dialects); i++) {
        CLEAN(bench_done)
        struct bench t = bench_make("EarlyStopping", "{\"patience\": 2, \"restore_best_weights\": true}", dialects[i]);

        epoch(&t, "val_loss", 1);
        CHECK(t.c.keep_best);
        epoch(&t, "val_loss", 2);
        CHECK(!t.c.keep_best && !t.c.restore_best);
        t.type->train_end(t.config, t.state, &t.c);
        CHECK_INT(t.c.restore_best, dialects[i] == DIALECT_KERAS_3);
        epoch(&t, "val_loss", 2);
        CHECK(t.c.stop && t.c.restore_best);
    }
}

TEST(a_baseline_is_the_best_at_the_start_or_must_be_beaten_as_well)
{
    static const double values[] = {1, 0.9, 0.8, 0.7};

    CHECK_INT(epochs_until_stop("{\"patience\": 2, \"baseline\": 0.5}", DIALECT_KERAS_2_3, values, 4), 2);
    CHECK_INT(epochs_until_stop("{\"patience\": 2, \"baseline\": 0.5}", DIALECT_KERAS_3, values, 4), 5);
    CHECK_INT(epochs_until_stop("{\"patience\": 2, \"baseline\": 2}", DIALECT_KERAS_3, values, 4), 6);
}

TEST(epochs_before_start_from_epoch_are_not_looked_at)
{
    static const double flat[] = {0.1, 1};

    CHECK_INT(epochs_until_stop("{\"patience\": 1, \"start_from_epoch\": 5}", DIALECT_KERAS_3, flat, 2), 7);
}

TEST(a_missing_value_is_noted_with_those_that_are_there)
{
    CLEAN(bench_done) struct bench t = bench_make("EarlyStopping", "{}", DIALECT_KERAS_3);

    epoch(&t, "accuracy", 1);
    CHECK(!t.c.stop);
    CHECK_TEXT(t.c.note, "EarlyStopping: there is no \"val_loss\" among loss, accuracy");
}

/* The learning rate after n epochs of a flat val_loss. */
static double rate_after(const char *config, int dialect, int n)
{
    CLEAN(bench_done) struct bench t = bench_make("ReduceLROnPlateau", config, dialect);

    for (int i = 0; i < n; i++)
        epoch(&t, "val_loss", 1);
    return (double)t.c.rate;
}

TEST(the_rate_is_lowered_after_patience_epochs_and_one_more_in_keras_1)
{
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_3, 2), 1, 0);
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_3, 3), 0.5, 0);
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_3, 5), 0.25, 0);
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_1, 3), 1, 0);
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_1, 4), 0.5, 0);
    CHECK_NEAR(rate_after("{\"patience\": 2, \"factor\": 0.5}", DIALECT_KERAS_1, 6), 0.25, 0);
}

TEST(a_cooldown_is_not_counted_and_the_rate_has_a_floor)
{
    CHECK_NEAR(rate_after("{\"patience\": 1, \"factor\": 0.5, \"cooldown\": 3}", DIALECT_KERAS_3, 4), 0.5, 0);
    CHECK_NEAR(rate_after("{\"patience\": 1, \"factor\": 0.5, \"cooldown\": 3}", DIALECT_KERAS_3, 5), 0.25, 0);
    CHECK_NEAR(rate_after("{\"patience\": 1, \"factor\": 0.5, \"min_lr\": 0.4}", DIALECT_KERAS_3, 20), 0.4, 1e-6);
}

TEST(a_factor_of_one_or_more_is_refused)
{
    CLEAN(bench_done) struct bench t = bench_make("ReduceLROnPlateau", "{}", DIALECT_KERAS_3);
    struct problem problem;
    struct json *j = NULL;
    const struct object *o;

    CHECK_OK(json_parse("{\"class_name\": \"ReduceLROnPlateau\", \"config\": {\"factor\": 1}}", 60, NULL, 0, &j, &problem));
    CHECK_OK(object_parse(&callback_catalogue, j, t.mem, "/cb", FIELD_STRICT, NULL, &o, &problem));
    CHECK_INT(t.type->check(o->config, "/cb/config", &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "/cb/config/factor");
    json_free(j);
}

TEST(a_loss_that_is_no_number_ends_training_at_once)
{
    CLEAN(bench_done) struct bench t = bench_make("TerminateOnNaN", "{}", DIALECT_KERAS_3);

    CHECK(t.type->survives_nan);
    t.type->step_end(t.config, t.state, 1, &t.c);
    CHECK(!t.c.stop);
    t.type->step_end(t.config, t.state, (double)INFINITY, &t.c);
    CHECK(t.c.stop);
    CHECK_CONTAINS(t.c.note, "the loss is infinite");
}

TEST(a_checkpoint_is_written_each_period_with_the_epoch_in_its_name)
{
    CLEAN(bench_done)
    struct bench t = bench_make("ModelCheckpoint", "{\"filepath\": \"out/m-{epoch:02d}-{val_loss:.2f}.keras\", \"period\": 2}",
                                DIALECT_KERAS_2);
    CLEAN(bench_done) struct bench old = bench_make("ModelCheckpoint", "{\"filepath\": \"{epoch}.h5\"}", DIALECT_KERAS_1);

    epoch(&t, "val_loss", 0.5);
    CHECK_TEXT(t.c.file, "");
    epoch(&t, "val_loss", 0.256);
    CHECK_TEXT(t.c.file, "m-02-0.26.keras");
    CHECK(!t.c.file_weights_only);
    epoch(&old, "val_loss", 1);
    CHECK_TEXT(old.c.file, "0.h5");
}

TEST(a_checkpoint_of_the_best_is_written_only_when_it_is_strictly_better)
{
    CLEAN(bench_done)
    struct bench t = bench_make("ModelCheckpoint",
                                "{\"filepath\": \"best.weights.h5\", \"save_best_only\": true, \"save_weights_only\": true, "
                                "\"initial_value_threshold\": 0.9}",
                                DIALECT_KERAS_3);

    epoch(&t, "val_loss", 0.95);
    CHECK_TEXT(t.c.file, "");
    epoch(&t, "val_loss", 0.8);
    CHECK_TEXT(t.c.file, "best.weights.h5");
    CHECK(t.c.file_weights_only);
    epoch(&t, "val_loss", 0.8);
    CHECK_TEXT(t.c.file, "");
    epoch(&t, "val_loss", (double)NAN);
    CHECK_TEXT(t.c.file, "");
}

TEST(without_the_watched_value_keras_3_writes_and_keras_2_does_not)
{
    static const int dialects[] = {DIALECT_KERAS_2, DIALECT_KERAS_3};

    for (size_t i = 0; i < COUNT(dialects); i++) {
        CLEAN(bench_done)
        struct bench t = bench_make("ModelCheckpoint", "{\"filepath\": \"m.keras\", \"save_best_only\": true}", dialects[i]);

        epoch(&t, "accuracy", 1);
        CHECK_TEXT(t.c.file, i ? "m.keras" : "");
        CHECK_CONTAINS(t.c.note, "no \"val_loss\"");
    }
}

TEST(a_pattern_is_printed_as_python_prints_it)
{
    static const struct {
        const char *pattern, *want;
    } rows[] = {
        {"a/b/../model.h5", "model.h5"},
        {"m{epoch}.h5", "m7.h5"},
        {"m{epoch:d}.h5", "m7.h5"},
        {"m{epoch:04}.h5", "m0007.h5"},
        {"m{epoch:.1f}", "m7.0"},
        {"m{val_loss}", "m0.03125"},
        {"m{val_loss:.4f}", "m0.0312"},
        {"m{val_loss:08.3f}", "m0000.031"},
        {"m{val_loss:.1e}", "m3.1e-02"},
        {"m{val_loss:.3g}", "m0.0312"},
        {"m{big}", "m100.0"},
        {"m{acc:.2f}", "m0.50"},
    };
    struct callback_logs logs = {3, (const char *const[]){"val_loss", "big", "accuracy"}, (const double[]){0.03125, 100, 0.5}};

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem;
        char name[256];

        CHECK_OK(file_name_check(rows[i].pattern, "/p", &problem));
        CHECK(file_name_print(rows[i].pattern, 7, &logs, name, sizeof(name)));
        CHECK_TEXT(name, rows[i].want);
    }
}

TEST(a_pattern_that_is_no_safe_file_name_is_refused_when_it_is_posted)
{
    static const char *const rows[] = {
        "",          "a/",          "..",         "a/..",        ".hidden",      "a b.h5",        "m%n.h5",          "m{epoch",
        "m{}.h5",    "m{epoch:}x{", "m{epoch:x}", "m{{epoch}}",  "m{epoch:99d}", "m{loss:.99f}",  "m{loss:d}.h5",    "m\\n.h5",
        "m{a!r}.h5", "m{a[0]}.h5",  "m\n",        "m{epoch:>4}", "m~",           "m{epoch:0 4d}", "m{epoch:.2d}.h5", "m:x",
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct problem problem = {0};

        if (file_name_check(rows[i], "/fit/callbacks/0/config/filepath", &problem) != ST_INVALID)
            fail_msg("\"%s\" was accepted", rows[i]);
        CHECK_TEXT(problem.where, "/fit/callbacks/0/config/filepath");
    }
}

TEST(a_name_that_turns_out_unsafe_is_not_written_and_says_why)
{
    struct callback_logs logs = {2, (const char *const[]){"loss", "val_loss"}, (const double[]){1e30, (double)NAN}};
    char name[256];

    CHECK(!file_name_print("m{none}", 1, &logs, name, sizeof(name)));
    CHECK_CONTAINS(name, "names \"none\", which this epoch does not have");
    CHECK(!file_name_print("m{loss}", 1, &logs, name, sizeof(name))); /* 1e+30 */
    CHECK_CONTAINS(name, "which is no file name");
    CHECK(!file_name_print("{loss:40.20f}{loss:40.20f}{loss:40.20f}{loss:40.20f}{loss:40.20f}", 1, &logs, name, sizeof(name)));
    CHECK_CONTAINS(name, "more than 200 characters");
    CHECK(file_name_print("m{val_loss}", 1, &logs, name, sizeof(name)));
    CHECK_TEXT(name, "mnan");
}

TEST(the_state_is_plain_bytes_so_a_copy_goes_on_as_the_original)
{
    CLEAN(bench_done) struct bench t = bench_make("EarlyStopping", "{\"patience\": 3}", DIALECT_KERAS_3);
    CLEAN(bench_done) struct bench copy = bench_make("EarlyStopping", "{\"patience\": 3}", DIALECT_KERAS_3);

    epoch(&t, "val_loss", 1);
    epoch(&t, "val_loss", 1);
    memcpy(copy.state, t.state, t.type->state_size);
    copy.c.epoch = t.c.epoch;
    epoch(&copy, "val_loss", 1);
    CHECK(!copy.c.stop);
    epoch(&copy, "val_loss", 1);
    CHECK(copy.c.stop);
}
