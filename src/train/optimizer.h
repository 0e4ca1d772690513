/* The optimizer: walks the parameter groups of one arena. Its work is two small graphs: `norm` (squared norm of each
 * trained group) and `update` (AdamW or SGD on each), so that they run, and are accounted for, like every other op. */
#ifndef TRAIN_OPTIMIZER_H
#define TRAIN_OPTIMIZER_H

#include "graph/execute.h"
#include "graph/parameters.h"
#include "train/config.h"

struct optimizer {
    struct optimizer_config config;
    struct parameters *parameters;
    struct backend *backend;
    bool trained[GROUPS];
    double factor[GROUPS];             /* of the learning rate                             */
    uint64_t updates;                  /* applied so far: the schedules' clock             */
    float *gradients, *moment1, *moment2; /* arenas; moment2 is null with SGD              */
    float scalars[GROUPS][16];
    struct graph *norm_graph, *update_graph;
    struct executor norm, update;
    void *arena;
    value record[GROUPS];
};

/* `wanted` receives the set of groups for autodiff: those with a factor above 0. */
elbo_status optimizer_create(struct optimizer *o, const struct optimizer_config *config, struct parameters *parameters,
                             struct weight_arenas weights, struct backend *backend, elbo_error *error);
void optimizer_free(struct optimizer *o);
unsigned optimizer_wanted(const struct optimizer_config *config);

/* Global norm of the trained gradients; NaN or infinity when any is not finite. */
elbo_status optimizer_norm(struct optimizer *o, double *norm, elbo_error *error);

/* One update at this learning rate, gradients clipped to config.clip by the norm just measured. */
elbo_status optimizer_update(struct optimizer *o, double learning_rate, double norm, elbo_error *error);

#endif
