/* Predict calls. A small one of a loaded model is read and computed in the HTTP thread; whatever must load, make a predictor or
 * compute longer asks to be run in a request thread. Both leave what they have read to a batch (batch.h). */
#include <string.h>

#include "engine/base/thread.h"
#include "server/batch.h"
#include "server/route.h"
#include "server/server.h"

static bool wants_npy(const struct request *r)
{
    return r->accept && strstr(r->accept, "application/x-npy");
}

/* The version and the tensors of the body. *later: this is nothing for an HTTP thread. */
static enum status call_read(struct request *r, int64_t number, struct call *c, bool *later, struct problem *problem)
{
    bool npy = request_is(r, "application/x-npy");

    if (r->content_type && !npy && !request_is(r, "application/json") && !request_is(r, "application/x-www-form-urlencoded") &&
        !request_is(r, "application/octet-stream"))
        return fail(problem, ST_MEDIA, "Content-Type",
                    "inputs are read as application/json or application/x-npy, not as \"%.100s\"", r->content_type);
    TRY(registry_get(r->server->registry, r->param[0], number, r->worker, &c->version, problem));
    *later = !r->worker && (!c->version || !serving_is_small(c->version, r->body_bytes, 1));
    if (*later)
        return ST_OK;
    if (!r->body_bytes)
        return fail(problem, ST_MALFORMED, "", "the request has no body; predict takes {\"inputs\": [...]}");
    if (npy)
        TRY(serving_read_npy(c->version, r->body, r->body_bytes, &c->tensors, problem));
    else
        TRY(serving_read_json(c->version, r->body, r->body_bytes, &c->tensors, problem));
    *later = !r->worker && !serving_is_small(c->version, r->body_bytes, c->tensors.n);
    if (wants_npy(r) && c->version->model->n_outputs != 1)
        return fail(problem, ST_INVALID, "Accept", "the model has %d outputs: an .npy holds one, take application/json",
                    c->version->model->n_outputs);
    return ST_OK;
}

/* Computes at once, for callers without batches. */
static enum status run_here(struct request *r, struct call *c, struct reply *reply, struct problem *problem)
{
    struct predictor *predictor = NULL;
    enum status status = version_borrow(c->version, r->worker, &predictor, problem);

    if (predictor) {
        batch_run(c, predictor);
        version_return(c->version, predictor);
    } else {
        reply->later = status == ST_OK; /* all are in use */
    }
    call_done(c);
    return status;
}

static enum status answer(struct request *r, int64_t number, struct reply *reply, struct problem *problem)
{
    struct call *c = ARENA_NEW(r->mem, struct call);
    enum status status;

    c->request = r;
    c->reply = reply;
    c->npy = wants_npy(r);
    c->began = clock_seconds();
    c->tensors.ending = &r->server->ending;
    status = call_read(r, number, c, &reply->later, problem);
    if (status != ST_OK || reply->later) {
        call_done(c);
        return status;
    }
    if (!r->gathers)
        return run_here(r, c, reply, problem);
    reply->call = c;
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
