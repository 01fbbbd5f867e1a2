/* The training loop.
 *
 * All that the next step depends on is in struct fit and goes into the snapshot: weights, slots, the number of updates (which keys
 * the random numbers), the rate, the epoch and the step in it, the metric sums, the callbacks' bytes. The order of rows is worked
 * out again from (seed, epoch). A snapshot is only taken between steps. */
#include "engine/run/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/philox.h"
#include "engine/base/thread.h"
#include "engine/run/feed.h"

#define PROGRESS_SECONDS 0.1

struct fit {
    const struct fit_setup *s;
    struct sink *sink;
    struct problem *problem;
    struct feed train, test;
    bool validates;
    struct regions regions, test_regions; /* the second: as the first, with a state of its own */
    size_t test_state_bytes;
    void *arena;
    size_t arena_bytes;
    int64_t *order;
    /* for snapshots: the regions themselves where the host can read them, else copies */
    void *weights, *slots;
    void *best; /* NULL before a callback wants it */
    size_t weight_bytes, slot_bytes;
    bool has_best;
    double *sums;
    int n_sums;
    int64_t updates;
    float rate;
    int epoch;
    int64_t step;
    /* callbacks */
    char *states;
    size_t state_bytes;
    struct fit_control control;
    /* names of a row of history: training metrics, then val_ ones */
    const char **names;
    double *values;
    int n_names;
    bool diverged; /* a NaN loss that a callback takes as the end */
    double began;  /* clock at the first step of this attempt's epoch */
    double ended;  /* clock behind the last one; 0 before */
    int64_t began_step;
    double reported;
};

static struct program *any_program(const struct feed *f)
{
    return f->program[0] ? f->program[0] : f->program[1];
}

static const struct callback *callback_of(const struct fit *f, int i)
{
    return (const struct callback *)f->s->fit->callbacks[i].type;
}

static void put_state(struct fit *f, value_id v, const void *host, size_t bytes)
{
    session_put(any_program(&f->train)->session, v, host, bytes);
}

/* Bytes of a callback's state in f->states, where states stand one after the other, aligned. */
static size_t state_room(const struct callback *c)
{
    return (c->state_size + 15) / 16 * 16;
}

/* --- setting up ------------------------------------------------------------------------------------------------------------ */

static enum status split_rows(struct fit *f)
{
    const struct fit_spec *spec = f->s->fit;
    int64_t rows = f->s->train->rows, kept = rows;

    f->train = (struct feed){.source = f->s->train, .spec = spec, .data = &spec->data, .rows = rows, .batch = spec->batch_size};
    f->test = (struct feed){.spec = spec, .batch = spec->validation_batch_size};
    if (f->s->validation) {
        f->test.source = f->s->validation;
        f->test.data = &spec->validation;
        f->test.rows = f->s->validation->rows;
    } else if (spec->validation_split > 0) {
        kept = (int64_t)floor((double)rows * (1 - spec->validation_split));
        if (kept < 1 || kept == rows)
            return fail(f->problem, ST_INVALID, "/fit/validation_split",
                        "a validation_split of %g leaves %lld of %lld rows for training and %lld for validation",
                        spec->validation_split, (long long)kept, (long long)rows, (long long)(rows - kept));
        f->train.rows = kept;
        f->test.source = f->s->train;
        f->test.data = &spec->data;
        f->test.first = kept;
        f->test.rows = rows - kept;
    }
    f->validates = f->test.source != NULL;
    return ST_OK;
}

static enum status open_programs(struct fit *f)
{
    const struct fit_setup *s = f->s;
    size_t needs[N_REGIONS] = {0}, test_needs[N_REGIONS] = {0}, state[N_REGIONS] = {0};

