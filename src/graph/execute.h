/* Execution: a schedule walked through a backend's table of kernels (backend.h).
 *
 * A missing kernel is found when an executor is created, not at the tenth step. Nothing is allocated by executor_run.
 */
#ifndef GRAPH_EXECUTE_H
#define GRAPH_EXECUTE_H

#include "graph/backend.h"
#include "graph/plan.h"

/* Called before (after = false) and after each op: timers, traces, the search for the first non-finite output. */
typedef void (*execute_hook)(void *context, const struct call *call, bool after);

/* A parameter that lies elsewhere than in an arena, in blocks of few bits or in f32. */
struct placed_weight {
    const void *data; /* null: it lies in the arena */
    enum block_type type;
};

/* The same elements at the same places, in two types. */
struct weight_arenas {
    const float *master;
    const void *working;                /* bf16; null in f32                     */
    const struct placed_weight *placed; /* (parameters) in f32 alone; null: none */
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

#endif
