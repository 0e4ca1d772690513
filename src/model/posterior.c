#include "model/posterior.h"
#include "base/philox.h"

#include <math.h>

static const double LOG_2PI = 1.8378770664093454836;

static void normals(float eps[4], const struct posterior_noise *n, uint64_t sample, size_t block)
{
    noise_normal4(eps, noise_block(noise_key(n->seed, n->purpose, n->step), sample, n->draw, (uint32_t)block));
}

double posterior_sample(float *z, const float *stats, size_t width, const struct posterior_noise *noise,
                        uint64_t sample)
{
    float eps[4] = {0};
    for (size_t j = 0; j < width; j++) {
        if (noise && j % 4 == 0) normals(eps, noise, sample, j / 4);
        z[j] = stats[j] + expf(0.5f * stats[width + j]) * eps[j % 4];
    }
    double prior = 0;
    for (size_t j = 0; j < width; j++) prior -= 0.5 * (LOG_2PI + (double)z[j] * z[j]);
    return prior - posterior_log_density(z, stats, width);
}

void prior_sample(float *z, size_t width, const struct posterior_noise *noise, uint64_t sample)
{
    float eps[4];
    for (size_t j = 0; j < width; j++) {
        if (j % 4 == 0) normals(eps, noise, sample, j / 4);
        z[j] = eps[j % 4];
    }
}

void prior_samples(float *z, size_t rows, size_t width, const struct posterior_noise *noise, uint64_t first)
{
    for (size_t i = 0; i < rows; i++) prior_sample(z + i * width, width, noise, first + i);
}

double posterior_log_density(const float *z, const float *stats, size_t width)
{
    double sum = 0;
    for (size_t j = 0; j < width; j++) {
        double logvar = stats[width + j], d = (double)z[j] - stats[j];
        sum -= 0.5 * (LOG_2PI + logvar + d * d * exp(-logvar));
    }
    return sum;
}

double posterior_kl(const float *stats, size_t width, double *kl_dim)
{
    double sum = 0;
    for (size_t j = 0; j < width; j++) {
        double mu = stats[j], logvar = stats[width + j], kl = 0.5 * (mu * mu + exp(logvar) - 1.0 - logvar);
        if (kl_dim) kl_dim[j] += kl;
        sum += kl;
    }
    return sum;
}
