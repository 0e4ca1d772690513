/* Fits a density to latents after training: a Gaussian, or a mixture by expectation maximization (Dempster et al.
 * 1977).
 *
 *     struct latents all;
 *     latents_of_corpus(&all, model, corpus, &slots, &error);        -- each sentence's posterior, mu | logvar
 *     latents_draw(&all, seed);                                      -- optional; else z stays at the means
 *     gaussians_fit(&g, all.z, all.count, width, &options, model->backend, &error);
 *     latents_free(&all);
 *
 * A component's covariance is that of its rows, weighted by their shares, plus one more row whose covariance is the
 * diagonal of that of all rows (at least FIT_LEAST_VARIANCE). So it stays positive definite with few rows, or with
 * dimensions that do not vary. The first means are rows chosen by k-means++ (Arthur and Vassilvitskii 2007), with
 * addressed noise. Sums follow the order of the rows, so the result has the same bits for any number of threads. */
#ifndef MODEL_FIT_H
#define MODEL_FIT_H

#include "model/gaussians.h"
#include "model/model.h"

struct elbo_corpus;

#define FIT_LEAST_VARIANCE 1e-6

struct fit_options {
    size_t components; /* K; at most the number of rows */
    bool full;         /* full covariances; else diagonal ones */
    size_t iterations; /* at most; EM ends when the mean log density per row rises by less than 1e-6 */
    uint64_t seed;
};

struct fit_report {
    size_t iterations;
    double log_density; /* nats, mean over the rows */
};

/* Fits rows (count, width), count > 0. gaussians_free `out` even after a failure. ELBO_USAGE: more components than
 * rows. */
elbo_status gaussians_fit(struct gaussians *out, struct fit_report *report, const float *rows, size_t count,
                          size_t width, const struct fit_options *options, struct backend *backend, elbo_error *error);

/* ---- the latents to fit ---- */

struct latents {
    size_t count, width;
    float *stats; /* (count, 2Z) mu | logvar */
    float *z;     /* (count, Z) */
};

/* Computes the posteriors of the first `most` sentences of a corpus (0: all), not counting those that slots->too_long
 * leaves out; z is mu. Recordings are made, bound and freed inside. */
elbo_status latents_of_corpus(struct latents *out, struct model *m, const struct elbo_corpus *corpus,
                              const struct slot_options *slots, size_t most, elbo_error *error);
/* Sets z to a sample of each posterior. */
void latents_draw(struct latents *l, uint64_t seed);
void latents_free(struct latents *l);

#endif
