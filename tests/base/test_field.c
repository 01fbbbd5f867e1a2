#include "tests/test.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/field.h"

/* A table with a row of each type, and a catalogue whose classes nest. */
struct scale {
    double factor;
};

static const struct field scale_fields[] = {
    {"factor", FIELD_FLOAT, offsetof(struct scale, factor), .preset = 2, .min = 0, .max = 10, .doc = "what to multiply with"},
    {0},
};
static const struct class scale_by = {"ScaleBy", sizeof(struct scale), scale_fields};
static const struct class leaky = {"LeakyReLU", 0, NULL};
static const struct class glorot = {"GlorotUniform", 0, NULL};
static const struct class *const rows[] = {&scale_by, &leaky, &glorot, NULL};
static const char *const aliases[][2] = {{"xavier", "GlorotUniform"}, {NULL, NULL}};
static const struct catalogue catalogue = {"activation", rows, aliases};

struct all {
    int64_t batch_size, seed;
    double rate, cap;
    bool shuffle;
    const char *name;
    int mode;
    struct ints strides, axes;
    const struct object *act, *must_act;
    struct objects list;
    const struct json *extra;
};

static const char *const modes[] = {"min", "max", "auto", NULL};
static const struct field fields[] = {
    {"batch_size", FIELD_INT, offsetof(struct all, batch_size), .preset = 32, .min = 1, .max = 1048576,
     .doc = "rows of a step"},
    {"seed", FIELD_INT, offsetof(struct all, seed), .preset = (double)FIELD_NULL_INT, .flags = FIELD_NULLABLE, .doc = "seed"},
    {"rate", FIELD_FLOAT, offsetof(struct all, rate), .preset = 0.5, .min = 0, .max = 1, .doc = "share set to zero"},
    {"cap", FIELD_FLOAT, offsetof(struct all, cap), .preset = NAN, .min = 0, .max = INFINITY, .flags = FIELD_NULLABLE},
    {"shuffle", FIELD_BOOL, offsetof(struct all, shuffle), .preset = 1, .doc = "order drawn anew"},
    {"name", FIELD_TEXT, offsetof(struct all, name), .max = 8, .preset_text = "m", .flags = FIELD_NULLABLE},
    {"mode", FIELD_CHOICE, offsetof(struct all, mode), .preset = 2, .choices = modes, .flags = FIELD_NULLABLE},
    {"strides", FIELD_INTS, offsetof(struct all, strides), .preset = 1, .min = 1, .max = 100, .count = 2,
     .flags = FIELD_SCALAR_OK},
    {"axes", FIELD_INTS, offsetof(struct all, axes), .flags = FIELD_NULLABLE},
    {"act", FIELD_OBJECT, offsetof(struct all, act), .catalogue = &catalogue, .flags = FIELD_NULLABLE},
    {"must_act", FIELD_OBJECT, offsetof(struct all, must_act), .catalogue = &catalogue, .preset_text = "scale_by"},
    {"list", FIELD_LIST, offsetof(struct all, list), .catalogue = &catalogue, .flags = FIELD_NULLABLE},
    {"extra", FIELD_JSON, offsetof(struct all, extra), .doc = NULL},
    {0},
};

struct one_required {
    int64_t units;
};

static const struct field required_fields[] = {
    {"units", FIELD_INT, offsetof(struct one_required, units), .min = 1, .max = INFINITY, .flags = FIELD_REQUIRED,
     .doc = "outputs of the layer"},
    {0},
};

struct parsed { /* what a test looks at, with what it borrows from */
    struct json *j;
    struct arena *mem;
    struct text warnings;
    struct problem problem;
    enum status status;
    struct all v;
};

static void parsed_done(struct parsed *p)
{
    json_free(p->j);
    arena_free(p->mem);
    text_done(&p->warnings);
}

static struct parsed parse(const char *s, enum field_mode mode)
{
    struct parsed p = {.mem = arena_new(), .warnings = text_make(1000)};
    struct problem problem;

