/* Gaussian latent z = mu + exp(logvar / 2) eps with its KL, log densities, and the spread of mu. Both passes draw the
 * noise from its address, and do not store it. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"
#include "ops/ops.h"

enum { SENTENCES = 16, COLUMNS = 4 * NOISE_BLOCKS };

/* Draws eps for dimensions j .. j + n, n at most COLUMNS, j a multiple of COLUMNS. Dimension j takes word j % 4 of
 * block j / 4 of the sentence's sample. Without sampling, eps is zeros. */
static void draw_eps(float eps[COLUMNS], const struct call *c, struct noise_key key, size_t s, size_t j, size_t n)
{
    uint32_t word[COLUMNS];
    uint64_t sample =
        ((const uint64_t *)c->in[c->in[IN_LATENT_BACKWARD_SAMPLE] ? IN_LATENT_BACKWARD_SAMPLE : IN_LATENT_SAMPLE])[s];
    if (!c->attr->i[ATTR_LATENT_SAMPLE]) {
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
    size_t width = c->size.in[IN_LATENT_STATS][1] / 2,
           end = least(c->size.in[IN_LATENT_STATS][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < width; from += COLUMNS) {
            const float *mu = (const float *)c->in[IN_LATENT_STATS] + s * 2 * width + from, *logvar = mu + width;
            float *z = (float *)c->out[OUT_LATENT_Z] + s * width + from,
                  *kl = (float *)c->out[OUT_LATENT_KL] + s * width + from, eps[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            draw_eps(eps, c, key, s, from, n);
            SIMD for (size_t j = 0; j < n; j++)
            {
                float sigma = cpu_exp(0.5f * logvar[j]);
                z[j] = mu[j] + sigma * eps[j];
                kl[j] = 0.5f * (mu[j] * mu[j] + sigma * sigma - 1.0f - logvar[j]);
            }
        }
}

void CPU(latent)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_LATENT_STATS][0], SENTENCES), forward, c);
}

static void backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    const float zeros[COLUMNS] = {0};
    size_t width = c->size.in[IN_LATENT_BACKWARD_STATS][1] / 2,
           end = least(c->size.in[IN_LATENT_BACKWARD_STATS][0], (tile + 1) * SENTENCES);
    bool add = c->add[OUT_LATENT_BACKWARD_DSTATS];
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < width; from += COLUMNS) {
            const float *mu = (const float *)c->in[IN_LATENT_BACKWARD_STATS] + s * 2 * width + from,
                        *logvar = mu + width;
            const float *dz =
                c->in[IN_LATENT_BACKWARD_DZ] ? (const float *)c->in[IN_LATENT_BACKWARD_DZ] + s * width + from : zeros;
            const float *dkl =
                c->in[IN_LATENT_BACKWARD_DKL] ? (const float *)c->in[IN_LATENT_BACKWARD_DKL] + s * width + from : zeros;
            float *dmu = (float *)c->out[OUT_LATENT_BACKWARD_DSTATS] + s * 2 * width + from, *dlogvar = dmu + width;
            float eps[COLUMNS], grad_mu[COLUMNS], grad_logvar[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            draw_eps(eps, c, key, s, from, n);
            SIMD for (size_t j = 0; j < n; j++)
            {
                float sigma = cpu_exp(0.5f * logvar[j]);
                grad_mu[j] = dz[j] + dkl[j] * mu[j];
                grad_logvar[j] = 0.5f * (dz[j] * eps[j] * sigma + dkl[j] * (sigma * sigma - 1.0f));
            }
            for (size_t j = 0; j < n; j++) {
                dmu[j] = add ? dmu[j] + grad_mu[j] : grad_mu[j];
                dlogvar[j] = add ? dlogvar[j] + grad_logvar[j] : grad_logvar[j];
            }
        }
}

void CPU(latent_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_LATENT_BACKWARD_STATS][0], SENTENCES), backward, c);
}