    TRY(feed_plan(&f->train, PROGRAM_TRAIN, s->model, s->compile, s->weights, s->backend, s->device, f->problem));
    feed_needs(&f->train, needs, &f->arena_bytes);
    if (f->validates) {
        TRY(feed_plan(&f->test, PROGRAM_TEST, s->model, s->compile, s->weights, s->backend, s->device, f->problem));
        feed_needs(&f->test, test_needs, &f->arena_bytes);
    }
    f->weight_bytes = s->weights->bytes;
    f->slot_bytes = (size_t)s->compile->optimizer.n_slots * s->weights->trainable_bytes;
    if (needs[AT_WEIGHT] < f->weight_bytes)
        needs[AT_WEIGHT] = f->weight_bytes;
    if (needs[AT_SLOT] < f->slot_bytes)
        needs[AT_SLOT] = f->slot_bytes;
    TRY(regions_grow(&f->regions, s->device, s->backend, needs, f->problem));
    f->test_regions = f->regions;
    f->test_regions.base[AT_STATE] = NULL;
    f->test_regions.bytes[AT_STATE] = 0;
    if (f->validates) {
        state[AT_STATE] = test_needs[AT_STATE];
        TRY(s->backend->alloc(s->device, state[AT_STATE], &f->test_regions.base[AT_STATE], f->problem));
        f->test_state_bytes = state[AT_STATE];
    }
    if (f->arena_bytes)
        TRY(s->backend->alloc(s->device, f->arena_bytes, &f->arena, f->problem));
    TRY(feed_start(&f->train, &f->regions, f->arena, f->problem));
    return f->validates ? feed_start(&f->test, &f->test_regions, f->arena, f->problem) : ST_OK;
}

static bool copies_state(const struct fit *f)
{
    return !f->s->backend->host_memory;
}

static enum status room_for_best(struct fit *f)
{
    return f->best ? ST_OK : try_alloc(f->weight_bytes, "the best weights", &f->best, f->problem);
}

static enum status host_memory(struct fit *f)
{
    struct program *p = any_program(&f->train);

    if (copies_state(f)) {
        TRY(try_alloc(f->weight_bytes, "the weights", &f->weights, f->problem));
        TRY(try_alloc(f->slot_bytes, "the optimizer's slots", &f->slots, f->problem));
    } else {
        f->weights = f->regions.base[AT_WEIGHT];
        f->slots = f->regions.base[AT_SLOT];
    }
    f->n_sums = 2 * p->n_metrics;
    f->sums = must_alloc(sizeof(double) * (size_t)f->n_sums);
    f->order = must_alloc(sizeof *f->order * (size_t)f->train.rows);
    for (int i = 0; i < f->s->fit->n_callbacks; i++)
        f->state_bytes += state_room(callback_of(f, i));
    f->states = must_alloc(f->state_bytes + 1);
    f->names = must_alloc(sizeof *f->names * (size_t)(2 * p->n_metrics + 1));
    f->values = must_alloc(sizeof *f->values * (size_t)(2 * p->n_metrics + 1));
    f->n_names = p->n_metrics * (f->validates ? 2 : 1);
    for (int i = 0; i < p->n_metrics; i++) {
        f->names[i] = p->metric_names[i];
        f->names[p->n_metrics + i] = arena_print(p->graph->mem, "val_%s", p->metric_names[i]);
    }
    for (int i = 0; i < 2 * p->n_metrics; i++)
        f->values[i] = NAN;
    return ST_OK;
}

static enum status first_values(struct fit *f)
{
    const struct snapshot *start = f->s->start;
    struct program *p = any_program(&f->train);
    int64_t seed = (int64_t)f->s->seed;

