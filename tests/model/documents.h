/* Documents for the model tests: the files under json/, and small ones written in place. */
#ifndef HORN_TESTS_MODEL_DOCUMENTS_H
#define HORN_TESTS_MODEL_DOCUMENTS_H

#include "engine/model/model.h"

struct json *document(const char *text);      /* the caller frees; a failed test if it is no JSON */
struct json *document_file(const char *name); /* json/NAME.json */
struct model *model_file(const char *name);
struct model *model_text(const char *text);

#endif
