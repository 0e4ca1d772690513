/* Learned priors: the KL of two diagonal Gaussians, and the log density of a mixture. One tile sums over the sentences,
 * in double. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "ops/ops.h"

#include <math.h>

enum { SENTENCES = 16, COLUMNS = 32 };

static const float LOG_2PI = 1.83787706640934548f;

/* ---- the KL: sentences by tiles; columns by tiles for the prior's gradient ---- */

static void kl(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *mean = c->in[IN_GAUSSIAN_KL_PRIOR];
    size_t width = c->size.out[OUT_GAUSSIAN_KL_KL][1],
           end = least(c->size.in[IN_GAUSSIAN_KL_STATS][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *mu = (const float *)c->in[IN_GAUSSIAN_KL_STATS] + s * 2 * width, *logvar = mu + width,
                    *prior_logvar = mean + width;
        float *out = (float *)c->out[OUT_GAUSSIAN_KL_KL] + s * width;
        SIMD for (size_t j = 0; j < width; j++)
        {
            float t = mu[j] - mean[j];
            out[j] =
                0.5f * (prior_logvar[j] - logvar[j] + (cpu_exp(logvar[j]) + t * t) * cpu_exp(-prior_logvar[j]) - 1.0f);
        }
    }
}

void CPU(gaussian_kl)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_KL_STATS][0], SENTENCES), kl, c);
}

static void kl_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const float *mean = c->in[IN_GAUSSIAN_KL_BACKWARD_PRIOR];
    size_t width = c->size.in[IN_GAUSSIAN_KL_BACKWARD_PRIOR][0] / 2,
           end = least(c->size.in[IN_GAUSSIAN_KL_BACKWARD_STATS][0], (tile + 1) * SENTENCES);
    bool add = c->add[OUT_GAUSSIAN_KL_BACKWARD_DSTATS];
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *mu = (const float *)c->in[IN_GAUSSIAN_KL_BACKWARD_STATS] + s * 2 * width, *logvar = mu + width,
                    *prior_logvar = mean + width;
        const float *d = (const float *)c->in[IN_GAUSSIAN_KL_BACKWARD_DKL] + s * width;
        float *dmu = (float *)c->out[OUT_GAUSSIAN_KL_BACKWARD_DSTATS] + s * 2 * width, *dlogvar = dmu + width;
        SIMD for (size_t j = 0; j < width; j++)
        {
            float e = cpu_exp(-prior_logvar[j]), grad_mu = d[j] * (mu[j] - mean[j]) * e;
            float grad_logvar = 0.5f * d[j] * (cpu_exp(logvar[j]) * e - 1.0f);
            dmu[j] = add ? dmu[j] + grad_mu : grad_mu;
            dlogvar[j] = add ? dlogvar[j] + grad_logvar : grad_logvar;
        }
    }
}

static void put_sums(float *to, const double *sum, size_t n, bool add)
{
    for (size_t j = 0; j < n; j++) to[j] = add ? to[j] + (float)sum[j] : (float)sum[j];
}

static void kl_columns(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t rows = c->size.in[IN_GAUSSIAN_KL_BACKWARD_STATS][0],
           width = c->size.in[IN_GAUSSIAN_KL_BACKWARD_PRIOR][0] / 2, from = tile * COLUMNS,
           n = least(COLUMNS, width - from);
    double sum_mean[COLUMNS] = {0}, sum_logvar[COLUMNS] = {0};
    const float *mean = (const float *)c->in[IN_GAUSSIAN_KL_BACKWARD_PRIOR] + from, *prior_logvar = mean + width;
    for (size_t s = 0; s < rows; s++) {
        const float *mu = (const float *)c->in[IN_GAUSSIAN_KL_BACKWARD_STATS] + s * 2 * width + from,
                    *logvar = mu + width;
        const float *d = (const float *)c->in[IN_GAUSSIAN_KL_BACKWARD_DKL] + s * width + from;
        float grad_mean[COLUMNS], grad_logvar[COLUMNS];
        SIMD for (size_t j = 0; j < n; j++)
        {
            float t = mu[j] - mean[j], e = cpu_exp(-prior_logvar[j]);
            grad_mean[j] = -d[j] * t * e;
            grad_logvar[j] = 0.5f * d[j] * (1.0f - (cpu_exp(logvar[j]) + t * t) * e);
        }
        for (size_t j = 0; j < n; j++) {
            sum_mean[j] += (double)grad_mean[j];
            sum_logvar[j] += (double)grad_logvar[j];
        }
    }
    put_sums((float *)c->out[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR] + from, sum_mean, n,
             c->add[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR]);
    put_sums((float *)c->out[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR] + width + from, sum_logvar, n,
             c->add[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR]);
}