    f->rate = (float)f->s->compile->optimizer.common.learning_rate;
    f->epoch = (int)f->s->fit->initial_epoch;
    if (start && f->weight_bytes)
        memcpy(f->weights, start->weights, f->weight_bytes);
    else if (!start)
        TRY(weights_init(f->s->weights, f->s->seed, f->weights, f->problem));
    if (start && start->slots) {
        if (f->slot_bytes)
            memcpy(f->slots, start->slots, f->slot_bytes);
        f->updates = start->updates;
        if (isfinite(start->rate))
            f->rate = start->rate;
    } else {
        optimizer_first_slots(&f->s->compile->optimizer, f->s->weights->trainable_bytes / sizeof(float), f->slots);
    }
    if (f->s->resume) {
        f->epoch = start->epoch;
        f->step = start->step;
        f->has_best = start->best != NULL;
        if (start->best) {
            TRY(room_for_best(f));
            memcpy(f->best, start->best, f->weight_bytes);
        }
        if (start->n_accumulators != f->n_sums || start->callbacks_bytes != f->state_bytes)
            return fail(f->problem, ST_STORAGE, "checkpoint",
                        "the checkpoint holds %d metric sums and %llu bytes of callbacks, this job %d and %zu",
                        start->n_accumulators, (unsigned long long)start->callbacks_bytes, f->n_sums, f->state_bytes);
        memcpy(f->sums, start->accumulators, sizeof(double) * (size_t)f->n_sums);
        memcpy(f->states, start->callbacks, f->state_bytes);
    }
    if (copies_state(f))
        f->s->backend->put(f->s->device, f->regions.base[AT_WEIGHT], f->weights, f->weight_bytes);
    if (copies_state(f) && f->slot_bytes)
        f->s->backend->put(f->s->device, f->regions.base[AT_SLOT], f->slots, f->slot_bytes);
    put_state(f, p->updates, &f->updates, sizeof f->updates);
    put_state(f, p->seed, &seed, sizeof seed);
    put_state(f, p->rate, &f->rate, sizeof f->rate);
    put_state(f, p->accumulators, f->sums, sizeof(double) * (size_t)f->n_sums);
    return f->s->backend->sync(f->s->device, f->problem);
}

static enum status fit_open(struct fit *f)
{
    TRY(split_rows(f));
    TRY(open_programs(f));
    TRY(host_memory(f));
    return first_values(f);
}

static void fit_close(struct fit *f)
{
    const struct backend *b = f->s->backend;

    feed_done(&f->train);
    feed_done(&f->test);
    if (f->test_regions.base[AT_STATE])
        b->release(f->s->device, f->test_regions.base[AT_STATE], f->test_state_bytes);
    if (f->arena)
        b->release(f->s->device, f->arena, f->arena_bytes);
    regions_done(&f->regions, f->s->device, b);
    if (copies_state(f)) {
        big_free(f->weights, f->weight_bytes);
        big_free(f->slots, f->slot_bytes);
    }
    big_free(f->best, f->weight_bytes);
    free_null(f->sums);
    free_null(f->order);
    free_null(f->states);
    free_null(f->names);
    free_null(f->values);
}

/* --- state out and in ---------------------------------------------------------------------------------------------------- */

static enum status take_snapshot(struct fit *f, struct snapshot *ret)
{
    struct program *p = any_program(&f->train);
    const struct backend *b = f->s->backend;

    if (copies_state(f))
        b->get(f->s->device, f->weights, f->regions.base[AT_WEIGHT], f->weight_bytes);
    if (copies_state(f) && f->slot_bytes)
        b->get(f->s->device, f->slots, f->regions.base[AT_SLOT], f->slot_bytes);
    session_get(p->session, p->updates, &f->updates, sizeof f->updates);
    session_get(p->session, p->accumulators, f->sums, sizeof(double) * (size_t)f->n_sums);
    TRY(b->sync(f->s->device, f->problem));
    *ret = (struct snapshot){.model = f->s->model,
                             .layout = f->s->weights,
                             .weights = f->weights,
                             .optimizer = &f->s->compile->optimizer,
                             .slots = f->slots,
                             .best = f->has_best ? f->best : NULL,
                             .compile = f->s->compile->text,
                             .updates = f->updates,
                             .rate = f->rate,
                             .epoch = f->epoch,
                             .step = f->step,
                             .seed = f->s->seed,
                             .accumulators = f->sums,
                             .n_accumulators = f->n_sums,
                             .callbacks = f->states,
                             .callbacks_bytes = f->state_bytes};
    return ST_OK;
}

static enum status checkpoint(struct fit *f)
{
    struct snapshot now;

    TRY(take_snapshot(f, &now));
    return f->sink->checkpoint(f->sink, &now, f->problem);
}

