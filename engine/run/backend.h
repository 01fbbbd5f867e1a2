/* What a backend is: a table of kernels and the handling of memory. The CPU's is built in (engine/cpu), others are loaded.
 *
 * Rows of `kernels` are tried in order for an op; prepare may say ST_UNSUPPORTED, and the next row is asked. `run` only
 * enqueues: no allocation, no synchronisation, no failure. The CPU may fall back to the op's reference; a backend with
 * `complete` false may not, so that a gap is found when planning. This header is all that a backend sees besides engine/graph
 * and the attributes in engine/ops/ops.h. */
#ifndef HORN_RUN_BACKEND_H
#define HORN_RUN_BACKEND_H

#include "engine/graph/op.h"

#define BACKEND_ABI 3

struct device;

struct kernel {
    const char *op;
    const char *name; /* for profiles: FILE.ROW, unique, and the literal stands in engine/cpu/FILE.c: "conv_onednn.dx" */
    /* Chooses, allocates, and may decline with ST_UNSUPPORTED (problem is then ignored). NULL: fits always, nothing to keep.
     * *scratch: bytes wanted at each run. */
    enum status (*prepare)(struct device *d, const struct node *n, const struct value *values, void **ret, size_t *scratch,
                           struct problem *problem);
    void (*run)(const struct kernel_call *c);
    void (*release)(void *prepared); /* NULL: free nothing */
};

struct device_options {
    int threads;      /* of a CPU lane's team; fixed for the device's life */
    const char *simd; /* "v2", "v3", "v4", or NULL for the best that the CPU has */
    bool bfloat;      /* use the CPU's bfloat16 instructions, if it has any, even where those of float32 are faster: tests */
};

struct backend {
    uint32_t abi;
    const char *name;             /* "cpu", "cuda" */
    const struct kernel *kernels; /* best first for each op; ends with an empty row */
    bool host_memory;             /* device memory is the host's: rows may be gathered straight into it */
    bool reference_ok;            /* nodes without a kernel may run by reference */
    bool (*supports)(const struct op *op, const void *attr, const struct value *in, uint16_t n_in);
    int (*count)(void);
    enum status (*open)(int index, const struct device_options *options, struct device **ret, struct problem *problem);
    struct device *(*close)(struct device *d);
    /* Called once by each thread before it runs sessions of the device: team size, flush-to-zero. */
    void (*enter)(struct device *d);
    int (*threads)(struct device *d); /* of this machine's that a step keeps busy, the calling one counted */
    /* Runs body over 0 .. n - 1, cut into ranges of at least `grain`, by the threads that a step has; by a thread that entered, between
     * steps. NULL: the host has none for it. */
    void (*share)(const struct device *d, int64_t n, int64_t grain,
                  void (*body)(const void *context, int64_t begin, int64_t end), const void *context);
    const char *(*describe)(struct device *d); /* "cpu: x86-64-v4, 2 threads, oneDNN 2.6.3, OpenBLAS 0.3.21" */
    enum status (*alloc)(struct device *d, size_t bytes, void **ret, struct problem *problem); /* zeroed */
    void (*release)(struct device *d, void *memory, size_t bytes);
    void (*put)(struct device *d, void *to, const void *host, size_t bytes);   /* enqueue */
    void (*get)(struct device *d, void *host, const void *from, size_t bytes); /* enqueue */
    enum status (*sync)(struct device *d, struct problem *problem);            /* first failure since last */
    /* What the device reaches: operations per second of a large float32 product, bytes per second (read and written) of a large
     * copy. Measured by the call, some tenths of a second, by a thread that entered. Optional. */
    enum status (*ceiling)(struct device *d, double *flops, double *bytes, struct problem *problem);
    enum status (*record_begin)(struct device *d); /* these three are optional */
    enum status (*record_end)(struct device *d, void **ret);
    void (*replay)(struct device *d, void *recording);
};

const struct backend *backend_cpu(void); /* engine/cpu/cpu.c */

/* Kernel for node n: fills step's kernel, prepared and scratch, or leaves kernel NULL for the reference. */
struct plan_step;
enum status backend_choose(const struct backend *b, struct device *d, const struct graph *g, uint32_t node,
                           struct plan_step *step, struct problem *problem);

#endif
