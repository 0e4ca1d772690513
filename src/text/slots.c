/* The loader: a background thread fills one of two batches while the other is in use.
 *
 * The data order is a Feistel network over the sentence numbers with addressed noise as its round function. It is
 * applied until the result is inside their range. Any place of any epoch is computed directly, so resuming needs only a
 * cursor. */
#include "text/slots.h"
#include "text/slots_private.h"

#include "base/philox.h"
#include "elbo/corpus.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BATCHES = 2, ROUNDS = 6 };

struct slot_loader {
    const struct elbo_corpus *corpus;
    struct slot_options options;
    struct slot_batch batches[BATCHES];
    uint32_t *ids[2];     /* (longest) ids of a sentence of each stream */
    uint64_t cursor, end; /* state of the background thread; end: cursor at which a single pass ends */
    uint64_t step;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int64_t seen;          /* time last seen by elbo_corpus_unchanged */
    size_t filled, handed; /* batches filled and batches handed out since the beginning */
    elbo_error error;      /* code other than ELBO_OK: the error that ended the background thread */
    bool stop;
};

/* ---- the data order ---- */

static uint64_t order_of(struct noise_key key, uint64_t index, uint64_t sentences)
{
    unsigned half = 1;
    while (half < 32 && (uint64_t)1 << (2 * half) < sentences) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1, x = index;
    do { /* the domain has at most 4 values per sentence, so the loop runs at most about 4 times on average */
        uint64_t left = x >> half, right = x & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint64_t mixed = left ^ (noise_bits(key, right, round, 0) & mask);
            left = right;
            right = mixed;
        }
        x = left << half | right;
    } while (x >= sentences);
    return x;
}

uint64_t slot_order(uint64_t seed, uint64_t epoch, uint64_t index, uint64_t sentences)
{
    return order_of(noise_key(seed, noise_purpose("data.shuffle"), epoch), index, sentences);
}

static uint64_t source_of(const struct slot_loader *loader, uint64_t sample)
{
    uint64_t sentences = elbo_corpus_sentences(loader->corpus), index = sample % sentences;
    return loader->options.shuffle ? slot_order(loader->options.seed, sample / sentences, index, sentences) : index;
}

/* ---- filling a batch ---- */

static size_t length_of(const struct slot_loader *loader, enum elbo_stream stream, uint64_t source)
{
    return elbo_corpus_length(loader->corpus, stream, source);
}

static bool too_long(const struct slot_loader *loader, uint64_t source)
{
    size_t limit = loader->options.max_length;
    return limit && (length_of(loader, ELBO_STREAM_DECODER, source) > limit ||
                     (loader->options.encoder_tokens && length_of(loader, ELBO_STREAM_ENCODER, source) > limit));
}

/* Finds the sentence at the cursor and skips sentences that are left out. Returns false at the end of a single pass. */
static bool find_sentence(struct slot_loader *loader, struct slot_batch *batch, uint64_t *source)
{
    while (!loader->options.single_pass || loader->cursor < loader->end) {
        *source = source_of(loader, loader->cursor);
        if (loader->options.too_long != SLOT_SKIP || !too_long(loader, *source)) return true;
        batch->shortened++;
        loader->cursor++;
    }
    return false;
}

static size_t cut(const struct slot_loader *loader, size_t length)
{
    size_t limit = loader->options.max_length;
    return limit && length > limit ? limit : length;
}

size_t slot_share(size_t whole, size_t kept, size_t length)
{
    if (kept == length) return whole;
    return (size_t)((double)whole * (double)kept / (double)length + 0.5);
}

/* Sets *added to false if the slot has no room for the sentence. */
static elbo_status add_sentence(bool *added, struct slot_loader *loader, struct slot_batch *batch, struct slot *slot,
                                uint64_t source, elbo_error *error)
{
    const struct elbo_corpus *corpus = loader->corpus;
    size_t whole = length_of(loader, ELBO_STREAM_DECODER, source);
    size_t encoder = cut(loader, length_of(loader, ELBO_STREAM_ENCODER, source)), decoder = cut(loader, whole);
    *added = slot_has_room(slot, &loader->options, encoder, decoder);
    if (!*added) return ELBO_OK;
    slot->words += slot_share(elbo_corpus_sentence_words(corpus, source), decoder, whole) + 1;
    slot->bytes += slot_share(elbo_corpus_sentence_bytes(corpus, source), decoder, whole);
    batch->sentences++;
    batch->shortened += too_long(loader, source);
    if (!slot->memory) {
        slot_count(slot, &loader->options, encoder, decoder, batch->step, loader->cursor);
        return ELBO_OK;
    }
    bool shared = elbo_corpus_shares_stream(corpus);
    size_t count;
    ELBO_TRY(elbo_corpus_read(corpus, ELBO_STREAM_DECODER, source, loader->ids[1], decoder, &count, error));
    if (!shared)
        ELBO_TRY(elbo_corpus_read(corpus, ELBO_STREAM_ENCODER, source, loader->ids[0], encoder, &count, error));
    slot_add(slot, &loader->options, elbo_corpus_marks(corpus, ELBO_STREAM_ENCODER),
             elbo_corpus_marks(corpus, ELBO_STREAM_DECODER), loader->ids[shared], encoder, loader->ids[1], decoder,
             batch->step, loader->cursor, source);
    if (loader->options.labels)
        slot->label[slot->sentences - 1] = loader->options.labels[elbo_corpus_label(corpus, source)];
    return ELBO_OK;
}