    CHECK_OK(json_parse(s, strlen(s), NULL, JSON_NAN, &p.j, &problem));
    p.status = field_parse(fields, p.j, &p.v, p.mem, "/fit", mode, &p.warnings, &p.problem);
    return p;
}

TEST(absent_keys_take_their_presets)
{
    CLEAN(parsed_done) struct parsed p = parse("{}", FIELD_STRICT);

    CHECK_INT(p.status, ST_OK);
    CHECK_INT(p.v.batch_size, 32);
    CHECK(p.v.seed == FIELD_NULL_INT);
    CHECK(p.v.rate == 0.5 && isnan(p.v.cap) && p.v.shuffle);
    CHECK_TEXT(p.v.name, "m");
    CHECK_INT(p.v.mode, 2);
    CHECK_INT(p.v.strides.n, 2);
    CHECK_INT(p.v.strides.v[1], 1);
    CHECK_INT(p.v.axes.n, 0);
    CHECK(!p.v.act && !p.v.extra);
    CHECK(p.v.must_act->type == &scale_by);
    CHECK(((const struct scale *)p.v.must_act->config)->factor == 2);
    CHECK_INT(p.v.list.n, 0);
}

TEST(null_becomes_the_null_form_where_it_is_allowed)
{
    CLEAN(parsed_done)
    struct parsed p = parse("{\"seed\": null, \"cap\": null, \"name\": null, \"mode\": null, \"axes\": null, "
                            "\"act\": null, \"list\": null, \"extra\": null}",
                            FIELD_STRICT);

    CHECK_INT(p.status, ST_OK);
    CHECK(p.v.seed == FIELD_NULL_INT && isnan(p.v.cap) && !p.v.name && !p.v.act);
    CHECK_INT(p.v.mode, -1);
    CHECK_INT(p.v.axes.n + p.v.list.n, 0);
    CHECK_INT(json_type(p.v.extra), JSON_NULL);
}

TEST(values_are_read_by_type)
{
    CLEAN(parsed_done)
    struct parsed p =
        parse("{\"batch_size\": 3.0, \"seed\": 9223372036854775807, \"rate\": 1, \"cap\": 6, \"shuffle\": false, \"name\": "
              "\"abc\", \"mode\": \"min\", \"strides\": 3, \"axes\": [1, -2, 3], \"act\": \"leaky_re_lu\", \"must_act\": "
              "{\"class_name\": \"ScaleBy\", \"config\": {\"factor\": 3}}, \"list\": [\"xavier\", {\"class_name\": "
              "\"scaleby\", \"module\": \"keras\", \"registered_name\": null}], \"extra\": {\"any\": [1]}}",
              FIELD_STRICT);
    OWNED(free) char *s = json_print(p.v.extra, 0);

    CHECK_TEXT(p.problem.detail, "");
    CHECK_INT(p.status, ST_OK);
    CHECK_INT(p.v.batch_size, 3);
    CHECK_INT(p.v.seed, INT64_MAX);
    CHECK(p.v.rate == 1 && p.v.cap == 6 && !p.v.shuffle);
    CHECK(p.v.name != json_text(json_get(p.j, "name"))); /* a copy */
    CHECK_TEXT(p.v.name, "abc");
    CHECK_INT(p.v.mode, 0);
    CHECK_INT(p.v.strides.v[0] * 10 + p.v.strides.v[1], 33);
    CHECK_INT(p.v.axes.n, 3);
    CHECK_INT(p.v.axes.v[1], -2);
    CHECK(p.v.act->type == &leaky);
    CHECK(((const struct scale *)p.v.must_act->config)->factor == 3);
    CHECK_INT(p.v.list.n, 2);
    CHECK(p.v.list.v[0]->type == &glorot && p.v.list.v[1]->type == &scale_by);
    CHECK_TEXT(s, "{\"any\":[1]}");
}

TEST(a_lone_object_counts_as_a_list_of_one)
{
    CLEAN(parsed_done) struct parsed p = parse("{\"list\": \"xavier\"}", FIELD_STRICT);

    CHECK_INT(p.status, ST_OK);
    CHECK_INT(p.v.list.n, 1);
    CHECK(p.v.list.v[0]->type == &glorot);
}

