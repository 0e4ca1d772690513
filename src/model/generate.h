/* Generation: from z to sentences, token by token, with a key/value cache; and from sentences to posteriors. */
#ifndef MODEL_GENERATE_H
#define MODEL_GENERATE_H

#include "elbo/tokenizer.h"
#include "model/model.h"

struct generate_options {
    size_t max_length;  /* tokens without marks; bounded by the positions the model was trained on */
    double temperature; /* 0: greedy */
    double top_p;       /* keep the likeliest tokens that hold this share; 1: all */
    size_t top_k;       /* keep this number of tokens; 0: all */
    bool greedy, allow_unknown;
    const uint32_t *never; /* (never_count) more tokens that are never written */
    size_t never_count;
    uint64_t seed, first_row; /* the noise of row i has the address (seed, first_row + i, position) */
    int32_t label;            /* of every sentence, for a model with labels */
    size_t beam;              /* not 0: beam search of this width instead of drawing tokens */
    double length_penalty;    /* of the beam: a sentence's log-probability is divided by its length, including the end
                                 mark, to this power */
};

/* Generates one sentence (ids without marks) per row of z (rows, Z); z is null for a model without a latent. Tokens are
 * drawn by address (seed, first_row + row, position), so row i does not depend on the number of rows. `out` (rows) must
 * begin as {0}.
 *
 * With a beam: returns the best sentence found by extending the `beam` likeliest hypotheses one token at a time. The
 * end of every hypothesis is a found sentence; at max_length tokens only the end follows. A beam as wide as the
 * vocabulary to the power of max_length finds the best sentence of all. Ties go to the earlier hypothesis, then to the
 * smaller token. */
elbo_status generate(struct model *m, struct elbo_ids *out, const float *z, size_t rows,
                     const struct generate_options *options, const struct elbo_marks *marks, elbo_error *error);

/* Returns the rows that are generated at once. More rows in one call take proportionally longer. */
size_t generate_batch(const struct generate_options *o);

/* ---- shared by drawing and beam search ---- */

elbo_status generate_append(struct elbo_ids *ids, uint32_t id, elbo_error *error);
/* Runs the decoding step over the positions of the prefix, if the model has one; `position` (rows) is the step's
 * input. */
elbo_status generate_prefix(struct model *m, struct recording *step, int32_t *position, size_t rows, elbo_error *error);
size_t generate_beam_batch(size_t beam);
elbo_status generate_beam(struct model *m, struct elbo_ids *out, const float *z, size_t rows, size_t longest,
                          const struct generate_options *options, const struct elbo_marks *marks,
                          elbo_error *error); /* in beam.c */

/* Computes stats (rows, 2Z) of sentences given as ids without marks. `slots` gives the capacities; sentences that are
 * too long follow slots->too_long. */
elbo_status encode_sentences(struct model *m, float *stats, const struct elbo_ids *sentences, size_t rows,
                             const struct slot_options *slots, const struct elbo_marks *marks, elbo_error *error);

#endif
