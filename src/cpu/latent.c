/* Gaussian latent: noise drawn from its address in both passes and never stored. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"

enum { SENTENCES = 16, COLUMNS = 4 * NOISE_BLOCKS };

/* eps of `n` dimensions from j on, n at most COLUMNS, j in whole ones: word j % 4 of block j / 4 of the sentence's
 * sample, and so on; zeros where none is asked for. */
static void draw(float eps[COLUMNS], const struct call *c, struct noise_key key, size_t s, size_t j, size_t n)
{
    uint32_t word[COLUMNS];
    uint64_t sample = ((const uint64_t *)c->in[c->in[3] ? 3 : 1])[s];
    if (!c->attr->i[0]) {
        memset(eps, 0, COLUMNS * sizeof *eps);
        return;
    }
    if (n <= COLUMNS / 2) {
        noise_blocks(word, NOISE_BLOCKS / 2, key, sample, c->draw, (uint32_t)(j / 4));
        noise_normals(eps, word, NOISE_BLOCKS / 2);
    } else {
        noise_blocks(word, NOISE_BLOCKS, key, sample, c->draw, (uint32_t)(j / 4));
        noise_normals(eps, word, NOISE_BLOCKS);
    }
}

static void forward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    size_t width = c->size.in[0][1] / 2, end = least(c->size.in[0][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < width; from += COLUMNS) {
            const float *mu = (const float *)c->in[0] + s * 2 * width + from, *logvar = mu + width;
            float *z = (float *)c->out[0] + s * width + from, *kl = (float *)c->out[1] + s * width + from, eps[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            draw(eps, c, key, s, from, n);
            SIMD for (size_t j = 0; j < n; j++)
            {
                float half = cpu_exp(0.5f * logvar[j]);
                z[j] = mu[j] + half * eps[j];
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
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    const float zeros[COLUMNS] = {0};
    size_t width = c->size.in[2][1] / 2, end = least(c->size.in[2][0], (tile + 1) * SENTENCES);
    bool add = c->add[0];
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < width; from += COLUMNS) {
            const float *mu = (const float *)c->in[2] + s * 2 * width + from, *logvar = mu + width;
            const float *dz = c->in[0] ? (const float *)c->in[0] + s * width + from : zeros;
            const float *dkl = c->in[1] ? (const float *)c->in[1] + s * width + from : zeros;
            float *dmu = (float *)c->out[0] + s * 2 * width + from, *dlogvar = dmu + width;
            float eps[COLUMNS], a[COLUMNS], b[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            draw(eps, c, key, s, from, n);
            SIMD for (size_t j = 0; j < n; j++)
            {
                float half = cpu_exp(0.5f * logvar[j]);
                a[j] = dz[j] + dkl[j] * mu[j];
                b[j] = 0.5f * (dz[j] * eps[j] * half + dkl[j] * (half * half - 1.0f));
            }
            for (size_t j = 0; j < n; j++) {
                dmu[j] = add ? dmu[j] + a[j] : a[j];
                dlogvar[j] = add ? dlogvar[j] + b[j] : b[j];
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