static elbo_status fill_slot(bool *more, struct slot_loader *loader, struct slot_batch *batch, struct slot *slot,
                             elbo_error *error)
{
    uint64_t source;
    bool added;
    slot_clear(slot);
    while ((*more = find_sentence(loader, batch, &source))) {
        ELBO_TRY(add_sentence(&added, loader, batch, slot, source, error));
        if (!added) break;
        loader->cursor++;
    }
    return ELBO_OK;
}

static elbo_status fill_batch(struct slot_loader *loader, struct slot_batch *batch, elbo_error *error)
{
    batch->step = loader->step++;
    batch->first = loader->cursor;
    batch->sentences = batch->count = batch->shortened = 0;
    uint64_t source;
    bool more = true;
    while (more && batch->count < loader->options.slots) {
        struct slot *slot = &batch->slots[batch->count];
        ELBO_TRY(fill_slot(&more, loader, batch, slot, error));
        if (!slot->sentences) break;
        if (slot->memory) slot_finish(slot);
        batch->count++;
    }
    /* Skipped sentences at the very end belong to this batch, so that it is known to be the last. */
    batch->last = loader->options.single_pass && !(more && find_sentence(loader, batch, &source));
    batch->next = loader->cursor;
    return elbo_corpus_unchanged(loader->corpus, &loader->seen, error);
}

/* ---- the background thread ---- */