TEST(what_does_not_fit_is_named_with_pointer_and_both_sides)
{
    static const struct {
        const char *s, *where, *detail;
        enum status status;
    } cases[] = {
        {"{\"batch_size\": 0}", "/fit/batch_size", "must be between 1 and 1048576, got 0", ST_INVALID},
        {"{\"batch_size\": 2.5}", "/fit/batch_size", "must be a whole number, got 2.5", ST_INVALID},
        {"{\"batch_size\": 1e30}", "/fit/batch_size", "must be a whole number of 64 bits, got 1e+30", ST_INVALID},
        {"{\"batch_size\": \"8\"}", "/fit/batch_size", "must be a whole number, got a text", ST_INVALID},
        {"{\"batch_size\": null}", "/fit/batch_size", "must be a whole number, got null", ST_INVALID},
        {"{\"seed\": true}", "/fit/seed", "must be a whole number or null, got true or false", ST_INVALID},
        {"{\"rate\": 1.5}", "/fit/rate", "must be between 0 and 1, got 1.5", ST_INVALID},
        {"{\"rate\": NaN}", "/fit/rate", "must be between 0 and 1, got NaN", ST_INVALID},
        {"{\"rate\": []}", "/fit/rate", "must be a number, got an array", ST_INVALID},
        {"{\"cap\": -1}", "/fit/cap", "must be at least 0, got -1", ST_INVALID},
        {"{\"shuffle\": 1}", "/fit/shuffle", "must be true or false, got a number", ST_INVALID},
        {"{\"name\": \"123456789\"}", "/fit/name", "must be a text of at most 8 bytes, got 9", ST_INVALID},
        {"{\"mode\": \"Min\"}", "/fit/mode", "must be one of \"min\", \"max\", \"auto\"; got \"Min\"", ST_INVALID},
        {"{\"strides\": [1, 2, 3]}", "/fit/strides", "must have 2 values, got 3", ST_INVALID},
        {"{\"strides\": [1, 0]}", "/fit/strides/1", "must be between 1 and 100, got 0", ST_INVALID},
        {"{\"strides\": [1, null]}", "/fit/strides/1", "must be a whole number, got null", ST_INVALID},
        {"{\"strides\": {}}", "/fit/strides", "must be a whole number or an array of them, got an object", ST_INVALID},
        {"{\"axes\": 3}", "/fit/axes", "must be an array of whole numbers or null, got a number", ST_INVALID},
        {"{\"axes\": [1,2,3,4,5,6,7,8,9]}", "/fit/axes", "must have at most 8 values, got 9", ST_INVALID},
        {"{\"act\": 7}", "/fit/act",
         "must be the name of an activation or {\"class_name\": ..., \"config\": ...}, got a number", ST_INVALID},
        {"{\"act\": \"leakyrelo\"}", "/fit/act", "unknown activation \"leakyrelo\"; did you mean \"LeakyReLU\"?",
         ST_UNSUPPORTED},
        {"{\"act\": {\"class_name\": \"Foo\"}}", "/fit/act/class_name",
         "unknown activation \"Foo\"; known are \"ScaleBy\", \"LeakyReLU\", \"GlorotUniform\"", ST_UNSUPPORTED},
        {"{\"act\": {\"config\": {}}}", "/fit/act/class_name", "is missing: the name of the activation", ST_INVALID},
        {"{\"act\": {\"class_name\": 3}}", "/fit/act/class_name", "must be a text, got a number", ST_INVALID},
        {"{\"act\": {\"class_name\": \"ScaleBy\", \"config\": 3}}", "/fit/act/config", "must be an object, got a number",
         ST_INVALID},
        {"{\"act\": {\"class_name\": \"ScaleBy\", \"config\": {\"factor\": 11}}}", "/fit/act/config/factor",
         "must be between 0 and 10, got 11", ST_INVALID},
        {"{\"act\": {\"class_name\": \"LeakyReLU\", \"config\": {\"a\": 11}}}", "/fit/act/config/a",
         "unknown key \"a\"; none is known here", ST_INVALID},
        {"{\"list\": [\"xavier\", {\"class_name\": \"ScaleBy\", \"confg\": {}}]}", "/fit/list/1/confg",
         "unknown key \"confg\"; did you mean \"config\"?", ST_INVALID},
        {"{\"batchsize\": 3}", "/fit/batchsize", "unknown key \"batchsize\"; did you mean \"batch_size\"?", ST_INVALID},
        {"{\"Seed\": 3}", "/fit/Seed", "unknown key \"Seed\"; did you mean \"seed\"?", ST_INVALID},
        {"{\"esed\": 3}", "/fit/esed", "unknown key \"esed\"; did you mean \"seed\"?", ST_INVALID},
        {"{\"a/b~\": 3}", "/fit/a~1b~0", "unknown key \"a/b~\"; known here: \"batch_size\", \"seed\"", ST_INVALID},
        {"[]", "/fit", "must be an object, got an array", ST_INVALID},
        {"null", "/fit", "must be an object, got null", ST_INVALID},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        CLEAN(parsed_done) struct parsed p = parse(cases[i].s, FIELD_STRICT);

        if (p.status != cases[i].status)
            fail_msg("%s gives %s", cases[i].s, status_name(p.status));
        CHECK_INT(p.problem.status, cases[i].status);
        CHECK_TEXT(p.problem.where, cases[i].where);
        CHECK_CONTAINS(p.problem.detail, cases[i].detail);
    }
}

