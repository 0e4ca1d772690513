/* Maps of posteriors from the head's output to mu and logvar, normalization and running statistics: a few thousand
 * numbers, in double. */
#include "cpu/cpu.h"
#include "cpu/kernels.h"
#include "cpu/noise.h"
#include "ops/posterior.h"

#include <math.h>

enum { SENTENCES = 16, ROWS = 16, GROUPS = 4 };

/* ---- the maps: mu and logvar of a pair (a, b), and their derivatives by a and b ---- */

struct pair {
    double mu, logvar, dmu_a, dmu_b, dlogvar_b;
};

static struct pair committed(const struct attributes *a, double m, double b)
{
    double least = a->f[ATTR_POSTERIOR_LEAST], span = a->f[ATTR_POSTERIOR_MOST] - least;
    double sigmoid = 1 / (1 + exp(-b)), sigma = least + span * sigmoid, slope = span * sigmoid / (1 + exp(b));
    struct pair p = {.logvar = 2 * log(sigma), .dlogvar_b = 2 / sigma * slope};
    double square = 2 * a->f[ATTR_POSTERIOR_REAL] + 1 + p.logvar - sigma * sigma;
    p.mu = sqrt(fmax(0, square) + fmax(0, m));
    if (p.mu > 0) {
        p.dmu_a = m > 0 ? 0.5 / p.mu : 0;
        p.dmu_b = square > 0 ? (1 / sigma - sigma) * slope / p.mu : 0;
    }
    return p;
}

/* logvar = log stdplus(x)^2. Near 0, where its equation loses all digits, a Pade approximant; else Newton's method. */
static double slashed_logvar(double x)
{
    const double sqrt2 = sqrt(2), square = x * x;
    if (fabs(x) < 0.04)
        return 2 * (x / sqrt2 + square / 4 + square * x / (90 * sqrt2)) / (1 + 5 * x / (6 * sqrt2) + 17 * square / 180);
    double hypotenuse = sqrt(square + 4), r = 2 * log(x > 0 ? (x + hypotenuse) / 2 : 2 / (hypotenuse - x));
    for (int i = 0; i < 5; i++) r -= (exp(r) - r - 1 - square) / (exp(r) - 1);
    return r;
}

static struct pair slashed(double a, double b)
{
    const double sqrt2 = sqrt(2);
    double x = sqrt2 * b;
    struct pair p = {.mu = sqrt2 * a, .logvar = slashed_logvar(x), .dmu_a = sqrt2};
    p.dlogvar_b = x == 0 ? 2 : sqrt2 * 2 * x / expm1(p.logvar);
    return p;
}

/* `kept` is the factor of exp(logvar) that dropout leaves: 0 or 1 / (1 - p), or 1 without dropout. */
static struct pair floored(const struct attributes *a, double mu, double logvar, double kept)
{
    double variance = kept * exp(logvar), total_variance = a->f[ATTR_POSTERIOR_REAL] + variance;
    return (struct pair){.mu = mu, .logvar = log(total_variance), .dmu_a = 1, .dlogvar_b = variance / total_variance};
}

static struct pair map(const struct call *c, double a, double b, double kept)
{
    switch (c->attr->i[ATTR_POSTERIOR_MAP]) {
    case POSTERIOR_DELTA:
        return committed(c->attr, a, b);
    case POSTERIOR_SLASHED:
        return slashed(a, b);
    default:
        return floored(c->attr, a, b, kept);
    }
}

/* Returns the factor of dimension j's variance: 0 or 1 / (1 - p), or 1 without dropout. */
static double kept_of(const struct call *c, struct noise_key key, size_t s, size_t j)
{
    double p = c->attr->f[ATTR_POSTERIOR_DROP];
    const float *switches = c->in[IN_POSTERIOR_SWITCHES];
    if (p <= 0 || (switches && switches[c->attr->i[ATTR_POSTERIOR_SWITCH]] == 0)) return 1;
    uint32_t word = noise_bits(key, ((const uint64_t *)c->in[IN_POSTERIOR_SAMPLE])[s], c->draw, j);
    return word >= (uint32_t)fmin(p * 0x1p32, 0xffffffffp0) ? 1 / (1 - p) : 0;
}

