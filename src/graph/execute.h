/* Execution: a schedule walked through a backend's table of kernels.
 *
 * A backend is one table of function pointers, one per op; a missing entry is found when an executor is created, not
 * at the tenth step. Nothing is allocated by executor_run. */
#ifndef GRAPH_EXECUTE_H
#define GRAPH_EXECUTE_H

#include "graph/graph.h"
#include "graph/plan.h"

struct backend;
struct pool;
struct bonds;
struct collectives;

enum { BACKEND_ID = 128 }; /* bytes by which devices of several ranks find each other */

/* What an execution tells its kernels in the backend's memory, so that a captured one can be replayed with other
 * numbers. */
struct call_header {
    uint64_t seed, step, draw; /* of the noise                     */
    uint64_t count[DIM_KINDS]; /* the true ones                    */
};

/* One node with its pointers and sizes, as a kernel sees it. */
struct call {
    struct backend *backend;
    const struct node *node;
    const struct attributes *attr;
    const void *in[MAX_INPUTS]; /* null: input not given            */
    void *out[MAX_OUTPUTS];     /* null: output not wanted          */
    void *scratch;              /* as many bytes as kernel.workspace said, at least */
    bool add[MAX_OUTPUTS];      /* += instead of =                  */
    enum dtype in_type[MAX_INPUTS], out_type[MAX_OUTPUTS];
    struct shape_view size;
    uint64_t seed, step; /* of the noise                     */
    uint32_t draw;
    size_t longest; /* rows of the longest sentence in the packed rows that it reads, or an upper bound       */
    const struct call_header *header; /* in separate memory; null elsewhere */
};

/* Called before each step of a schedule and at its end, with the number of steps that are done: what it launches is
 * part of the execution, and captured with it. */
typedef elbo_status (*execute_progress)(void *context, size_t done, size_t steps, elbo_error *error);

/* What a captured execution depends on; nothing else may be baked into it. */
struct replay_key {
    size_t count[DIM_KINDS], longest[DIM_KINDS];
    execute_progress progress; /* what it launches is captured too */
    size_t first_slot;         /* 0 or 1: keys are compared by their bytes, and have none between */
};

struct kernel {
    void (*run)(const struct call *call);
    /* Scratch bytes at these sizes, enough for any smaller ones too: shared by the call, and for each worker. Null:
     * none. */
    void (*workspace)(const struct call *call, size_t *shared, size_t *per_worker);
    /* Fails in words when sizes are beyond what this kernel can do; asked before the first execution. Null: any will
     * do. */
    elbo_status (*refuse)(const struct call *call, elbo_error *error);
    /* Bit k: output k may be bf16 though the backend does not compute in it. */
    unsigned bf16_outputs;
};

