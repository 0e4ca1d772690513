/* One slot: allocates its memory, adds sentences to it, and derives the orders when it is full. */
#include "text/slots.h"
#include "text/slots_private.h"

#include "base/checked.h"
#include "base/philox.h"
#include "elbo/tokenizer.h"

#include <stdlib.h>
#include <string.h>

size_t slot_sentence_capacity(const struct slot_options *options)
{
    size_t capacity = options->decoder_tokens / slot_decoder_rows(options, 0);
    size_t read = options->encoder_tokens / slot_encoder_rows(0);
    if (options->encoder_tokens && read < capacity) capacity = read;
    if (options->sentences && options->sentences < capacity) capacity = options->sentences;
    return capacity;
}

/* ---- memory ---- */

struct layout {
    unsigned char *base; /* null while measuring */
    size_t used;
    bool overflow;
};

static void *take(struct layout *layout, size_t count, size_t size)
{
    size_t bytes, at = layout->used;
    if (!checked_mul(&bytes, count, size) || !checked_add(&layout->used, at, bytes) ||
        !checked_align(&layout->used, layout->used, 64))
        layout->overflow = true;
    return layout->base && !layout->overflow ? layout->base + at : NULL;
}

static void take_stream(struct layout *layout, struct slot_stream *stream, size_t tokens, size_t sentences, bool labels)
{
    int32_t **const columns[] = {&stream->ids, &stream->sentence, &stream->position, &stream->id_order,
                                 &stream->position_order};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) *columns[i] = take(layout, tokens, sizeof(int32_t));
    stream->labels = labels ? take(layout, tokens, sizeof(int32_t)) : NULL;
    stream->offsets = take(layout, sentences + 1, sizeof(int32_t));
}

static void take_slot(struct layout *layout, struct slot *slot, const struct slot_options *options)
{
    size_t sentences = slot_sentence_capacity(options);
    size_t tokens =
        options->encoder_tokens > options->decoder_tokens ? options->encoder_tokens : options->decoder_tokens;
    take_stream(layout, &slot->encoder, options->encoder_tokens, sentences, false);
    take_stream(layout, &slot->decoder, options->decoder_tokens, sentences, true);
    slot->sample = take(layout, sentences, sizeof(uint64_t));
    slot->source = take(layout, sentences, sizeof(uint64_t));
    slot->by_length = take(layout, sentences, sizeof(int32_t));
    slot->label = take(layout, sentences, sizeof(int32_t));
    slot->label_order = take(layout, sentences, sizeof(int32_t));
    slot->scratch = take(layout, 2 * tokens, sizeof(int32_t));
}

size_t slot_bytes(const struct slot_options *options)
{
    struct slot unused = {0};
    struct layout layout = {0};
    take_slot(&layout, &unused, options);
    return layout.overflow ? SIZE_MAX : layout.used + 64;
}

elbo_status slot_allocate(struct slot *slot, const struct slot_options *options, elbo_error *error)
{
    *slot = (struct slot){0};
    struct layout layout = {0};
    if (options->encoder_tokens > INT32_MAX / 2 || options->decoder_tokens > INT32_MAX / 2)
        return elbo_fail(error, ELBO_USAGE, "a slot of %zu tokens is too large; at most %d", options->decoder_tokens,
                         INT32_MAX / 2);
    size_t bytes = slot_bytes(options);
    void *memory = bytes == SIZE_MAX ? NULL : calloc(1, bytes);
    if (!memory)
        return elbo_fail(error, ELBO_MEMORY, "no memory for a slot of %zu tokens (%zu bytes); lower train.slot_tokens",
                         options->decoder_tokens, bytes);
    layout.base = memory;
    take_slot(&layout, slot, options);
    slot->memory = memory;
    return ELBO_OK;
}

void slot_free(struct slot *slot)
{
    free(slot->memory);
    *slot = (struct slot){0};
}

/* ---- filling ---- */

void slot_clear(struct slot *slot)
{
    slot->sentences = slot->words = slot->bytes = slot->room = slot->predicted = slot->dropped = 0;
    struct slot_stream *const streams[] = {&slot->encoder, &slot->decoder};
    for (int i = 0; i < 2; i++) {
        streams[i]->tokens = streams[i]->longest = 0;
        if (streams[i]->offsets) streams[i]->offsets[0] = 0;
    }
}

