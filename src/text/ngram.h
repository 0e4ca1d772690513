/* Count-based baselines: the cost of a model that only counts, in nats per sentence, end mark included. */
#ifndef TEXT_NGRAM_H
#define TEXT_NGRAM_H

#include "elbo/corpus.h"

struct ngram_baseline {
    double unigram; /* p(w) = (count(w) + 1) / (tokens + V) over words and end marks of the training corpus */
    double bigram;  /* p(w | v) interpolated with the unigram by Witten and Bell (1991): the unigram's share is types(v)
                       / (types(v) + count(v)), where types(v) is the number of different words after v */
};

/* The part of a corpus that a model is measured on: its first sentences. Longer sentences are cut to max_length tokens,
 * or skipped. */
struct ngram_scope {
    size_t sentences;  /* number of sentences that count; 0: all */
    size_t max_length; /* tokens without marks; 0: any */
    bool skip;         /* skip longer sentences instead of cutting them */
};

/* Counts all of `train` and measures on `scope` of `test`. ELBO_INPUT: the tokenizers differ, or no sentence is left to
 * measure. */
elbo_status ngram_baseline(struct ngram_baseline *out, const struct elbo_corpus *train, const struct elbo_corpus *test,
                           const struct ngram_scope *scope, elbo_error *error);

#endif
