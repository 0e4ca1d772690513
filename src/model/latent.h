/* The latent: two tables, of posteriors q(z|x) and of priors p(z), with their recordings and their host functions.
 *
 * Every posterior provides mu | logvar of a Gaussian, (S, 2Z) f32, and a draw z; evaluation and `encode` read these. A
 * prior with a closed form gives the KL by dimension, (S, Z). Without one the KL is log q(z|x) - log p(z) at the draw,
 * (S, 1), without dimensions.
 *
 * On the host: samples by address, log densities in double.
 *
 *     struct latent l;
 *     latent_open(&l, model, &error);                         -- copies the prior's learned values; binds recordings
 *     double w = latent_draw(&l, z, stats, &noise, sample);   -- z, and log p(z) - log q(z|x)
 *     latent_close(&l); */
#ifndef MODEL_LATENT_H
#define MODEL_LATENT_H

#include "model/gaussians.h"
#include "model/model.h"
#include "model/recorder.h"
#include "ops/posterior.h"

/* ---- recording ---- */

struct latent_pass {
    value stats;     /* (S, 2Z) f32 mu | logvar */
    value z;         /* (draws, Z) f32 */
    value normal_kl; /* (S, Z) f32 nats against N(0, 1), which op_latent computes together with z */
    value kl;        /* (S, Z), or (S, 1) without a closed form */
    value sums;      /* of op_normalize: the sums for running statistics; or none */
};

/* Records the posterior from the encoder's rows h (S, D), a draw, and its KL to the prior. */
struct latent_pass latent_record(struct recorder *r, value h, value sample);
/* Records the posterior alone and returns stats. */
value latent_record_stats(struct recorder *r, value h);
/* Returns x normalized over a slot's sentences in training, else by the running statistics of the tensor
 * latent_running. */
value latent_normalized(struct recorder *r, value x, value gain, value bias, const struct normalization *c,
                        value *sums);

/* Refuses contradicting options of the section: ELBO_USAGE. */
elbo_status latent_check(const struct latent_config *c, size_t positions, elbo_error *error);

/* Returns the name of the tensor (2, K) of running statistics, which evaluation uses in place of a slot's statistics;
 * null when there is none. */
const char *latent_running(const struct latent_config *c);
/* Returns whether the running statistics are centered about a mean. */
bool latent_running_centered(const struct latent_config *c);

/* Returns whether the KL is given per dimension. */
bool latent_has_dimensions(const struct latent_config *c);

/* Returns the name of the KL: "kl" for its closed form, "kl_mc" for log q(z|x) - log p(z) at the draw. */
const char *latent_kl_name(const struct latent_config *c);

/* Returns why an option of the section `latent` has no effect with the other options; null: it has one. `key` is
 * without the section. */
const char *latent_idle(const struct latent_config *c, const char *key);

/* ---- the tables ---- */

struct latent_noise {
    uint64_t seed, purpose, step;
    uint32_t draw;
};

struct posterior_kind {
    const char *name; /* as in latent.kind */
    /* Returns the columns of the head, the linear layer latent.head that reads the rows of h. */
    size_t (*head_width)(const struct latent_config *c);
    /* Sets the initial weights and bias of the head. */
    void (*initialize)(struct parameter *weight, struct parameter *bias, const struct model_config *m);
    /* Returns (S, 2Z) f32 from the head's output (S, head_width). sample is (S) u64 in training; *sums as in
     * latent_pass. */
    value (*stats)(struct recorder *r, value head, value sample, value *sums);
};

struct latent;

struct prior_kind {
    const char *name; /* as in latent.prior */
    /* Returns (S, Z) nats; null: no closed form. */
    value (*kl)(struct recorder *r, const struct latent_pass *pass);
    /* Returns (S, 1) sign * log p(z); for priors without a closed form. */
    value (*log_density)(struct recorder *r, value z, double sign);
    /* ---- on the host ---- */
    /* Fills l->own from the model's learned values; null: the standard normal. */
    elbo_status (*open)(struct latent *l, struct model *m, elbo_error *error);
    /* Returns the sum over dimensions in nats; adds each to kl_dim (Z) when not null. Null: no closed form. */
    double (*host_kl)(const struct latent *l, const float *stats, double *kl_dim);
};

const struct posterior_kind *posterior_kind_of(const struct latent_config *c);
const struct prior_kind *prior_kind_of(const struct latent_config *c);

/* ---- on the host ---- */

struct latent {
    const struct prior_kind *prior;
    size_t width;                    /* Z; 0 without a latent */
    const struct gaussians *density; /* of the prior; null: the standard normal */
    struct gaussians own;            /* the density that latent_open made, freed by latent_close */
};

/* Opens the model's prior. It may run the model's encoder, so recordings of the model that were bound before must be
 * bound again. Close it, also after a failure. */
elbo_status latent_open(struct latent *l, struct model *m, elbo_error *error);
void latent_close(struct latent *l);
/* Returns a latent with the standard normal prior, without a model. */
struct latent latent_standard(size_t width);
/* Returns a latent whose prior is `density`, which must outlive it. */
struct latent latent_with(const struct gaussians *density);

/* Copies a parameter's values from the model's weights; free() *values. ELBO_INTERNAL: the model has no parameter of
 * this name. */
elbo_status latent_learned(float **values, const struct model *m, const char *name, elbo_error *error);

/* Sets z (Z) = mu + exp(logvar / 2) eps for one sentence's stats (2Z); null noise: z = mu. Returns log p(z) - log
 * q(z|x) in nats, the latent part of the importance weight. */
double latent_draw(const struct latent *l, float *z, const float *stats, const struct latent_noise *noise,
                   uint64_t sample);

/* Draws z (rows, Z) from the prior; row i has the noise of sample first + i. The noise's next draw chooses the row's
 * component. */
void latent_prior_samples(const struct latent *l, float *z, size_t rows, const struct latent_noise *noise,
                          uint64_t first);

/* Returns KL(q(z|x) || p(z)) of one sentence in nats, by its closed form; adds each dimension's to kl_dim (Z) when not
 * null. NaN without a closed form. */
double latent_kl(const struct latent *l, const float *stats, double *kl_dim);

/* Returns log p(z) in nats. */
double latent_prior_log_density(const struct latent *l, const float *z);

/* Returns log q(z|x) in nats, of the Gaussian with these stats. */
double latent_log_density(const float *z, const float *stats, size_t width);

#endif