void CPU(gaussian_kl_backward)(const struct call *c)
{
    if (c->out[OUT_GAUSSIAN_KL_BACKWARD_DSTATS])
        cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_KL_BACKWARD_STATS][0], SENTENCES), kl_rows, c);
    if (c->out[OUT_GAUSSIAN_KL_BACKWARD_DPRIOR])
        cpu_run(c, tiles_of(c->size.in[IN_GAUSSIAN_KL_BACKWARD_PRIOR][0] / 2, COLUMNS), kl_columns, c);
}

/* ---- a mixture ---- */

struct mixture {
    size_t width, count;
    const float *mu, *logvar; /* mu and logvar of the first component */
    size_t stride;            /* floats from one component to the next */
    const float *logits;      /* null: equal weights */
};

static struct mixture mixture_of(const struct call *c)
{
    size_t width = c->size.in[IN_MIXTURE_LOG_DENSITY_Z][1], count = (size_t)c->attr->i[ATTR_COMPONENTS];
    bool rows = c->size.in[IN_MIXTURE_LOG_DENSITY_COMPONENTS][1] == 2 * width;
    const float *mu = c->in[IN_MIXTURE_LOG_DENSITY_COMPONENTS];
    return (struct mixture){width,
                            count,
                            mu,
                            mu + (rows ? width : count * width),
                            rows ? 2 * width : width,
                            c->in[IN_MIXTURE_LOG_DENSITY_LOGITS]};
}

/* Returns log sum_k exp(logits_k). */
static double log_total(const struct mixture *m)
{
    double max_logit = -INFINITY, sum = 0;
    for (size_t k = 0; k < m->count && m->logits; k++)
        max_logit = m->logits[k] > max_logit ? (double)m->logits[k] : max_logit;
    for (size_t k = 0; k < m->count && m->logits; k++) sum += exp((double)m->logits[k] - max_logit);
    return m->logits ? max_logit + log(sum) : log((double)m->count);
}

static double component_log_density(const struct mixture *m, const float *z, size_t k)
{
    double sum = 0;
    for (size_t from = 0; from < m->width; from += COLUMNS) {
        const float *mu = m->mu + k * m->stride + from, *logvar = m->logvar + k * m->stride + from;
        float part[COLUMNS];
        size_t n = least(COLUMNS, m->width - from);
        SIMD for (size_t j = 0; j < n; j++)
        {
            float t = z[from + j] - mu[j];
            part[j] = LOG_2PI + logvar[j] + t * t * cpu_exp(-logvar[j]);
        }
        for (size_t j = 0; j < n; j++) sum += (double)part[j];
    }
    return -0.5 * sum;
}

void CPU(mixture_log_density_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)shared;
    *per_worker = (size_t)c->attr->i[ATTR_COMPONENTS] * sizeof(double);
}

static void mixture(void *argument, size_t tile, size_t worker)
{
    const struct call *c = argument;
    const struct mixture m = mixture_of(c);
    double logits_lse = log_total(&m), *l = (double *)cpu_scratch(c, worker);
    size_t end = least(c->size.in[IN_MIXTURE_LOG_DENSITY_Z][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++) {
        const float *z = (const float *)c->in[IN_MIXTURE_LOG_DENSITY_Z] + s * m.width;
        float *shares = (float *)c->out[OUT_MIXTURE_LOG_DENSITY_SHARES] + s * m.count;
        double max_l = -INFINITY, sum = 0;
        for (size_t k = 0; k < m.count; k++) {
            l[k] = component_log_density(&m, z, k) + (m.logits ? (double)m.logits[k] : 0) - logits_lse;
            max_l = l[k] > max_l ? l[k] : max_l;
        }
        for (size_t k = 0; k < m.count; k++) sum += l[k] = exp(l[k] - max_l);
        for (size_t k = 0; k < m.count; k++) shares[k] = (float)(l[k] / sum);
        ((float *)c->out[OUT_MIXTURE_LOG_DENSITY_Y])[s] = (float)(c->attr->f[ATTR_SIGN] * (max_l + log(sum)));
    }
}

void CPU(mixture_log_density)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_MIXTURE_LOG_DENSITY_Z][0], SENTENCES), mixture, c);
}

