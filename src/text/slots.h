/* Slot records: packed micro-batches, delivered in data order by a background thread.
 *
 * A slot is filled in data order and closes when the next sentence would exceed a capacity, so its content follows from
 * (seed, epoch, index) alone. A batch has `slots` slots; its number of sentences is known before its first slot is
 * handed out. All arrays are allocated once, at their capacity.
 *
 *   encoder reads `start words end`;  decoder reads `start words` and predicts `words end`;  positions start at 0.
 *
 * A decoder may have `prefix` rows in front of `start`, without a word and without a label. Prefix rows count as rows
 * of the stream and as positions, but not as predicted tokens. */
#ifndef TEXT_SLOTS_H
#define TEXT_SLOTS_H

#include "elbo/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

struct elbo_corpus;
struct elbo_marks;

struct slot_stream {
    size_t tokens;           /* N rows in use */
    size_t longest;          /* rows of the longest sentence */
    int32_t *ids;            /* (N) ids that the stream reads; prefix rows hold the start mark, which is not read */
    int32_t *labels;         /* (N) ids that the decoder predicts, -1: none; null for the encoder */
    int32_t *offsets;        /* (S + 1) first row of each sentence */
    int32_t *sentence;       /* (N) row -> sentence */
    int32_t *position;       /* (N) row -> position in its sentence */
    int32_t *id_order;       /* (N) rows by rising id, stable, for the embedding's gradient */
    int32_t *position_order; /* (N) rows by rising position, stable */
};

struct slot {
    size_t sentences;                    /* S */
    struct slot_stream encoder, decoder; /* encoder.tokens is 0 without encoder capacity */
    uint64_t *sample;                    /* (S) global sample index: epoch * corpus sentences + index */
    uint64_t *source;                    /* (S) number of each sentence in the corpus */
    int32_t *by_length;                  /* (S) sentences by falling decoder length, stable */
    int32_t *label;                      /* (S) class of each sentence; 0 without labels */
    int32_t *label_order;                /* (S) sentences by rising class, stable */
    size_t words, bytes; /* of the text in this slot; words include one end mark per sentence; a cut sentence counts its
                            share; 0 when filled by hand */
    size_t room;         /* rows of the encoder before words are left out; these rows fill the slot's capacity */
    size_t predicted;    /* tokens that the decoder predicts: its rows without prefix rows */
    size_t dropped;      /* decoder inputs that became the mark */
    void *memory;        /* one block with all arrays above and the scratch of the sort */
    int32_t *scratch;
};

struct slot_batch {
    uint64_t step;        /* number of this batch since the run began */
    uint64_t first, next; /* global sample index before and after the batch: the data cursor */
    size_t sentences;     /* in all slots of the batch */
    size_t count;         /* slots in use; fewer than requested only at the end of a single pass */
    struct slot *slots;   /* (count); every slot has its sentences, tokens, longest, words and bytes */
    size_t shortened;     /* sentences cut or skipped because of their length */
    bool last;            /* no batch with sentences follows (single pass) */
};

enum slot_too_long { SLOT_TRUNCATE, SLOT_SKIP, SLOT_REFUSE };

struct slot_options {
    size_t slots;                /* per batch */
    size_t own_first, own_count; /* slots that this process computes; the other slots of a batch have only counts and
                                    null arrays; own_count 0: all */
    size_t encoder_tokens;       /* capacity of a slot; 0: no encoder stream */
    size_t decoder_tokens;       /* capacity of a slot */
    size_t prefix;               /* rows in front of each sentence of the decoder; counted in decoder_tokens */
    size_t sentences;            /* capacity of a slot; 0: bounded only by the tokens */
    size_t max_length;           /* longest sentence in tokens without marks; see `too_long`; 0: any */
    enum slot_too_long too_long;
    bool shuffle;     /* order depends on (seed, epoch); false: the order of the corpus */
    bool single_pass; /* evaluation: each sentence once; the final batch has last = true */
    uint64_t seed;
    uint64_t first;        /* data cursor at which to begin */
    uint64_t step;         /* number of the first batch */
    const int32_t *labels; /* the model's number for each class of the corpus; null: labels are not read */
    int32_t label;         /* class of sentences filled by hand, as the model's number */
    double word_dropout;   /* share of decoder inputs that become the mark; the start mark never does */
    int32_t mark;          /* id for dropped and blanked words; 0: the unknown mark */
    /* Shares of the encoder's words that are left out, that become the mark, and that change places with a neighbor. */
    double drop, blank, swap;
};

/* Returns the sentence at place `index` of epoch `epoch`: a permutation of 0 .. sentences - 1 that follows from (seed,
 * epoch) alone and takes no memory. */
uint64_t slot_order(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t sentences);

/* Returns the words or bytes of a cut sentence: the share of `whole` by tokens, rounded. */
size_t slot_share(size_t whole, size_t kept, size_t length);

struct slot_loader;

/* Starts the background thread. The corpus must outlive the loader. Fails if a sentence cannot fit a slot, if SLOT_SKIP
 * leaves no sentence, and if SLOT_REFUSE meets a sentence that is too long. */
elbo_status slot_loader_open(struct slot_loader **loader, const struct elbo_corpus *corpus,
                             const struct slot_options *options, elbo_error *error);

/* Returns the next batch, valid until the following call. Waits for the background thread and allocates nothing. After
 * a batch with last = true, all batches are empty. ELBO_INPUT, ELBO_IO: the corpus shrank, changed or cannot be read.
 * Batches filled before the error are returned first, and every call after the error returns it again. */
elbo_status slot_loader_next(struct slot_loader *loader, const struct slot_batch **batch, elbo_error *error);

void slot_loader_close(struct slot_loader *loader);

/* Returns the capacity of a slot in sentences, which is the size of its arrays. */
size_t slot_sentence_capacity(const struct slot_options *options);

/* Return the rows of a stream that a sentence of `length` tokens takes, with its marks and the decoder's prefix. */
static inline size_t slot_encoder_rows(size_t length)
{
    return length + 2;
}
static inline size_t slot_decoder_rows(const struct slot_options *options, size_t length)
{
    return options->prefix + length + 1;
}

/* Returns the bytes of a slot's memory. */
size_t slot_bytes(const struct slot_options *options);

/* Fills one slot by hand from token lists without marks (encode, reconstruct, tests); `tokens[i]` has `lengths[i]` ids.
 * The slot must be freed with slot_free. Fails if the sentences do not fit the capacities. `sample[i]` = first_sample +
 * i and `source[i]` = i. Word dropout uses options->seed and options->step. */
elbo_status slot_allocate(struct slot *slot, const struct slot_options *options, elbo_error *error);
elbo_status slot_fill(struct slot *slot, const struct slot_options *options, const struct elbo_marks *marks,
                      const uint32_t *const *tokens, const size_t *lengths, size_t sentences, uint64_t first_sample,
                      elbo_error *error);
void slot_free(struct slot *slot);

#endif
