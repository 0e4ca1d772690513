/* Assigns each sentence to a part of a split. Sentences that are the same to the tokenizer are in one part, and the
 * order of the input does not change the parts:
 *
 *   1. The words of a sentence, joined by single blanks, have a hash, which is the sentence's place in 0 .. 1. A part
 *      has a range of places, train first. The vocabulary is learned from the sentences whose place is in train's
 *      range.
 *   2. Sentences of different words have the same ids only if both hold unknown words. Sentences with the same ids go
 *      to the first part that the place of any of them is in. So all sentences that the vocabulary was learned from
 *      are in train. */
#ifndef TEXT_SPLIT_H
#define TEXT_SPLIT_H

#include "elbo/corpus.h"

struct split {
    size_t count; /* number of parts; 1 without a split */
    struct {
        const char *name; /* "" without a split */
        double to;        /* end of the part's range of places */
    } parts[ELBO_PREPARE_PARTS];
    struct elbo_text words;  /* scratch: the words of a sentence, joined */
    uint64_t *slots;         /* (slot_count) hash of ids in the upper 62 bits, part + 1 in the lower two; 0: free */
    size_t used, slot_count; /* slot_count is a power of two */
};

/* Parses `text`: "95/2.5/2.5", or null or "" for one part. ELBO_USAGE: any other text. */
elbo_status split_open(struct split *split, const char *text, elbo_error *error);
void split_close(struct split *split);

/* Sets *part to the part that the sentence's place is in. */
elbo_status split_part(struct split *split, size_t *part, const char *text, size_t size, elbo_error *error);
/* Notes that a sentence of these ids, some of them unknown, has its place in `part`. */
elbo_status split_note(struct split *split, size_t part, const struct elbo_ids *ids, elbo_error *error);
/* Returns the first part noted for these ids, or `part` if none was noted. */
size_t split_noted(const struct split *split, size_t part, const struct elbo_ids *ids);

#endif