bool slot_has_room(const struct slot *slot, const struct slot_options *options, size_t encoder_length,
                   size_t decoder_length)
{
    if (slot->sentences == slot_sentence_capacity(options)) return false;
    if (options->encoder_tokens && slot_encoder_rows(encoder_length) > options->encoder_tokens - slot->room)
        return false;
    return slot_decoder_rows(options, decoder_length) <= options->decoder_tokens - slot->decoder.tokens;
}

static void count_rows(struct slot_stream *stream, size_t rows)
{
    stream->tokens += rows;
    if (rows > stream->longest) stream->longest = rows;
}

/* Appends `rows` rows of `sentence`, whose ids are in stream->ids already. */
static void add_rows(struct slot_stream *stream, size_t sentence, size_t rows)
{
    size_t first = stream->tokens;
    for (size_t i = 0; i < rows; i++) {
        stream->sentence[first + i] = (int32_t)sentence;
        stream->position[first + i] = (int32_t)i;
    }
    count_rows(stream, rows);
    stream->offsets[sentence + 1] = (int32_t)stream->tokens;
}

static uint32_t limit_of(double share)
{
    double limit = share * 0x1p32;
    return limit >= 0x1p32 ? UINT32_MAX : (uint32_t)limit;
}

/* Replaces inputs by the mark where the noise says so, but never the start mark at position 0. Returns the number of
 * replaced inputs. With null `ids` it only counts. */
static size_t drop_words(int32_t *ids, size_t rows, const struct slot_options *options, uint64_t step, uint64_t sample,
                         int32_t mark)
{
    if (options->word_dropout <= 0) return 0;
    uint64_t limit = (uint64_t)(options->word_dropout * 0x1p32);
    struct noise_key key = noise_key(options->seed, noise_purpose("data.word_dropout"), step);
    size_t dropped = 0;
    for (size_t t = 0; t < rows; t += 4) {
        struct philox_block block = noise_block(key, sample, 0, (uint32_t)(t / 4));
        for (size_t i = 0; i < 4 && t + i < rows; i++) {
            if (!(t + i) || block.word[i] >= limit) continue;
            if (ids) ids[t + i] = mark;
            dropped++;
        }
    }
    return dropped;
}

/* Denoising (Vincent et al. 2008; for sentences Lample et al. 2018): first neighbors change places, then words become
 * the mark or are left out, each by the noise at its position. Returns the number of words left. */
static size_t denoise(int32_t *words, size_t count, const struct slot_options *o, uint64_t step, uint64_t sample,
                      int32_t mark)
{
    struct noise_key swap = noise_key(o->seed, noise_purpose("data.denoise.swap"), step),
                     blank = noise_key(o->seed, noise_purpose("data.denoise.blank"), step),
                     drop = noise_key(o->seed, noise_purpose("data.denoise.drop"), step);
    size_t left = 0;
    for (size_t i = 0; o->swap > 0 && i + 1 < count; i++) {
        if (noise_bits(swap, sample, 0, i) >= limit_of(o->swap)) continue;
        int32_t word = words[i];
        words[i] = words[i + 1];
        words[++i] = word;
    }
    for (size_t i = 0; i < count; i++) {
        if (o->drop > 0 && noise_bits(drop, sample, 0, i) < limit_of(o->drop)) continue;
        bool blanked = o->blank > 0 && noise_bits(blank, sample, 0, i) < limit_of(o->blank);
        words[left++] = blanked ? mark : words[i];
    }
    return left;
}

void slot_add(struct slot *slot, const struct slot_options *options, const struct elbo_marks *encoder_marks,
              const struct elbo_marks *decoder_marks, const uint32_t *encoder_ids, size_t encoder_length,
              const uint32_t *decoder_ids, size_t decoder_length, uint64_t step, uint64_t sample, uint64_t source)
{
    size_t s = slot->sentences++;
    slot->sample[s] = sample;
    slot->source[s] = source;
    slot->label[s] = options->label;
    if (options->encoder_tokens) {
        int32_t *ids = slot->encoder.ids + slot->encoder.tokens;
        int32_t mark = options->mark ? options->mark : (int32_t)encoder_marks->unknown;
        *ids++ = (int32_t)encoder_marks->start;
        for (size_t i = 0; i < encoder_length; i++) ids[i] = (int32_t)encoder_ids[i];
        size_t left = denoise(ids, encoder_length, options, step, sample, mark);
        ids[left] = (int32_t)encoder_marks->end;
        add_rows(&slot->encoder, s, left + 2);
        slot->room += slot_encoder_rows(encoder_length);
    } else {
        slot->encoder.offsets[s + 1] = 0;
    }
    int32_t *ids = slot->decoder.ids + slot->decoder.tokens, *labels = slot->decoder.labels + slot->decoder.tokens;
    for (size_t i = 0; i < options->prefix; i++) {
        *ids++ = (int32_t)decoder_marks->start;
        *labels++ = -1;
    }
    ids[0] = (int32_t)decoder_marks->start;
    for (size_t i = 0; i < decoder_length; i++) ids[i + 1] = labels[i] = (int32_t)decoder_ids[i];
    labels[decoder_length] = (int32_t)decoder_marks->end;
    slot->dropped += drop_words(ids, decoder_length + 1, options, step, sample,
                                options->mark ? options->mark : (int32_t)decoder_marks->unknown);
    slot->predicted += decoder_length + 1;
    add_rows(&slot->decoder, s, slot_decoder_rows(options, decoder_length));
}

