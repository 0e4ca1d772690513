/* A trained text VAE from one file (elbo export --format=q8 or q4): encode, write, sample, score. libc, libm and
 * threads are all that it needs.
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
 * Sentences are UTF-8 and longer ones are cut to elbo_infer_longest tokens. Latents are rows of elbo_infer_latent_width
 * floats. A model is used by one thread at a time; it has threads of its own. */
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
    bool verify;              /* read all of the file and hold it against its checksum: ELBO_INPUT */
    const char *instructions; /* "generic", "avx2", "avx512" or "amx"; null: the best there are    */
    bool frugal;              /* keep no weights packed beside the file. By default those in few bits are, 1.13 to 1.25
                                 bytes each and 1 GiB at most (64 MiB where pointers have 32 bits), which makes
                                 several sentences at a time faster; results are the same */
};

/* ELBO_USAGE, ELBO_DEVICE: the instructions are unknown, or not this processor's. ELBO_IO, ELBO_INPUT: the file cannot
 * be read, is damaged, or of another version; ELBO_MEMORY. */
elbo_status elbo_infer_open(struct elbo_infer **m, const char *path, const struct elbo_infer_options *options,
                            elbo_error *error);
void elbo_infer_close(struct elbo_infer *m);

size_t elbo_infer_latent_width(const struct elbo_infer *m); /* Z; 0: a language model without a latent           */
size_t elbo_infer_longest(const struct elbo_infer *m);      /* tokens of a sentence                              */
size_t elbo_infer_labels(const struct elbo_infer *m);       /* classes that sentences have; 0: none              */
const char *elbo_infer_label(const struct elbo_infer *m, size_t index);

/* mu and logvar (count, Z) of the sentences' posteriors; either may be null. label: of all of them, for a model with
 * labels, else null. ELBO_USAGE: the label is none, or the model has no latent. */
elbo_status elbo_infer_encode(struct elbo_infer *m, const char *const *sentences, size_t count, const char *label,
                              float *mu, float *logvar, elbo_error *error);

/* z (count, Z) from the prior, the fitted one where the file has one; the same seed, the same rows. */
elbo_status elbo_infer_draw(struct elbo_infer *m, float *z, size_t count, uint64_t seed, elbo_error *error);

struct elbo_infer_writing {
    double temperature; /* 0: the likeliest token each time (greedy)                    */
    double top_p;       /* of what is drawn: share of the likeliest tokens; 0 or 1: all */
    size_t top_k;       /* so many of them; 0: all                                      */
    size_t beam;        /* search of this width instead; 0: none                        */
    size_t max_length;  /* tokens; 0: as many as in training                            */
    uint64_t seed;      /* the noise of a row is addressed by the seed and the row's number */
    uint64_t first;     /* number of the first row, where rows come in several calls    */
    const char *label;
};

/* A sentence for each row of z (count, Z), null for a language model; text: (count), each replaced. */
elbo_status elbo_infer_write(struct elbo_infer *m, struct elbo_text *text, const float *z, size_t count,
                             const struct elbo_infer_writing *how, elbo_error *error);

/* Nats of each sentence: -log p(x | z = mu), and the KL of its posterior against N(0, 1) or the model's own prior (a
 * language model: 0; not a number where there is no closed form). Either may be null. */
elbo_status elbo_infer_score(struct elbo_infer *m, const char *const *sentences, size_t count, const char *label,
                             double *reconstruction, double *kl, elbo_error *error);

#ifdef __cplusplus
}
#endif

#endif
