/* The registry.
 *
 * One table of loaded versions under one mutex, which is never held over anything slow; loading has a mutex of its own, so that
 * two requests do not load the same version twice. Since this process is the only writer of the folder, what `newest` remembers
 * stays true until a swap or registry_forget.
 *
 * A predictor belongs to one thread at a time: a version keeps the idle ones in a list. Each has a device handle of one thread,
 * because handles are not shared between threads; the weights are shared by all, being read only. */
#include "server/registry.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/thread.h"
#include "server/batch.h"
#include "storage/keras_h5.h"
#include "storage/models.h"

struct slot { /* a predictor and its device */
    struct slot *next;
    struct predictor *predictor;
    struct device *device;
};

struct loaded {
    struct version v; /* first: readers hold its address */
    struct loaded *next;
    int refs; /* with one of the table while `listed`; guarded by registry->lock */
    bool listed;
    double used; /* clock of the last get; guarded by registry->lock */
    const struct backend *backend;
    struct device *device; /* that holds the weights */
    pthread_mutex_t lock;  /* guards idle and out */
    struct slot *idle, *out;
    struct batch_queue queue;
};

struct newest {
    struct newest *next;
    int64_t number;
    int changing; /* commits under way: `number` may be old */
    char name[129];
};

struct registry {
    struct db *db;
    const struct backend *backend;
    int64_t memory;
    pthread_mutex_t loading; /* one load at a time; taken before lock */
    pthread_mutex_t lock;    /* guards all below */
    struct loaded *versions;
    struct newest *newest;
    int n;
    int64_t bytes;
};

static void slot_free(struct loaded *l, struct slot *s)
{
    predictor_free(s->predictor);
    if (s->device)
        l->backend->close(s->device);
    free(s);
}

static struct loaded *loaded_free(struct loaded *l)
{
    if (!l)
        return NULL;
    while (l->idle) {
        struct slot *s = l->idle;

        l->idle = s->next;
        slot_free(l, s);
    }
    if (l->v.weights)
        l->backend->release(l->device, l->v.weights, l->v.layout->bytes);
    for (int i = 0; l->v.prepare && i < l->v.model->n_inputs; i++)
        prepare_free(l->v.prepare[i]);
    free(l->v.prepare);
    free(l->v.rows);
    free(l->v.output_rows);
    weights_free(l->v.layout);
    model_free(l->v.model);
    if (l->device)
        l->backend->close(l->device);
    pthread_mutex_destroy(&l->lock);
    batch_queue_done(&l->queue);
    return free_null(l);
}
DEFINE_OWNED(struct loaded, loaded_free)

/* Out of the table, under the lock; freed by the caller if it returns true. */
static bool unlist(struct registry *g, struct loaded *l)
{
    struct loaded **p = &g->versions;

    while (*p != l)
        p = &(*p)->next;
    *p = l->next;
    l->listed = false;
    g->n--;
    g->bytes -= l->v.bytes;
    return --l->refs == 0;
}

static struct loaded *find(struct registry *g, const char *name, int64_t number)
{
    for (struct loaded *l = g->versions; l; l = l->next) {
        if (l->v.number == number && strcmp(l->v.name, name) == 0)
            return l;
    }
    return NULL;
}

static struct newest *find_newest(struct registry *g, const char *name)
{
    for (struct newest *n = g->newest; n; n = n->next) {
        if (strcmp(n->name, name) == 0)
            return n;
    }
    return NULL;
}

/* Least recently used first, those in use never, until `more` bytes fit. */
static void evict(struct registry *g, int64_t more)
{
    for (;;) {
        struct loaded *oldest = NULL;
        bool free_it = false;

        pthread_mutex_lock(&g->lock);
        if (g->bytes + more > g->memory) {
            for (struct loaded *l = g->versions; l; l = l->next) {
                if (l->refs == 1 && (!oldest || l->used < oldest->used))
                    oldest = l;
            }
            free_it = oldest && unlist(g, oldest);
        }
        pthread_mutex_unlock(&g->lock);
        if (!oldest)
            return;
        if (free_it)
            loaded_free(oldest);
    }
}

/* --- loading ---------------------------------------------------------------------------------------------------------------- */

static enum status read_prepare(struct loaded *l, const struct version_row *row, struct problem *problem)
{
    const struct model *m = l->v.model;
    OWNED(json_free) struct json *lists = NULL;
    OWNED(json_free) struct json *shapes = NULL;