static void maps(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct noise_key key = noise_key(c->seed, c->attr->purpose, c->step);
    size_t z = c->size.in[IN_POSTERIOR_HEAD][1] / 2,
           end = least(c->size.in[IN_POSTERIOR_HEAD][0], (tile + 1) * SENTENCES);
    const float *head = c->in[IN_POSTERIOR_HEAD], *dstats = c->in[IN_POSTERIOR_BACKWARD_DSTATS];
    float *out = c->out[OUT_POSTERIOR_STATS];
    for (size_t s = tile * SENTENCES; s < end; s++)
        for (size_t j = 0; j < z; j++) {
            size_t a = s * 2 * z + j, b = a + z;
            struct pair p = map(c, (double)head[a], (double)head[b], kept_of(c, key, s, j));
            if (!dstats) {
                out[a] = (float)p.mu;
                out[b] = (float)p.logvar;
                continue;
            }
            float da = (float)(dstats[a] * p.dmu_a), db = (float)(dstats[a] * p.dmu_b + dstats[b] * p.dlogvar_b);
            out[a] = c->add[OUT_POSTERIOR_BACKWARD_DHEAD] ? out[a] + da : da;
            out[b] = c->add[OUT_POSTERIOR_BACKWARD_DHEAD] ? out[b] + db : db;
        }
}

void CPU(posterior)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_POSTERIOR_HEAD][0], SENTENCES), maps, c);
}

void CPU(posterior_backward)(const struct call *c)
{
    cpu_run(c, tiles_of(c->size.in[IN_POSTERIOR_BACKWARD_HEAD][0], SENTENCES), maps, c);
}

/* ---- normalization ---- */

struct groups {
    size_t rows, width, groups, columns;
    double level, epsilon;
};

static struct groups groups_of(const struct call *c)
{
    return (struct groups){c->size.in[IN_NORMALIZE_X][0],
                           c->size.in[IN_NORMALIZE_X][1],
                           (size_t)c->attr->i[ATTR_NORMALIZE_GROUPS],
                           (size_t)c->attr->i[ATTR_NORMALIZE_COLUMNS],
                           c->attr->f[ATTR_NORMALIZE_LEVEL],
                           c->attr->f[ATTR_NORMALIZE_EPSILON]};
}

/* Returns 1 / sqrt(square), or 0 if square is 0, so that values that are 0 everywhere stay 0. */
static double rsqrt_or_zero(double square)
{
    return square > 0 ? 1 / sqrt(square) : 0;
}

static double row_square(const float *x, size_t columns)
{
    double square = 0;
    for (size_t i = 0; i < columns; i++) square += (double)x[i] * (double)x[i];
    return square;
}

static void copy_rest(const struct groups *g, float *y, const float *x, bool add)
{
    for (size_t i = g->columns; i < g->width; i++) y[i] = add ? y[i] + x[i] : x[i];
}

static void normalize_rows(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct groups g = groups_of(c);
    const float *gain = c->in[IN_NORMALIZE_GAIN], *bias = c->in[IN_NORMALIZE_BIAS];
    for (size_t s = tile * ROWS; s < least(g.rows, (tile + 1) * ROWS); s++) {
        const float *x = (const float *)c->in[IN_NORMALIZE_X] + s * g.width;
        float *y = (float *)c->out[OUT_NORMALIZE_Y] + s * g.width;
        double scale = g.level * rsqrt_or_zero(row_square(x, g.columns) + g.epsilon) * (gain ? (double)gain[0] : 1);
        for (size_t i = 0; i < g.columns; i++) y[i] = (float)(x[i] * scale + (bias ? (double)bias[0] : 0));
        copy_rest(&g, y, x, false);
    }
}

/* Normalizes group k over the rows. Writes the statistics in use, and the sums of x - c and (x - c)^2 that update the
 * running statistics. */
