/* Reads an open corpus: its counts, its sentences and their lengths. See corpus_private.h. */
#include "text/corpus_private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A corpus has one stream, so the encoder's and the decoder's stream are the same. */

size_t elbo_corpus_sentences(const struct elbo_corpus *corpus)
{
    return corpus->header.sentences;
}

size_t elbo_corpus_words(const struct elbo_corpus *corpus)
{
    return corpus->header.words;
}

size_t elbo_corpus_bytes(const struct elbo_corpus *corpus)
{
    return corpus->header.bytes;
}

size_t elbo_corpus_tokens(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].tokens;
}

size_t elbo_corpus_longest(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].longest;
}

size_t elbo_corpus_unknown(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].unknown;
}

size_t elbo_corpus_vocabulary(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->header.stream[0].vocabulary;
}

bool elbo_corpus_shares_stream(const struct elbo_corpus *corpus)
{
    return corpus->header.streams == 1;
}

struct elbo_tokenizer *elbo_corpus_tokenizer(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    (void)stream;
    return corpus->tokenizer;
}

const struct elbo_marks *elbo_corpus_marks(const struct elbo_corpus *corpus, enum elbo_stream stream)
{
    return elbo_tokenizer_marks(elbo_corpus_tokenizer(corpus, stream));
}

const char *elbo_corpus_folder(const struct elbo_corpus *corpus)
{
    return corpus->folder;
}

const char *elbo_corpus_hash(const struct elbo_corpus *corpus)
{
    return corpus->hash;
}

const char *elbo_corpus_tokenizer_hash(const struct elbo_corpus *corpus)
{
    return corpus->tokenizer_hash;
}

const char *elbo_corpus_set(const struct elbo_corpus *corpus)
{
    return corpus->set;
}

size_t elbo_corpus_classes(const struct elbo_corpus *corpus)
{
    return json_array_size(corpus->classes);
}

const char *elbo_corpus_class(const struct elbo_corpus *corpus, size_t k)
{
    return json_string_value(json_array_get(corpus->classes, k));
}

uint32_t elbo_corpus_label(const struct elbo_corpus *corpus, size_t i)
{
    return corpus->labels[i];
}

const char *elbo_corpus_labels_hash(const struct elbo_corpus *corpus)
{
    return corpus->labels_hash;
}

size_t elbo_corpus_length(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i)
{
    (void)stream;
    return corpus->offsets[i + 1] - corpus->offsets[i];
}

elbo_status elbo_corpus_read(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i, uint32_t *ids,
                             size_t capacity, size_t *count, elbo_error *error)
{
    const struct corpus_stream_header *header = &corpus->header.stream[0];
    size_t length = elbo_corpus_length(corpus, stream, i), wide = header->token_bytes;
    if (length > capacity) length = capacity;
    *count = 0;
    /* Ids of 2 bytes are read into the end of the buffer and widened in place from its beginning. */
    unsigned char *bytes = (unsigned char *)ids + length * (sizeof *ids - wide);
    ELBO_TRY(file_read_at(corpus->descriptor, bytes, length * wide, header->tokens_at + corpus->offsets[i] * wide,
                          corpus->path, error));
    for (size_t t = 0; t < length; t++) {
        uint16_t narrow = 0;
        if (wide == 2) memcpy(&narrow, bytes + t * sizeof narrow, sizeof narrow);
        uint32_t id = wide == 2 ? narrow : ids[t];
        if (id >= header->vocabulary)
            return elbo_fail(error, ELBO_INPUT, "%s changed while it was read; %s", corpus->path, CORPUS_REMEDY);
        ids[t] = id;
    }
    *count = length;
    return ELBO_OK;
}

size_t elbo_corpus_sentence_words(const struct elbo_corpus *corpus, size_t i)
{
    return corpus->words[i];
}

size_t elbo_corpus_sentence_bytes(const struct elbo_corpus *corpus, size_t i)
{
    return corpus->bytes[i];
}

void elbo_corpus_longer_than(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t tokens,
                             size_t *sentences, size_t *tokens_cut)
{
    *sentences = *tokens_cut = 0;
    for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++) {
        size_t length = elbo_corpus_length(corpus, stream, i);
        if (length <= tokens) continue;
        ++*sentences;
        *tokens_cut += length - tokens;
    }
}

static int rising(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

elbo_status elbo_corpus_percentiles(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t *lengths,
                                    const double *shares, size_t count, elbo_error *error)
{
    size_t sentences = elbo_corpus_sentences(corpus);
    uint64_t *sorted = malloc(sentences * sizeof *sorted);
    if (!sorted) return elbo_fail(error, ELBO_MEMORY, "no memory to sort %zu lengths", sentences);
    for (size_t i = 0; i < sentences; i++) sorted[i] = elbo_corpus_length(corpus, stream, i);
    qsort(sorted, sentences, sizeof *sorted, rising);
    for (size_t i = 0; i < count; i++) {
        size_t place = (size_t)ceil(shares[i] * (double)sentences);
        lengths[i] = sorted[place > sentences ? sentences - 1 : place ? place - 1 : 0];
    }
    free(sorted);
    return ELBO_OK;
}
