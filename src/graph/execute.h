/* Execution: walking a schedule through a backend's table of kernels (backend.h).
 *
 * executor_create reports a missing kernel, before any step runs. executor_run allocates nothing. */
#ifndef GRAPH_EXECUTE_H
#define GRAPH_EXECUTE_H

#include "graph/backend.h"
#include "graph/plan.h"

/* Called before (after = false) and after each op: for timers, traces, the search for the first non-finite output. */
typedef void (*execute_hook)(void *context, const struct call *call, bool after);

/* A parameter that lies outside the arena, in blocks of few bits or in f32. */
struct placed_weight {
    const void *data; /* null: the parameter lies in the arena */
    enum block_type type;
};

/* The same elements at the same offsets, in two types. */
struct weight_arenas {
    const float *master;
    const void *working;                /* bf16; null in f32 */
    const struct placed_weight *placed; /* (parameters) only with f32; null: none */
};

struct executor {
    const struct graph *graph;
    struct backend *backend;
    struct plan plan;
    size_t *scratch, workspace_worker; /* (steps) bytes in the arena; bytes per worker thread */
    char *arena;                       /* activations; may be shared with other executors */
    struct weight_arenas weights;
    float *gradients;
    void **states;
    const void **inputs; /* (inputs) bound by the caller before each run */
    char *staged;        /* copies of the inputs in separate memory, one block that begins with a call_header */
    size_t *staged_at, staged_bytes; /* (inputs) offsets within staged, of inputs that are not resident */
    void *captures;                  /* owned by the backend */
    execute_hook hook;
    void *hook_context;
};

struct execution {
    size_t count[DIM_KINDS];
    size_t longest[DIM_KINDS]; /* rows of the longest sentence; 0: not known */
    bool first_slot;           /* WRITE_ADD_LATER_SLOTS overwrites */
    execute_progress progress; /* null: no callback */
    void *progress_context;
    uint64_t seed, step;
    uint32_t draw;
};

/* Plans the graph and checks it against the backend; executor_bind binds memory afterwards. */
elbo_status executor_create(struct executor *e, const struct graph *g, struct backend *backend, elbo_error *error);
void executor_free(struct executor *e);

/* Binds memory. `arena` holds at least plan.bytes; weights and gradients are laid out by graph_parameters. */
elbo_status executor_bind(struct executor *e, void *arena, struct weight_arenas weights, float *gradients,
                          void **states, elbo_error *error);

/* Drops captured executions; call it before a collective inside them is destroyed. */
void executor_forget(struct executor *e);

/* Runs the graph once. Fails when a count exceeds its capacity or an input is unbound. */
elbo_status executor_run(struct executor *e, const struct execution *run, elbo_error *error);

/* Returns the current address of a value (a kept activation, an input, a parameter). */
void *executor_pointer(const struct executor *e, value v);

/* Computes the sizes of a node's values under the given counts. */
void node_sizes(struct shape_view *s, const struct graph *g, const struct node *n, const size_t count[DIM_KINDS]);

#endif