    l->v.prepare = must_alloc(sizeof(struct prepare *) * (size_t)(m->n_inputs + 1));
    l->v.rows = must_alloc(sizeof(struct shape) * (size_t)(m->n_inputs + 1));
    l->v.output_rows = must_alloc(sizeof(struct shape) * (size_t)(m->n_outputs + 1));
    if (row->prepare)
        TRY(json_parse(row->prepare, strlen(row->prepare), NULL, 0, &lists, problem));
    if (row->raw_shapes)
        TRY(json_parse(row->raw_shapes, strlen(row->raw_shapes), NULL, 0, &shapes, problem));
    for (int i = 0; i < m->n_inputs; i++) {
        const struct json *list = json_get(lists, m->inputs[i].name), *dims = json_get(shapes, m->inputs[i].name);
        int d = 0;

        if (list)
            TRY(prepare_parse(list, m->inputs[i].name, &l->v.prepare[i], problem));
        for (const struct json *dim = json_first(dims); dim && d < MAX_RANK; dim = json_next(dim))
            if (!json_int(dim, &l->v.rows[i].dim[d++]))
                return fail(problem, ST_STORAGE, row->model, "the stored shape of input %s is damaged", m->inputs[i].name);
        l->v.rows[i].rank = d;
    }
    return ST_OK;
}

/* The layout comes from a build; a predictor of one row gives it along with all other shapes. */
static enum status lay_out(struct loaded *l, struct problem *problem)
{
    const struct model *m = l->v.model;
    OWNED(program_free) struct program *program = NULL;
    struct array_shape x[MAX_ARRAYS];
    struct program_request r = {.model = m, .prepare = l->v.prepare, .mode = PROGRAM_PREDICT, .batch = 1, .x = x};

    if (m->n_inputs > MAX_ARRAYS || m->n_outputs > MAX_ARRAYS)
        return fail(problem, ST_UNSUPPORTED, m->name, "the model has %d inputs and %d outputs, the limit is %d", m->n_inputs,
                    m->n_outputs, MAX_ARRAYS);
    r.weights = l->v.layout = weights_new();
    for (int i = 0; i < m->n_inputs; i++) {
        const struct shape *s = &m->inputs[i].shape;
        struct shape row = {.rank = s->rank - 1};

        if (l->v.prepare[i] || s->rank < 0) {
            x[i] = (struct array_shape){F32, l->v.rows[i]};
            continue;
        }
        memcpy(row.dim, s->dim + 1, sizeof row.dim[0] * (size_t)row.rank);
        for (int d = 0; d < row.rank; d++) {
            if (row.dim[d] < 0)
                return fail(problem, ST_UNSUPPORTED, m->inputs[i].name,
                            "the input has rows of %s: predict needs known dimensions; only the batch axis may be open",
                            shape_text(&row).s);
        }
        x[i] = (struct array_shape){F32, row};
    }
    return program_build(&r, &program, problem);
}

static enum status read_weights(struct loaded *l, const char *path, const char *where, struct problem *problem)
{
    OWNED(h5_free) struct h5 *f = NULL;
    void *host = NULL;
    enum status status;

    TRY(h5_open(path, where, &f, problem));
    TRY(l->backend->alloc(l->device, l->v.layout->bytes, &l->v.weights, problem));
    TRY(try_alloc(l->v.layout->bytes, "weights", &host, problem));
    status = keras_h5_read_weights(f, l->v.model, l->v.layout, host, problem);
    if (status == ST_OK) {
        l->backend->put(l->device, l->v.weights, host, l->v.layout->bytes);
        status = l->backend->sync(l->device, problem);
    }
    big_free(host, l->v.layout->bytes);
    return status;
}

static enum status slot_new(struct loaded *l, struct slot **ret, struct problem *problem)
{
    struct slot *s = must_alloc(sizeof *s);
    struct device_options one_thread = {.threads = 1};
    enum status status = l->backend->open(0, &one_thread, &s->device, problem);

    if (status == ST_OK) {
        l->backend->enter(s->device);
        status = predictor_new(l->v.model, l->v.layout, l->v.weights, l->v.prepare, l->v.rows, l->backend, s->device,
                               &s->predictor, problem);
    }
    if (status != ST_OK) {
        slot_free(l, s);
        return status;
    }
    *ret = s;
    return ST_OK;
}

static enum status load(struct registry *g, const struct version_row *row, struct loaded **ret, struct problem *problem)
{
    OWNED(loaded_free) struct loaded *l = must_alloc(sizeof *l);
    OWNED(json_free) struct json *architecture = NULL;
    struct device_options one_thread = {.threads = 1};
    char path[1024];

