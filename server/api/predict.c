/* Predict calls. A small one of a loaded model is answered in the HTTP thread; whatever must load, make a predictor or compute
 * longer asks to be run in a request thread. */
#include <string.h>

#include "engine/base/thread.h"
#include "server/metrics.h"
#include "server/route.h"
#include "server/server.h"
#include "server/serving.h"

struct call { /* what must be given back */
    struct registry *registry;
    struct version *version;
    struct predictor *predictor;
    struct prediction tensors;
};

static void call_done(struct call *c)
{
    if (c->predictor)
        version_return(c->version, c->predictor);
    prediction_done(&c->tensors);
    registry_release(c->registry, c->version);
}

static bool wants_npy(const struct request *r)
{
    return r->accept && strstr(r->accept, "application/x-npy");
}

static enum status answer(struct request *r, int64_t number, struct reply *reply, struct problem *problem)
{
    CLEAN(call_done) struct call c = {.registry = r->server->registry, .tensors.ending = &r->server->ending};
    bool npy = request_is(r, "application/x-npy");
    double began = clock_seconds();

    if (r->content_type && !npy && !request_is(r, "application/json") && !request_is(r, "application/x-www-form-urlencoded") &&
        !request_is(r, "application/octet-stream"))
        return fail(problem, ST_MEDIA, "Content-Type",
                    "inputs are read as application/json or application/x-npy, not as \"%.100s\"", r->content_type);
    TRY(registry_get(c.registry, r->param[0], number, r->worker, &c.version, problem));
    if (!r->worker && (!c.version || !serving_is_small(c.version, r->body_bytes, 1))) {
        reply->later = true;
        return ST_OK;
    }
    if (!r->body_bytes)
        return fail(problem, ST_MALFORMED, "", "the request has no body; predict takes {\"inputs\": [...]}");
    if (npy)
        TRY(serving_read_npy(c.version, r->body, r->body_bytes, &c.tensors, problem));
    else
        TRY(serving_read_json(c.version, r->body, r->body_bytes, &c.tensors, problem));
    if (r->worker || serving_is_small(c.version, r->body_bytes, c.tensors.n))
        TRY(version_borrow(c.version, r->worker, &c.predictor, problem));
    if (!c.predictor) { /* too long for this thread, or all are in use */
        reply->later = true;
        return ST_OK;
    }
    TRY(serving_run(c.version, c.predictor, &c.tensors, problem));
    if (wants_npy(r)) {
        TRY(serving_print_npy(c.version, &c.tensors, &reply->body, problem));
        reply->content_type = "application/x-npy";
    } else {
        serving_print_json(c.version, &c.tensors, &reply->body);
        reply->content_type = "application/json";
    }
    if (reply->body.cut)
        return fail(problem, ST_TOO_LARGE, "", "the answer is larger than %d bytes; send fewer samples", REPLY_LIMIT);
    metrics_predict(clock_seconds() - began, c.tensors.n);
    return ST_OK;
}

static enum status predict(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    return answer(r, 0, reply, problem);
}

static enum status predict_version(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    (void)body;
    return answer(r, r->number[1], reply, problem);
}

const struct endpoint endpoint_predict = {.method = "POST",
                                          .path = "/api/v1/models/{name}/predict",
                                          .operation = "predict",
                                          .flags = ENDPOINT_RAW,
                                          .handle = predict};
const struct endpoint endpoint_predict_version = {.method = "POST",
                                                  .path = "/api/v1/models/{name}/versions/{n}/predict",
                                                  .operation = "predictVersion",
                                                  .flags = ENDPOINT_RAW,
                                                  .handle = predict_version};
