/* Opens and trains models from a program that links libelbo.
 *
 *     elbo_error error = {0};
 *     elbo_run *run;
 *     if (elbo_run_open(&run, "runs/a", 0, &error)) return fail(&error);
 *     size_t z = elbo_run_latent_width(run);
 *     float mu[z], logvar[z];
 *     const char *text[] = {"a small bird"};
 *     elbo_run_encode(run, mu, logvar, text, NULL, 1, &error);
 *     struct elbo_text back = {0};
 *     elbo_run_decode(run, &back, mu, 1, &(struct elbo_decode_options){0}, &error);
 *     puts(back.text);
 *     elbo_text_free(&back);
 *     elbo_run_close(run);
 *
 * Only one thread at a time may use a run. */
#ifndef ELBO_RUN_H
#define ELBO_RUN_H

#include "elbo/status.h"
#include "elbo/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct elbo_run elbo_run;

/* `path`: a run directory (its newest checkpoint that verifies) or one checkpoint. threads = 0: one for each processor
 * of this process. ELBO_INPUT: damaged, foreign, another version; ELBO_IO: not there; ELBO_MEMORY. */
ELBO_API elbo_status elbo_run_open(elbo_run **run, const char *path, size_t threads, elbo_error *error);
ELBO_API void elbo_run_close(elbo_run *run);

ELBO_API size_t elbo_run_latent_width(const elbo_run *run); /* Z; 0 for a language model without a latent */
ELBO_API uint64_t elbo_run_step(const elbo_run *run);       /* training steps so far */
ELBO_API struct elbo_tokenizer *elbo_run_tokenizer(const elbo_run *run); /* borrowed */

/* Sets the label of all further sentences. A model that was trained with labels needs one for encoding and decoding.
 * ELBO_USAGE: the model does not know the label; the message names the known ones. */
ELBO_API elbo_status elbo_run_set_label(elbo_run *run, const char *label, elbo_error *error);

/* mu and logvar (count, Z) of the posteriors of `count` sentences. `sizes` (count): bytes of each text, which may
 * contain NUL; null: each text ends with NUL. Ill-formed UTF-8 becomes U+FFFD, as in the commands. A sentence longer
 * than the model was trained for is cut. ELBO_USAGE for a model without a latent. */
ELBO_API elbo_status elbo_run_encode(elbo_run *run, float *mu, float *logvar, const char *const *texts,
                                     const size_t *sizes, size_t count, elbo_error *error);

/* All zero: the likeliest token at each step, up to the length in training, never the unknown mark. */
struct elbo_decode_options {
    double temperature; /* above 0: sample at this temperature */
    double top_p;       /* above 0: sample from the likeliest tokens that hold this probability */
    size_t top_k;       /* above 0: sample from this many likeliest tokens */
    size_t max_length;  /* tokens; 0: the longest in training */
    bool allow_unknown;
    uint64_t seed; /* row i depends on (seed, i) and z alone                           */
};

/* Writes one sentence per row of z (count, Z), or `count` sentences of a model without a latent (z is null). Each of
 * texts (count) begins as {0}. */
ELBO_API elbo_status elbo_run_decode(elbo_run *run, struct elbo_text *texts, const float *z, size_t count,
                                     const struct elbo_decode_options *options, elbo_error *error);

/* Starts or continues a run. `config` is a YAML file or null; `overrides` are "--section.key=value" as on the command
 * line (docs/reference.md). `line` (may be null) gets the lines that the console would show. SIGTERM, SIGINT and
 * SIGUSR1 are blocked meanwhile; after one of them the run is saved and ELBO_INTERRUPTED is returned. */
ELBO_API elbo_status elbo_train(const char *config, const char *const *overrides, size_t override_count,
                                void (*line)(void *context, const char *text), void *context, elbo_error *error);

#ifdef __cplusplus
}
#endif

#endif
