/* A mixture of Gaussians on the host, in double: the form in which evaluation and generation use a prior with
 * components.
 *
 *     struct gaussians g;
 *     gaussians_allocate(&g, count, width, full, &error);       -- then fill log_weight, mean and factor
 *     if (!gaussians_finish(&g)) ...                            -- a factor is not positive on its diagonal
 *     double nats = gaussians_log_density(&g, z);               -- any thread
 *     gaussians_sample(&g, z, uniform);                         -- z ~ N(0, 1) becomes a sample of the mixture
 *     gaussians_free(&g); */
#ifndef MODEL_GAUSSIANS_H
#define MODEL_GAUSSIANS_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

struct gaussians {
    size_t count, width; /* K, Z */
    bool full;           /* a covariance is L L^T, L a lower triangle (Z, Z); else L is diagonal (Z) */
    double *log_weight;  /* (K) logs of weights that sum to 1 */
    double *mean;        /* (K, Z) */
    double *factor;      /* (K, Z, Z) or (K, Z): L */
    double *inverse;     /* same shape as factor: L^-1, set by gaussians_finish */
    double *constant;    /* (K) log w - Z / 2 log 2 pi - sum_j log L_jj */
};

/* Allocates zeros. Free it after a failure, too. */
elbo_status gaussians_allocate(struct gaussians *g, size_t count, size_t width, bool full, elbo_error *error);
void gaussians_free(struct gaussians *g);

/* Derives `inverse` and `constant` from log_weight, mean and factor. Returns false if a factor's diagonal is not
 * positive or not finite. */
bool gaussians_finish(struct gaussians *g);

/* Returns log sum_k w_k N(z; mean_k, L_k L_k^T) in nats; z (Z). */
double gaussians_log_density(const struct gaussians *g, const float *z);

/* Returns the term of component k: log (w_k N(z; mean_k, L_k L_k^T)). */
double gaussians_component(const struct gaussians *g, size_t k, const float *z);

/* Maps z ~ N(0, 1) in place to mean_k + L_k z, where k is the first component whose cumulative weight reaches `uniform`
 * (0 .. 1). */
void gaussians_sample(const struct gaussians *g, float *z, double uniform);

#endif
