/* latent.prior=mixture: K Gaussians with diagonal covariance, whose means, variances and weights are learned with the
 * model. */
#include "model/latent.h"

#include <math.h>
#include <stdlib.h>

#define TENSOR  "latent.prior.components" /* (2K, Z) K rows of means, K rows of logvars */
#define WEIGHTS "latent.prior.logits"     /* (K) w = softmax */

/* Means begin apart, because components with equal means would all learn the same. */
static value log_density(struct recorder *r, value z, double sign)
{
    size_t count = r->config->latent.components, width = r->config->latent.width;
    value components = recorder_declare(r, &(struct parameter){.name = TENSOR,
                                                               .rank = 2,
                                                               .shape = {2 * count, width},
                                                               .part = PART_LATENT,
                                                               .master = true,
                                                               .tail = count,
                                                               .init = init_normal(1),
                                                               .init_tail = init_constant(0)});
    value logits = recorder_declare(r, &(struct parameter){.name = WEIGHTS,
                                                           .rank = 1,
                                                           .shape = {count},
                                                           .part = PART_LATENT,
                                                           .master = true,
                                                           .init = init_constant(0)});
    return op_mixture_log_density(r->g, z, components, logits, sign);
}

static elbo_status open(struct latent *l, struct model *m, elbo_error *error)
{
    size_t count = m->config.latent.components, n = count * l->width;
    float *components = NULL, *logits = NULL;
    double top = -INFINITY, sum = 0;
    elbo_status status = latent_learned(&components, m, TENSOR, error);
    if (!status) status = latent_learned(&logits, m, WEIGHTS, error);
    if (!status) status = gaussians_allocate(&l->own, count, l->width, false, error);
    for (size_t k = 0; k < count && !status; k++) top = fmax(top, (double)logits[k]);
    for (size_t k = 0; k < count && !status; k++) sum += exp((double)logits[k] - top);
    for (size_t k = 0; k < count && !status; k++) l->own.log_weight[k] = (double)logits[k] - top - log(sum);
    for (size_t i = 0; i < n && !status; i++) {
        l->own.mean[i] = components[i];
        l->own.factor[i] = exp(0.5 * (double)components[n + i]);
    }
    free(components);
    free(logits);
    return status;
}

const struct prior_kind prior_mixture = {.name = "mixture", .log_density = log_density, .open = open};
