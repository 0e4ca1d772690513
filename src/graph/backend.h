/* A backend: the functions that a device must provide to run graphs.
 *
 * A backend is a table of kernels, one per op, and functions grouped by subject:
 *
 *     memory    buffers of the device and of the host, and copies between them
 *     stream    the order of work: inputs sent, errors checked, the end of a step awaited
 *     side work concurrent with that order, for collectives during the backward pass
 *     capture   executions recorded once and replayed
 *     device    how the device computes, its limits, and its choices that bits depend on
 *
 * A function may be null only where its comment says so. The graph knows neither ranks nor the list of backends, which
 * is in device/backends.h. */
#ifndef GRAPH_BACKEND_H
#define GRAPH_BACKEND_H

#include "base/blocks.h"
#include "graph/graph.h"

struct backend;
struct pool;

/* The numbers that kernels read from the backend's memory, so that a captured execution can be replayed with other
 * numbers. */
struct call_header {
    uint64_t seed, step, draw; /* of the noise */
    uint64_t count[DIM_KINDS]; /* the true counts, without padding */
};

/* One node with its pointers and sizes, as a kernel sees it. */
struct call {
    struct backend *backend;
    const struct node *node;
    const struct attributes *attr;
    const void *in[MAX_INPUTS]; /* null: input not given */
    void *out[MAX_OUTPUTS];     /* null: output not wanted */
    void *scratch;              /* at least the bytes that kernel.workspace asked for */
    bool add[MAX_OUTPUTS];      /* += instead of = */
    enum dtype in_type[MAX_INPUTS], out_type[MAX_OUTPUTS];
    enum block_type in_blocks[MAX_INPUTS]; /* not BLOCK_F32: the input is a weight in blocks of this type */
    struct shape_view size;
    uint64_t seed, step; /* of the noise */
    uint32_t draw;
    size_t longest;                   /* rows of the longest sentence in the packed rows read, or an upper bound */
    const struct call_header *header; /* in separate memory; null elsewhere */
};

/* Called before each step of a schedule and at its end, with the number of finished steps. Work that the callback
 * launches is part of the execution, and captured with it. */
typedef elbo_status (*execute_progress)(void *context, size_t done, size_t steps, elbo_error *error);

/* Everything that a captured execution depends on; nothing else may be baked into it. */
struct replay_key {
    size_t count[DIM_KINDS], longest[DIM_KINDS];
    execute_progress progress; /* the work that it launches is captured too */
    size_t first_slot;         /* 0 or 1; a size_t because keys are compared by their bytes and must have no padding */
};

struct kernel {
    void (*run)(const struct call *call);
    /* Returns the scratch bytes at these sizes, enough for any smaller sizes: shared by the call, and per worker. Null:
     * none. */
    void (*workspace)(const struct call *call, size_t *shared, size_t *per_worker);
    /* Fails with a message when the kernel cannot handle these sizes; called before the first execution. Null: any
     * sizes work. */
    elbo_status (*refuse)(const struct call *call, elbo_error *error);
    /* Bit k: output k may be bf16 even if the backend does not compute in bf16. */
    unsigned bf16_outputs;
    /* Bit k: input k may be a weight in blocks of few bits. */
    unsigned block_inputs;
};

struct backend {
    const char *name, *detail;    /* "cpu", "avx512, 2 threads" */
    const struct kernel *kernels; /* by op_type.index */
    struct pool *pool;            /* host threads, for work between executions */
    void (*destroy)(struct backend *);

    /* Buffers and copies. */
    struct {
        /* Allocates zeroed device memory; `what` names it in the error. */
        elbo_status (*allocate)(struct backend *, void **memory, size_t bytes, const char *what, elbo_error *error);
        void (*release)(struct backend *, void *memory);
        /* Allocates host memory that download_later can fill while the host goes on. */
        elbo_status (*allocate_host)(struct backend *, void **memory, size_t bytes, elbo_error *error);
        void (*release_host)(struct backend *, void *memory);
        /* Reserves scratch for each worker thread, in bytes; null: the backend has no worker scratch. */
        elbo_status (*reserve)(struct backend *, size_t per_worker, elbo_error *error);
        /* upload: `from` may change on return. download: complete on return; download_later: complete at the next mark.
         * copy and accumulate (to += from) stay within the backend's memory. */
        void (*upload)(struct backend *, void *to, const void *from, size_t bytes);
        void (*download)(struct backend *, void *to, const void *from, size_t bytes);
        void (*download_later)(struct backend *, void *to, const void *from, size_t bytes);
        void (*copy)(struct backend *, void *to, const void *from, size_t bytes);
        void (*accumulate)(struct backend *, float *to, const float *from, size_t elements);
        bool separate;    /* the host cannot read the memory: inputs are copied */
        size_t own_bytes; /* memory that the backend takes for itself, in plans */
    } memory;

