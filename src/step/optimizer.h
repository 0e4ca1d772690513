/* The optimizer: walks the parameter groups of one arena. An update is one small graph (squared norm of each trained
 * group, guard, AdamW or SGD on each), so that it runs, and is accounted for, like every other op, and waits for
 * nothing. Of several ranks that share it out it is two, with an exchange of small sums between them. */
#ifndef STEP_OPTIMIZER_H
#define STEP_OPTIMIZER_H

#include "graph/execute.h"
#include "graph/parameters.h"
#include "ops/ops.h"
#include "step/config.h"

/* What an update is told. Rates and counts come twice, for an update before it that was left out [0] and applied [1].
 */
struct update {
    double learning_rate[2];
    uint64_t number[2][PARTS]; /* of updates of each part applied before this one */
    size_t kind;               /* which of the optimizer's kinds of update        */
    bool skip;
    uint64_t seed, step; /* of the noise that rounds moments in bf16: the run's, and the draw that this update is of */
};

struct buckets;

/* What this optimizer updates: the rank's piece of every bucket (ZeRO stage 1, Rajbhandari et al. 2020). Only it has
 * moments here, and needs gradients; norms are of whole gradients, from sums over blocks that ranks exchange, with the
 * same bits. ranks 0 or 1: all. */
struct optimizer_share {
    size_t ranks, rank;
    const struct buckets *buckets;
    elbo_status (*exchange)(void *context, elbo_error *error); /* of the kind's `sums`: section r is rank r's to give */
    void *context;
};

/* A kind of update: the parts of the model that it moves, by its own graphs. */
struct update_kind {
    bool trained[GROUPS];
    double *sums;    /* of the trained blocks' squares, of several ranks: rank r's from section[r] to section[r + 1] */
    int32_t *places; /* where those of the groups' blocks lie, group by group */
    size_t *section;
    struct graph *squares_graph; /* null: none are computed here             */
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
    double factor[GROUPS];        /* of the learning rate                     */
    uint64_t updates;             /* known to be applied: the schedules' clock */
    uint64_t part_updates[PARTS]; /* the same of each part: its moments' count */
    float *gradients;             /* arena                                    */
    void *moment1, *moment2;      /* arenas of the share's pieces, behind each other; moment2 is null with SGD */
    size_t moments;               /* their elements                           */
    struct arena_piece *all;      /* of every rank: rank r's from all[begin[r]] to all[begin[r + 1]] */
    size_t *begin;
    const struct arena_piece *pieces; /* this rank's                              */
    size_t piece_count;
    float *control; /* (CONTROL_SIZE) on the backend            */
    float *scalars; /* (GROUPS, STEP_SCALARS) on the backend    */
    float rows[2][GROUPS][STEP_SCALARS], settings[GUARD_SETTINGS];
    struct update_kind kind[OPTIMIZER_MOST_KINDS];
    size_t kinds, now; /* now: the kind of the update that is launched */
};

/* The set of groups for autodiff: those with a factor above 0. */
unsigned optimizer_wanted(const struct optimizer_config *config);

/* Type of the moments. */
enum dtype optimizer_moments(const struct optimizer_config *config);

/* Elements of a share's moments. */
size_t optimizer_share_elements(const struct parameters *p, const struct optimizer_share *share);

struct optimizer_options {
    size_t figures; /* elements behind the gradients in their arena, for what is summed with them */
    struct optimizer_share share;
    unsigned
        parts[OPTIMIZER_MOST_KINDS]; /* bits by enum parameter_part of each kind of update; all 0: one kind, of all */
    /* Records more into the update behind its guard: `loss` as the guard sees it, `control` with the new decision.
     * Inputs of its own are bound with optimizer_bind. Null: nothing. */
    void (*further)(void *context, struct graph *g, value loss, value control);
    void *context;
};

/* `options` null: none of them. */
elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, const struct optimizer_options *options,
                             struct backend *backend, elbo_error *error);
void optimizer_free(struct optimizer *o);

/* Binds an input of the update that `further` has recorded. */
void optimizer_bind(struct optimizer *o, const char *name, const void *data);

/* The loss that the guard looks at: ELBO_PARTS floats on the backend. Before the first update. */
void optimizer_watch(struct optimizer *o, const void *loss);

/* Counts an update of these parts that was applied. */
void optimizer_count(struct optimizer *o, unsigned parts);

/* Forgets what the moments of a part have gathered: zeros, and no updates. */
void optimizer_clear(struct optimizer *o, enum parameter_part part);

/* Launches one update: applied where norm and loss are finite and it is not to be skipped, gradients clipped to
 * config.clip. What was decided lies in `control` then. */
elbo_status optimizer_update(struct optimizer *o, const struct update *update, elbo_error *error);

#endif
