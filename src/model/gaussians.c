/* Mixtures of Gaussians on the host: factors and their inverses, log densities by log-sum-exp, and sampling. */
#include "model/gaussians.h"
#include "base/checked.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LOG_2PI = 1.8378770664093454836;

/* Returns the elements of one factor. */
static size_t factor_size(const struct gaussians *g)
{
    return g->full ? g->width * g->width : g->width;
}

elbo_status gaussians_allocate(struct gaussians *g, size_t count, size_t width, bool full, elbo_error *error)
{
    *g = (struct gaussians){.count = count, .width = width, .full = full};
    size_t each = width, all, bytes;
    bool fits = (!full || checked_mul(&each, width, width)) && checked_mul(&all, each, count) &&
                checked_mul(&bytes, all, sizeof *g->factor);
    if (fits) {
        g->log_weight = calloc(count, sizeof *g->log_weight);
        g->mean = calloc(count * width, sizeof *g->mean);
        g->factor = calloc(all, sizeof *g->factor);
        g->inverse = calloc(all, sizeof *g->inverse);
        g->constant = calloc(count, sizeof *g->constant);
    }
    if (g->log_weight && g->mean && g->factor && g->inverse && g->constant) return ELBO_OK;
    return elbo_fail(error, ELBO_MEMORY, "no memory for %zu Gaussians of %zu dimensions", count, width);
}

void gaussians_free(struct gaussians *g)
{
    free(g->log_weight);
    free(g->mean);
    free(g->factor);
    free(g->inverse);
    free(g->constant);
    *g = (struct gaussians){0};
}

/* Inverts a lower triangle, one column at a time. */
static void invert(double *inverse, const double *l, size_t n)
{
    for (size_t c = 0; c < n; c++)
        for (size_t i = c; i < n; i++) {
            double sum = i == c;
            for (size_t j = c; j < i; j++) sum -= l[i * n + j] * inverse[j * n + c];
            inverse[i * n + c] = sum / l[i * n + i];
        }
}

bool gaussians_finish(struct gaussians *g)
{
    size_t n = g->width;
    for (size_t k = 0; k < g->count; k++) {
        const double *l = g->factor + k * factor_size(g);
        double *inverse = g->inverse + k * factor_size(g);
        g->constant[k] = g->log_weight[k] - 0.5 * (double)n * LOG_2PI;
        for (size_t j = 0; j < n; j++) {
            double diagonal = l[g->full ? j * n + j : j];
            if (!(diagonal > 0) || !isfinite(diagonal)) return false;
            g->constant[k] -= log(diagonal);
            if (!g->full) inverse[j] = 1 / diagonal;
        }
        if (g->full) invert(inverse, l, n);
    }
    return true;
}

/* Returns |L^-1 (z - mean)|^2 of component k. */
static double distance(const struct gaussians *g, size_t k, const float *z)
{
    const double *mean = g->mean + k * g->width, *inverse = g->inverse + k * factor_size(g);
    double square = 0;
    for (size_t i = 0; i < g->width; i++) {
        double y = 0;
        if (g->full)
            for (size_t j = 0; j <= i; j++) y += inverse[i * g->width + j] * ((double)z[j] - mean[j]);
        else
            y = inverse[i] * ((double)z[i] - mean[i]);
        square += y * y;
    }
    return square;
}

double gaussians_component(const struct gaussians *g, size_t k, const float *z)
{
    return g->constant[k] - 0.5 * distance(g, k, z);
}

double gaussians_log_density(const struct gaussians *g, const float *z)
{
    double top = -INFINITY, sum = 0;
    for (size_t k = 0; k < g->count; k++) {
        double l = gaussians_component(g, k, z);
        if (l > top)
            sum = sum * exp(top - l) + 1, top = l;
        else if (l > -INFINITY)
            sum += exp(l - top);
    }
    return top + log(sum);
}

void gaussians_sample(const struct gaussians *g, float *z, double uniform)
{
    size_t k = 0, n = g->width;
    double held = exp(g->log_weight[0]);
    while (held < uniform && k + 1 < g->count) held += exp(g->log_weight[++k]);
    const double *mean = g->mean + k * n, *l = g->factor + k * factor_size(g);
    for (size_t i = n; i-- > 0;) { /* from the last row up, because row i reads z[0] .. z[i] */
        double sum = mean[i];
        if (g->full)
            for (size_t j = 0; j <= i; j++) sum += l[i * n + j] * (double)z[j];
        else
            sum += l[i] * (double)z[i];
        z[i] = (float)sum;
    }
}
