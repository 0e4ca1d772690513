/* The posterior on the host: samples by address, log densities in double. */
#ifndef MODEL_POSTERIOR_H
#define MODEL_POSTERIOR_H

#include <stddef.h>
#include <stdint.h>

struct posterior_noise {
    uint64_t seed, purpose, step;
    uint32_t draw;
};

/* z (Z) = mu + exp(logvar / 2) eps for one sentence's stats (2Z); null noise: z = mu. Returns log p(z) - log q(z|x) in
 * nats, the importance weight's latent part. */
double posterior_sample(float *z, const float *stats, size_t width, const struct posterior_noise *noise,
                        uint64_t sample);

/* z (Z) from the prior N(0, 1). */
void prior_sample(float *z, size_t width, const struct posterior_noise *noise, uint64_t sample);
/* Rows first .. first + rows - 1 of z (rows, width): each has noise of its own. */
void prior_samples(float *z, size_t rows, size_t width, const struct posterior_noise *noise, uint64_t first);

/* log q(z|x) in nats. */
double posterior_log_density(const float *z, const float *stats, size_t width);

/* Sum over dimensions of the KL to N(0, 1); adds each to kl_dim (Z) when not null. */
double posterior_kl(const float *stats, size_t width, double *kl_dim);

#endif