static void *run(void *argument)
{
    struct slot_loader *loader = argument;
    elbo_error error = {0};
    pthread_mutex_lock(&loader->mutex);
    for (;;) {
        /* The batch handed out last is in use, so only one of the two can be filled ahead. */
        while (!loader->stop && loader->filled > loader->handed) pthread_cond_wait(&loader->changed, &loader->mutex);
        if (loader->stop) break;
        struct slot_batch *batch = &loader->batches[loader->filled % BATCHES];
        pthread_mutex_unlock(&loader->mutex);
        elbo_status status = fill_batch(loader, batch, &error);
        pthread_mutex_lock(&loader->mutex);
        if (status == ELBO_OK)
            loader->filled++;
        else
            loader->error = error;
        pthread_cond_broadcast(&loader->changed);
        if (status != ELBO_OK) break;
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

elbo_status slot_loader_next(struct slot_loader *loader, const struct slot_batch **batch, elbo_error *error)
{
    pthread_mutex_lock(&loader->mutex);
    while (loader->filled <= loader->handed && !loader->error.code) pthread_cond_wait(&loader->changed, &loader->mutex);
    bool more = loader->filled > loader->handed;
    if (more)
        *batch = &loader->batches[loader->handed++ % BATCHES];
    else
        *error = loader->error;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    return more ? ELBO_OK : error->code;
}

/* ---- opening ---- */

static elbo_status check_lengths(const struct slot_loader *loader, elbo_error *error)
{
    const struct elbo_corpus *corpus = loader->corpus;
    const struct slot_options *options = &loader->options;
    const char *folder = elbo_corpus_folder(corpus);
    size_t longest = 0, usable = 0, sentences = elbo_corpus_sentences(corpus);
    for (size_t i = 0; i < sentences; i++) {
        size_t length = length_of(loader, ELBO_STREAM_DECODER, i);
        bool over = too_long(loader, i);
        if (over && options->too_long == SLOT_REFUSE)
            return elbo_fail(error, ELBO_INPUT,
                             "sentence %zu of %s has %zu tokens and data.max_length is %zu; raise it, "
                             "or set data.too_long to truncate or skip",
                             i + 1, folder, length, options->max_length);
        usable += !over || options->too_long != SLOT_SKIP;
        if (options->encoder_tokens && length_of(loader, ELBO_STREAM_ENCODER, i) > length)
            length = length_of(loader, ELBO_STREAM_ENCODER, i);
        if (length > longest) longest = length;
    }
    if (!usable)
        return elbo_fail(error, ELBO_INPUT,
                         "no sentence of %s is within data.max_length = %zu tokens; raise it, or set "
                         "data.too_long=truncate",
                         folder, options->max_length);
    longest = cut(loader, longest);
    size_t marks = slot_decoder_rows(options, 0), capacity = options->decoder_tokens - marks;
    if (options->encoder_tokens && options->encoder_tokens - 2 < capacity) capacity = options->encoder_tokens - 2;
    if (longest > capacity)
        return elbo_fail(error, ELBO_USAGE,
                         "a sentence of %s has %zu tokens and a slot has room for %zu between its "
                         "marks; raise train.slot_tokens to %zu, or lower data.max_length",
                         folder, longest, capacity, longest + (marks > 2 ? marks : 2));
    return ELBO_OK;
}

static bool is_own(const struct slot_options *options, size_t slot)
{
    return !options->own_count || (slot >= options->own_first && slot < options->own_first + options->own_count);
}

static elbo_status allocate(struct slot_loader *loader, elbo_error *error)
{
    const struct slot_options *options = &loader->options;
    size_t longest = elbo_corpus_longest(loader->corpus, ELBO_STREAM_ENCODER);
    if (elbo_corpus_longest(loader->corpus, ELBO_STREAM_DECODER) > longest)
        longest = elbo_corpus_longest(loader->corpus, ELBO_STREAM_DECODER);
    longest = cut(loader, longest);
    for (int i = 0; i < 2; i++) {
        loader->ids[i] = calloc(longest + 1, sizeof *loader->ids[i]);
        if (!loader->ids[i]) return elbo_fail(error, ELBO_MEMORY, "no memory for a sentence of %zu tokens", longest);
    }
    for (int b = 0; b < BATCHES; b++) {
        loader->batches[b].slots = calloc(options->slots, sizeof(struct slot));
        if (!loader->batches[b].slots) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu slots", options->slots);
        for (size_t i = 0; i < options->slots; i++)
            if (is_own(options, i)) ELBO_TRY(slot_allocate(&loader->batches[b].slots[i], options, error));
    }
    return ELBO_OK;
}

static void release(struct slot_loader *loader)
{
    for (int b = 0; b < BATCHES; b++) {
        for (size_t i = 0; loader->batches[b].slots && i < loader->options.slots; i++)
            slot_free(&loader->batches[b].slots[i]);
        free(loader->batches[b].slots);
    }
    free(loader->ids[0]);
    free(loader->ids[1]);
    free(loader);
}

elbo_status slot_loader_open(struct slot_loader **out, const struct elbo_corpus *corpus,
                             const struct slot_options *options, elbo_error *error)
{
    if (!options->slots || !slot_sentence_capacity(options))
        return elbo_fail(error, ELBO_USAGE,
                         "a batch of %zu slots of %zu tokens holds no sentence; raise train.slots or "
                         "train.slot_tokens",
                         options->slots, options->decoder_tokens);
    struct slot_loader *loader = calloc(1, sizeof *loader);
    if (!loader) return elbo_fail(error, ELBO_MEMORY, "no memory for the data loader");
    uint64_t sentences = elbo_corpus_sentences(corpus);
    loader->corpus = corpus;
    loader->options = *options;
    loader->cursor = options->first;
    loader->end = (options->first / sentences + 1) * sentences;
    loader->step = options->step;
    elbo_status status = check_lengths(loader, error);
    if (status == ELBO_OK) status = allocate(loader, error);
    if (status != ELBO_OK) {
        release(loader);
        return status;
    }
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->changed, NULL);
    int number = pthread_create(&loader->thread, NULL, run, loader);
    if (number) {
        pthread_cond_destroy(&loader->changed);
        pthread_mutex_destroy(&loader->mutex);
        release(loader);
        return elbo_fail(error, ELBO_MEMORY, "cannot start the data loader's thread: %s", strerror(number));
    }
    *out = loader;
    return ELBO_OK;
}

void slot_loader_close(struct slot_loader *loader)
{
    if (!loader) return;
    pthread_mutex_lock(&loader->mutex);
    loader->stop = true;
    pthread_cond_broadcast(&loader->changed);
    pthread_mutex_unlock(&loader->mutex);
    pthread_join(loader->thread, NULL);
    pthread_cond_destroy(&loader->changed);
    pthread_mutex_destroy(&loader->mutex);
    release(loader);
}
