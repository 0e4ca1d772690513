/* A trained text VAE in one file (elbo export --format=q8 or q4): encode, write, sample, score. Needs only libc, libm
 * and threads.
 *
 *     struct elbo_infer *m;
 *     elbo_error error;
 *     if (elbo_infer_open(&m, "model.elbo", &(struct elbo_infer_options){.threads = 2}, &error)) puts(error.message);
 *     size_t z = elbo_infer_latent_width(m);
 *     float mu[z];
 *     elbo_infer_encode(m, (const char *const[]){"a small bird"}, 1, NULL, mu, NULL, &error);
 *     elbo_infer_write(m, &text, mu, 1, &(struct elbo_infer_writing){0}, &error);     -- text.text, elbo_text_free
 *     elbo_infer_close(m);
 *
 * Sentences are UTF-8; sentences longer than elbo_infer_longest tokens are cut. Latents are rows of
 * elbo_infer_latent_width floats. Only one thread at a time may use a model; the model runs threads of its own. */
#ifndef ELBO_INFER_H
#define ELBO_INFER_H

#include "elbo/status.h"
#include "elbo/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

struct elbo_infer;

struct elbo_infer_options {
    size_t threads;           /* 0: one for each processor                                         */
    bool verify;              /* read the whole file and compare its checksum: ELBO_INPUT */
    const char *instructions; /* "generic", "avx2", "avx512" or "amx"; null: the best that the processor has */
    bool frugal;              /* keep no weights packed beside the file. By default those in few bits are, 1.13 to 1.25
                                 bytes each and 1 GiB at most (64 MiB where pointers have 32 bits), which makes
                                 several sentences at a time faster; results are the same */
};

/* ELBO_USAGE: the instructions are unknown. ELBO_DEVICE: this processor lacks them. ELBO_IO, ELBO_INPUT: the file
 * cannot be read, is damaged, or of another version; ELBO_MEMORY. */
ELBO_API elbo_status elbo_infer_open(struct elbo_infer **m, const char *path, const struct elbo_infer_options *options,
                                     elbo_error *error);
ELBO_API void elbo_infer_close(struct elbo_infer *m);

ELBO_API size_t elbo_infer_latent_width(const struct elbo_infer *m); /* Z; 0: a language model without a latent */
ELBO_API size_t elbo_infer_longest(const struct elbo_infer *m);      /* most tokens of a sentence */
ELBO_API size_t elbo_infer_labels(const struct elbo_infer *m);       /* number of labels; 0: none */
ELBO_API const char *elbo_infer_label(const struct elbo_infer *m, size_t index);

/* mu and logvar (count, Z) of the sentences' posteriors; either may be null. label: one label for all sentences of a
 * model with labels, else null. ELBO_USAGE: the model does not know the label, or has no latent. */
ELBO_API elbo_status elbo_infer_encode(struct elbo_infer *m, const char *const *sentences, size_t count,
                                       const char *label, float *mu, float *logvar, elbo_error *error);

/* Draws z (count, Z) from the prior, or from the fitted prior where the file has one. The same seed gives the same
 * rows. */
ELBO_API elbo_status elbo_infer_draw(struct elbo_infer *m, float *z, size_t count, uint64_t seed, elbo_error *error);

struct elbo_infer_writing {
    double temperature; /* 0: the likeliest token at each step (greedy) */
    double top_p;       /* sample from the likeliest tokens that hold this share; 0 or 1: all */
    size_t top_k;       /* sample from this many likeliest tokens; 0: all */
    size_t beam;        /* beam search of this width instead; 0: none */
    size_t max_length;  /* tokens; 0: the longest in training */
    uint64_t seed;      /* the seed and the row's number address the row's noise */
    uint64_t first;     /* number of the first row, when rows come in several calls */
    const char *label;
};

/* Writes a sentence for each row of z (count, Z); z is null for a language model. text: (count), each replaced. */
ELBO_API elbo_status elbo_infer_write(struct elbo_infer *m, struct elbo_text *text, const float *z, size_t count,
                                      const struct elbo_infer_writing *how, elbo_error *error);

/* Nats of each sentence: -log p(x | z = mu), and the KL of its posterior against N(0, 1) or the model's own prior. kl
 * is 0 for a language model and NaN where it has no closed form. Either array may be null. */
ELBO_API elbo_status elbo_infer_score(struct elbo_infer *m, const char *const *sentences, size_t count,
                                      const char *label, double *reconstruction, double *kl, elbo_error *error);

#ifdef __cplusplus
}
#endif

#endif
