/* Evaluation of a text VAE, in nats per sentence, by estimators and their bounds.
 *
 *   neg_elbo        mean of reconstruction + KL at beta = lambda = 1, without free bits; one posterior sample
 *   iwae_nll        -log (1/K) sum_k p(x|z_k) p(z_k) / q(z_k|x), z_k from the posterior (Burda et al. 2016)
 *   active units    dimensions with Var_x(E_q[z]) above a threshold (Burda et al. 2016)
 *   mutual information
 *                   E[KL] - KL(q(z) || p(z)), the aggregate posterior over a set of n sentences (Hoffman and Johnson
 *                   2016); each z ~ q(z|x_i) is scored under all n posteriors, so it cannot exceed log n
 *   token_accuracy  share of the predicted tokens that have the largest logit, given the preceding words and the
 *                   first draw of z
 *   own_z_gain      mean NLL of x under the z of another random sentence, minus the NLL under its own */
#ifndef MODEL_EVALUATE_H
#define MODEL_EVALUATE_H

#include "model/gaussians.h"
#include "model/model.h"
#include "text/slots.h"

struct elbo_corpus;

struct evaluate_options {
    struct slot_options slots; /* capacities, max_length, too_long; evaluate sets the rest */
    size_t sentences;          /* the first ones of the corpus; 0: all */
    size_t iwae_samples;       /* 0: no IWAE */
    size_t mi_sentences;       /* 0: no mutual information */
    bool own_z;                /* measure own_z_gain */
    bool posterior_mean;       /* reconstruct from mu: then no bound on the likelihood, and no IWAE */
    bool rows;                 /* keep each sentence's results */
    const struct gaussians
        *fitted; /* a prior fitted after training, to evaluate too; null: none. Not with posterior_mean */
    uint64_t seed;
    /* Ranks may share the slots, each taking every ranks-th one; the result has the same bits on every rank. combine
     * returns ELBO_OK only if `status` is ELBO_OK on every rank; then `data`, of `bytes`, becomes the OR of all ranks'
     * data (each number is on one rank and zero on the others). Ranks 0 or 1: alone. */
    size_t ranks, rank;
    elbo_status (*combine)(void *context, elbo_status status, void *data, size_t bytes, elbo_error *error);
    void *context;
};

/* One sentence: its number in the corpus, and its values in nats. */
struct evaluation_row {
    size_t sentence, tokens; /* tokens: predicted tokens, including the end mark */
    size_t right;            /* predicted tokens that have the largest logit */
    double reconstruction, kl;
    double iwae; /* only if iwae_samples is not 0 */
};

struct evaluation {
    double neg_elbo, reconstruction, kl;
    double *kl_dim; /* (Z), freed by evaluation_free; null: the KL is estimated from draws, and has no dimensions */
    size_t latent_width;
    size_t active_units, active_units_tenth; /* thresholds 0.01 and 0.1 */
    double mutual_information, mutual_information_bound;
    size_t mutual_information_sentences;
    double iwae_nll; /* equals neg_elbo's estimator at K = 1 */
    size_t iwae_samples;
    double own_z_gain;
    /* Under a fitted prior, at the same draws: means of -log p(z) under it and under the model's prior, of
     * reconstruction + log q(z|x) - log p(z), of the KL, and the importance-weighted NLL, if iwae_samples is not 0. */
    bool fitted;
    double fitted_cross_entropy, prior_cross_entropy, fitted_neg_elbo, fitted_kl, fitted_iwae_nll, fitted_iwae_error;
    double neg_elbo_error, iwae_error; /* standard errors of the means */
    double ppl_token, ppl_word,
        bits_per_byte;    /* from iwae_nll if measured, else neg_elbo; infinite beyond the range of a double */
    bool wordless;        /* no blanks in the text: ppl_word is meaningless */
    double unknown_share; /* of the predicted tokens */
    double token_accuracy;
    double known_bits_per_byte; /* neg_elbo without the nats of unknown marks, divided by the bytes of the known words
                                   and line ends */
    size_t sentences, tokens, words, bytes;
    size_t shortened;            /* sentences up to the last one that were cut, or left out under SLOT_SKIP */
    struct evaluation_row *rows; /* (sentences) freed by evaluation_free; null: not kept */
};

/* Evaluates the model on a corpus. Recordings are made, bound and freed inside. Recordings of the model that were bound
 * before must be bound again afterwards. */
elbo_status evaluate(struct evaluation *out, struct model *m, const struct elbo_corpus *corpus,
                     const struct evaluate_options *options, elbo_error *error);
void evaluation_free(struct evaluation *e);

#endif
