/* The latent: two tables, of posteriors q(z|x) and of priors p(z), with their recordings and their host side.
 *
 * Every posterior hands on mu | logvar of a Gaussian, (S, 2Z) f32, and a draw z; evaluation and `encode` read these. A
 * prior with a closed form gives the KL by dimension, (S, Z); without one the KL is log q(z|x) - log p(z) at the draw,
 * (S, 1), which has no dimensions.
 *
 * On the host: samples by address, log densities in double.
 *
 *     struct latent l;
 *     latent_open(&l, model, &error);                         -- copies what the prior has learned; binds recordings
 *     double w = latent_draw(&l, z, stats, &noise, sample);   -- z, and log p(z) - log q(z|x)
 *     latent_close(&l);                                                                                            */
#ifndef MODEL_LATENT_H
#define MODEL_LATENT_H

#include "model/gaussians.h"
#include "model/model.h"
#include "model/recorder.h"
#include "ops/posterior.h"

/* ---- recording ---- */

struct latent_pass {
    value stats;     /* (S, 2Z) f32 mu | logvar                                                   */
    value z;         /* (draws, Z) f32                                                            */
    value normal_kl; /* (S, Z) f32 nats against N(0, 1): op_latent gives it beside z              */
    value kl;        /* (S, Z), or (S, 1) without a closed form                                   */
    value sums;      /* of op_normalize: what running statistics are made of; or none              */
};

/* The posterior from the encoder's rows h (S, D), a draw, and its KL to the prior. */
struct latent_pass latent_record(struct recorder *r, value h, value sample);
/* The posterior alone: stats. */
value latent_record_stats(struct recorder *r, value h);
/* x normalized over a slot's sentences, or by the running statistics of the tensor latent_running. */
value latent_normalized(struct recorder *r, value x, value gain, value bias, const struct normalization *c,
                        value *sums);

/* Refuses options of the section that contradict each other: ELBO_USAGE. */
elbo_status latent_check(const struct latent_config *c, size_t positions, elbo_error *error);

/* Statistics of a slot that evaluation has only running ones for, and by which tensor (2, K), or null. */
const char *latent_running(const struct latent_config *c);
/* Whether these are about a mean. */
bool latent_running_centered(const struct latent_config *c);

/* Whether the KL has a part for each dimension. */
bool latent_has_dimensions(const struct latent_config *c);

/* How a KL is called: "kl" by its closed form, "kl_mc" where it is log q(z|x) - log p(z) at the draw. */
const char *latent_kl_name(const struct latent_config *c);

/* Why an option of the section `latent` has no effect beside the others; null: it has one. `key` without the section.
 */
const char *latent_idle(const struct latent_config *c, const char *key);

/* ---- the tables ---- */

struct latent_noise {
    uint64_t seed, purpose, step;
    uint32_t draw;
};

struct posterior_kind {
    const char *name; /* as latent.kind says it */
    /* Columns of its head: rows of h are mapped to so many by the linear layer latent.head. */
    size_t (*head_width)(const struct latent_config *c);
    /* First weights and bias of the head. */
    void (*initialize)(struct parameter *weight, struct parameter *bias, const struct model_config *m);
    /* (S, 2Z) f32 from the head's output (S, head_width). sample (S) u64 in training; *sums as in the pass. */
    value (*stats)(struct recorder *r, value head, value sample, value *sums);
};

struct latent;

struct prior_kind {
    const char *name; /* as latent.prior says it */
    /* (S, Z) nats; null: no closed form. */
    value (*kl)(struct recorder *r, const struct latent_pass *pass);
    /* (S, 1) sign * log p(z); where there is no closed form. */
    value (*log_density)(struct recorder *r, value z, double sign);
    /* ---- on the host ---- */
    /* Makes l->own of what the model has learned; null: the standard normal. */
    elbo_status (*open)(struct latent *l, struct model *m, elbo_error *error);
    /* Sum over dimensions in nats; adds each to kl_dim (Z) when not null. Null: no closed form. */
    double (*host_kl)(const struct latent *l, const float *stats, double *kl_dim);
};

const struct posterior_kind *posterior_kind_of(const struct latent_config *c);
const struct prior_kind *prior_kind_of(const struct latent_config *c);

/* ---- on the host ---- */

struct latent {
    const struct prior_kind *prior;
    size_t width;                    /* Z; 0 without a latent                                    */
    const struct gaussians *density; /* of the prior; null: the standard normal                  */
    struct gaussians own;            /* what density is, unless it is somebody else's            */
};

/* Runs the model's encoder where the prior wants it, so recordings of the model that were bound before must be bound
 * again. Close it, also after a failure. */
elbo_status latent_open(struct latent *l, struct model *m, elbo_error *error);
void latent_close(struct latent *l);
/* With the standard normal prior, of no model. */
struct latent latent_standard(size_t width);
/* With this density for a prior, which must outlive it. */
struct latent latent_with(const struct gaussians *density);

/* A parameter's values from the model's weights; free() *values. ELBO_INTERNAL: the model has none of this name. */
elbo_status latent_learned(float **values, const struct model *m, const char *name, elbo_error *error);

/* z (Z) = mu + exp(logvar / 2) eps for one sentence's stats (2Z); null noise: z = mu. Returns log p(z) - log q(z|x) in
 * nats, the importance weight's latent part. */
double latent_draw(const struct latent *l, float *z, const float *stats, const struct latent_noise *noise,
                   uint64_t sample);

/* Rows first .. first + rows - 1 of z (rows, Z) from the prior: each has noise of its own. Which component a row is of
 * is drawn by the noise's next draw. */
void latent_prior_samples(const struct latent *l, float *z, size_t rows, const struct latent_noise *noise,
                          uint64_t first);

/* KL(q(z|x) || p(z)) of one sentence in nats, by its closed form; adds each dimension's to kl_dim (Z) when not null.
 * NaN where there is no closed form. */
double latent_kl(const struct latent *l, const float *stats, double *kl_dim);

/* log p(z) in nats. */
double latent_prior_log_density(const struct latent *l, const float *z);

/* log q(z|x) in nats, of the Gaussian with these stats. */
double latent_log_density(const float *z, const float *stats, size_t width);

#endif
