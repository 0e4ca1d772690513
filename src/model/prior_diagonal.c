/* latent.prior=diagonal: a Gaussian with diagonal covariance, whose means and variances are learned with the model. Its
 * KL has a closed form by dimension. */
#include "model/latent.h"

#include <math.h>
#include <stdlib.h>

#define TENSOR "latent.prior.stats" /* (2Z) mean | logvar */

static value kl(struct recorder *r, const struct latent_pass *pass)
{
    value stats = recorder_declare(r, &(struct parameter){.name = TENSOR,
                                                          .rank = 1,
                                                          .shape = {2 * r->config->latent.width},
                                                          .part = PART_LATENT,
                                                          .master = true,
                                                          .init = init_constant(0)});
    return op_gaussian_kl(r->g, pass->stats, stats);
}

static elbo_status open(struct latent *l, struct model *m, elbo_error *error)
{
    float *learned = NULL;
    elbo_status status = latent_learned(&learned, m, TENSOR, error);
    if (!status) status = gaussians_allocate(&l->own, 1, l->width, false, error);
    for (size_t j = 0; j < l->width && !status; j++) {
        l->own.mean[j] = learned[j];
        l->own.factor[j] = exp(0.5 * (double)learned[l->width + j]);
    }
    free(learned);
    return status;
}

static double host_kl(const struct latent *l, const float *stats, double *kl_dim)
{
    const struct gaussians *p = l->density;
    double sum = 0;
    for (size_t j = 0; j < l->width; j++) {
        double logvar = stats[l->width + j], t = ((double)stats[j] - p->mean[j]) * p->inverse[j];
        double ratio = exp(0.5 * logvar) * p->inverse[j], nats = 0.5 * (ratio * ratio - 1 + t * t) - log(ratio);
        if (kl_dim) kl_dim[j] += nats;
        sum += nats;
    }
    return sum;
}

const struct prior_kind prior_diagonal = {.name = "diagonal", .kl = kl, .open = open, .host_kl = host_kl};