static enum status read_sums(struct fit *f, struct program *p, double *sums)
{
    session_get(p->session, p->accumulators, sums, sizeof(double) * (size_t)f->n_sums);
    return f->s->backend->sync(f->s->device, f->problem);
}

static void sums_to_values(const double *sums, int n, double *values)
{
    for (int i = 0; i < n; i++)
        values[i] = sums[2 * i + 1] != 0 ? sums[2 * i] / sums[2 * i + 1] : NAN;
}

/* --- one epoch ----------------------------------------------------------------------------------------------------------- */

/* Fisher and Yates, drawn by Philox from (seed, epoch): the same order whenever the epoch is run. Partners are drawn some way ahead of
 * their exchange and asked from memory then, since with millions of rows each is a wait for it. */
static void shuffle_rows(struct fit *f)
{
    enum { AHEAD = 32 };
    uint64_t key = f->s->seed ^ text_hash("shuffle");
    int64_t n = f->train.rows, partner[AHEAD], *order = f->order;

    for (int64_t i = 0; i < n; i++)
        order[i] = i;
    if (!f->s->fit->shuffle)
        return;
    for (int64_t last = n - 1; last > 0; last -= AHEAD) {
        int64_t some = last < AHEAD ? last : AHEAD;

        for (int64_t k = 0; k < some; k++) {
            struct philox_words r = philox(key, (uint64_t)f->epoch, (uint64_t)(last - k));
            uint64_t word = (uint64_t)r.w[0] << 32 | r.w[1];

            partner[k] = (int64_t)(((unsigned __int128)word * (uint64_t)(last - k + 1)) >> 64);
            __builtin_prefetch(&order[partner[k]], 1);
        }
        for (int64_t k = 0; k < some; k++) {
            int64_t swapped = order[last - k];

            order[last - k] = order[partner[k]];
            order[partner[k]] = swapped;
        }
    }
}

static enum status report(struct fit *f, bool now)
{
    double clock = clock_seconds(), elapsed = (f->ended > 0 ? f->ended : clock) - f->began;
    struct program *p = any_program(&f->train);
    int64_t steps = feed_steps(&f->train), done = f->step - f->began_step;

    if (!now && clock - f->reported < PROGRESS_SECONDS)
        return ST_OK;
    f->reported = clock;
    TRY(read_sums(f, p, f->sums));
    sums_to_values(f->sums, p->n_metrics, f->values);
    double samples = (double)done * (double)f->train.batch, rate = elapsed > 0 ? samples / elapsed : 0;
    double left = ((double)(f->s->fit->epochs - f->epoch) * (double)steps - (double)f->step) * (double)f->train.batch;
    struct progress progress = {.epoch = f->epoch,
                                .epochs = (int)f->s->fit->epochs,
                                .step = f->step,
                                .steps_per_epoch = steps,
                                .samples_per_second = rate,
                                .eta_seconds = rate > 0 ? left / rate : NAN,
                                .n = f->n_names,
                                .names = f->names,
                                .values = f->values};

    f->sink->progress(f->sink, &progress);
    return ST_OK;
}

/* The step left everything as it was, so it is run again node by node to find where the first bad value came from. */
static enum status explain_divergence(struct fit *f, struct program *p, double loss)
{
    uint32_t bad = 0;

    TRY(session_check(p->session, true, &bad, f->problem));
    const struct node *n = &p->graph->nodes[bad];

    return fail(f->problem, ST_INVALID, bad && n->origin ? n->origin : "loss",
                "training diverged: at epoch %d, step %lld (of %lld) the first NaN or Inf came from %s (%s), loss %g; the "
                "weights are those before that step. "
                "Try a smaller learning_rate or clipnorm, and look for NaN in the data",
                f->epoch + 1, (long long)f->step + 1, (long long)feed_steps(&f->train),
                bad && n->origin ? n->origin : "the loss", bad ? n->op->name : "loss", loss);
}

