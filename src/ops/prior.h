/* Learned priors: a diagonal Gaussian, and a mixture of them. */
#ifndef OPS_PRIOR_H
#define OPS_PRIOR_H

#include "ops/latent.h"

/* kl (S, Z) nats by dimension of KL(N(mu, exp(logvar)) || N(mean, exp(logvar of the prior))). stats (S, 2Z) = mu |
 * logvar; prior (2Z) = mean | logvar, declared `master` if it is a parameter. */
value op_gaussian_kl(struct graph *g, value stats, value prior);

/* out (S, 1) nats = sign * log sum_k w_k N(z; mu_k, exp(logvar_k)), a mixture of K Gaussians of diagonal covariance. z
 * (S, Z), rows of sentences or of draws. components (K, 2Z), rows of mu | logvar; or (2K, Z), K rows of mu and then K
 * rows of logvar. logits (K), w = softmax(logits), or none: w = 1 / K. */
value op_mixture_log_density(struct graph *g, value z, value components, value logits, double sign);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_COMPONENTS = ATTR_ROWS + 1 }; /* K of a mixture; ATTR_ROWS and ATTR_SIGN apply too */

enum { IN_GAUSSIAN_KL_STATS, IN_GAUSSIAN_KL_PRIOR };
enum { OUT_GAUSSIAN_KL_KL };

enum { IN_GAUSSIAN_KL_BACKWARD_STATS, IN_GAUSSIAN_KL_BACKWARD_PRIOR, IN_GAUSSIAN_KL_BACKWARD_DKL };
enum { OUT_GAUSSIAN_KL_BACKWARD_DSTATS, OUT_GAUSSIAN_KL_BACKWARD_DPRIOR };

enum { IN_MIXTURE_LOG_DENSITY_Z, IN_MIXTURE_LOG_DENSITY_COMPONENTS, IN_MIXTURE_LOG_DENSITY_LOGITS };
enum { OUT_MIXTURE_LOG_DENSITY_Y, OUT_MIXTURE_LOG_DENSITY_SHARES };

enum {
    IN_MIXTURE_LOG_DENSITY_BACKWARD_Z = IN_MIXTURE_LOG_DENSITY_Z,
    IN_MIXTURE_LOG_DENSITY_BACKWARD_COMPONENTS = IN_MIXTURE_LOG_DENSITY_COMPONENTS,
    IN_MIXTURE_LOG_DENSITY_BACKWARD_LOGITS = IN_MIXTURE_LOG_DENSITY_LOGITS,
    IN_MIXTURE_LOG_DENSITY_BACKWARD_DY,
    IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES
};
enum {
    OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ,
    OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS,
    OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS
};

#define PRIOR_OPS(X)                                                                                                   \
    X(gaussian_kl)                                                                                                     \
    X(gaussian_kl_backward)                                                                                            \
    X(mixture_log_density)                                                                                             \
    X(mixture_log_density_backward)

#endif
