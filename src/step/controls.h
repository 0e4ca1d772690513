/* States on the device that a step's figures move, besides the weights: the states of the objective's controllers, and
 * the running statistics of the latent. Their ops are part of the update graph.
 *
 *     controls_create(&c, &objective, backend, &error);
 *     optimizer_options.further = controls_record ...          -- the optimizer records them after its guard
 *     controls_bind(&c, &optimizer);
 *     each step: controls_set(&c, sentences), then the update
 *
 * A controller's state is named, saved with every checkpoint (step_states) and the same on every rank, because each
 * rank computes it from the same sums. */
#ifndef STEP_CONTROLS_H
#define STEP_CONTROLS_H

#include "step/objective.h"
#include "step/optimizer.h"

struct controls {
    const struct objective *objective;
    struct running_statistics {
        size_t groups; /* 0: no running statistics */
        bool center;
        double share;
        float *tensor;     /* (2, groups) among the model's weights */
        const float *sums; /* (2 groups + 1) over the step */
    } running;
    struct backend *backend;
    float *memory; /* scales (terms), then CONTROLLER_STATE for each controller; null: no controllers */
    float settings[OBJECTIVE_MOST_TERMS][CONTROLLER_SETTINGS];
};

elbo_status controls_create(struct controls *c, const struct objective *objective, struct backend *backend,
                            elbo_error *error);
void controls_free(struct controls *c);

/* Records the controls into the update; used as struct optimizer_options.further, with the controls as its context. */
void controls_record(void *context, struct graph *g, value figures, value control);
void controls_bind(struct controls *c, struct optimizer *o);

/* Sets the number of sentences in the sums, before an update. */
void controls_set(struct controls *c, size_t sentences);

/* Return the scales (terms) of the weights, the states (CONTROLLER_STATE each) of the controllers in the order of the
 * terms, and the floats of all states. */
const float *controls_scales(const struct controls *c);
float *controls_states(const struct controls *c);
size_t controls_state_floats(const struct controls *c);

/* Sets the next step's scales from the states, after the states were restored. */
void controls_restored(struct controls *c);

/* Replaces the scales of owned weights by the scales that the step used, from states that were read back. */
void controls_used(const struct controls *c, double *scale, const float *states);

#endif