static void normalize_group(const struct call *c, const struct groups *g, size_t k)
{
    const float *x = c->in[IN_NORMALIZE_X], *running = c->in[IN_NORMALIZE_RUNNING], *gain = c->in[IN_NORMALIZE_GAIN],
                *bias = c->in[IN_NORMALIZE_BIAS];
    float *y = c->out[OUT_NORMALIZE_Y], *used = c->out[OUT_NORMALIZE_USED], *sums = c->out[OUT_NORMALIZE_SUMS];
    bool center = c->attr->i[ATTR_NORMALIZE_CENTER], batch = c->attr->i[ATTR_NORMALIZE_BATCH] && g->rows > 1;
    double running_mean = center ? (double)running[k] : 0, sum = 0, square = 0, central_square = 0;
    for (size_t s = 0; s < g->rows; s++)
        for (size_t i = k; i < g->columns; i += g->groups) {
            double t = (double)x[s * g->width + i] - running_mean;
            sum += t;
            square += t * t;
        }
    if (sums) {
        sums[1 + k] = (float)sum;
        sums[1 + g->groups + k] = (float)square;
    }
    double n = (double)g->rows, mean = center ? running_mean : 0, variance = (double)running[g->groups + k];
    if (batch) {
        if (center) mean = running_mean + sum / n;
        for (size_t s = 0; s < g->rows; s++)
            for (size_t i = k; i < g->columns; i += g->groups) {
                double t = (double)x[s * g->width + i] - mean;
                central_square += t * t;
            }
        variance = central_square / n;
    }
    double rstd = rsqrt_or_zero(variance + g->epsilon), scale = g->level * rstd * (gain ? (double)gain[k] : 1);
    used[1 + k] = (float)mean;
    used[1 + g->groups + k] = (float)rstd;
    for (size_t s = 0; s < g->rows; s++)
        for (size_t i = k; i < g->columns; i += g->groups)
            y[s * g->width + i] = (float)(((double)x[s * g->width + i] - mean) * scale + (bias ? (double)bias[k] : 0));
}

static void normalize_groups(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct groups g = groups_of(c);
    for (size_t k = tile * GROUPS; k < least(g.groups, (tile + 1) * GROUPS); k++) normalize_group(c, &g, k);
}

void CPU(normalize)(const struct call *c)
{
    struct groups g = groups_of(c);
    if (c->attr->i[ATTR_NORMALIZE_SCOPE] == NORMALIZE_ROWS) {
        cpu_run(c, tiles_of(g.rows, ROWS), normalize_rows, c);
        return;
    }
    float *used = c->out[OUT_NORMALIZE_USED], *sums = c->out[OUT_NORMALIZE_SUMS];
    cpu_run(c, tiles_of(g.groups, GROUPS), normalize_groups, c);
    for (size_t s = 0; s < g.rows; s++)
        copy_rest(&g, (float *)c->out[OUT_NORMALIZE_Y] + s * g.width,
                  (const float *)c->in[IN_NORMALIZE_X] + s * g.width, false);
    used[0] = c->attr->i[ATTR_NORMALIZE_BATCH] && g.rows > 1;
    if (sums) sums[0] = (float)g.rows;
}

/* ---- the gradient of normalization ---- */

static void rows_backward(const struct call *c, const struct groups *g)
{
    const float *gain = c->in[IN_NORMALIZE_BACKWARD_GAIN];
    float *dgain = c->out[OUT_NORMALIZE_BACKWARD_DGAIN], *dbias = c->out[OUT_NORMALIZE_BACKWARD_DBIAS];
    double sum_gain = 0, sum_bias = 0;
    for (size_t s = 0; s < g->rows; s++) {
        const float *x = (const float *)c->in[IN_NORMALIZE_BACKWARD_X] + s * g->width,
                    *dy = (const float *)c->in[IN_NORMALIZE_BACKWARD_DY] + s * g->width;
        float *dx =
            c->out[OUT_NORMALIZE_BACKWARD_DX] ? (float *)c->out[OUT_NORMALIZE_BACKWARD_DX] + s * g->width : NULL;
        double inv_norm = rsqrt_or_zero(row_square(x, g->columns) + g->epsilon), dot = 0,
               gain_value = gain ? (double)gain[0] : 1;
        for (size_t i = 0; i < g->columns; i++) {
            dot += (double)dy[i] * (double)x[i] * inv_norm;
            sum_bias += (double)dy[i];
        }
        sum_gain += dot;
        for (size_t i = 0; dx && i < g->columns; i++) {
            float d = (float)(g->level * gain_value * ((double)dy[i] - (double)x[i] * inv_norm * dot) * inv_norm);
            dx[i] = c->add[OUT_NORMALIZE_BACKWARD_DX] ? dx[i] + d : d;
        }
        if (dx) copy_rest(g, dx, dy, c->add[OUT_NORMALIZE_BACKWARD_DX]);
    }
    if (dgain) dgain[0] = (float)(g->level * sum_gain) + (c->add[OUT_NORMALIZE_BACKWARD_DGAIN] ? dgain[0] : 0);
    if (dbias) dbias[0] = (float)sum_bias + (c->add[OUT_NORMALIZE_BACKWARD_DBIAS] ? dbias[0] : 0);
}

