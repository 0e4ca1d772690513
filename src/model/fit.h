/* Fits a density to latents after training: a Gaussian, or a mixture by expectation maximization (Dempster et al.
 * 1977).
 *
 *     struct latents all;
 *     latents_of_corpus(&all, model, corpus, &slots, &error);        -- each sentence's posterior, mu | logvar
 *     latents_draw(&all, seed);                                      -- or stays at the means
 *     gaussians_fit(&g, all.z, all.count, width, &options, model->backend, &error);
 *     latents_free(&all);
 *
 * A component's covariance is that of its rows, each weighed by its share, and of one row more whose covariance is the
 * diagonal of all rows' (and at least FIT_LEAST_VARIANCE): so few rows, and dimensions that do not vary, have one. The
 * first means are rows chosen as k-means++ does (Arthur and Vassilvitskii 2007), by addressed noise. Sums are in the
 * order of the rows: the result has the same bits for any number of threads. */
#ifndef MODEL_FIT_H
#define MODEL_FIT_H

#include "model/gaussians.h"
#include "model/model.h"

struct elbo_corpus;

#define FIT_LEAST_VARIANCE 1e-6

struct fit_options {
    size_t components; /* K; at most the rows                                                    */
    bool full;         /* covariances; else variances                                            */
    size_t iterations; /* at most; it ends when a row's mean log density rises by less than 1e-6 */
    uint64_t seed;
};

struct fit_report {
    size_t iterations;
    double log_density; /* nats, mean over the rows */
};

/* rows (count, width), count > 0. gaussians_free `out` whatever comes back. ELBO_USAGE: more components than rows. */
elbo_status gaussians_fit(struct gaussians *out, struct fit_report *report, const float *rows, size_t count,
                          size_t width, const struct fit_options *options, struct backend *backend, elbo_error *error);

/* ---- what it is fitted to ---- */

struct latents {
    size_t count, width;
    float *stats; /* (count, 2Z) mu | logvar */
    float *z;     /* (count, Z)              */
};

/* The posteriors of a corpus' first `most` sentences (0: of all), those that slots->too_long leaves out not counted; z
 * is mu. Recordings are made, bound and freed here. */
elbo_status latents_of_corpus(struct latents *out, struct model *m, const struct elbo_corpus *corpus,
                              const struct slot_options *slots, size_t most, elbo_error *error);
/* z becomes a sample of each posterior. */
void latents_draw(struct latents *l, uint64_t seed);
void latents_free(struct latents *l);

#endif
