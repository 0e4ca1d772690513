/* Fitting a Gaussian or a mixture to latents by expectation maximization, with k-means++ initialization; and computing
 * the posteriors of a corpus. */
#include "model/fit.h"
#include "base/philox.h"
#include "elbo/corpus.h"
#include "model/latent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64 }; /* rows of a tile */

struct fit {
    struct gaussians *g;
    const float *rows;
    size_t count, width;
    double *share;    /* (count, K) responsibilities: the share of each row in each component */
    double *variance; /* (Z) of all rows, at least the floor */
    double *held;     /* (K) sums of shares */
    double *density;  /* (count) log density of each row */
    struct backend *backend;
};

/* ---- the first means: rows far from the means so far ---- */

static double uniform_of(const struct fit_options *o, size_t k)
{
    return noise_uniform(noise_bits(noise_key(o->seed, noise_purpose("fit_prior.start"), 0), k, 0, 0));
}

/* Returns the squared distance of a row from a mean, each dimension divided by its variance. */
static double scaled_distance(const struct fit *f, const float *row, const double *mean)
{
    double sum = 0;
    for (size_t j = 0; j < f->width; j++) {
        double d = row[j] - mean[j];
        sum += d * d / f->variance[j];
    }
    return sum;
}

static void take_mean(struct fit *f, size_t k, size_t row)
{
    for (size_t j = 0; j < f->width; j++) f->g->mean[k * f->width + j] = f->rows[row * f->width + j];
}

/* Chooses the first means and assigns each row to the component with the nearest mean. */
static void choose_means(struct fit *f, const struct fit_options *o)
{
    double *nearest = f->density; /* squared distance from the nearest mean so far */
    size_t count = f->g->count, row = (size_t)(uniform_of(o, 0) * (double)f->count);
    memset(f->share, 0, f->count * count * sizeof *f->share);
    for (size_t k = 0; k < count; k++) {
        double total = 0, sum = 0;
        for (size_t i = 0; i < f->count && k; i++) total += nearest[i];
        double wanted = k ? uniform_of(o, k) * total : 0;
        for (size_t i = 0; i < f->count && k; i++) {
            sum += nearest[i];
            if (nearest[i] > 0) row = i;
            if (sum > wanted) break;
        }
        take_mean(f, k, row < f->count ? row : f->count - 1);
        for (size_t i = 0; i < f->count; i++) {
            double d = scaled_distance(f, f->rows + i * f->width, f->g->mean + k * f->width);
            if (!k || d < nearest[i]) {
                nearest[i] = d;
                for (size_t other = 0; other < k; other++) f->share[i * count + other] = 0;
                f->share[i * count + k] = 1;
            }
        }
    }
}

/* ---- expectation: the shares of rows ---- */

static void expect(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    struct fit *f = argument;
    size_t end = (tile + 1) * ROWS < f->count ? (tile + 1) * ROWS : f->count, count = f->g->count;
    for (size_t i = tile * ROWS; i < end; i++) {
        double *share = f->share + i * count, top = -INFINITY, sum = 0;
        for (size_t k = 0; k < count; k++) {
            share[k] = gaussians_component(f->g, k, f->rows + i * f->width);
            top = fmax(top, share[k]);
        }
        for (size_t k = 0; k < count; k++) sum += share[k] = exp(share[k] - top);
        for (size_t k = 0; k < count; k++) share[k] /= sum;
        f->density[i] = top + log(sum);
    }
}

/* ---- maximization ---- */

static void maximize_mean(void *argument, size_t k, size_t worker)
{
    (void)worker;
    struct fit *f = argument;
    size_t count = f->g->count;
    double *mean = f->g->mean + k * f->width, held = 0;
    for (size_t i = 0; i < f->count; i++) held += f->share[i * count + k];
    f->held[k] = held;
    if (held < 1e-9) return; /* an empty component keeps its mean */
    memset(mean, 0, f->width * sizeof *mean);
    for (size_t i = 0; i < f->count; i++)
        for (size_t j = 0; j < f->width; j++) mean[j] += f->share[i * count + k] * (double)f->rows[i * f->width + j];
    for (size_t j = 0; j < f->width; j++) mean[j] /= held;
}