static void moments(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t rows = c->size.in[IN_COLUMN_MOMENTS_X][0], width = c->size.in[IN_COLUMN_MOMENTS_X][1], from = tile * COLUMNS,
           n = least(COLUMNS, width - from);
    float sum[COLUMNS] = {0}, square[COLUMNS] = {0}, *out = c->out[OUT_COLUMN_MOMENTS_Y];
    for (size_t r = 0; r < rows; r++) {
        const float *x = (const float *)c->in[IN_COLUMN_MOMENTS_X] + r * width + from;
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
    cpu_run(c, tiles_of(c->size.in[IN_COLUMN_MOMENTS_X][1], COLUMNS), moments, c);
}

/* ---- log density: sentences by tiles; columns by tiles if one row of statistics serves all sentences ---- */

static const float LOG_2PI = 1.83787706640934548f;

/* Returns mu of row s, from a column on; logvar lies `width` floats behind mu. */
static const float *stats_of(const struct call *c, size_t s, size_t from)
{
    return (const float *)c->in[IN_GAUSSIAN_LOG_DENSITY_STATS] +
           (c->size.in[IN_GAUSSIAN_LOG_DENSITY_STATS][1] ? s * c->size.in[IN_GAUSSIAN_LOG_DENSITY_STATS][1] : 0) + from;
}

static void density(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][1],
           end = least(c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        double sum = 0;
        for (size_t from = 0; from < width; from += COLUMNS) {
            const float *z = (const float *)c->in[IN_GAUSSIAN_LOG_DENSITY_Z] + s * width + from,
                        *mu = stats_of(c, s, from);
            const float *logvar = mu + width;
            float part[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            SIMD for (size_t j = 0; j < n; j++)
            {
                float t = z[j] - mu[j];
                part[j] = LOG_2PI + logvar[j] + t * t * cpu_exp(-logvar[j]);
            }
            for (size_t j = 0; j < n; j++) sum += (double)part[j];
        }
        ((float *)c->out[OUT_GAUSSIAN_LOG_DENSITY_Y])[s] = (float)(-0.5 * c->attr->f[ATTR_SIGN] * sum);
    }
}

void CPU(gaussian_log_density)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_LOG_DENSITY_Z][0], SENTENCES), density, c);
}

/* Writes the derivatives of n columns of row s, from column `from` on: a by mu, b by logvar. The derivative by z is
 * -a. */
static void density_gradient(float grad_mu[COLUMNS], float grad_logvar[COLUMNS], const struct call *c, size_t s,
                             size_t from, size_t n)
{
    size_t width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1];
    const float *z = (const float *)c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z] + s * width + from,
                *mu = stats_of(c, s, from), *logvar = mu + width;
    float d = (float)c->attr->f[ATTR_SIGN] * ((const float *)c->in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_DY])[s];
    SIMD for (size_t j = 0; j < n; j++)
    {
        float t = z[j] - mu[j], e = cpu_exp(-logvar[j]);
        grad_mu[j] = d * t * e;
        grad_logvar[j] = 0.5f * d * (t * t * e - 1.0f);
    }
}

static void density_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1],
           end = least(c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][0], (tile + 1) * SENTENCES);
    bool each =
        c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] && c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS][1];
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < width; from += COLUMNS) {
            float grad_mu[COLUMNS], grad_logvar[COLUMNS];
            size_t n = least(COLUMNS, width - from);
            float *dz = c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ]
                            ? (float *)c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ] + s * width + from
                            : NULL;
            float *dmu = each ? (float *)c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] + s * 2 * width + from : NULL;
            density_gradient(grad_mu, grad_logvar, c, s, from, n);
            for (size_t j = 0; dz && j < n; j++)
                dz[j] = c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ] ? dz[j] - grad_mu[j] : -grad_mu[j];
            for (size_t j = 0; dmu && j < n; j++) {
                dmu[j] = c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] ? dmu[j] + grad_mu[j] : grad_mu[j];
                dmu[width + j] =
                    c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] ? dmu[width + j] + grad_logvar[j] : grad_logvar[j];
            }
        }
}