static void run_step_callbacks(struct fit *f, double loss)
{
    char *state = f->states;

    for (int i = 0; i < f->s->fit->n_callbacks; i++) {
        const struct callback *c = callback_of(f, i);

        if (c->step_end)
            c->step_end(f->s->fit->callbacks[i].config, state, loss, &f->control);
        state += state_room(c);
    }
}

static bool survives_nan(const struct fit *f)
{
    for (int i = 0; i < f->s->fit->n_callbacks; i++)
        if (callback_of(f, i)->survives_nan)
            return true;
    return false;
}

static enum status train_step(struct fit *f)
{
    struct program *p;
    float ok = 1, loss = 0;

    TRY(feed_step(&f->train, f->step, f->order, &p, f->problem));
    TRY(session_run(p->session, f->problem));
    if (p->ok)
        session_get(p->session, p->ok, &ok, sizeof ok);
    session_get(p->session, p->loss, &loss, sizeof loss);
    TRY(f->s->backend->sync(f->s->device, f->problem));
    if (ok == 0 && !survives_nan(f))
        return explain_divergence(f, p, (double)loss);
    f->diverged = ok == 0;
    run_step_callbacks(f, ok == 0 ? NAN : (double)loss);
    f->step++;
    return report(f, false);
}

/* Cancel, stop and checkpoints, between steps. *leave: training is to be left now with f's end set. */
static enum status obey(struct fit *f, bool *leave, enum fit_end *end)
{
    unsigned asked = f->sink->poll(f->sink);

    *leave = false;
    if (asked & POLL_CANCEL) {
        *leave = true;
        *end = FIT_CANCELLED;
        return ST_OK;
    }
    if (asked & (POLL_STOP | POLL_CHECKPOINT))
        TRY(checkpoint(f));
    if (asked & POLL_STOP) {
        *leave = true;
        *end = FIT_STOPPED;
    }
    return ST_OK;
}

/* Validation metrics into f->values behind the training ones. Asked to leave in its middle, it is begun again on resume. */
static enum status validate(struct fit *f, bool *leave, enum fit_end *end)
{
    struct program *p = any_program(&f->test);
    CLEAN(free_owned) double *sums = must_alloc(sizeof(double) * (size_t)f->n_sums);

    session_put(p->session, p->accumulators, sums, sizeof(double) * (size_t)f->n_sums);
    for (int64_t step = 0; step < feed_steps(&f->test); step++) {
        TRY(obey(f, leave, end));
        if (*leave)
            return ST_OK;
        TRY(feed_step(&f->test, step, NULL, &p, f->problem));
        TRY(session_run(p->session, f->problem));
    }
    TRY(read_sums(f, p, sums));
    sums_to_values(sums, p->n_metrics, f->values + p->n_metrics);
    return ST_OK;
}

static enum status write_file(struct fit *f)
{
    struct snapshot now;

    TRY(take_snapshot(f, &now));
    TRY(f->sink->file(f->sink, f->control.file, f->control.file_weights_only, &now, f->problem));
    f->control.file[0] = 0;
    return ST_OK;
}

/* What a callback asked for. */
static enum status obey_control(struct fit *f)
{
    const struct backend *b = f->s->backend;
    struct fit_control *c = &f->control;

    if (c->keep_best) {
        TRY(room_for_best(f));
        b->get(f->s->device, f->best, f->regions.base[AT_WEIGHT], f->weight_bytes);
        f->has_best = true;
        c->keep_best = false;
    }
    if (c->restore_best && f->has_best)
        b->put(f->s->device, f->regions.base[AT_WEIGHT], f->best, f->weight_bytes);
    c->restore_best = false;
    if (c->rate != f->rate) {
        f->rate = c->rate;
        put_state(f, any_program(&f->train)->rate, &f->rate, sizeof f->rate);
    }
    TRY(b->sync(f->s->device, f->problem));
    if (c->file[0])
        TRY(write_file(f));
    if (c->note[0])
        f->sink->note(f->sink, c->note);
    c->note[0] = 0;
    return ST_OK;
}

static enum status epoch_callbacks(struct fit *f, bool validated)
{
    const struct callback_logs logs = {
        .n = validated ? f->n_names : any_program(&f->train)->n_metrics, .names = f->names, .values = f->values};
    char *state = f->states;