struct backend {
    const char *name, *detail;    /* "cpu", "avx512, 2 threads"                      */
    const struct kernel *kernels; /* by op_type.index                                */
    elbo_status (*allocate)(struct backend *, void **memory, size_t bytes, const char *what, elbo_error *error);
    void (*release)(struct backend *, void *memory);
    void (*upload)(struct backend *, void *to, const void *from, size_t bytes); /* `from` may change on return */
    void (*download)(struct backend *, void *to, const void *from, size_t bytes);
    void (*copy)(struct backend *, void *to, const void *from, size_t bytes);            /* within its memory */
    void (*accumulate)(struct backend *, float *to, const float *from, size_t elements); /* to += from        */
    elbo_status (*reserve)(struct backend *, size_t per_worker,
                           elbo_error *error);                 /* scratch of its threads; null: it has none */
    elbo_status (*check)(struct backend *, elbo_error *error); /* of what was launched; null: nothing can fail */
    bool tf32;                                                 /* f32 products may round their operands to 10 bits */
    bool timed_products;  /* of several ways to a product the fastest may be taken: bits may differ from run to run */
    bool bf16;            /* computes in it                                  */
    size_t own_bytes;     /* memory that it takes for itself, in plans       */
    bool separate_memory; /* the host cannot read it: inputs are copied      */
    /* A backend of separate memory computes rows in a few sizes; the inputs are padded up to them (enum pad_rule) and
     * sent in one copy from staging memory that may be written while earlier copies are under way. */
    size_t (*rows)(size_t count, size_t capacity);
    elbo_status (*reserve_staging)(struct backend *, size_t bytes, elbo_error *error);
    void *(*stage)(struct backend *);
    void (*send)(struct backend *, void *to, size_t bytes);
    /* Captured executions, by key; all null where there are none. replay: false when there is none for this key.
     * capture: true when what follows is captured; captured: runs it, or says that it could not be and must be walked
     * again. */
    bool (*replay)(struct backend *, void **captures, const struct replay_key *key);
    bool (*capture)(struct backend *, void **captures, const struct replay_key *key);
    bool (*captured)(struct backend *, void **captures, const struct replay_key *key);
    void (*forget)(struct backend *, void **captures);
    /* Steps that may be launched before the first is waited for, beyond one; memory that copies can be read into
     * later; a mark in the order of work, of 0 .. ahead, and the wait for it. */
    unsigned ahead;
    elbo_status (*allocate_host)(struct backend *, void **memory, size_t bytes, elbo_error *error);
    void (*release_host)(struct backend *, void *memory);
    void (*download_later)(struct backend *, void *to, const void *from, size_t bytes);
    void (*mark)(struct backend *, unsigned which);
    elbo_status (*wait)(struct backend *, unsigned which, elbo_error *error);
    /* Work beside the main order, null where there is none: between side_begin and side_end, copy, accumulate and what
     * ranks do together run behind what was launched before, and beside what is launched later, until side_join, which
     * everything later waits for. side_seconds: how long the last side_join held up the main order, when all is done;
     * NaN while it is not known. */
    void (*side_begin)(struct backend *);
    void (*side_end)(struct backend *);
    void (*side_join)(struct backend *);
    /* Of `count` pieces of work aside: which is the last so far; and everything later waits for that one and those
     * before it. */
    void (*side_mark)(struct backend *, size_t which, size_t count);
    void (*side_await)(struct backend *, size_t which, size_t count);
    double (*side_seconds)(struct backend *);
    /* What it chose by itself and bits depend on, for checkpoints; null: nothing. Bytes written (with null: wanted), 0
     * when nothing was chosen yet. restore: false when the bytes are of another device or library, and nothing is
     * taken. */
    size_t (*save_choices)(struct backend *, void *to);
    bool (*restore_choices)(struct backend *, const void *from, size_t bytes);
    /* The device's limits, measured now, best of several runs; NaN where that failed: operations a second (of products,
     * on a GPU; multiply-adds count two), and bytes read and written a second by a copy of memory far beyond the
     * caches. */
    double (*peak_flops)(struct backend *, enum dtype type);
    double (*peak_bytes)(struct backend *);
    /* Between ranks with a device each: rank 0 makes the id, all join with it; `bonds` stay the caller's, and are
     * looked at in every wait. Null: ranks do not meet through this backend. */
    elbo_status (*make_id)(struct backend *, unsigned char id[BACKEND_ID], elbo_error *error);
    elbo_status (*join)(struct backend *, const unsigned char id[BACKEND_ID], size_t ranks, size_t rank, double timeout,
                        struct bonds *bonds, struct collectives **out, elbo_error *error);
    struct pool *pool; /* host threads, for work between executions      */
    void (*destroy)(struct backend *);
};

/* Called before (after = false) and after each op: timers, traces, the search for the first non-finite output. */
typedef void (*execute_hook)(void *context, const struct call *call, bool after);

/* The same elements at the same places, in two types. */
struct weight_arenas {
    const float *master;
    const void *working; /* bf16; null in f32 */
};

struct executor {
    const struct graph *graph;
    struct backend *backend;
    struct plan plan;
    size_t *scratch, workspace_worker; /* (steps) bytes that the ops want in the arena; of each thread */
    char *arena;                       /* activations; may be shared with other executors */
    struct weight_arenas weights;
    float *gradients;
    void **states;
    const void **inputs;             /* (inputs) bound by the caller before each run    */
    char *staged;                    /* their copies in separate memory, one block behind a call_header ... */
    size_t *staged_at, staged_bytes; /* ... (inputs) offsets of those not resident  */
    void *captures;                  /* the backend's                                   */
    execute_hook hook;
    void *hook_context;
};

struct execution {
    size_t count[DIM_KINDS];
    size_t longest[DIM_KINDS]; /* rows of the longest sentence; 0: not known      */
    bool first_slot;           /* WRITE_ADD_LATER_SLOTS overwrites                */
    execute_progress progress; /* null: nobody asks                               */
    void *progress_context;
    uint64_t seed, step;
    uint32_t draw;
};

/* Plans the graph and checks it against the backend; memory is bound afterwards with executor_bind. */
elbo_status executor_create(struct executor *e, const struct graph *g, struct backend *backend, elbo_error *error);
void executor_free(struct executor *e);

/* `arena` holds at least plan.bytes; weights and gradients are laid out by graph_parameters. */
elbo_status executor_bind(struct executor *e, void *arena, struct weight_arenas weights, float *gradients,
                          void **states, elbo_error *error);

/* Drops what was captured: before a collective that is in it goes. */
void executor_forget(struct executor *e);

/* Fails when a count exceeds its capacity or an input is unbound. */
elbo_status executor_run(struct executor *e, const struct execution *run, elbo_error *error);

/* Where a value lies now (activations that are kept, inputs, parameters). */
void *executor_pointer(const struct executor *e, value v);

/* Sizes of a node under the given counts. */
void node_sizes(struct shape_view *s, const struct graph *g, const struct node *n, const size_t count[DIM_KINDS]);

/* Host work between executions on the backend's threads: tiles as in base/pool.h. */
void backend_host_run(struct backend *backend, size_t tiles, void (*run)(void *argument, size_t tile, size_t worker),
                      void *argument);
size_t backend_threads(const struct backend *backend);

#endif