/* Computes a row of a component's covariance up to the diagonal, or the diagonal element alone. */
static void maximize_row(void *argument, size_t tile, size_t worker)
{
    (void)worker;
    struct fit *f = argument;
    size_t k = tile / f->width, i = tile % f->width, n = f->width, count = f->g->count, first = f->g->full ? 0 : i;
    const double *mean = f->g->mean + k * n;
    double *to = f->g->full ? f->g->factor + (k * n + i) * n : f->g->factor + k * n;
    for (size_t j = first; j <= i; j++) to[j] = 0;
    for (size_t s = 0; s < f->count; s++) {
        const float *row = f->rows + s * n;
        double d = f->share[s * count + k] * (row[i] - mean[i]);
        if (d == 0) continue;
        for (size_t j = first; j <= i; j++) to[j] += d * (row[j] - mean[j]);
    }
    for (size_t j = first; j <= i; j++) to[j] = (to[j] + (j == i ? f->variance[i] : 0)) / (f->held[k] + 1);
}

/* Replaces a by the lower triangle L of L L^T = a. Returns false if a is not positive definite. */
static bool cholesky(double *a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = a[i * n + j];
            for (size_t c = 0; c < j; c++) sum -= a[i * n + c] * a[j * n + c];
            if (i == j && !(sum > 0)) return false;
            a[i * n + j] = i == j ? sqrt(sum) : sum / a[j * n + j];
        }
    return true;
}

static bool maximize(struct fit *f)
{
    struct gaussians *g = f->g;
    backend_host_run(f->backend, g->count, maximize_mean, f);
    backend_host_run(f->backend, g->count * g->width, maximize_row, f);
    for (size_t k = 0; k < g->count; k++) {
        g->log_weight[k] = log((f->held[k] + 1.0 / (double)g->count) / ((double)f->count + 1));
        if (g->full && !cholesky(g->factor + k * g->width * g->width, g->width)) return false;
        for (size_t j = 0; j < g->width && !g->full; j++)
            g->factor[k * g->width + j] = sqrt(g->factor[k * g->width + j]);
    }
    return gaussians_finish(g);
}

static void find_variances(struct fit *f)
{
    for (size_t j = 0; j < f->width; j++) {
        double mean = 0, square = 0;
        for (size_t i = 0; i < f->count; i++) mean += f->rows[i * f->width + j];
        mean /= (double)f->count;
        for (size_t i = 0; i < f->count; i++) {
            double d = f->rows[i * f->width + j] - mean;
            square += d * d;
        }
        f->variance[j] = fmax(square / (double)f->count, FIT_LEAST_VARIANCE);
    }
}

static elbo_status run(struct fit *f, struct fit_report *report, const struct fit_options *o, elbo_error *error)
{
    const double least_rise = 1e-6;
    find_variances(f);
    choose_means(f, o);
    for (report->iterations = 0;; report->iterations++) {
        if (!maximize(f))
            return elbo_fail(error, ELBO_INPUT, "the latents have no covariance: are some infinite, or not numbers?");
        double sum = 0, last = report->log_density;
        backend_host_run(f->backend, (f->count + ROWS - 1) / ROWS, expect, f);
        for (size_t i = 0; i < f->count; i++) sum += f->density[i];
        report->log_density = sum / (double)f->count;
        bool still = report->iterations && report->log_density - last < least_rise;
        if (f->g->count == 1 || still || report->iterations + 1 >= o->iterations) break;
    }
    report->iterations++;
    return ELBO_OK;
}

elbo_status gaussians_fit(struct gaussians *out, struct fit_report *report, const float *rows, size_t count,
                          size_t width, const struct fit_options *o, struct backend *backend, elbo_error *error)
{
    *out = (struct gaussians){0};
    *report = (struct fit_report){0};
    if (o->components > count)
        return elbo_fail(error, ELBO_USAGE,
                         "prior.components = %zu are more than the %zu sentences; give at most as many", o->components,
                         count);
    ELBO_TRY(gaussians_allocate(out, o->components, width, o->full, error));
    struct fit f = {.g = out, .rows = rows, .count = count, .width = width, .backend = backend};
    f.share = malloc(count * o->components * sizeof *f.share);
    f.variance = malloc(width * sizeof *f.variance);
    f.held = malloc(o->components * sizeof *f.held);
    f.density = malloc(count * sizeof *f.density);
    elbo_status status = f.share && f.variance && f.held && f.density
                             ? run(&f, report, o, error)
                             : elbo_fail(error, ELBO_MEMORY, "no memory to fit a prior to %zu sentences", count);
    free(f.share);
    free(f.variance);
    free(f.held);
    free(f.density);
    return status;
}

