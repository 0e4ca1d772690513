/* Byte pair encoding: the rules, shared by training (bpe_train.c) and use (tokenizer_bpe.c).
 *
 * Pieces are byte strings: numbers 0 .. 255 are the bytes, each further one the concatenation of two earlier ones. A
 * rule (left, right) -> result has a rank, its place in the list; encoding applies the lowest rank first, leftmost
 * first. */
#ifndef TEXT_BPE_H
#define TEXT_BPE_H

#include "elbo/status.h"
#include "text/strings.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BPE_NONE UINT32_MAX

struct bpe_rule {
    uint32_t left, right, result; /* piece numbers */
};

struct bpe_rules {
    struct strings pieces;
    struct bpe_rule *rules; /* (count) by rank */
    size_t count, capacity;
    uint32_t *slots; /* hash of (left, right) -> rank + 1; 0: free */
    size_t slot_count;
};

/* Opens rules that hold the 256 byte pieces and no merge. */
elbo_status bpe_rules_open(struct bpe_rules *rules, elbo_error *error);
void bpe_rules_free(struct bpe_rules *rules);
/* Returns the rank of (left, right), or BPE_NONE. */
uint32_t bpe_rank(const struct bpe_rules *rules, uint32_t left, uint32_t right);
/* Adds a rule; its result is a new piece unless one of the same bytes exists. Fails for a pair that has a rule. */
elbo_status bpe_add_rule(struct bpe_rules *rules, uint32_t left, uint32_t right, elbo_error *error);

/* Learns rules until there are `pieces` pieces or no pair occurs twice. `words` are pre-tokens with their counts. */
elbo_status bpe_train(struct bpe_rules *rules, const struct strings *words, size_t pieces, elbo_error *error);

#endif
