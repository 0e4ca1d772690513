/* A mixture of Gaussians on the host, in double: what a prior with components is to evaluation and generation.
 *
 *     struct gaussians g;
 *     gaussians_allocate(&g, count, width, full, &error);       -- then fill log_weight, mean and factor
 *     if (!gaussians_finish(&g)) ...                            -- a factor is not positive on its diagonal
 *     double nats = gaussians_log_density(&g, z);               -- any thread
 *     gaussians_sample(&g, z, uniform);                         -- z ~ N(0, 1) becomes a sample of the mixture
 *     gaussians_free(&g);                                                                                          */
#ifndef MODEL_GAUSSIANS_H
#define MODEL_GAUSSIANS_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

struct gaussians {
    size_t count, width; /* K, Z                                                                        */
    bool full;           /* a covariance is L L^T, L a lower triangle (Z, Z); else L is diagonal (Z)     */
    double *log_weight;  /* (K) of weights that sum to 1                                                */
    double *mean;        /* (K, Z)                                                                      */
    double *factor;      /* (K, Z, Z) or (K, Z): L                                                      */
    double *inverse;     /* the same shape: L^-1, made by gaussians_finish                              */
    double *constant;    /* (K) log w - Z / 2 log 2 pi - sum_j log L_jj                                 */
};

/* Zeros. Free it after a failure, too. */
elbo_status gaussians_allocate(struct gaussians *g, size_t count, size_t width, bool full, elbo_error *error);
void gaussians_free(struct gaussians *g);

/* Derives the rest from log_weight, mean and factor. False: a factor's diagonal is not positive, or not finite. */
bool gaussians_finish(struct gaussians *g);

/* log sum_k w_k N(z; mean_k, L_k L_k^T) in nats; z (Z). */
double gaussians_log_density(const struct gaussians *g, const float *z);

/* Its part of component k: log (w_k N(z; mean_k, L_k L_k^T)). */
double gaussians_component(const struct gaussians *g, size_t k, const float *z);

/* Component k, the first whose weights up to it hold `uniform` (0 .. 1), maps z ~ N(0, 1) in place: mean_k + L_k z. */
void gaussians_sample(const struct gaussians *g, float *z, double uniform);

#endif
