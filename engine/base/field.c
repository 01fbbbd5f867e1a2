/* Structs read from JSON by table.
 *
 * A table is walked twice: the document's keys are looked up in it (an unknown key is most often a misspelt one, which must
 * not turn into a complaint about a missing key), then its rows take their values from the document. Every message names the
 * value by its JSON pointer, both sides of a comparison, and for a misspelt name the nearest known one. */
#include "engine/base/field.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "engine/base/scope.h"

enum { LONGEST_NAME = 64, MOST_INTS = 8, POINTER_ROOM = 1024 };

struct from { /* where values come from, the same through a whole parse */
    struct arena *mem;
    enum field_mode mode;
    struct text *warnings;
    struct problem *problem;
};

typedef enum status read_fn(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from);
static read_fn *const readers[];

/* --- names ---------------------------------------------------------------------------------------------------------------- */

static struct text pointer_to(const char *pointer, const char *key)
{
    struct text t = text_make(POINTER_ROOM);

    text_add(&t, pointer);
    text_add_char(&t, '/');
    for (; *key; key++) { /* RFC 6901 */
        if (*key == '~' || *key == '/')
            text_add(&t, *key == '~' ? "~0" : "~1");
        else
            text_add_char(&t, *key);
    }
    return t;
}

static struct text pointer_at(const char *pointer, int i)
{
    struct text t = text_make(POINTER_ROOM);

    text_printf(&t, "%s/%d", pointer, i);
    return t;
}

/* Letters to change, insert, delete or swap with the next one, to make b of a (optimal string alignment); case is ignored. */
static int distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b), row[3][LONGEST_NAME + 1] = {{0}};

    if (n > LONGEST_NAME || m > LONGEST_NAME)
        return LONGEST_NAME;
    for (int j = 0; j <= m; j++)
        row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];

        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            int best = last[j - 1] + (x != y);

            if (last[j] + 1 < best)
                best = last[j] + 1;
            if (now[j - 1] + 1 < best)
                best = now[j - 1] + 1;
            if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) && y == tolower((unsigned char)a[i - 2]) &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

struct nearest { /* of the names seen so far */
    const char *to, *name;
    int distance;
};

static void nearest_see(struct nearest *n, const char *name)
{
    int d = distance(n->to, name), most = (int)strlen(n->to) / 3;

    if (d <= (most > 1 ? most : 1) && (!n->name || d < n->distance)) {
        n->name = name;
        n->distance = d;
    }
}

static void list_add(struct text *t, const char *name)
{
    if (t->length)
        text_add(t, ", ");
    text_add_json(t, name);
}

void snake_case(const char *class_name, char *to, size_t room)
{
    size_t n = 0;

    /* Keras: "(.)([A-Z][a-z]+)" and "([a-z])([A-Z])" get an underscore between the groups */
    for (const char *c = class_name; *c && n + 2 < room; c++) {
        if (c > class_name && isupper((unsigned char)*c) && (islower((unsigned char)c[-1]) || islower((unsigned char)c[1])))
            to[n++] = '_';
        to[n++] = (char)tolower((unsigned char)*c);
    }
    if (room)
        to[n] = 0;
}

const struct class *catalogue_find(const struct catalogue *c, const char *name)
{
    char snake[LONGEST_NAME * 2];

    for (const struct class *const *row = c->rows; *row; row++) {
        snake_case((*row)->keras, snake, sizeof snake);
        if (strcasecmp(name, (*row)->keras) == 0 || strcasecmp(name, snake) == 0)
            return *row;
    }
    for (const char *const(*alias)[2] = c->aliases; alias && (*alias)[0]; alias++) {
        if (strcasecmp(name, (*alias)[0]) == 0 && strcasecmp(name, (*alias)[1]) != 0)
            return catalogue_find(c, (*alias)[1]);
    }
    return NULL;
}

/* --- values --------------------------------------------------------------------------------------------------------------- */

