/* Slot records: packed micro-batches, delivered in data order by a background thread.
 *
 * A slot is filled in data order and closes when the next sentence would exceed a capacity, so its content follows from
 * (seed, epoch, index) alone. A batch is `slots` of them; its number of sentences is known before its first slot is
 * handed out. All arrays are allocated once, at their capacity.
 *
 *   encoder reads `start words end`;  decoder reads `start words` and predicts `words end`;  positions start at 0.
 *
 * A decoder may have `prefix` rows in front of `start`, without a word and without a label: they count as rows of the
 * stream and as positions, and not as tokens that are predicted. */
#ifndef TEXT_SLOTS_H
#define TEXT_SLOTS_H

#include "elbo/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>

struct elbo_corpus;
struct text_marks;

struct slot_stream {
    size_t tokens;           /* N rows in use                                               */
    size_t longest;          /* rows of the longest sentence                                */
    int32_t *ids;            /* (N) what the stream reads; of rows of the prefix the start mark, unread */
    int32_t *labels;         /* (N) what the decoder predicts, -1: nothing; null for the encoder */
    int32_t *offsets;        /* (S + 1) first row of each sentence                          */
    int32_t *sentence;       /* (N) row -> sentence                                         */
    int32_t *position;       /* (N) row -> position in its sentence                         */
    int32_t *id_order;       /* (N) rows by rising id, stable: the embedding's gradient     */
    int32_t *position_order; /* (N) rows by rising position, stable                         */
};

struct slot {
    size_t sentences;                    /* S                                                           */
    struct slot_stream encoder, decoder; /* encoder.tokens is 0 when no encoder capacity was asked for  */
    uint64_t *sample;                    /* (S) global sample index: epoch * corpus sentences + index   */
    uint64_t *source;                    /* (S) sentence's number in the corpus                         */
    int32_t *by_length;                  /* (S) sentences by falling decoder length, stable             */
    int32_t *label;                      /* (S) class of each sentence; 0 without labels                */
    int32_t *label_order;                /* (S) sentences by rising class, stable                       */
    size_t words, bytes;                 /* of the text in this slot; words count one end mark each; a
                                            cut sentence counts its share; 0 when filled by hand        */
    size_t room;                         /* rows of the encoder before words are left out: what closes a slot */
    size_t predicted;                    /* tokens that the decoder predicts: its rows but those of prefixes   */
    size_t dropped;                      /* decoder inputs that became the mark                                */
    void *memory;                        /* all of the above and the scratch for sorting, one block     */
    int32_t *scratch;
};

struct slot_batch {
    uint64_t step;        /* number of this batch since the run began                            */
    uint64_t first, next; /* global sample index before and after it: the data cursor            */
    size_t sentences;     /* of all its slots                                                    */
    size_t count;         /* slots in use; fewer than asked only at the end of a single pass     */
    struct slot *slots;   /* (count); sentences, tokens, longest, words, bytes of all            */
    size_t shortened;     /* sentences cut or left out for their length                          */
    bool last;            /* single pass: nothing follows                                        */
};

enum slot_too_long { SLOT_TRUNCATE, SLOT_SKIP, SLOT_REFUSE };

struct slot_options {
    size_t slots;                /* per batch                                                       */
    size_t own_first, own_count; /* the slots that this process computes, the rest of a batch's has only its counts, and
                                    null arrays; own_count 0: all                                        */
    size_t encoder_tokens;       /* capacity of a slot; 0: no encoder stream                        */
    size_t decoder_tokens;       /* capacity of a slot                                              */
    size_t prefix;               /* rows in front of each sentence of the decoder; they count in decoder_tokens */
    size_t sentences;            /* capacity of a slot; 0: bounded by the tokens alone              */
    size_t max_length;           /* longest sentence in tokens without marks; see `too_long`; 0: any */
    enum slot_too_long too_long;
    bool shuffle;     /* an order that depends on (seed, epoch); else the corpus's order */
    bool single_pass; /* evaluation: each sentence once, then a batch with last = true   */
    uint64_t seed;
    uint64_t first;        /* data cursor to begin at                                         */
    uint64_t step;         /* number of the first batch                                       */
    const int32_t *labels; /* number that a class of the corpus has in the model; null: labels are not read */
    int32_t label;         /* of sentences that are filled by hand, a number of the model's  */
    double word_dropout;   /* decoder inputs but the start mark become the mark               */
    int32_t mark;          /* id of what is dropped or blanked; 0: the unknown mark           */
    /* The encoder's words: shares of those left out, of those that become the mark, and of neighbours exchanged. */
    double drop, blank, swap;
};

/* Place `index` of epoch `epoch` holds this sentence: a permutation of 0 .. sentences - 1 that follows from (seed,
 * epoch) alone and takes no memory. */
uint64_t slot_order(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t sentences);

/* A cut sentence's words or bytes: its share of them by tokens, rounded. */
size_t slot_share(size_t whole, size_t kept, size_t length);

struct slot_loader;

/* Starts the background thread. The corpus must outlive the loader. Fails when a sentence cannot fit a slot, when none
 * is left under SLOT_SKIP, and for the first one that is too long under SLOT_REFUSE. */
elbo_status slot_loader_open(struct slot_loader **loader, const struct elbo_corpus *corpus,
                             const struct slot_options *options, elbo_error *error);

/* The next batch; valid until the following call. Waits for the background thread; allocates nothing. After a batch
 * with last = true, only empty ones follow. ELBO_INPUT, ELBO_IO: the corpus became shorter, changed or cannot be read;
 * batches that were filled before are given first, and every later call says the same. */
elbo_status slot_loader_next(struct slot_loader *loader, const struct slot_batch **batch, elbo_error *error);

void slot_loader_close(struct slot_loader *loader);

/* Capacity of a slot in sentences under these options (what arrays are sized for). */
size_t slot_sentence_capacity(const struct slot_options *options);

/* Rows of a stream that a sentence of `length` tokens takes: with its marks, and the decoder's with its prefix. */
static inline size_t slot_encoder_rows(size_t length)
{
    return length + 2;
}
static inline size_t slot_decoder_rows(const struct slot_options *options, size_t length)
{
    return options->prefix + length + 1;
}

/* Bytes of a slot's memory. */
size_t slot_bytes(const struct slot_options *options);

/* One slot filled by hand from token lists without marks (encode, reconstruct, tests): `tokens[i]` has `lengths[i]`.
 * The slot must be freed with slot_free. Fails when they do not fit the capacities. `sample[i]` = first_sample + i, and
 * `source[i]` = i. Word dropout is applied if the options ask for it, with options->seed and options->step. */
elbo_status slot_allocate(struct slot *slot, const struct slot_options *options, elbo_error *error);
elbo_status slot_fill(struct slot *slot, const struct slot_options *options, const struct text_marks *marks,
                      const uint32_t *const *tokens, const size_t *lengths, size_t sentences, uint64_t first_sample,
                      elbo_error *error);
void slot_free(struct slot *slot);

#endif