/* ---- the posteriors of a corpus ---- */

static elbo_status read_slot(struct latents *l, struct recording *encode, const struct slot *slot, size_t most,
                             elbo_error *error)
{
    struct execution run = {.seed = 0};
    size_t n = slot->sentences;
    float *rows = malloc((n + 1) * 2 * l->width * sizeof *rows);
    if (!rows) return elbo_fail(error, ELBO_MEMORY, "no memory for the posteriors of a slot");
    recording_bind_slot(encode, slot, &run);
    elbo_status status = executor_run(&encode->executor, &run, error);
    if (!status) recording_read(encode, encode->stats, rows, run.count);
    if (n > most - l->count) n = most - l->count;
    if (!status) memcpy(l->stats + l->count * 2 * l->width, rows, n * 2 * l->width * sizeof *rows);
    if (!status) l->count += n;
    free(rows);
    return status;
}

static elbo_status read_all(struct latents *l, struct recording *encode, struct slot_loader *loader, size_t most,
                            elbo_error *error)
{
    for (bool more = true; more && l->count < most;) {
        const struct slot_batch *batch;
        ELBO_TRY(slot_loader_next(loader, &batch, error));
        for (size_t i = 0; i < batch->count && l->count < most; i++)
            ELBO_TRY(read_slot(l, encode, &batch->slots[i], most, error));
        more = !batch->last;
    }
    return ELBO_OK;
}

elbo_status latents_of_corpus(struct latents *l, struct model *m, const struct elbo_corpus *corpus,
                              const struct slot_options *slots, size_t most, elbo_error *error)
{
    struct slot_options s = *slots;
    struct recording encode = {0}, *list[] = {&encode};
    struct slot_loader *loader = NULL;
    size_t all = elbo_corpus_sentences(corpus), sentences = slot_sentence_capacity(&s);
    *l = (struct latents){.width = m->config.latent.width};
    if (most && most < all) all = most;
    s.slots = 1;
    s.shuffle = false;
    s.single_pass = true;
    s.word_dropout = s.drop = s.blank = s.swap = 0;
    s.first = s.step = 0;
    struct graph_capacities capacities = {
        {[DIM_ENC_TOKENS] = s.encoder_tokens, [DIM_SENTENCES] = sentences, [DIM_DRAWS] = sentences}};
    l->stats = malloc(all * 2 * l->width * sizeof *l->stats);
    l->z = malloc(all * l->width * sizeof *l->z);
    elbo_status status = l->stats && l->z
                             ? ELBO_OK
                             : elbo_fail(error, ELBO_MEMORY, "no memory for the posteriors of %zu sentences", all);
    if (!status) status = record_encode(&encode, &m->config, m->parameters, &capacities, error);
    if (!status) status = model_bind(m, list, 1, NULL, error);
    if (!status) status = slot_loader_open(&loader, corpus, &s, error);
    if (!status) status = read_all(l, &encode, loader, all, error);
    if (loader) slot_loader_close(loader);
    recording_free(&encode, m->backend);
    for (size_t i = 0; i < l->count && !status; i++)
        memcpy(l->z + i * l->width, l->stats + i * 2 * l->width, l->width * sizeof *l->z);
    if (status) latents_free(l);
    return status;
}

void latents_draw(struct latents *l, uint64_t seed)
{
    struct latent latent = latent_standard(l->width);
    struct latent_noise noise = {seed, noise_purpose("fit_prior.posterior"), 0, 0};
    for (size_t i = 0; i < l->count; i++)
        latent_draw(&latent, l->z + i * l->width, l->stats + i * 2 * l->width, &noise, i);
}

void latents_free(struct latents *l)
{
    free(l->stats);
    free(l->z);
    *l = (struct latents){0};
}
