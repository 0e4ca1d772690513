/* Choosing the next token of a row from its logits: greedy, or drawn from the likeliest.
 *
 *   1. the start mark, the unknown mark unless it is allowed, and options.never get probability 0
 *   2. p = softmax(logits / temperature) of what is left
 *   3. kept: the likeliest tokens one by one, ties by the smaller id, until they hold top_p of p or are top_k
 *   4. drawn: a kept token with its share of what the kept ones hold
 *
 * The vocabulary is never sorted. A token is drawn from p, and taken if it is one of the kept: that needs the mass of
 * what is likelier, one pass of vector code, and happens with at least the chance top_p. After a few tokens in vain the
 * threshold between kept and not is looked for, by passes that narrow a bracket, and only what lies in a narrow bracket
 * is sorted. Probabilities are f32, their sums double. */
#ifndef MODEL_CHOOSE_H
#define MODEL_CHOOSE_H

#include "model/generate.h"

struct choose_scratch; /* one per thread */

elbo_status choose_scratch_make(struct choose_scratch **scratch, size_t vocabulary, elbo_error *error);
void choose_scratch_free(struct choose_scratch *scratch);

/* Sets the logits (V) of the tokens that may not be written to minus infinity. */
void choose_ban(float *logits, size_t vocabulary, const struct generate_options *o, const struct text_marks *marks);

/* log of the sum of exp(logits), within 1e-6; what is not a number counts nothing. Not a number when no logit is
 * finite. */
double choose_log_sum(const float *logits, size_t vocabulary);

/* A token for logits (V), which are changed by choose_ban. The noise has the address (seed, sample, position; draw: the
 * trial). The end mark when no logit that may be taken is finite. */
uint32_t choose_token(float *logits, size_t vocabulary, const struct generate_options *o,
                      const struct text_marks *marks, uint64_t sample, size_t position, struct choose_scratch *scratch);

#endif
