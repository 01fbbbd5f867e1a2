/* Which Keras a JSON was written by, and the rewriting of every spelling into canonical Keras 3 form.
 *
 * The only place that knows old spellings and version defaults (keras-config-formats: tables 8.1 to 8.4). Canonical means: the JSON
 * that Keras 3 itself prints, every default explicit where versions differ; what Keras 3 cannot say stands under a key or name that
 * begins with "keras1_" (activation "keras1_hard_sigmoid", optimizer key "keras1_epsilon": epsilon outside the root). */
#ifndef HORN_MODEL_DIALECT_H
#define HORN_MODEL_DIALECT_H

#include "engine/base/json.h"
#include "engine/base/status.h"
#include "engine/base/text.h"

enum dialect { DIALECT_KERAS_1, DIALECT_KERAS_2, DIALECT_KERAS_2_3, DIALECT_TF_KERAS, DIALECT_KERAS_3 };
const char *dialect_name(enum dialect d); /* "Keras 1" */

/* By the marks of keras-config-formats 1; without any sign Keras 3. A canonical document may say "horn_dialect": "Keras 1" at its top:
 * spelt as Keras 3, meant as that version (Horn's own files). */
enum dialect dialect_of(const struct json *architecture);

/* A new document in canonical form: Sequential {name, layers with InputLayer first where the shape is known} or Functional {name, layers,
 * input_layers, output_layers} with inbound_nodes in args/kwargs form and 0-based node numbers, nested models likewise, each layer
 * with class_name, config and name. Layers without a name get Keras' own (dialect's rule). Malformed structure is ST_INVALID with the
 * pointer, Lambda and other code-carrying layers ST_UNSUPPORTED by name. Notes (a K1 Merge turned into Concatenate, a dropped
 * key) go to warnings. */
enum status dialect_canonical(const struct json *architecture, const char *pointer, enum dialect d, struct json **ret,
                              struct text *warnings, struct problem *problem);

/* compile()'s optimizer (name or object) as Keras 3's {"class_name","config"} with this dialect's defaults made explicit:
 * lr -> learning_rate, Keras 1 epsilons, Adagrad's start, global clipnorm. */
enum status dialect_optimizer(const struct json *optimizer, const char *pointer, enum dialect d, struct json **ret,
                              struct problem *problem);
/* One of fit()'s callbacks, with this dialect's spellings (epsilon -> min_delta, period) and defaults explicit. */
enum status dialect_callback(const struct json *callback, const char *pointer, enum dialect d, struct json **ret,
                             struct problem *problem);
/* The key under which `written` (an optimizer or callback as posted) has what is called `canonical` here: "lr" for learning_rate. */
const char *dialect_written_key(const struct json *written, const char *canonical);

#endif