static float dout_of(const struct call *c, size_t s)
{
    return (float)c->attr->f[ATTR_SIGN] * ((const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_DY])[s];
}

static void mixture_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const struct mixture m = mixture_of(c);
    size_t end = least(c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0], (tile + 1) * SENTENCES);
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t from = 0; from < m.width; from += COLUMNS) {
            const float *z = (const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z] + s * m.width + from;
            const float *shares = (const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES] + s * m.count;
            float *dz = (float *)c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ] + s * m.width + from, sum[COLUMNS] = {0},
                  d = dout_of(c, s);
            size_t n = least(COLUMNS, m.width - from);
            for (size_t k = 0; k < m.count; k++) {
                const float *mu = m.mu + k * m.stride + from, *logvar = m.logvar + k * m.stride + from;
                SIMD for (size_t j = 0; j < n; j++) sum[j] -= shares[k] * (z[j] - mu[j]) * cpu_exp(-logvar[j]);
            }
            for (size_t j = 0; j < n; j++)
                dz[j] = c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ] ? dz[j] + d * sum[j] : d * sum[j];
        }
}

/* A tile is some columns of one component. */
static void mixture_columns(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const struct mixture m = mixture_of(c);
    size_t blocks = tiles_of(m.width, COLUMNS), k = tile / blocks, from = tile % blocks * COLUMNS;
    size_t n = least(COLUMNS, m.width - from), at = k * m.stride + from;
    const float *mu = m.mu + at, *logvar = m.logvar + at;
    double sum_mu[COLUMNS] = {0}, sum_logvar[COLUMNS] = {0};
    float e[COLUMNS], *dmu = (float *)c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS] + at,
                      *dlogvar = dmu + (m.logvar - m.mu);
    SIMD for (size_t j = 0; j < n; j++) e[j] = cpu_exp(-logvar[j]);
    for (size_t s = 0; s < c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0]; s++) {
        const float *z = (const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z] + s * m.width + from;
        float d = dout_of(c, s) * ((const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES])[s * m.count + k],
              grad_mu[COLUMNS], grad_logvar[COLUMNS];
        SIMD for (size_t j = 0; j < n; j++)
        {
            float t = z[j] - mu[j];
            grad_mu[j] = d * t * e[j];
            grad_logvar[j] = 0.5f * d * (t * t * e[j] - 1.0f);
        }
        for (size_t j = 0; j < n; j++) {
            sum_mu[j] += (double)grad_mu[j];
            sum_logvar[j] += (double)grad_logvar[j];
        }
    }
    put_sums(dmu, sum_mu, n, c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS]);
    put_sums(dlogvar, sum_logvar, n, c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS]);
}

static void mixture_logits(void *argument, size_t k, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    const struct mixture m = mixture_of(c);
    double sum = 0, weight = exp((double)m.logits[k] - log_total(&m));
    for (size_t s = 0; s < c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0]; s++)
        sum += (double)dout_of(c, s) *
               ((double)((const float *)c->in[IN_MIXTURE_LOG_DENSITY_BACKWARD_SHARES])[s * m.count + k] - weight);
    put_sums((float *)c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS] + k, &sum, 1,
             c->add[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS]);
}

void CPU(mixture_log_density_backward)(const struct call *c)
{
    const struct mixture m = mixture_of(c);
    if (c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DZ])
        cpu_run(c, tiles_of(c->size.in[IN_MIXTURE_LOG_DENSITY_BACKWARD_Z][0], SENTENCES), mixture_rows, c);
    if (c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DCOMPONENTS])
        cpu_run(c, m.count * tiles_of(m.width, COLUMNS), mixture_columns, c);
    if (c->out[OUT_MIXTURE_LOG_DENSITY_BACKWARD_DLOGITS]) cpu_run(c, m.count, mixture_logits, c);
}
