/* One layer out of its canonical entry; between keras.c (models) and model.c (preprocess lists). */
#ifndef HORN_MODEL_KERAS_LAYER_H
#define HORN_MODEL_KERAS_LAYER_H

#include "engine/layers/layer.h"

/* Reads `entry`, whose configuration the layer borrows from then on: keys that the layer does not know are taken out of it, the
 * private members of the entry too. name is borrowed. ST_UNSUPPORTED: an unknown class, or a key that Keras has and this layer has
 * not, set to more than nothing. Unknown keys are named in `warnings`; without it (NULL) they
 * are ST_INVALID. Pointers are those of the user's own document. */
enum status layer_read(struct json *entry, const char *name, struct arena *mem, struct text *warnings, struct layer *ret,
                       struct problem *problem);

#endif
