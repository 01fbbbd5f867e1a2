/* How a call fails: one list of statuses, and one struct that whoever finds the trouble fills once.
 *
 * A function that can fail returns enum status, takes results through `ret` parameters (written on
 * success only) and has struct problem * last. Callers say TRY(). Nobody in between logs or rewords.
 *
 *     if (rank != 4)
 *         return fail(problem, ST_INVALID, origin, "needs rank 4, the input is %s", shape_text(&x).s);
 */
#ifndef HORN_BASE_STATUS_H
#define HORN_BASE_STATUS_H

#include <stddef.h>

/* code, HTTP status, what it means to the caller */
#define STATUS_MAP(X)                                                 \
    X(OK, 200, "ok")                                                  \
    X(MALFORMED, 400, "the request could not be read")                \
    X(DENIED, 401, "a key is needed")                                 \
    X(FORBIDDEN, 403, "this key or origin may not do that")           \
    X(NOT_FOUND, 404, "there is no such object")                      \
    X(NO_METHOD, 405, "this resource has no such method")             \
    X(CONFLICT, 409, "the object is not in a state that allows this") \
    X(CANCELLED, 409, "cancelled")                                    \
    X(LENGTH, 411, "the length of the body is needed")                \
    X(TOO_LARGE, 413, "larger than the configured limit")             \
    X(MEDIA, 415, "this content type is not read here")               \
    X(INVALID, 422, "a value or a shape does not fit")                \
    X(TOO_MANY, 429, "over the rate or queue limit")                  \
    X(INTERNAL, 500, "a promise inside the program was broken")       \
    X(STORAGE, 500, "storage failed")                                 \
    X(UNSUPPORTED, 501, "this build or device cannot do that")        \
    X(NO_MEMORY, 503, "not enough memory for this request")           \
    X(BUSY, 503, "the daemon is stopping or not ready")               \
    X(DEVICE, 503, "the device failed")                               \
    X(DISK_FULL, 507, "no space left")

enum status {
#define X(code, http, text) ST_##code,
    STATUS_MAP(X)
#undef X
};

struct problem {
    enum status status;
    char where[256];  /* what the user can find: "/fit/x" (a JSON pointer), "conv2d_1", "mnist/x_train" */
    char detail[512]; /* both sides: "kernel expects 784 features, input has 28" */
};

/* Fills `problem` and returns `status`. `where` may be "" but not NULL; both texts are cut to fit. */
enum status fail(struct problem *problem, enum status status, const char *where, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

int status_http(enum status s);          /* 422 for ST_INVALID */
const char *status_title(enum status s); /* "a value or a shape does not fit" */
const char *status_name(enum status s);  /* "INVALID" */

#define TRY(call)                         \
    do {                                  \
        enum status try_status_ = (call); \
        if (try_status_ != ST_OK)         \
            return try_status_;           \
    } while (0)

#endif