TEST(a_key_longer_than_any_known_one_is_named_and_cut)
{
    char s[3000];
    OWNED(free) char *key = NULL;

    key = must_alloc(2001);
    memset(key, 'k', 2000);
    snprintf(s, sizeof s, "{\"%s\": 1}", key);
    CLEAN(parsed_done) struct parsed p = parse(s, FIELD_STRICT);
    CHECK_INT(p.status, ST_INVALID);
    CHECK_CONTAINS(p.problem.where, "/fit/kkkk");
    CHECK_CONTAINS(p.problem.detail, "unknown key \"kkkk");
}

TEST(tolerant_parsing_names_unknown_keys_in_lines)
{
    CLEAN(parsed_done)
    struct parsed p =
        parse("{\"zz\": 1, \"rate\": 0.25, \"act\": {\"class_name\": \"ScaleBy\", \"config\": {\"dtype\": \"float32\"}}}",
              FIELD_TOLERANT);

    CHECK_INT(p.status, ST_OK);
    CHECK(p.v.rate == 0.25);
    CHECK_TEXT(p.warnings.s, "/fit/zz: unknown key, ignored\n/fit/act/config/dtype: unknown key, ignored\n");
}

TEST(tolerant_parsing_still_refuses_wrong_values)
{
    CLEAN(parsed_done) struct parsed p = parse("{\"rate\": 2}", FIELD_TOLERANT);

    CHECK_INT(p.status, ST_INVALID);
}

TEST(a_required_key_that_is_missing_is_named_with_its_meaning)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    OWNED(json_free) struct json *empty = json_new_object();
    struct one_required v = {0};
    struct problem problem = {0};

    CHECK_INT(field_parse(required_fields, empty, &v, mem, "", FIELD_STRICT, NULL, &problem), ST_INVALID);
    CHECK_TEXT(problem.where, "/units");
    CHECK_TEXT(problem.detail, "is missing: outputs of the layer");
    CHECK_INT(field_parse(required_fields, NULL, &v, mem, "", FIELD_STRICT, NULL, &problem), ST_INVALID);
    json_put(empty, "units", json_new_int(INT64_MAX)); /* no upper bound */
    CHECK_OK(field_parse(required_fields, empty, &v, mem, "", FIELD_STRICT, NULL, &problem));
    CHECK_INT(v.units, INT64_MAX);
}