    pthread_mutex_init(&l->lock, NULL);
    batch_queue_init(&l->queue);
    l->backend = g->backend;
    snprintf(l->v.name, sizeof l->v.name, "%s", row->model);
    l->v.number = row->version;
    TRY(g->backend->open(0, &one_thread, &l->device, problem));
    TRY(json_parse(row->architecture, strlen(row->architecture), NULL, JSON_NAN, &architecture, problem));
    TRY(model_parse(architecture, row->model, &l->v.model, problem));
    TRY(read_prepare(l, row, problem));
    TRY(lay_out(l, problem));
    l->v.bytes = (int64_t)l->v.layout->bytes;
    evict(g, l->v.bytes);
    snprintf(path, sizeof path, "%s/%s", db_folder(g->db), row->path);
    TRY(h5_own(read_weights(l, path, row->path, problem), path, row->path, problem));
    TRY(slot_new(l, &l->idle, problem));
    for (int i = 0; i < l->v.model->n_inputs; i++)
        l->v.rows[i] = predictor_input(l->idle->predictor, i);
    for (int i = 0; i < l->v.model->n_outputs; i++)
        l->v.output_rows[i] = predictor_output(l->idle->predictor, i);
    l->v.flops = predictor_flops(l->idle->predictor);
    *ret = STEAL(l);
    return ST_OK;
}

static struct newest *make_newest(struct registry *g, const char *name)
{
    struct newest *n = find_newest(g, name);

    if (n)
        return n;
    n = must_alloc(sizeof *n);
    snprintf(n->name, sizeof n->name, "%s", name);
    n->next = g->newest;
    g->newest = n;
    return n;
}

static void remember_newest(struct registry *g, const char *name, int64_t number)
{
    struct newest *n = make_newest(g, name);

    if (number > n->number)
        n->number = number;
}

/* One reference for the caller, if it is there. */
static struct loaded *take(struct registry *g, const char *name, int64_t number)
{
    struct newest *n;
    struct loaded *l;

    pthread_mutex_lock(&g->lock);
    n = number ? NULL : find_newest(g, name);
    l = number || (n && !n->changing) ? find(g, name, number ? number : n->number) : NULL;
    if (l) {
        l->refs++;
        l->used = clock_seconds();
    }
    pthread_mutex_unlock(&g->lock);
    return l;
}

/* A row that is deleted while its file is being opened is answered by what there is then, not by the missing file. */
static enum status load_row(struct registry *g, const char *name, int64_t number, struct arena *mem, struct version_row *row,
                            struct loaded **ret, struct problem *problem)
{
    for (;;) {
        int64_t id = row->id;
        enum status status = load(g, row, ret, problem);

        if (status != ST_STORAGE)
            return status;
        TRY(models_get(g->db, name, number, mem, row, problem));
        if (row->id == id)
            return status;
    }
}

static enum status load_and_take(struct registry *g, const char *name, int64_t number, struct loaded **ret,
                                 struct problem *problem)
{
    OWNED(arena_free) struct arena *mem = arena_new();
    struct version_row row;
    struct loaded *l;

    TRY(models_get(g->db, name, number, mem, &row, problem));
    l = take(g, name, row.version); /* somebody else may have loaded it while we waited */
    if (!l) {
        TRY(load_row(g, name, number, mem, &row, &l, problem));
        pthread_mutex_lock(&g->lock);
        l->refs = 2; /* the table's and the caller's */
        l->listed = true;
        l->used = clock_seconds();
        l->next = g->versions;
        g->versions = l;
        g->n++;
        g->bytes += l->v.bytes;
        pthread_mutex_unlock(&g->lock);
    }
    if (!number) {
        pthread_mutex_lock(&g->lock);
        remember_newest(g, name, row.version);
        pthread_mutex_unlock(&g->lock);
    }
    *ret = l;
    return ST_OK;
}

static void forget(struct registry *g, const char *name)
{
    for (;;) {
        struct loaded *l;
        bool last = false;

        pthread_mutex_lock(&g->lock);
        for (l = g->versions; l && strcmp(l->v.name, name) != 0; l = l->next)
            ;
        if (l)
            last = unlist(g, l);
        for (struct newest **p = &g->newest; *p; p = &(*p)->next) {
            struct newest *n = *p;

            if (strcmp(n->name, name) == 0) {
                *p = n->next;
                free(n);
                break;
            }
        }
        pthread_mutex_unlock(&g->lock);
        if (!l)
            return;
        if (last)
            loaded_free(l);
    }
}

/* --- public ------------------------------------------------------------------------------------------------------------------- */

