/* The Gaussian latent: a sample, its KL, its log density, and the spread of its means. */
#ifndef OPS_LATENT_H
#define OPS_LATENT_H

#include "graph/graph.h"

struct latent_sample {
    value z;  /* (draws, Z) */
    value kl; /* (S, Z) nats per dimension of KL(q(z|x) || N(0, 1)) */
};

/* stats (S, 2Z) = mu | logvar. z = mu + exp(logvar / 2) eps (Kingma and Welling 2014, reparameterization and appendix B
 * for the KL). eps is addressed noise: sample (S) u64, coordinate = dimension. Without sample_z, z = mu. */
struct latent_sample op_latent(struct graph *g, value stats, value sample, bool sample_z);

/* Returns (C, 2): sums and sums of squares of the columns of x (S, C). Not differentiable. */
value op_column_moments(struct graph *g, value x);

/* out (S, 1) nats = sign * sum_j log N(z_j; mu_j, exp(logvar_j)), a Gaussian of diagonal covariance. z (S, Z), rows of
 * sentences or of draws. stats (S, 2Z) = mu | logvar, one row for each row of z; or (2Z), one row for all, a parameter
 * declared `master`. For a drawn z, log q(z|x) plus, with sign -1, log p(z) is the one-sample estimate of the KL
 * (Kingma and Welling 2014). */
value op_gaussian_log_density(struct graph *g, value z, value stats, double sign);

/* out (1) nats = n max(0, margin - sum_b |mu_b - mean mu|^2 / (2n)) over the slot's n sentences; 0 if n = 0. stats (S,
 * 2Z) = mu | logvar; only mu has a gradient, while the hinge is above 0. The hinge keeps the means of the posteriors
 * apart (mu-forcing, Liu et al. 2019, arXiv:1905.10072). `margin` is in nats: if mean mu is 0, half the mean square of
 * mu is mu's share of the KL. */
value op_spread_hinge(struct graph *g, value stats, double margin);

/* ---- for the gradient rules and the backends: slots of the inputs and outputs, and attributes ---- */

enum { ATTR_LATENT_SAMPLE };             /* op_latent: 1 if z is drawn */
enum { ATTR_ROWS };                      /* the other ops: the enum dim_kind of the rows */
enum { ATTR_SIGN = 0, ATTR_MARGIN = 0 }; /* real attributes of the density and of the hinge */

enum { IN_LATENT_STATS, IN_LATENT_SAMPLE };
enum { OUT_LATENT_Z, OUT_LATENT_KL };

enum { IN_LATENT_BACKWARD_DZ, IN_LATENT_BACKWARD_DKL, IN_LATENT_BACKWARD_STATS, IN_LATENT_BACKWARD_SAMPLE };
enum { OUT_LATENT_BACKWARD_DSTATS };

enum { IN_COLUMN_MOMENTS_X };
enum { OUT_COLUMN_MOMENTS_Y };

enum { IN_GAUSSIAN_LOG_DENSITY_Z, IN_GAUSSIAN_LOG_DENSITY_STATS };
enum { OUT_GAUSSIAN_LOG_DENSITY_Y };

enum {
    IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z,
    IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS = IN_GAUSSIAN_LOG_DENSITY_STATS,
    IN_GAUSSIAN_LOG_DENSITY_BACKWARD_DY
};
enum { OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ, OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS };

enum { IN_SPREAD_HINGE_STATS };
enum { OUT_SPREAD_HINGE_Y, OUT_SPREAD_HINGE_SPREAD };

enum { IN_SPREAD_HINGE_BACKWARD_DY, IN_SPREAD_HINGE_BACKWARD_STATS, IN_SPREAD_HINGE_BACKWARD_SPREAD };
enum { OUT_SPREAD_HINGE_BACKWARD_DSTATS };

#define LATENT_OPS(X)                                                                                                  \
    X(latent)                                                                                                          \
    X(latent_backward)                                                                                                 \
    X(column_moments)                                                                                                  \
    X(gaussian_log_density)                                                                                            \
    X(gaussian_log_density_backward)                                                                                   \
    X(spread_hinge)                                                                                                    \
    X(spread_hinge_backward)

#endif
