/* One word by the rules of a byte pair encoding (bpe.h), through a queue: n log n for a word of n bytes. */
#ifndef TEXT_BPE_WORD_H
#define TEXT_BPE_WORD_H

#include "text/bpe.h"
#include "text/buffers.h"
#include "text/merge_queue.h"

/* Bytes of a sentence: three merges for each, and their room, are numbered in 32 bits. */
#define BPE_LONGEST (UINT32_MAX / 8)

struct bpe_word { /* scratch, grown to the longest word seen; zero: none */
    size_t room;
    uint32_t *symbol, *next, *before; /* (room) */
    struct merge_queue queue;
};

/* Appends the ids (MARKS + piece number) of a word. */
elbo_status bpe_encode_word(struct bpe_word *w, const struct bpe_rules *rules, struct elbo_ids *ids, const char *word,
                            size_t size, elbo_error *error);
void bpe_word_free(struct bpe_word *w);

#endif
