/* The recording of a training slot: the model's forward pass, the objective, and the backward pass. */
#ifndef STEP_RECORDING_H
#define STEP_RECORDING_H

#include "graph/autodiff.h"
#include "model/model.h"
#include "step/objective.h"

struct train_recording {
    enum recompute_policy recompute;
    unsigned wanted; /* parameter groups that get gradients (graph/autodiff.h) */
};

/* Records a training slot. Inputs besides a slot's arrays: "weights" (2, terms) f32, the objective's weights for both
 * answers of "control" (CONTROL_SIZE) f32, which is in the backend's memory (op_select_row). It may declare
 * `parameters`. The result is not yet bound to memory. */
elbo_status record_train(struct recording *out, const struct model_config *config, const struct objective *objective,
                         struct parameters *parameters, const struct graph_capacities *capacities,
                         const struct train_recording *options, elbo_error *error);

/* Lays out the parameters that the recording declared: within a group in the order in which the backward pass finishes
 * their gradients. */
elbo_status recording_layout(const struct recording *r, struct parameters *parameters, elbo_error *error);

#endif
