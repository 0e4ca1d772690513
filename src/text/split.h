/* Which part of a split a sentence belongs to. What is the same to the tokenizer is in one part, and no order of the
 * input changes the parts:
 *
 *   1. The words of a sentence, joined by single blanks, have a hash, which is the sentence's place in 0 .. 1. A part
 *      has a range of places, train first. The vocabulary is learned from the sentences whose place is in train's
 *      range.
 *   2. Sentences of other words have the same ids only where both hold unknown words. Those with the same ids go to
 *      the first part that the place of any of them is in. So all that the vocabulary was learned from is in train. */
#ifndef TEXT_SPLIT_H
#define TEXT_SPLIT_H

#include "elbo/corpus.h"

struct split {
    size_t count; /* parts; 1 without a split */
    struct {
        const char *name; /* "" without a split           */
        double to;        /* end of its range of places   */
    } parts[ELBO_PREPARE_PARTS];
    struct elbo_text words;  /* scratch: a sentence as its words */
    uint64_t *slots;         /* (slot_count) hash of ids in the upper 62 bits, part + 1 in the lower; 0: free */
    size_t used, slot_count; /* slot_count: a power of two */
};

/* `text` is "95/2.5/2.5", or null or "" for one part. ELBO_USAGE when it is neither. */
elbo_status split_open(struct split *split, const char *text, elbo_error *error);
void split_close(struct split *split);

/* The part that a sentence's place is in. */
elbo_status split_part(struct split *split, size_t *part, const char *text, size_t size, elbo_error *error);
/* A sentence of these ids, some of which are unknown, has its place in this part. */
elbo_status split_note(struct split *split, size_t part, const struct elbo_ids *ids, elbo_error *error);
/* The first part that was noted for these ids, or `part`. */
size_t split_noted(const struct split *split, size_t part, const struct elbo_ids *ids);

#endif
