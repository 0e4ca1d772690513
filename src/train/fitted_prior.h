/* The prior that `elbo fit-prior` fits to a trained model, in its checkpoint: prior-NNNNNN.safetensors
 * (docs/formats.md). It belongs to that checkpoint alone: a run that goes on saves the next one without it. */
#ifndef TRAIN_FITTED_PRIOR_H
#define TRAIN_FITTED_PRIOR_H

#include "checkpoint/checkpoint.h"
#include "model/gaussians.h"

struct fitted_prior {
    struct gaussians density; /* count 0: there is none */
    size_t sentences;         /* that it was fitted to  */
    char corpus[32];          /* hash of their corpus   */
};

/* ELBO_INPUT: what is there is no density for z of this width. Close it whatever comes back. */
elbo_status fitted_prior_load(struct fitted_prior *p, const struct checkpoint *c, size_t width, elbo_error *error);
elbo_status fitted_prior_save(const struct fitted_prior *p, const struct checkpoint *c, elbo_error *error);
void fitted_prior_close(struct fitted_prior *p);

#endif
