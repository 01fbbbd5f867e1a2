/* Any bytes as compile(), fit(), evaluate() and predict() arguments of a model with two inputs and two outputs. */
#include <stdint.h>
#include <string.h>

#include "engine/run/request.h"

static const char architecture[] =
    "{\"keras_version\":\"2.3.1\",\"backend\":\"tensorflow\",\"class_name\":\"Model\",\"config\":{\"name\":\"m\",\"layers\":["
    "{\"class_name\":\"InputLayer\",\"name\":\"a\",\"config\":{\"batch_input_shape\":[null,4]},\"inbound_nodes\":[]},"
    "{\"class_name\":\"InputLayer\",\"name\":\"b\",\"config\":{\"batch_input_shape\":[null,4]},\"inbound_nodes\":[]},"
    "{\"class_name\":\"Dense\",\"name\":\"p\",\"config\":{\"units\":3},\"inbound_nodes\":[[[\"a\",0,0,{}]]]},"
    "{\"class_name\":\"Dense\",\"name\":\"q\",\"config\":{\"units\":1},\"inbound_nodes\":[[[\"b\",0,0,{}]]]}],"
    "\"input_layers\":[[\"a\",0,0],[\"b\",0,0]],\"output_layers\":[[\"p\",0,0],[\"q\",0,0]]}}";

static struct model *model_once(void)
{
    static struct model *m;
    struct problem problem;
    OWNED(json_free) struct json *j = NULL;

    if (!m && json_parse(architecture, strlen(architecture), NULL, 0, &j, &problem) == ST_OK)
        (void)model_parse(j, "", &m, &problem);
    return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const types[] = {"fit", "evaluate", "predict"};
    const struct json_limits limits = {.bytes = 1 << 20, .nodes = 20000, .depth = 64};
    OWNED(json_free) struct json *j = NULL;
    OWNED(arena_free) struct arena *mem = arena_new();
    struct problem problem;
    struct compile_spec *c = NULL;

    if (json_parse((const char *)data, size, &limits, 0, &j, &problem) != ST_OK)
        return 0;
    if (compile_parse(j, "/compile", model_once(), mem, &c, &problem) == ST_OK)
        compile_spec_done(c);
    for (int i = 0; i < 3; i++) {
        struct fit_spec *f = NULL;
        if (fit_parse(j, "/fit", types[i], model_once(), mem, &f, &problem) == ST_OK)
            fit_spec_done(f);
    }
    return 0;
}
