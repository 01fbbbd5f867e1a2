/* See spread.h. */
#include "engine/run/spread.h"

#include <string.h>

static int find(const struct spread *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->names[i], name))
            return i;
    return -1;
}

/* "\"a\", \"b\"" for messages. */
static const char *names_text(const struct spread *s, struct arena *mem)
{
    const char *text = "";

    for (int i = 0; i < s->n && strlen(text) < 200; i++)
        text = arena_print(mem, "%s%s\"%s\"", text, i ? ", " : "", s->names[i]);
    return text;
}

static enum status spread_list(const struct spread *s, const struct json *j, const char *pointer, struct arena *mem,
                               const struct json **to, const char **at, struct problem *problem)
{
    int i = 0;

    if (json_count(j) != s->n)
        return fail(problem, ST_INVALID, pointer, "%s has %d entries, the model has %d %s%s: %s", s->what, json_count(j), s->n,
                    s->side, s->n == 1 ? "" : "s", names_text(s, mem));
    for (const struct json *m = json_first(j); m; m = json_next(m), i++) {
        to[i] = json_type(m) == JSON_NULL ? NULL : m;
        at[i] = arena_print(mem, "%s/%d", pointer, i);
    }
    return ST_OK;
}

static enum status spread_object(const struct spread *s, const struct json *j, const char *pointer, struct arena *mem,
                                 const struct json **to, const char **at, struct problem *problem)
{
    for (const struct json *m = json_first(j); m; m = json_next(m)) {
        const char *where = pointer_key(mem, pointer, json_key(m));
        int i = find(s, json_key(m));

        if (i < 0)
            return fail(problem, ST_INVALID, where, "the model has no %s \"%.100s\": its %ss are %s", s->side, json_key(m),
                        s->side, names_text(s, mem));
        to[i] = json_type(m) == JSON_NULL ? NULL : m;
        at[i] = where;
    }
    return ST_OK;
}

enum status spread_json(const struct spread *s, const struct json *j, const char *pointer, struct arena *mem,
                        const struct json **to, const char **at, struct problem *problem)
{
    for (int i = 0; i < s->n; i++) {
        to[i] = NULL;
        at[i] = pointer;
    }
    if (json_type(j) == JSON_NOTHING || json_type(j) == JSON_NULL) {
        /* all without */
    } else if (s->single(j, s->n)) {
        if (s->n > 1 && !s->to_all)
            return fail(problem, ST_INVALID, pointer, "the model has %d %ss: give a list of %d, or an object with %s", s->n,
                        s->side, s->n, names_text(s, mem));
        for (int i = 0; i < s->n; i++)
            to[i] = j;
    } else if (json_type(j) == JSON_ARRAY) {
        TRY(spread_list(s, j, pointer, mem, to, at, problem));
    } else if (json_type(j) == JSON_OBJECT) {
        TRY(spread_object(s, j, pointer, mem, to, at, problem));
    } else {
        return fail(problem, ST_INVALID, pointer, "%s cannot be %s", s->what, json_type_name(json_type(j)));
    }
    for (int i = 0; i < s->n && s->required; i++)
        if (!to[i])
            return fail(problem, ST_INVALID, pointer, "%s \"%s\" of the model gets no %s", s->side, s->names[i], s->what);
    return ST_OK;
}