    /* The order of work. A backend with separate memory gets the inputs in one copy from staging memory, which may be
     * written while earlier copies are under way. reserve_staging, stage and send are null for other backends. */
    struct {
        /* Reports the first failure of the launched work; null: nothing can fail. */
        elbo_status (*check)(struct backend *, elbo_error *error);
        elbo_status (*reserve_staging)(struct backend *, size_t bytes, elbo_error *error);
        void *(*stage)(struct backend *); /* the staging memory to write next */
        void (*send)(struct backend *, void *to, size_t bytes);
        /* mark puts mark `which`, 0 .. ahead, into the order of work; wait waits for it. `ahead` is the number of steps
         * that may be launched before the first one is waited for. */
        unsigned ahead;
        void (*mark)(struct backend *, unsigned which);
        elbo_status (*wait)(struct backend *, unsigned which, elbo_error *error);
    } stream;

    /* Work concurrent with the main order; all null when the backend has none. Between begin and end, copy, accumulate
     * and collectives run after the work launched before begin, and concurrently with the work launched later. */
    struct {
        void (*begin)(struct backend *);
        void (*end)(struct backend *);
        void (*join)(struct backend *); /* later work on the main stream waits for all side work */
        /* Side work comes in `count` pieces. mark: pieces 0..which are queued. await: later work on the main stream
         * waits for pieces 0..which. */
        void (*mark)(struct backend *, size_t which, size_t count);
        void (*await)(struct backend *, size_t which, size_t count);
        /* Returns the seconds for which the last join held up the main order, once all work is done; NaN while not
         * known. */
        double (*seconds)(struct backend *);
    } side;

    /* Captured executions, by key; all null when the backend has none. `rows` rounds counts to a few sizes, so that few
     * executions differ; inputs are padded up to these sizes (enum pad_rule). */
    struct {
        size_t (*rows)(size_t count, size_t capacity);
        /* Runs the execution captured for this key; returns false when there is none. */
        bool (*replay)(struct backend *, void **captures, const struct replay_key *key);
        /* Returns true when the following work is captured instead of run. */
        bool (*begin)(struct backend *, void **captures, const struct replay_key *key);
        /* Runs the captured work; returns false when capturing failed, so that the schedule must be walked again. */
        bool (*end)(struct backend *, void **captures, const struct replay_key *key);
        void (*forget)(struct backend *, void **captures);
    } capture;

    /* The device itself: how it computes, and its limits. */
    struct {
        bool bf16; /* the backend computes in bf16 */
        bool tf32; /* f32 products may round their operands to 10 bits */
        /* The fastest of several implementations of a product may be chosen by timing, so bits may differ from run to
         * run. */
        bool timed_products;
        /* The backend's own choices that bits depend on, for checkpoints; null: it makes none. save_choices returns the
         * bytes written (with null: wanted), 0 while nothing was chosen yet. restore_choices returns false, and changes
         * nothing, when the bytes are from another device or library. */
        size_t (*save_choices)(struct backend *, void *to);
        bool (*restore_choices)(struct backend *, const void *from, size_t bytes);
        /* The device's limits, measured now, best of several runs; NaN when the measurement failed. peak_flops:
         * operations a second (of products, on a GPU; a multiply-add counts as two). peak_bytes: bytes read and written
         * a second by a copy of memory far larger than the caches. */
        double (*peak_flops)(struct backend *, enum dtype type);
        double (*peak_bytes)(struct backend *);
    } device;
};

/* Runs host work between executions on the backend's threads; tiles as in base/pool.h. */
void backend_host_run(struct backend *backend, size_t tiles, void (*run)(void *argument, size_t tile, size_t worker),
                      void *argument);
size_t backend_threads(const struct backend *backend);

#endif
