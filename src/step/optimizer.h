/* The optimizer: updates the parameter groups of one arena. An update is one small graph (squared norm of each trained
 * group, guard, AdamW or SGD on each), so it runs and is accounted for like every other op, and waits for nothing. If
 * several ranks share the update, it is two graphs, with an exchange of small sums between them. */
#ifndef STEP_OPTIMIZER_H
#define STEP_OPTIMIZER_H

#include "graph/execute.h"
#include "graph/parameters.h"
#include "ops/ops.h"
#include "step/config.h"

/* The numbers of one update. Rates and counts come twice, for a previous update that was skipped [0] or applied [1]. */
struct update {
    double learning_rate[2];
    uint64_t number[2][PARTS]; /* updates of each part applied before this one */
    size_t kind;               /* index of the optimizer's update kind */
    bool skip;
    uint64_t seed, step; /* of the noise that rounds bf16 moments: the run's seed, and the draw of this update */
};

struct buckets;

/* The share that this optimizer updates: the rank's piece of every bucket (ZeRO stage 1, Rajbhandari et al. 2020). Only
 * this share has moments here and needs gradients. Norms are still of whole gradients, with the same bits, from sums
 * over blocks that ranks exchange. ranks 0 or 1: everything. */
struct optimizer_share {
    size_t ranks, rank;
    const struct buckets *buckets;
    elbo_status (*exchange)(void *context, elbo_error *error); /* of the kind's `sums`: section r is from rank r */
    void *context;
};

/* A kind of update: the parts of the model that it moves, with its own graphs. */
struct update_kind {
    bool trained[GROUPS];
    double *sums;    /* squares of the trained blocks, for several ranks: rank r's from section[r] to section[r + 1] */
    int32_t *places; /* index into sums of each block of the groups, group by group */
    size_t *section;
    struct graph *squares_graph; /* null: this rank has no squares to compute */
    struct executor squares;
    struct graph *graph;
    struct executor executor;
    void *arena;
};

enum { OPTIMIZER_MOST_KINDS = 3, ALL_PARTS = (1u << PARTS) - 1 };

struct optimizer {
    struct optimizer_config config;
    struct optimizer_share share;
    struct parameters *parameters;
    struct backend *backend;
    double factor[GROUPS];        /* of the learning rate */
    uint64_t updates;             /* known to be applied: the clock of the schedules */
    uint64_t part_updates[PARTS]; /* the same for each part: the update count of its moments */
    float *gradients;             /* arena */
    void *moment1, *moment2;      /* arenas of the share's pieces, one after another; moment2 is null with SGD */
    size_t moments;               /* elements of each moment */
    struct arena_piece *all;      /* pieces of all ranks: rank r's from all[begin[r]] to all[begin[r + 1]] */
    size_t *begin;
    const struct arena_piece *pieces; /* this rank's pieces */
    size_t piece_count;
    float *control; /* (CONTROL_SIZE) on the backend */
    float *scalars; /* (GROUPS, STEP_SCALARS) on the backend */
    float rows[2][GROUPS][STEP_SCALARS], settings[GUARD_SETTINGS];
    struct update_kind kind[OPTIMIZER_MOST_KINDS];
    size_t kinds, now; /* now: the kind of the launched update */
};

/* Returns the set of groups for autodiff: those with a factor above 0. */
unsigned optimizer_wanted(const struct optimizer_config *config);

/* Returns the type of the moments. */
enum dtype optimizer_moments(const struct optimizer_config *config);

/* Returns the elements of a share's moments. */
size_t optimizer_share_elements(const struct parameters *p, const struct optimizer_share *share);

struct optimizer_options {
    size_t figures; /* elements after the gradients in their arena, which are summed with them */
    struct optimizer_share share;
    unsigned parts[OPTIMIZER_MOST_KINDS]; /* bits by enum parameter_part of each kind of update; all 0: one kind, of all
                                             parts */
    /* Records more into the update after its guard: `loss` as the guard sees it, `control` with the new decision.
     * optimizer_bind binds the inputs that it adds. Null: nothing. */
    void (*further)(void *context, struct graph *g, value loss, value control);
    void *context;
};

/* Creates the optimizer; null `options` means all options are zero. */
elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, const struct optimizer_options *options,
                             struct backend *backend, elbo_error *error);
void optimizer_free(struct optimizer *o);

/* Binds an input of the update that `further` recorded. */
void optimizer_bind(struct optimizer *o, const char *name, const void *data);

/* Sets the loss that the guard checks: ELBO_PARTS floats on the backend. Call before the first update. */
void optimizer_watch(struct optimizer *o, const void *loss);

/* Counts an applied update of these parts. */
void optimizer_count(struct optimizer *o, unsigned parts);

/* Resets a part's moments to zero and its update count to 0. */
void optimizer_clear(struct optimizer *o, enum parameter_part part);

/* Launches one update. It is applied if norm and loss are finite and it is not to be skipped; gradients are clipped to
 * config.clip. `control` then holds the decision. */
elbo_status optimizer_update(struct optimizer *o, const struct update *update, elbo_error *error);

#endif