static void group_backward(const struct call *c, const struct groups *g, size_t k)
{
    const float *x = c->in[IN_NORMALIZE_BACKWARD_X], *gain = c->in[IN_NORMALIZE_BACKWARD_GAIN],
                *dy = c->in[IN_NORMALIZE_BACKWARD_DY], *used = c->in[IN_NORMALIZE_BACKWARD_USED];
    float *dx = c->out[OUT_NORMALIZE_BACKWARD_DX], *dgain = c->out[OUT_NORMALIZE_BACKWARD_DGAIN],
          *dbias = c->out[OUT_NORMALIZE_BACKWARD_DBIAS];
    double mean = (double)used[1 + k], rstd = (double)used[1 + g->groups + k], sum_g = 0, sum_gx = 0,
           n = (double)g->rows;
    bool batch = used[0] != 0, center = c->attr->i[ATTR_NORMALIZE_CENTER];
    for (size_t s = 0; s < g->rows; s++)
        for (size_t i = k; i < g->columns; i += g->groups) {
            size_t at = s * g->width + i;
            sum_g += (double)dy[at];
            sum_gx += (double)dy[at] * ((double)x[at] - mean) * rstd;
        }
    double scale = g->level * rstd * (gain ? (double)gain[k] : 1);
    for (size_t s = 0; dx && s < g->rows; s++)
        for (size_t i = k; i < g->columns; i += g->groups) {
            size_t at = s * g->width + i;
            double t = (double)dy[at];
            if (batch) t -= (center ? sum_g / n : 0) + ((double)x[at] - mean) * rstd * sum_gx / n;
            float d = (float)(scale * t);
            dx[at] = c->add[OUT_NORMALIZE_BACKWARD_DX] ? dx[at] + d : d;
        }
    if (dgain) dgain[k] = (float)(g->level * sum_gx) + (c->add[OUT_NORMALIZE_BACKWARD_DGAIN] ? dgain[k] : 0);
    if (dbias) dbias[k] = (float)sum_g + (c->add[OUT_NORMALIZE_BACKWARD_DBIAS] ? dbias[k] : 0);
}

static void groups_backward(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    const struct call *c = argument;
    struct groups g = groups_of(c);
    for (size_t k = tile * GROUPS; k < least(g.groups, (tile + 1) * GROUPS); k++) group_backward(c, &g, k);
}

void CPU(normalize_backward)(const struct call *c)
{
    struct groups g = groups_of(c);
    if (c->attr->i[ATTR_NORMALIZE_SCOPE] == NORMALIZE_ROWS) {
        rows_backward(c, &g);
        return;
    }
    cpu_run(c, tiles_of(g.groups, GROUPS), groups_backward, c);
    for (size_t s = 0; c->out[OUT_NORMALIZE_BACKWARD_DX] && s < g.rows; s++)
        copy_rest(&g, (float *)c->out[OUT_NORMALIZE_BACKWARD_DX] + s * g.width,
                  (const float *)c->in[IN_NORMALIZE_BACKWARD_DY] + s * g.width, c->add[OUT_NORMALIZE_BACKWARD_DX]);
}

/* ---- running statistics ---- */

void CPU(running)(const struct call *c)
{
    const float *sums = c->in[IN_RUNNING_SUMS], *control = c->in[IN_RUNNING_CONTROL];
    float *running = c->out[OUT_RUNNING_STATISTICS];
    size_t groups = c->size.out[OUT_RUNNING_STATISTICS][1];
    double n = (double)sums[0], share = c->attr->f[ATTR_RUNNING_SHARE];
    if (control[0] == 0 || n < 2) return;
    for (size_t k = 0; k < groups; k++) {
        double mean = (double)sums[1 + k] / n, square = (double)sums[1 + groups + k] / n;
        if (c->attr->i[ATTR_RUNNING_CENTER]) {
            running[k] = (float)((double)running[k] + share * mean);
            square -= mean * mean;
        }
        running[groups + k] = (float)((1 - share) * (double)running[groups + k] + share * fmax(square, 0));
    }
}
