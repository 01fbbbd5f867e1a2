/* See documents.h. */
#include "tests/model/documents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/test.h"

struct json *document(const char *text)
{
    struct problem problem;
    struct json *j = NULL;

    CHECK_OK(json_parse(text, strlen(text), NULL, JSON_NAN, &j, &problem));
    return j;
}

struct json *document_file(const char *name)
{
    char path[200];
    OWNED(free) char *text = must_alloc(1 << 20);

    snprintf(path, sizeof path, "tests/model/json/%s.json", name);
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is not there: tests run in the root of the repository", path);
    text[fread(text, 1, (1 << 20) - 1, f)] = 0;
    fclose(f);
    return document(text);
}

static struct model *model_of(struct json *taken)
{
    OWNED(json_free) struct json *j = taken;
    struct problem problem;
    struct model *m = NULL;

    CHECK_OK(model_parse(j, "/model/architecture", &m, &problem));
    return m;
}

struct model *model_file(const char *name)
{
    return model_of(document_file(name));
}

struct model *model_text(const char *text)
{
    return model_of(document(text));
}
