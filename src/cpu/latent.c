/* Gaussian latent: noise drawn from its address in both passes and never stored. */
#include "base/philox.h"
#include "cpu/cpu.h"
#include "cpu/kernels.h"

enum { SENTENCES = 16, COLUMNS = 32 };

/* eps of dimension j: word j % 4 of block j / 4 of the sentence's sample. */
static void noise4(float eps[4], const struct call *c, size_t s, size_t block)
{
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    noise_normal4(eps, noise_block(key, ((const uint64_t *)c->in[c->in[3] ? 3 : 1])[s], c->draw, (uint32_t)block));
}

static void forward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t width = c->size.in[0][1] / 2, end = least(c->size.in[0][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *mu = (const float *)c->in[0] + s * 2 * width, *logvar = mu + width;
        float *z = (float *)c->out[0] + s * width, *kl = (float *)c->out[1] + s * width, eps[4] = {0};
        for (size_t j = 0; j < width; j++) {
            float half = cpu_exp(0.5f * logvar[j]);
            if (j % 4 == 0 && c->attr->i[0]) noise4(eps, c, s, j / 4);
            z[j] = mu[j] + half * eps[j % 4];
            kl[j] = 0.5f * (mu[j] * mu[j] + half * half - 1.0f - logvar[j]);
        }
    }
}

void CPU(latent)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[0][0], SENTENCES), forward, c);
}

static void backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t width = c->size.in[2][1] / 2, end = least(c->size.in[2][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *mu = (const float *)c->in[2] + s * 2 * width, *logvar = mu + width;
        const float *dz = c->in[0] ? (const float *)c->in[0] + s * width : NULL;
        const float *dkl = c->in[1] ? (const float *)c->in[1] + s * width : NULL;
        float *dmu = (float *)c->out[0] + s * 2 * width, *dlogvar = dmu + width, eps[4] = {0};
        for (size_t j = 0; j < width; j++) {
            float half = cpu_exp(0.5f * logvar[j]), a = 0, b = 0;
            if (j % 4 == 0 && c->attr->i[0]) noise4(eps, c, s, j / 4);
            if (dz) a = dz[j], b = dz[j] * eps[j % 4] * half * 0.5f;
            if (dkl) a += dkl[j] * mu[j], b += dkl[j] * 0.5f * (half * half - 1.0f);
            dmu[j] = c->add[0] ? dmu[j] + a : a;
            dlogvar[j] = c->add[0] ? dlogvar[j] + b : b;
        }
    }
}

void CPU(latent_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[2][0], SENTENCES), backward, c);
}

static void moments(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t rows = c->size.in[0][0], width = c->size.in[0][1], from = tile * COLUMNS, n = least(COLUMNS, width - from);
    float sum[COLUMNS] = {0}, square[COLUMNS] = {0}, *out = c->out[0];
    for (size_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[0] + r * width + from;
        SIMD for (size_t i = 0; i < n; i++)
        {
            sum[i] += x[i];
            square[i] += x[i] * x[i];
        }
    }
    for (size_t i = 0; i < n; i++) {
        out[2 * (from + i)] = sum[i];
        out[2 * (from + i) + 1] = square[i];
    }
}

void CPU(column_moments)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[0][1], COLUMNS), moments, c);
}