    for (int i = 0; i < f->s->fit->n_callbacks; i++) {
        const struct callback *c = callback_of(f, i);

        if (c->epoch_end)
            c->epoch_end(f->s->fit->callbacks[i].config, state, &logs, &f->control);
        state += state_room(c);
        TRY(obey_control(f));
    }
    return ST_OK;
}

static enum status end_epoch(struct fit *f, bool *leave, enum fit_end *end)
{
    struct program *p = any_program(&f->train);
    /* After a NaN there is nothing to validate; nor could a stop in the middle of it be told from an ordinary one. */
    bool validated = f->validates && !f->diverged && (f->epoch + 1) % f->s->fit->validation_freq == 0;

    if (validated)
        TRY(validate(f, leave, end));
    if (*leave)
        return ST_OK;
    TRY(report(f, true)); /* reads the sums into f->values */
    if (f->diverged)
        f->values[0] = NAN;
    f->control.epoch = f->epoch;
    TRY(epoch_callbacks(f, validated));
    TRY(f->sink->epoch(f->sink, f->epoch, validated ? f->n_names : p->n_metrics, f->names, f->values, f->problem));
    memset(f->sums, 0, sizeof(double) * (size_t)f->n_sums);
    put_state(f, p->accumulators, f->sums, sizeof(double) * (size_t)f->n_sums);
    f->epoch++;
    f->step = 0;
    return ST_OK;
}

static enum status run_epoch(struct fit *f, bool *leave, enum fit_end *end)
{
    feed_settle(&f->train);
    shuffle_rows(f);
    f->began = clock_seconds();
    f->began_step = f->step;
    f->ended = 0;
    while (f->step < feed_steps(&f->train) && !f->control.stop) {
        TRY(obey(f, leave, end));
        if (*leave)
            return ST_OK;
        TRY(train_step(f));
    }
    feed_settle(&f->train); /* a callback may stop an epoch early, and validation may read the same source */
    f->ended = clock_seconds();
    return end_epoch(f, leave, end);
}

static enum status begin_callbacks(struct fit *f)
{
    char *state = f->states;

    f->control = (struct fit_control){.dialect = (int)f->s->model->dialect, .epochs = (int)f->s->fit->epochs, .rate = f->rate};
    for (int i = 0; i < f->s->fit->n_callbacks && !f->s->resume; i++) {
        const struct callback *c = callback_of(f, i);

        if (c->begin)
            c->begin(f->s->fit->callbacks[i].config, state, &f->control);
        state += state_room(c);
    }
    return obey_control(f);
}

static enum status end_callbacks(struct fit *f)
{
    char *state = f->states;

    for (int i = 0; i < f->s->fit->n_callbacks; i++) {
        const struct callback *c = callback_of(f, i);

        if (c->train_end)
            c->train_end(f->s->fit->callbacks[i].config, state, &f->control);
        state += state_room(c);
        TRY(obey_control(f));
    }
    return ST_OK;
}

static enum status run_all(struct fit *f, enum fit_end *end)
{
    bool leave = false;

    *end = FIT_DONE;
    TRY(begin_callbacks(f));
    while (f->epoch < f->s->fit->epochs && !f->control.stop && !leave)
        TRY(run_epoch(f, &leave, end));
    return leave ? ST_OK : end_callbacks(f);
}

enum status fit_run(const struct fit_setup *s, struct sink *sink,
                    enum status (*result)(void *context, const struct snapshot *last, struct problem *problem), void *context,
                    enum fit_end *end, struct problem *problem)
{
    struct fit f = {.s = s, .sink = sink, .problem = problem};
    struct snapshot last;
    enum status status = fit_open(&f);

    if (status == ST_OK)
        status = run_all(&f, end);
    if (status == ST_OK && *end == FIT_DONE)
        status = take_snapshot(&f, &last);
    if (status == ST_OK && *end == FIT_DONE)
        status = result(context, &last, problem);
    fit_close(&f);
    return status;
}