enum status registry_new(struct db *db, int64_t memory, struct registry **ret, struct problem *problem)
{
    struct registry *g = must_alloc(sizeof *g);

    (void)problem;
    g->db = db;
    g->backend = backend_cpu();
    g->memory = memory;
    pthread_mutex_init(&g->loading, NULL);
    pthread_mutex_init(&g->lock, NULL);
    *ret = g;
    return ST_OK;
}

struct registry *registry_free(struct registry *g)
{
    if (!g)
        return NULL;
    while (g->versions) {
        struct loaded *l = g->versions;

        (void)unlist(g, l);
        loaded_free(l);
    }
    while (g->newest) {
        struct newest *n = g->newest;

        g->newest = n->next;
        free(n);
    }
    pthread_mutex_destroy(&g->loading);
    pthread_mutex_destroy(&g->lock);
    return free_null(g);
}

enum status registry_get(struct registry *g, const char *name, int64_t number, bool may_load, struct version **ret,
                         struct problem *problem)
{
    struct loaded *l = take(g, name, number);
    enum status status = ST_OK;

    if (!l && may_load) {
        pthread_mutex_lock(&g->loading);
        status = load_and_take(g, name, number, &l, problem);
        pthread_mutex_unlock(&g->loading);
    }
    if (status == ST_OK)
        *ret = l ? &l->v : NULL;
    return status;
}

void registry_hold(struct registry *g, struct version *v)
{
    pthread_mutex_lock(&g->lock);
    ((struct loaded *)v)->refs++;
    pthread_mutex_unlock(&g->lock);
}

void registry_release(struct registry *g, struct version *v)
{
    struct loaded *l = (struct loaded *)v;
    bool last;

    if (!l)
        return;
    pthread_mutex_lock(&g->lock);
    last = --l->refs == 0;
    pthread_mutex_unlock(&g->lock);
    if (last)
        loaded_free(l);
}

enum status version_borrow(struct version *v, bool may_make, struct predictor **ret, struct problem *problem)
{
    struct loaded *l = (struct loaded *)v;
    struct slot *s;

    *ret = NULL;
    pthread_mutex_lock(&l->lock);
    s = l->idle;
    if (s)
        l->idle = s->next;
    pthread_mutex_unlock(&l->lock);
    if (!s && !may_make)
        return ST_OK;
    if (!s)
        TRY(slot_new(l, &s, problem));
    l->backend->enter(s->device);
    pthread_mutex_lock(&l->lock);
    s->next = l->out;
    l->out = s;
    pthread_mutex_unlock(&l->lock);
    *ret = s->predictor;
    return ST_OK;
}

void version_return(struct version *v, struct predictor *p)
{
    struct loaded *l = (struct loaded *)v;

    pthread_mutex_lock(&l->lock);
    for (struct slot **at = &l->out; *at; at = &(*at)->next) {
        struct slot *s = *at;

        if (s->predictor != p)
            continue;
        *at = s->next;
        s->next = l->idle;
        l->idle = s;
        break;
    }
    pthread_mutex_unlock(&l->lock);
}

struct batch_queue *version_queue(struct version *v)
{
    return &((struct loaded *)v)->queue;
}

void registry_swap_begin(struct registry *g, const char *name)
{
    pthread_mutex_lock(&g->lock);
    make_newest(g, name)->changing++;
    pthread_mutex_unlock(&g->lock);
}

void registry_swap_end(struct registry *g, const char *name, int64_t number)
{
    struct loaded *old = NULL;
    struct newest *n;

    pthread_mutex_lock(&g->lock);
    n = make_newest(g, name);
    n->changing -= n->changing > 0; /* the model may have been deleted meanwhile, and the entry with it */
    if (number > n->number)
        old = find(g, name, n->number);
    remember_newest(g, name, number);
    if (old && !unlist(g, old))
        old = NULL; /* its last reader frees it */
    pthread_mutex_unlock(&g->lock);
    loaded_free(old);
}

/* A load that read the row before it was deleted must be in the table before this looks: coming later, it would answer for the next
 * model of the same name. */
void registry_forget(struct registry *g, const char *name)
{
    pthread_mutex_lock(&g->loading);
    forget(g, name);
    pthread_mutex_unlock(&g->loading);
}

int registry_count(struct registry *g)
{
    int n;

    pthread_mutex_lock(&g->lock);
    n = g->n;
    pthread_mutex_unlock(&g->lock);
    return n;
}

int64_t registry_bytes(struct registry *g)
{
    int64_t n;

    pthread_mutex_lock(&g->lock);
    n = g->bytes;
    pthread_mutex_unlock(&g->lock);
    return n;
}