static const char *wanted(const struct field *f)
{
    static const char *const words[] = {
        [FIELD_INT] = "a whole number",
        [FIELD_FLOAT] = "a number",
        [FIELD_BOOL] = "true or false",
        [FIELD_TEXT] = "a text",
        [FIELD_CHOICE] = "a text",
        [FIELD_INTS] = "an array of whole numbers",
        [FIELD_OBJECT] = "a name or an object",
        [FIELD_LIST] = "an array",
        [FIELD_JSON] = "a value",
    };

    if (f->type == FIELD_INTS && f->flags & FIELD_SCALAR_OK)
        return "a whole number or an array of them";
    return words[f->type];
}

static enum status wrong_type(const struct field *f, const struct json *j, const char *pointer, struct from *from)
{
    return fail(from->problem, ST_INVALID, pointer, "must be %s%s, got %s", wanted(f),
                f->flags & FIELD_NULLABLE ? " or null" : "", json_type_name(json_type(j)));
}

static bool bounded(const struct field *f)
{
    return !(f->min == f->max);
}

/* x within the bounds; `digits` is how the document has it */
static enum status check_bounds(const struct field *f, double x, const char *digits, const char *pointer, struct from *from)
{
    CLEAN(text_done) struct text want = text_make(100);
    bool low = isfinite(f->min), high = isfinite(f->max) && f->max < 0x1p63;

    if (!bounded(f) || (x >= f->min && x <= f->max))
        return ST_OK;
    if (low)
        text_add(&want, high ? "between " : "at least ");
    else
        text_add(&want, high ? "at most " : "a number");
    if (low)
        text_add_number(&want, f->min);
    if (low && high)
        text_add(&want, " and ");
    if (high)
        text_add_number(&want, f->max);
    return fail(from->problem, ST_INVALID, pointer, "must be %s, got %s", want.s, digits);
}

static enum status read_whole(const struct field *f, const struct json *j, int64_t *ret, const char *pointer, struct from *from)
{
    OWNED(free) char *digits = NULL;
    int64_t n;

    if (json_type(j) != JSON_NUMBER)
        return wrong_type(f, j, pointer, from);
    digits = json_print(j, JSON_NAN);
    if (!json_int(j, &n)) {
        if (fabs(json_number(j)) >= 0x1p63)
            return fail(from->problem, ST_INVALID, pointer, "must be a whole number of 64 bits, got %.100s", digits);
        return fail(from->problem, ST_INVALID, pointer, "must be a whole number, got %.100s", digits);
    }
    TRY(check_bounds(f, (double)n, digits, pointer, from));
    *ret = n;
    return ST_OK;
}

static enum status read_int(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    return read_whole(f, j, to, pointer, from);
}

static enum status read_float(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    OWNED(free) char *digits = NULL;

    if (json_type(j) != JSON_NUMBER)
        return wrong_type(f, j, pointer, from);
    digits = json_print(j, JSON_NAN);
    TRY(check_bounds(f, json_number(j), digits, pointer, from));
    *(double *)to = json_number(j);
    return ST_OK;
}

static enum status read_bool(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    if (json_type(j) != JSON_BOOL)
        return wrong_type(f, j, pointer, from);
    *(bool *)to = json_true(j);
    return ST_OK;
}

static enum status read_text(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    const char *s = json_text(j);

    if (!s)
        return wrong_type(f, j, pointer, from);
    if (bounded(f) && (double)strlen(s) > f->max)
        return fail(from->problem, ST_INVALID, pointer, "must be a text of at most %.0f bytes, got %zu", f->max, strlen(s));
    if (bounded(f) && (double)strlen(s) < f->min)
        return fail(from->problem, ST_INVALID, pointer, "must be a text of at least %.0f bytes, got %zu", f->min, strlen(s));
    *(const char **)to = arena_text(from->mem, s);
    return ST_OK;
}

static enum status read_choice(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    CLEAN(text_done) struct text list = text_make(300);
    const char *s = json_text(j);

    if (!s)
        return wrong_type(f, j, pointer, from);
    for (int i = 0; f->choices[i]; i++) {
        if (strcmp(f->choices[i], s) == 0) {
            *(int *)to = i;
            return ST_OK;
        }
        list_add(&list, f->choices[i]);
    }
    return fail(from->problem, ST_INVALID, pointer, "must be one of %s; got \"%.100s\"", list.s, s);
}

