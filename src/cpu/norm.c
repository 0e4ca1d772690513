/* Norm with fused dropout and residual: s = dropout(x) + residual, y = (s - mean) / deviation * gamma (+ beta). The
 * gradients of gamma and beta are summed per block of rows, then over the blocks in order. */
#include "cpu/cpu.h"
#include "cpu/dropping.h"
#include "cpu/kernels.h"
#include "ops/ops.h"

#include <math.h>

enum { ROWS = 32, COLUMNS = DROPPING_COLUMNS };

/* Returns the sum of (x - mean)^2. */
static inline float squares(const float *x, size_t n, float mean)
{
    vec sum = {0};
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        vec centered = load(x + i) - mean;
        sum += centered * centered;
    }
    float s = cpu_total(sum);
    for (; i < n; i++) s += (x[i] - mean) * (x[i] - mean);
    return s;
}

static void forward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    bool rms = c->attr->i[ATTR_NORM_RMS];
    bool drops = c->attr->f[ATTR_DROPOUT] > 0;
    struct dropping_rows dropping = drops ? dropping_of(c, IN_NORM_SENTENCE) : (struct dropping_rows){0};
    const float *residual = c->in[IN_NORM_RESIDUAL], *gamma = c->in[IN_NORM_GAMMA], *beta = c->in[IN_NORM_BETA];
    float *stats = c->out[OUT_NORM_STATS];
    size_t d = c->size.in[IN_NORM_X][1], end = least(c->size.in[IN_NORM_X][0], (tile + 1) * ROWS);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *s = (const float *)c->in[IN_NORM_X] + n * d;
        float *y = (float *)c->out[OUT_NORM_Y] + n * d;
        if (residual) {
            const float *r = residual + n * d;
            float *sum = (float *)c->out[OUT_NORM_SUM] + n * d;
            if (drops) {
                for (size_t i = 0; i < d; i += DROPPING_COLUMNS)
                    dropping_columns(sum + i, s + i, &dropping, n, i, least(d - i, DROPPING_COLUMNS), d);
                s = sum;
            }
            SIMD for (size_t i = 0; i < d; i++) sum[i] = s[i] + r[i];
            s = sum;
        }
        float mean = 0;
        if (!rms) mean = cpu_sum(s, d) / (float)d;
        float square = squares(s, d, mean);
        float rstd = 1.0f / sqrtf(square / (float)d + 1e-5f);
        stats[2 * n] = mean;
        stats[2 * n + 1] = rstd;
        if (beta) {
            SIMD for (size_t i = 0; i < d; i++) y[i] = (s[i] - mean) * rstd * gamma[i] + beta[i];
        } else {
            SIMD for (size_t i = 0; i < d; i++) y[i] = (s[i] - mean) * rstd * gamma[i];
        }
    }
}

void CPU(norm)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_NORM_X][0], ROWS), forward, c);
}

void CPU(norm_backward_workspace)(const struct call *c, size_t *shared, size_t *per_worker)
{
    (void)per_worker;
    *shared =
        tiles_of(c->size.in[IN_NORM_BACKWARD_SUM][0], ROWS) * 2 * c->size.in[IN_NORM_BACKWARD_SUM][1] * sizeof(float);
}

/* Prefetches the next row's columns for its first pass. */
static inline void fetch_columns(const float *dy, const float *s)
{
    for (size_t i = 0; i < COLUMNS; i += 16) {
        __builtin_prefetch(dy + i);
        __builtin_prefetch(s + i);
    }
}

