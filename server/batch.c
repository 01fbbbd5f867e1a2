/* Batches of predict calls; see batch.h. */
#include "server/batch.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/thread.h"
#include "server/metrics.h"
#include "server/route.h"
#include "server/server.h"
#include "server/settings.h"

/* --- lists ---------------------------------------------------------------------------------------------------------------- */

void call_push(struct call_list *list, struct call *c)
{
    c->next = NULL;
    if (list->last)
        list->last->next = c;
    else
        list->first = c;
    list->last = c;
    list->samples += c->tensors.n;
}

/* Out of the list; `before` is the one in front of it. */
static void unlink_call(struct call_list *list, struct call *before, struct call *c)
{
    if (before)
        before->next = c->next;
    else
        list->first = c->next;
    if (list->last == c)
        list->last = before;
    list->samples -= c->tensors.n;
    c->next = NULL;
}

void call_remove(struct call_list *list, const struct call *c)
{
    struct call *before = NULL;

    for (struct call *at = list->first; at; before = at, at = at->next) {
        if (at == c) {
            unlink_call(list, before, at);
            return;
        }
    }
}

struct call *call_take(struct call_list *list, int64_t samples)
{
    struct call_list taken = {0};
    struct call *before = NULL, *next;

    for (struct call *c = list->first; c; c = next) {
        next = c->next;
        if (taken.first && (c->version != taken.first->version || taken.samples + c->tensors.n > samples)) {
            before = c;
            continue;
        }
        unlink_call(list, before, c);
        call_push(&taken, c);
    }
    return taken.first;
}

void call_done(struct call *c)
{
    if (!c)
        return;
    prediction_done(&c->tensors);
    registry_release(c->request->server->registry, c->version);
    c->version = NULL;
}

/* --- answers -------------------------------------------------------------------------------------------------------------- */

static enum status print_answer(struct call *c, struct problem *problem)
{
    struct reply *reply = c->reply;

    if (c->npy) {
        serving_print_npy(c->version, &c->tensors, &reply->body);
        reply->content_type = "application/x-npy";
    } else {
        serving_print_json(c->version, &c->tensors, &reply->body);
        reply->content_type = "application/json";
    }
    if (reply->body.cut)
        return fail(problem, ST_TOO_LARGE, "", "the answer is larger than %d bytes; send fewer samples", REPLY_LIMIT);
    metrics_predict(clock_seconds() - c->began, c->tensors.n);
    return ST_OK;
}

static void answer(struct call *c, enum status status, const struct problem *why)
{
    struct problem problem = {0};

    if (status != ST_OK)
        reply_problem(c->reply, why);
    else if (print_answer(c, &problem) != ST_OK)
        reply_problem(c->reply, &problem);
    c->answered = true;
}

static void run_alone(struct call *c, struct predictor *with)
{
    struct problem problem = {0};
    enum status status = serving_run(c->version, with, &c->tensors, &problem);

    answer(c, status, &problem);
}

/* false: it did not work for all of them. */
static bool run_together(struct call *list, int n, struct predictor *with)
{
    CLEAN(free_owned) struct rows *rows = must_alloc(sizeof *rows * (size_t)n);
    struct problem problem = {0};
    int i = 0;

    for (struct call *c = list; c; c = c->next, i++) {
        if (serving_outputs(c->version, &c->tensors, &problem) != ST_OK)
            return false;
        rows[i].n = c->tensors.n;
        memcpy(rows[i].x, c->tensors.x, sizeof rows[i].x);
        memcpy(rows[i].y, c->tensors.y, sizeof rows[i].y);
    }
    return predictor_run_rows(with, rows, n, &problem) == ST_OK;
}

void batch_run(struct call *list, struct predictor *with)
{
    int n = 0;
    bool together;

    metrics_batch();
    for (struct call *c = list; c; c = c->next)
        n++;
    together = n > 1 && run_together(list, n, with);
    for (struct call *c = list; c; c = c->next) {
        if (together)
            answer(c, ST_OK, NULL);
        else
            run_alone(c, with);
    }
}

/* --- larger calls --------------------------------------------------------------------------------------------------------- */

void batch_queue_init(struct batch_queue *q)
{
    pthread_mutex_init(&q->lock, NULL);
    q->most = cpu_count();
}

void batch_queue_done(struct batch_queue *q)
{
    pthread_mutex_destroy(&q->lock);
}

static void run_taken(struct version *v, struct call *list, void (*answered)(struct call *c))
{
    struct predictor *predictor = NULL;
    struct problem problem = {0};
    enum status status = version_borrow(v, true, &predictor, &problem);
    struct call *next;

    if (status == ST_OK) {
        batch_run(list, predictor);
        version_return(v, predictor);
    } else {
        for (struct call *c = list; c; c = c->next)
            answer(c, status, &problem);
    }
    for (struct call *c = list; c; c = next) {
        next = c->next;
        answered(c);
    }
}

void batch_submit(struct call *c, void (*answered)(struct call *c))
{
    const struct settings *s = c->request->server->settings;
    struct registry *g = c->request->server->registry;
    struct version *v = c->version;
    struct batch_queue *q = version_queue(v);
    bool mine;

    registry_hold(g, v); /* the queue outlives its calls */
    pthread_mutex_lock(&q->lock);
    call_push(&q->waiting, c);
    mine = q->n_running < q->most;
    q->n_running += mine;
    pthread_mutex_unlock(&q->lock);
    if (mine && s->batch_delay_us)
        usleep((useconds_t)s->batch_delay_us);
    while (mine) {
        struct call *list;

        pthread_mutex_lock(&q->lock);
        list = call_take(&q->waiting, s->max_batch);
        if (!list) {
            q->n_running--;
            mine = false;
        }
        pthread_mutex_unlock(&q->lock);
        if (list)
            run_taken(v, list, answered);
    }
    registry_release(g, v);
}
