/* Choosing the next token of a row from its logits: greedy, or drawn from the likeliest.
 *
 *   1. the start mark, the unknown mark unless it is allowed, and options.never get probability 0
 *   2. p = softmax(logits / temperature) over the other tokens
 *   3. kept: the likeliest tokens one by one, ties by the smaller id, until they hold top_p of p or are top_k
 *   4. drawn: a kept token with its share of the kept mass
 *
 * The vocabulary is never sorted. A token is drawn from p and accepted if it is kept. This test needs the mass of the
 * likelier tokens, one vectorized pass, and succeeds with at least the chance top_p. After a few rejections the
 * threshold of the kept tokens is searched for, by passes that narrow a bracket, and only the tokens in a narrow
 * bracket are sorted. Probabilities are f32, their sums double. */
#ifndef MODEL_CHOOSE_H
#define MODEL_CHOOSE_H

#include "model/generate.h"

struct choose_scratch; /* one per thread */

elbo_status choose_scratch_make(struct choose_scratch **scratch, size_t vocabulary, elbo_error *error);
void choose_scratch_free(struct choose_scratch *scratch);

/* Sets the logits (V) of tokens that must not be written to minus infinity. */
void choose_ban(float *logits, size_t vocabulary, const struct generate_options *o, const struct elbo_marks *marks);

/* Returns log of the sum of exp(logits), within 1e-6; NaN logits count nothing. NaN when no logit is finite. */
double choose_log_sum(const float *logits, size_t vocabulary);

/* Returns a token for logits (V), which choose_ban changes. The noise has the address (seed, sample, position; draw:
 * the trial). Returns the end mark when no allowed logit is finite. */
uint32_t choose_token(float *logits, size_t vocabulary, const struct generate_options *o,
                      const struct elbo_marks *marks, uint64_t sample, size_t position, struct choose_scratch *scratch);

#endif
