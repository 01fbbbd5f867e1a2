/* A job's document, read and checked: what POST judges and what a lane runs. Both call work_open, so that a job which was taken
 * is read in exactly the way in which it was judged.
 *
 * Order: the model and its layers, compile, fit's arguments, then the data, then the whole step by program_build with the real
 * batch size on no device. What the posting saw is pinned in the stored document under "horn" (array ids, version), since a
 * dataset may be PUT again and a newer version may appear before a lane gets to the job. */
#ifndef HORN_SERVER_JOB_H
#define HORN_SERVER_JOB_H

#include "engine/base/field.h"
#include "engine/run/profile.h"
#include "storage/datasets.h"
#include "storage/models.h"

enum work_type { WORK_FIT, WORK_EVALUATE, WORK_PREDICT };
extern const char *const work_names[]; /* "fit", "evaluate", "predict", NULL */

struct job_body { /* the posted document by job_fields */
    int type;
    const struct json *model, *compile, *fit, *evaluate, *predict, *pinned;
    const char *device;
    int64_t seed, priority; /* seed -1: draw one */
};
extern const struct field job_fields[]; /* of a posted document */
/* A document as posted or as stored (with "horn"). *document is the caller's, and the body points into it. */
enum status job_read(const char *text, struct arena *mem, struct json **document, struct job_body *ret,
                     struct problem *problem);

struct work {
    struct arena *mem;
    enum work_type type;
    const char *name; /* of the model */
    struct model *model;
    struct version_row base;      /* version that it goes on from or uses; id 0: none */
    const char *architecture;     /* as posted or of the base */
    struct compile_spec *compile; /* NULL for predict */
    struct fit_spec *spec;
    struct weights *layout; /* laid out */
    struct source *train, *validation;
    int64_t *array_ids;      /* of the datasets in use */
    const char **references; /* "mnist/x_train", one per id */
    int n_arrays;
    struct json *inner[2]; /* documents that the specs point into: base's compile, a text architecture */
};

/* body: of a posted or stored document, which must outlive the work. Problems point into it. */
enum status work_open(struct db *db, const struct job_body *body, struct work **ret, struct problem *problem);
struct work *work_free(struct work *w);
DEFINE_OWNED(struct work, work_free)

const char *work_pointer(const struct work *w); /* "/fit" */
/* The document to store: as posted, with what was pinned. Printed; caller frees. */
char *work_document(const struct work *w, const struct json *posted);
char *work_prepare(const struct work *w, char **raw_shapes); /* for version_new; both NULL or to be freed by the caller */

/* What the job will need, by planning its largest step on no device. */
struct work_cost {
    size_t weights, gradients, slots, activations, total; /* bytes */
    double flops;                                         /* of one step of `batch` rows */
    int64_t batch;
};
enum status work_cost(const struct work *w, struct work_cost *ret, struct problem *problem);
/* Where the time of its step goes on that device, which the calling thread has entered. */
enum status work_profile(const struct work *w, uint64_t seed, const struct backend *b, struct device *d, struct profile **ret,
                         struct problem *problem);
/* [{"name","class_name","output_shape","parameters"}...] */
struct json *work_layers(const struct work *w);

#endif