void slot_count(struct slot *slot, const struct slot_options *options, size_t encoder_length, size_t decoder_length,
                uint64_t step, uint64_t sample)
{
    slot->sentences++;
    slot->dropped += drop_words(NULL, decoder_length + 1, options, step, sample, 0);
    if (options->encoder_tokens) {
        count_rows(&slot->encoder, slot_encoder_rows(encoder_length));
        slot->room += slot_encoder_rows(encoder_length);
    }
    slot->predicted += decoder_length + 1;
    count_rows(&slot->decoder, slot_decoder_rows(options, decoder_length));
}

/* ---- orders ---- */

/* Sorts 0 .. n - 1 by rising key, stable, into `order`: radix sort by bytes, least significant first. `scratch` has n
 * elements. */
static void order_by(int32_t *order, const int32_t *key, size_t n, int32_t *scratch)
{
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        order[i] = (int32_t)i;
        if (key[i] > largest) largest = key[i];
    }
    int32_t *from = order, *to = scratch;
    for (int shift = 0; shift < 32 && largest >> shift; shift += 8) {
        size_t start[257] = {0};
        for (size_t i = 0; i < n; i++) start[(key[i] >> shift & 255) + 1]++;
        for (size_t digit = 0; digit < 256; digit++) start[digit + 1] += start[digit];
        for (size_t i = 0; i < n; i++) to[start[key[from[i]] >> shift & 255]++] = from[i];
        int32_t *spare = from;
        from = to;
        to = spare;
    }
    if (from != order && n) memcpy(order, from, n * sizeof *order);
}

void slot_finish(struct slot *slot)
{
    struct slot_stream *const streams[] = {&slot->encoder, &slot->decoder};
    for (int i = 0; i < 2; i++) {
        struct slot_stream *stream = streams[i];
        order_by(stream->id_order, stream->ids, stream->tokens, slot->scratch);
        order_by(stream->position_order, stream->position, stream->tokens, slot->scratch);
    }
    /* Falling length is rising distance from the longest. The keys fit behind the sort's scratch, because S <= N. */
    const struct slot_stream *decoder = &slot->decoder;
    int32_t *key = slot->scratch + slot->sentences;
    for (size_t s = 0; s < slot->sentences; s++)
        key[s] = (int32_t)decoder->longest - (decoder->offsets[s + 1] - decoder->offsets[s]);
    order_by(slot->by_length, key, slot->sentences, slot->scratch);
    order_by(slot->label_order, slot->label, slot->sentences, slot->scratch);
}

elbo_status slot_fill(struct slot *slot, const struct slot_options *options, const struct elbo_marks *marks,
                      const uint32_t *const *tokens, const size_t *lengths, size_t sentences, uint64_t first_sample,
                      elbo_error *error)
{
    slot_clear(slot);
    for (size_t i = 0; i < sentences; i++) {
        if (!slot_has_room(slot, options, lengths[i], lengths[i]))
            return elbo_fail(error, ELBO_INPUT,
                             "sentence %zu of %zu tokens does not fit a slot of %zu tokens and %zu "
                             "sentences that holds %zu sentences",
                             i, lengths[i], options->decoder_tokens, slot_sentence_capacity(options), slot->sentences);
        slot_add(slot, options, marks, marks, tokens[i], lengths[i], tokens[i], lengths[i], options->step,
                 first_sample + i, i);
    }
    slot_finish(slot);
    return ELBO_OK;
}