static enum status read_ints(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    struct ints v = {.n = json_count(j)};
    int i = 0;

    if (json_type(j) == JSON_NUMBER && f->flags & FIELD_SCALAR_OK) {
        v.n = f->count ? f->count : 1;
        TRY(read_whole(f, j, &v.v[0], pointer, from));
        for (i = 1; i < v.n; i++)
            v.v[i] = v.v[0];
        *(struct ints *)to = v;
        return ST_OK;
    }
    if (json_type(j) != JSON_ARRAY)
        return wrong_type(f, j, pointer, from);
    if (f->count && v.n != f->count)
        return fail(from->problem, ST_INVALID, pointer, "must have %d value%s, got %d", f->count, f->count == 1 ? "" : "s",
                    v.n);
    if (v.n > MOST_INTS)
        return fail(from->problem, ST_INVALID, pointer, "must have at most %d values, got %d", MOST_INTS, v.n);
    for (const struct json *item = json_first(j); item; item = json_next(item), i++) {
        CLEAN(text_done) struct text at = pointer_at(pointer, i);

        if (json_type(item) != JSON_NUMBER)
            return fail(from->problem, ST_INVALID, at.s, "must be a whole number, got %s", json_type_name(json_type(item)));
        TRY(read_whole(f, item, &v.v[i], at.s, from));
    }
    *(struct ints *)to = v;
    return ST_OK;
}

static enum status read_object(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    return object_parse(f->catalogue, j, from->mem, pointer, from->mode, from->warnings, to, from->problem);
}

static enum status read_list(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    bool many = json_type(j) == JSON_ARRAY;
    struct objects list = {.n = many ? json_count(j) : 1};
    const struct object **v = ARENA_ARRAY(from->mem, const struct object *, list.n);
    int i = 0;

    if (!many) {
        TRY(read_object(f, j, &v[0], pointer, from));
    } else {
        for (const struct json *item = json_first(j); item; item = json_next(item), i++) {
            CLEAN(text_done) struct text at = pointer_at(pointer, i);

            TRY(read_object(f, item, &v[i], at.s, from));
        }
    }
    list.v = v;
    *(struct objects *)to = list;
    return ST_OK;
}

static enum status read_json(const struct field *f, const struct json *j, void *to, const char *pointer, struct from *from)
{
    (void)f;
    (void)pointer;
    (void)from;
    *(const struct json **)to = j;
    return ST_OK;
}

/* --- what stands for null and for an absent key --------------------------------------------------------------------------- */

static void set_null(const struct field *f, void *to)
{
    switch (f->type) {
    case FIELD_INT:
        *(int64_t *)to = FIELD_NULL_INT;
        break;
    case FIELD_FLOAT:
        *(double *)to = NAN;
        break;
    case FIELD_BOOL:
        *(bool *)to = false;
        break;
    case FIELD_CHOICE:
        *(int *)to = -1;
        break;
    case FIELD_INTS:
        *(struct ints *)to = (struct ints){0};
        break;
    case FIELD_LIST:
        *(struct objects *)to = (struct objects){0};
        break;
    case FIELD_TEXT:
    case FIELD_OBJECT:
    case FIELD_JSON:
        *(const void **)to = NULL;
        break;
    }
}

static enum status set_preset(const struct field *f, void *to, struct from *from)
{
    switch (f->type) {
    case FIELD_INT:
        *(int64_t *)to = isnan(f->preset) ? FIELD_NULL_INT : (int64_t)f->preset;
        return ST_OK;
    case FIELD_FLOAT:
        *(double *)to = f->preset;
        return ST_OK;
    case FIELD_BOOL:
        *(bool *)to = f->preset != 0;
        return ST_OK;
    case FIELD_CHOICE:
        *(int *)to = (int)f->preset;
        return ST_OK;
    case FIELD_TEXT:
        *(const char **)to = arena_text(from->mem, f->preset_text);
        return ST_OK;
    case FIELD_OBJECT:
        *(const struct object **)to = f->preset_text ? object_preset(f->catalogue, f->preset_text, from->mem) : NULL;
        return ST_OK;
    case FIELD_INTS:
        if (f->preset != 0) {
            struct ints *v = to;

            v->n = f->count ? f->count : 1;
            for (int i = 0; i < v->n; i++)
                v->v[i] = (int64_t)f->preset;
            return ST_OK;
        }
        set_null(f, to);
        return ST_OK;
    default:
        set_null(f, to);
        return ST_OK;
    }
}

