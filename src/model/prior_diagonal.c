/* latent.prior=diagonal: a Gaussian whose mean and variances are learned with the model, one for each dimension. */
#include "model/latent.h"

#include <math.h>

#define TENSOR "latent.prior.stats" /* (2Z) mean | logvar */

static value log_density(struct recorder *r, value z, double sign)
{
    value stats = recorder_declare(r, &(struct parameter){.name = TENSOR,
                                                          .rank = 1,
                                                          .shape = {2 * r->config->latent.width},
                                                          .part = PART_LATENT,
                                                          .master = true,
                                                          .init = init_constant(0)});
    return op_gaussian_log_density(r->g, z, stats, sign);
}

static double host_log_density(const float *z, size_t width, const float *learned)
{
    return latent_log_density(z, learned, width);
}

static void host_sample(float *z, size_t width, const float *learned)
{
    for (size_t j = 0; j < width; j++) z[j] = learned[j] + expf(0.5f * learned[width + j]) * z[j];
}

const struct prior_kind prior_diagonal = {.name = "diagonal",
                                          .log_density = log_density,
                                          .tensor = TENSOR,
                                          .host_log_density = host_log_density,
                                          .host_sample = host_sample};
