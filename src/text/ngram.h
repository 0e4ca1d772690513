/* Count-based baselines: what a model without any learning would pay, in nats per sentence, end mark counted. */
#ifndef TEXT_NGRAM_H
#define TEXT_NGRAM_H

#include "elbo/corpus.h"

struct ngram_baseline {
    double unigram; /* p(w) = (count(w) + 1) / (tokens + V) over words and end marks of the training corpus          */
    double bigram;  /* p(w | v) interpolated with the unigram by Witten and Bell (1991): the share of the unigram is
                     * types(v) / (types(v) + count(v)), where types(v) is the number of different words after v  */
};

/* The part of a corpus that a model is measured on: its first sentences, cut to max_length tokens, or without those
 * that are longer. */
struct ngram_scope {
    size_t sentences;  /* that count; 0: all                  */
    size_t max_length; /* tokens without marks; 0: any        */
    bool skip;         /* longer ones are left out, not cut   */
};

/* Counts in all of `train`, measured on `scope` of `test`; both have the same tokenizer. ELBO_INPUT when they do not,
 * or when nothing is left to measure. */
elbo_status ngram_baseline(struct ngram_baseline *out, const struct elbo_corpus *train, const struct elbo_corpus *test,
                           const struct ngram_scope *scope, elbo_error *error);

#endif
