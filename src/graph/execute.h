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

/* One node with its pointers and sizes, as a kernel sees it. */
struct call {
    struct backend *backend;
    const struct node *node;
    const struct attributes *attr;
    const void *in[MAX_INPUTS];  /* null: input not given            */
    void *out[MAX_OUTPUTS];      /* null: output not wanted          */
    bool add[MAX_OUTPUTS];       /* += instead of =                  */
    enum dtype in_type[MAX_INPUTS], out_type[MAX_OUTPUTS];
    struct shape_view size;
    uint64_t seed, step;         /* of the noise                     */
    uint32_t draw;
};

struct kernel {
    void (*run)(const struct call *call);
    /* Scratch bytes at these sizes: shared by the call, and for each worker. Null: none. */
    void (*workspace)(const struct call *call, size_t *shared, size_t *per_worker);
};

struct backend {
    const char *name, *detail;       /* "cpu", "avx512, 2 threads"                      */
    const struct kernel *kernels;    /* by op_type.index                                */
    elbo_status (*allocate)(struct backend *, void **memory, size_t bytes, const char *what, elbo_error *error);
    void (*release)(struct backend *, void *memory);
    void (*upload)(struct backend *, void *to, const void *from, size_t bytes); /* `from` may change on return */
    void (*download)(struct backend *, void *to, const void *from, size_t bytes);
    elbo_status (*reserve)(struct backend *, size_t shared, size_t per_worker, elbo_error *error); /* scratch */
    elbo_status (*check)(struct backend *, elbo_error *error); /* of what was launched; null: nothing can fail */
    bool bf16;                       /* computes in it                                  */
    bool separate_memory;            /* the host cannot read it: inputs are copied      */
    double (*peak_flops)(struct backend *); /* measured now: f32 operations a second   */
    struct pool *pool;               /* host threads, for work between executions      */
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
    size_t workspace_shared, workspace_worker;
    char *arena;                  /* activations; may be shared with other executors */
    struct weight_arenas weights;
    float *gradients;
    void **states;
    const void **inputs;          /* (inputs) bound by the caller before each run    */
    char *staged;                 /* their copies in separate memory, one block ...  */
    size_t *staged_at;            /* ... (inputs) offsets of those not resident     */
    execute_hook hook;
    void *hook_context;
};

struct execution {
    size_t count[DIM_KINDS];
    bool first_slot;              /* WRITE_ADD_LATER_SLOTS overwrites                */
    uint64_t seed, step;
    uint32_t draw;
};

/* Plans the graph and checks it against the backend; memory is bound afterwards with executor_bind. */
elbo_status executor_create(struct executor *e, const struct graph *g, struct backend *backend, elbo_error *error);
void executor_free(struct executor *e);

/* `arena` holds at least plan.bytes; weights and gradients are laid out by graph_parameters. */
elbo_status executor_bind(struct executor *e, void *arena, struct weight_arenas weights, float *gradients, void **states,
                          elbo_error *error);

/* Fails when a count exceeds its capacity or an input is unbound. */
elbo_status executor_run(struct executor *e, const struct execution *run, elbo_error *error);

/* Where a value lies now (activations that are kept, inputs, parameters). */
void *executor_pointer(const struct executor *e, value v);

/* Sizes of a node under the given counts. */
void node_sizes(struct shape_view *s, const struct graph *g, const struct node *n, const size_t count[DIM_KINDS]);

#endif
