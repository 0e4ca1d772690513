/* The prior that `elbo fit-prior` fits to a trained model, stored in its checkpoint as prior-NNNNNN.safetensors
 * (docs/formats.md). The prior belongs to that checkpoint alone: a resumed run saves its next checkpoint without it. */
#ifndef TRAIN_FITTED_PRIOR_H
#define TRAIN_FITTED_PRIOR_H

#include "checkpoint/checkpoint.h"
#include "model/gaussians.h"

struct fitted_prior {
    struct gaussians density; /* count 0: no fitted prior */
    size_t sentences;         /* number of sentences that it was fitted to */
    char corpus[32];          /* hash of the corpus of these sentences */
};

/* Loads the prior. ELBO_INPUT: the file holds no density for z of this width. The caller closes `p` in either case. */
elbo_status fitted_prior_load(struct fitted_prior *p, const struct checkpoint *c, size_t width, elbo_error *error);
elbo_status fitted_prior_save(const struct fitted_prior *p, const struct checkpoint *c, elbo_error *error);
void fitted_prior_close(struct fitted_prior *p);

#endif