TEST(a_table_may_be_absent)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem = {0};

    CHECK_OK(field_parse(NULL, NULL, NULL, mem, "", FIELD_STRICT, NULL, &problem));
}

TEST(classes_are_found_by_each_of_their_spellings)
{
    static const char *const names[] = {"GlorotUniform",  "glorot_uniform", "glorotuniform",
                                        "GLOROT_UNIFORM", "xavier",         "Xavier"};

    for (size_t i = 0; i < COUNT(names); i++)
        CHECK(catalogue_find(&catalogue, names[i]) == &glorot);
    CHECK(!catalogue_find(&catalogue, "Glorot"));
    CHECK(!catalogue_find(&catalogue, ""));
}

TEST(snake_case_is_that_of_keras)
{
    static const char *const cases[][2] = {
        {"Conv2D", "conv2d"},
        {"LeakyReLU", "leaky_re_lu"},
        {"LSTM", "lstm"},
        {"BatchNormalization", "batch_normalization"},
        {"RMSprop", "rm_sprop"},
        {"Conv2DTranspose", "conv2d_transpose"},
        {"ConvLSTM2D", "conv_lstm2d"},
        {"AdamW", "adam_w"},
        {"GRUCell", "gru_cell"},
        {"GlobalAveragePooling2D", "global_average_pooling2d"},
        {"PReLU", "p_re_lu"},
        {"MaxPooling1D", "max_pooling1d"},
        {"L1L2", "l1l2"},
        {"dense", "dense"},
        {"", ""},
    };
    char to[64];

    for (size_t i = 0; i < COUNT(cases); i++) {
        snake_case(cases[i][0], to, sizeof to);
        CHECK_TEXT(to, cases[i][1]);
    }
    snake_case("BatchNormalization", to, 6); /* cut, terminated */
    CHECK(strlen(to) < 6);
}

TEST(an_object_with_presets_is_made_by_name)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    const struct object *o = object_preset(&catalogue, "scale_by", mem);

    CHECK(o->type == &scale_by);
    CHECK(((const struct scale *)o->config)->factor == 2);
}

TEST(a_table_describes_itself_as_json_schema)
{
    OWNED(json_free) struct json *d = field_describe(fields);
    static const char *const want[][2] = {
        {"batch_size",
         "{\"type\":\"integer\",\"minimum\":1,\"maximum\":1048576,\"default\":32,\"description\":\"rows of a step\"}"},
        {"seed", "{\"type\":[\"integer\",\"null\"],\"default\":null,\"description\":\"seed\"}"},
        {"cap", "{\"type\":[\"number\",\"null\"],\"minimum\":0,\"default\":null}"},
        {"shuffle", "{\"type\":\"boolean\",\"default\":true,\"description\":\"order drawn anew\"}"},
        {"name", "{\"type\":[\"string\",\"null\"],\"minLength\":0,\"maxLength\":8,\"default\":\"m\"}"},
        {"mode", "{\"type\":[\"string\",\"null\"],\"enum\":[\"min\",\"max\",\"auto\",null],\"default\":\"auto\"}"},
        {"strides", "{\"type\":[\"array\",\"integer\"],\"items\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":100},"
                    "\"minItems\":2,\"maxItems\":2,\"default\":1}"},
        {"must_act", "{\"type\":[\"string\",\"object\"],\"examples\":[\"ScaleBy\",\"LeakyReLU\",\"GlorotUniform\"],"
                     "\"default\":\"scale_by\"}"},
        {"list",
         "{\"type\":[\"array\",\"object\",\"string\",\"null\"],\"examples\":[\"ScaleBy\",\"LeakyReLU\",\"GlorotUniform\"],"
         "\"default\":null}"},
        {"extra", "{}"},
    };

    CHECK_INT(json_count(d), (int)COUNT(fields) - 1);
    for (size_t i = 0; i < COUNT(want); i++) {
        OWNED(free) char *s = json_print(json_get(d, want[i][0]), 0);

        CHECK_TEXT(s, want[i][1]);
    }
}