/* --- whole objects -------------------------------------------------------------------------------------------------------- */

static const struct field *find(const struct field *fields, const char *key)
{
    for (const struct field *f = fields; f && f->key; f++) {
        if (strcmp(f->key, key) == 0)
            return f;
    }
    return NULL;
}

static void warn_unknown(const char *pointer, struct from *from)
{
    if (from->warnings)
        text_printf(from->warnings, "%s: unknown key, ignored\n", pointer);
}

static enum status check_key(const struct field *fields, const char *key, const char *pointer, struct from *from)
{
    CLEAN(text_done) struct text at = text_make(0), list = text_make(300);
    struct nearest near = {.to = key};

    if (find(fields, key))
        return ST_OK;
    at = pointer_to(pointer, key);
    if (from->mode == FIELD_TOLERANT) {
        warn_unknown(at.s, from);
        return ST_OK;
    }
    for (const struct field *f = fields; f && f->key; f++) {
        nearest_see(&near, f->key);
        list_add(&list, f->key);
    }
    if (near.name)
        return fail(from->problem, ST_INVALID, at.s, "unknown key \"%.100s\"; did you mean \"%s\"?", key, near.name);
    if (!list.length)
        return fail(from->problem, ST_INVALID, at.s, "unknown key \"%.100s\"; none is known here", key);
    return fail(from->problem, ST_INVALID, at.s, "unknown key \"%.100s\"; known here: %s", key, list.s);
}

static enum status read_field(const struct field *f, const struct json *object, void *to, const char *pointer,
                              struct from *from)
{
    const struct json *j = json_get(object, f->key);
    CLEAN(text_done) struct text at = text_make(0);

    if (!j && !(f->flags & FIELD_REQUIRED))
        return set_preset(f, to, from);
    if (json_type(j) == JSON_NULL && f->flags & FIELD_NULLABLE) {
        set_null(f, to);
        return ST_OK;
    }
    at = pointer_to(pointer, f->key);
    if (!j)
        return fail(from->problem, ST_INVALID, at.s, "is missing: %s", f->doc ? f->doc : wanted(f));
    if (json_type(j) == JSON_NULL && f->type != FIELD_JSON)
        return wrong_type(f, j, at.s, from);
    return readers[f->type](f, j, to, at.s, from);
}

static enum status read_fields(const struct field *fields, const struct json *object, void *into, const char *pointer,
                               struct from *from)
{
    if (object && json_type(object) != JSON_OBJECT)
        return fail(from->problem, ST_INVALID, pointer, "must be an object, got %s", json_type_name(json_type(object)));
    for (const struct json *member = json_first(object); member; member = json_next(member))
        TRY(check_key(fields, json_key(member), pointer, from));
    for (const struct field *f = fields; f && f->key; f++)
        TRY(read_field(f, object, (char *)into + f->offset, pointer, from));
    return ST_OK;
}

enum status field_parse(const struct field *fields, const struct json *object, void *into, struct arena *mem,
                        const char *pointer, enum field_mode mode, struct text *warnings, struct problem *problem)
{
    struct from from = {.mem = mem, .mode = mode, .warnings = warnings, .problem = problem};

    return read_fields(fields, object, into, pointer, &from);
}

static enum status unknown_class(const struct catalogue *c, const char *name, const char *pointer, struct problem *problem)
{
    CLEAN(text_done) struct text list = text_make(300);
    struct nearest near = {.to = name};

