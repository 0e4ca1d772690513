/* Encodes one word by the rules of a byte pair encoding (bpe.h) through a priority queue: O(n log n) for n bytes. */
#ifndef TEXT_BPE_WORD_H
#define TEXT_BPE_WORD_H

#include "text/bpe.h"
#include "text/buffers.h"
#include "text/merge_queue.h"

/* Longest sentence in bytes. The queue numbers three merges per byte, and its spare room, in 32 bits. */
#define BPE_LONGEST (UINT32_MAX / 8)

struct bpe_word { /* scratch that grows to the longest word seen; zero: empty */
    size_t room;
    uint32_t *symbol, *next, *before; /* (room) */
    struct merge_queue queue;
};

/* Appends the ids of a word (MARKS + piece number). */
elbo_status bpe_encode_word(struct bpe_word *w, const struct bpe_rules *rules, struct elbo_ids *ids, const char *word,
                            size_t size, elbo_error *error);
void bpe_word_free(struct bpe_word *w);

#endif
