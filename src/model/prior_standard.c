/* The standard normal prior, N(0, 1) in every dimension. */
#include "model/latent.h"

#include <math.h>

static const double LOG_2PI = 1.8378770664093454836;

/* op_latent gives it beside the draw. */
static value kl(struct recorder *r, const struct latent_pass *pass)
{
    (void)r;
    return pass->normal_kl;
}

static double host_log_density(const float *z, size_t width, const float *learned)
{
    double sum = 0;
    (void)learned;
    for (size_t j = 0; j < width; j++) sum -= 0.5 * (LOG_2PI + (double)z[j] * z[j]);
    return sum;
}

static double host_kl(const float *stats, size_t width, const float *learned, double *kl_dim)
{
    double sum = 0;
    (void)learned;
    for (size_t j = 0; j < width; j++) {
        double mu = stats[j], logvar = stats[width + j], nats = 0.5 * (mu * mu + exp(logvar) - 1.0 - logvar);
        if (kl_dim) kl_dim[j] += nats;
        sum += nats;
    }
    return sum;
}

const struct prior_kind prior_standard = {
    .name = "standard", .kl = kl, .host_log_density = host_log_density, .host_kl = host_kl};