static void density_columns(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t rows = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][0],
           width = c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1], from = tile * COLUMNS,
           n = least(COLUMNS, width - from);
    double sum_mu[COLUMNS] = {0}, sum_logvar[COLUMNS] = {0};
    float *dmu = (float *)c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] + from, *dlogvar = dmu + width;
    for (size_t s = 0; s < rows; s++) {
        float grad_mu[COLUMNS], grad_logvar[COLUMNS];
        density_gradient(grad_mu, grad_logvar, c, s, from, n);
        for (size_t j = 0; j < n; j++) {
            sum_mu[j] += (double)grad_mu[j];
            sum_logvar[j] += (double)grad_logvar[j];
        }
    }
    for (size_t j = 0; j < n; j++) {
        dmu[j] = c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] ? dmu[j] + (float)sum_mu[j] : (float)sum_mu[j];
        dlogvar[j] =
            c->add[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] ? dlogvar[j] + (float)sum_logvar[j] : (float)sum_logvar[j];
    }
}

void CPU(gaussian_log_density_backward)(const struct call *c)
{
    bool one =
        c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DSTATS] && !c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_STATS][1];
    if (c->out[OUT_GAUSSIAN_LOG_DENSITY_BACKWARD_DZ] || !one)
        cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][0], SENTENCES), density_rows, c);
    if (one) cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_LOG_DENSITY_BACKWARD_Z][1], COLUMNS), density_columns, c);
}

/* ---- the spread of mu: as few numbers as the ELBO, so one thread with double sums ---- */

/* Writes the means of n columns and returns the sum of squared distances from them. */
static double spread(float *mean, const float *mu, size_t sentences, size_t stride, size_t n)
{
    double sum[COLUMNS] = {0}, square[COLUMNS] = {0}, total = 0;
    for (size_t s = 0; s < sentences; s++)
        for (size_t j = 0; j < n; j++) sum[j] += (double)mu[s * stride + j];
    for (size_t j = 0; j < n; j++) sum[j] = sentences ? sum[j] / (double)sentences : 0;
    for (size_t s = 0; s < sentences; s++)
        for (size_t j = 0; j < n; j++) {
            double t = (double)mu[s * stride + j] - sum[j];
            square[j] += t * t;
        }
    for (size_t j = 0; j < n; j++) {
        mean[j] = (float)sum[j];
        total += square[j];
    }
    return total;
}

void CPU(spread_hinge)(const struct call *c)
{
    size_t sentences = c->size.in[IN_SPREAD_HINGE_STATS][0], stride = c->size.in[IN_SPREAD_HINGE_STATS][1],
           width = stride / 2;
    float *out = c->out[OUT_SPREAD_HINGE_Y], *mean = c->out[OUT_SPREAD_HINGE_SPREAD];
    double sum = 0, n = (double)sentences;
    for (size_t from = 0; from < width; from += COLUMNS)
        sum += spread(mean + from, (const float *)c->in[IN_SPREAD_HINGE_STATS] + from, sentences, stride,
                      least(COLUMNS, width - from));
    double hinge = sentences ? c->attr->f[ATTR_MARGIN] - sum / (2 * n) : 0;
    out[0] = hinge > 0 ? (float)(n * hinge) : 0;
    mean[width] = hinge > 0;
}

static void spread_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *dout = c->in[IN_SPREAD_HINGE_BACKWARD_DY], *mean = c->in[IN_SPREAD_HINGE_BACKWARD_SPREAD];
    size_t stride = c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][1], width = stride / 2,
           end = least(c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][0], (tile + 1) * SENTENCES);
    float d = mean[width] > 0 ? dout[0] : 0;
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *mu = (const float *)c->in[IN_SPREAD_HINGE_BACKWARD_STATS] + s * stride;
        float *dmu = (float *)c->out[OUT_SPREAD_HINGE_BACKWARD_DSTATS] + s * stride;
        for (size_t j = 0; j < width; j++) {
            float gradient = -d * (mu[j] - mean[j]);
            dmu[j] = c->add[OUT_SPREAD_HINGE_BACKWARD_DSTATS] ? dmu[j] + gradient : gradient;
        }
        if (!c->add[OUT_SPREAD_HINGE_BACKWARD_DSTATS]) memset(dmu + width, 0, width * sizeof *dmu);
    }
}

void CPU(spread_hinge_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_SPREAD_HINGE_BACKWARD_STATS][0], SENTENCES), spread_rows, c);
}