static void backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    bool rms = c->attr->i[ATTR_NORM_RMS];
    bool drops = c->attr->f[ATTR_DROPOUT] > 0 && c->out[OUT_NORM_BACKWARD_DX];
    struct dropping_rows dropping = drops ? dropping_of(c, IN_NORM_BACKWARD_SENTENCE) : (struct dropping_rows){0};
    const float *gamma = c->in[IN_NORM_BACKWARD_GAMMA], *stats = c->in[IN_NORM_BACKWARD_STATS];
    size_t d = c->size.in[IN_NORM_BACKWARD_SUM][1], end = least(c->size.in[IN_NORM_BACKWARD_SUM][0], (tile + 1) * ROWS);
    float *dgamma = (float *)c->scratch + tile * 2 * d, *dbeta = dgamma + d;
    memset(dgamma, 0, 2 * d * sizeof *dgamma);
    for (size_t n = tile * ROWS; n < end; n++) {
        const float *dy = (const float *)c->in[IN_NORM_BACKWARD_DY] + n * d,
                    *s = (const float *)c->in[IN_NORM_BACKWARD_SUM] + n * d;
        float mean = stats[2 * n], rstd = stats[2 * n + 1], mean_gx = 0, mean_g = 0;
        for (size_t i = 0; i < d; i += COLUMNS) {
            size_t stop = least(d, i + COLUMNS);
            SIMD_SUM(mean_gx, mean_g) for (size_t j = i; j < stop; j++)
            {
                float x_hat = (s[j] - mean) * rstd, g = dy[j] * gamma[j];
                mean_gx += g * x_hat;
                mean_g += g;
                dgamma[j] += dy[j] * x_hat;
                dbeta[j] += dy[j];
            }
        }
        if (!c->out[OUT_NORM_BACKWARD_DRESIDUAL] && !drops) continue;
        float *ds = c->out[OUT_NORM_BACKWARD_DRESIDUAL] ? (float *)c->out[OUT_NORM_BACKWARD_DRESIDUAL] + n * d : NULL;
        const float *dsum = c->in[IN_NORM_BACKWARD_DSUM] ? (const float *)c->in[IN_NORM_BACKWARD_DSUM] + n * d : NULL;
        mean_gx /= (float)d;
        mean_g = rms ? 0 : mean_g / (float)d;
        bool add = c->add[OUT_NORM_BACKWARD_DRESIDUAL];
        for (size_t i = 0; i < d; i += COLUMNS) {
            size_t count = least(d - i, COLUMNS);
            float v[COLUMNS];
            SIMD for (size_t j = 0; j < count; j++)
            {
                float x_hat = (s[i + j] - mean) * rstd;
                v[j] = rstd * (dy[i + j] * gamma[i + j] - mean_g - x_hat * mean_gx);
                if (dsum) v[j] += dsum[i + j];
            }
            for (size_t j = 0; ds && j < count; j++) ds[i + j] = add ? ds[i + j] + v[j] : v[j];
            if (!drops) continue;
            if (n + 1 < end) fetch_columns(dy + d + i, s + d + i); /* memory would idle while the noise is drawn */
            dropping_columns(v, v, &dropping, n, i, count, d);
            float *dx = (float *)c->out[OUT_NORM_BACKWARD_DX] + n * d + i;
            for (size_t j = 0; j < count; j++) dx[j] = c->add[OUT_NORM_BACKWARD_DX] ? dx[j] + v[j] : v[j];
        }
    }
}

static void combine(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    size_t d = c->size.in[IN_NORM_BACKWARD_SUM][1], blocks = tiles_of(c->size.in[IN_NORM_BACKWARD_SUM][0], ROWS);
    size_t end = least(d, (tile + 1) * COLUMNS);
    for (unsigned which = 0; which < 2; which++) {
        float *out = c->out[1 + which];
        if (!out) continue;
        for (size_t j = tile * COLUMNS; j < end; j++) {
            float sum = 0;
            for (size_t b = 0; b < blocks; b++) sum += ((const float *)c->scratch)[(2 * b + which) * d + j];
            out[j] = c->add[1 + which] ? out[j] + sum : sum;
        }
    }
}

void CPU(norm_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_NORM_BACKWARD_SUM][0], ROWS), backward, c);
    cpu_run(c, tiles_of(c->size.in[IN_NORM_BACKWARD_SUM][1], COLUMNS), combine, c);
}
