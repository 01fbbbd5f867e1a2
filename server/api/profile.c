/* Where the time of a job's step goes. The job is read again from its stored document, running or not, and its step is clocked by a lane
 * between two steps of whatever it runs, on memory of its own: see engine/run/profile.h. Nothing is kept. */
#include <string.h>

#include "server/job.h"
#include "server/lane.h"
#include "server/log.h"
#include "server/route.h"
#include "server/server.h"
#include "storage/jobs.h"

#define LANE_SECONDS 10.0 /* that the lane has to come to it */

struct asked {
    const struct work *work;
    uint64_t seed;
    struct profile *profile;
};

static enum status make(void *context, const struct backend *b, struct device *d, struct problem *problem)
{
    struct asked *a = context;

    return work_profile(a->work, a->seed, b, d, &a->profile, problem);
}

/* A job that is over holds nothing, so that its data or its version may be gone: no fault of the request. */
static enum status open_again(struct request *r, const struct job_row *row, struct json **document, struct work **ret,
                              struct problem *problem)
{
    struct job_body body = {0};
    enum status status = job_read(row->request, r->mem, document, &body, problem);

    if (status == ST_OK)
        status = work_open(r->server->db, &body, ret, problem);
    if (status == ST_INVALID || status == ST_NOT_FOUND) {
        struct problem why = *problem;

        return fail(problem, ST_CONFLICT, why.where, "what the job used is not there any more: %.400s", why.detail);
    }
    return status;
}

static enum status read_format(const struct request *r, bool *table, struct problem *problem)
{
    static const char *const known[] = {"format", NULL};
    const char *format = request_query(r, "format");

    TRY(request_query_only(r, known, problem));
    *table = format ? strcmp(format, "table") == 0 : r->accept && strstr(r->accept, "text/plain");
    if (format && !*table && strcmp(format, "json") != 0)
        return fail(problem, ST_INVALID, "format", "is \"%.60s\", it must be json or table", format);
    return ST_OK;
}

static enum status reply_table(struct reply *reply, const struct job_row *row, const struct profile *p)
{
    reply->content_type = "text/plain; charset=utf-8";
    text_clear(&reply->body);
    text_printf(&reply->body, "job %lld: %s of %s\n", (long long)row->id, row->type, row->model);
    profile_table(p, &reply->body);
    return ST_OK;
}

static enum status reply_profile(struct reply *reply, const struct job_row *row, const struct profile *p)
{
    struct json *j = json_new_object();

    json_put(j, "job", json_new_int(row->id));
    json_put(j, "type", json_new_text(row->type));
    json_put(j, "model", json_new_text(row->model));
    profile_json(p, j);
    return reply_json(reply, 200, j);
}

static enum status get(struct request *r, const void *body, struct reply *reply, struct problem *problem)
{
    OWNED(json_free) struct json *document = NULL;
    OWNED(work_free) struct work *work = NULL;
    OWNED(profile_free) struct profile *profile = NULL;
    struct asked asked = {0};
    struct job_row row;
    bool table;

    (void)body;
    TRY(read_format(r, &table, problem));
    TRY(jobs_get(r->server->db, r->number[0], r->mem, &row, problem));
    if (!r->server->lanes)
        return fail(problem, ST_BUSY, "", "no lane runs here");
    TRY(open_again(r, &row, &document, &work, problem));
    asked.work = work;
    asked.seed = (uint64_t)row.seed;
    TRY(lanes_errand(r->server->lanes, row.id, LANE_SECONDS, make, &asked, problem));
    profile = asked.profile;
    log_event(LOG_INFO, row.id, "profiled: %d steps of %.3f ms", profile->steps, 1e3 * profile->step_seconds);
    return table ? reply_table(reply, &row, profile) : reply_profile(reply, &row, profile);
}

const struct endpoint endpoint_job_profile = {
    .method = "GET", .path = "/api/v1/jobs/{id}/profile", .operation = "getJobProfile", .flags = ENDPOINT_SLOW, .handle = get};