    for (const struct class *const *row = c->rows; *row; row++) {
        nearest_see(&near, (*row)->keras);
        list_add(&list, (*row)->keras);
    }
    if (near.name)
        return fail(problem, ST_UNSUPPORTED, pointer, "unknown %s \"%.100s\"; did you mean \"%s\"?", c->kind, name, near.name);
    return fail(problem, ST_UNSUPPORTED, pointer, "unknown %s \"%.100s\"; known are %s%s", c->kind, name, list.s,
                list.cut ? " ..." : "");
}

/* Keys beside class_name and config that Keras 3 writes for its own way of loading; nothing here follows from them. */
static bool is_keras_note(const char *key)
{
    static const char *const notes[] = {"module", "registered_name", "build_config", "compile_config", "shared_object_id"};

    for (size_t i = 0; i < COUNT(notes); i++) {
        if (strcmp(key, notes[i]) == 0)
            return true;
    }
    return false;
}

enum status object_parse(const struct catalogue *c, const struct json *j, struct arena *mem, const char *pointer,
                         enum field_mode mode, struct text *warnings, const struct object **ret, struct problem *problem)
{
    static const struct field outer[] = {
        {"class_name", FIELD_TEXT, 0, .doc = "the name of the class"},
        {"config", FIELD_JSON, 0, .doc = "its configuration"},
        {0},
    };
    struct from from = {.mem = mem, .mode = mode, .warnings = warnings, .problem = problem};
    CLEAN(text_done) struct text name_at = text_make(0), config_at = text_make(0);
    bool is_object = json_type(j) == JSON_OBJECT;
    const struct json *config = json_get(j, "config");
    const char *name = json_text(is_object ? json_get(j, "class_name") : j);
    const struct class *class;
    struct object *object;
    void *into;

    if (!is_object && !name)
        return fail(problem, ST_INVALID, pointer, "must be the name of %s %s or {\"class_name\": ..., \"config\": ...}, got %s",
                    strchr("aeiou", c->kind[0]) ? "an" : "a", c->kind, json_type_name(json_type(j)));
    for (const struct json *member = is_object ? json_first(j) : NULL; member; member = json_next(member)) {
        if (!is_keras_note(json_key(member)))
            TRY(check_key(outer, json_key(member), pointer, &from));
    }
    if (is_object) {
        const struct json *given = json_get(j, "class_name");

        name_at = pointer_to(pointer, "class_name");
        if (!given)
            return fail(problem, ST_INVALID, name_at.s, "is missing: the name of the %s", c->kind);
        if (!name)
            return fail(problem, ST_INVALID, name_at.s, "must be a text, got %s", json_type_name(json_type(given)));
    }
    class = catalogue_find(c, name);
    if (!class)
        return unknown_class(c, name, is_object ? name_at.s : pointer, problem);
    if (json_type(config) == JSON_NULL)
        config = NULL;
    if (is_object)
        config_at = pointer_to(pointer, "config");
    into = arena_alloc(mem, class->config_size);
    TRY(read_fields(class->fields, config, into, is_object ? config_at.s : pointer, &from));
    object = ARENA_NEW(mem, struct object);
    *object = (struct object){.type = class, .config = into};
    *ret = object;
    return ST_OK;
}

const struct object *object_preset(const struct catalogue *c, const char *name, struct arena *mem)
{
    struct problem problem = {0};
    struct from from = {.mem = mem, .problem = &problem};
    const struct class *class = catalogue_find(c, name);
    struct object *object = ARENA_NEW(mem, struct object);
    void *into;
    enum status status;

    assert(class);
    into = arena_alloc(mem, class->config_size);
    status = read_fields(class->fields, NULL, into, "", &from);
    assert(status == ST_OK); /* a class taken by its name alone has no required field */
    (void)status;
    *object = (struct object){.type = class, .config = into};
    return object;
}

static read_fn *const readers[] = {
    [FIELD_INT] = read_int,       [FIELD_FLOAT] = read_float,   [FIELD_BOOL] = read_bool,
    [FIELD_TEXT] = read_text,     [FIELD_CHOICE] = read_choice, [FIELD_INTS] = read_ints,
    [FIELD_OBJECT] = read_object, [FIELD_LIST] = read_list,     [FIELD_JSON] = read_json,
};
