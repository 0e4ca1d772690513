/* corpus.bin, version 1, little-endian. Section offsets are multiples of 64 bytes; gaps are zero; no bytes follow the
 * last section.
 *
 *   struct corpus_header                       192 bytes, below
 *   per stream    tokens   u16 or u32 (tokens) ids without marks, sentence after sentence
 *   per stream    offsets  u64 (sentences + 1) first token of each sentence; the last is the number of tokens
 *                 words    u32 (sentences)     whitespace-separated words, without the end mark
 *                 bytes    u32 (sentences)     bytes of the text, with one line end
 *
 * One stream serves encoder and decoder. Two streams are aligned: sentence i of both is the same text. Ids take 2 bytes
 * if the vocabulary is at most 65,536. A version-1 reader refuses two streams, because no writer of version 1 makes
 * them. */
#ifndef TEXT_CORPUS_FORMAT_H
#define TEXT_CORPUS_FORMAT_H

#include "base/checked.h"

#include <stdint.h>

#define CORPUS_MAGIC     "ELBOTEXT"
#define CORPUS_FILE      "corpus.bin"
#define CORPUS_TOKENIZER "tokenizer.json"
#define CORPUS_LABELS    "labels.bin" /* name that prepare uses; a manifest may name another file */
#define CORPUS_MANIFEST  "manifest.json"

enum { CORPUS_VERSION = 1, CORPUS_ALIGNMENT = 64, CORPUS_STREAMS = 2 };

struct corpus_stream_header {
    uint64_t vocabulary; /* V; every id is below V */
    uint64_t tokens;
    uint64_t token_bytes; /* 2 or 4 */
    uint64_t tokens_at, offsets_at;
    uint64_t longest;  /* tokens of the longest sentence */
    uint64_t unknown;  /* number of ids that are the unknown mark */
    uint64_t reserved; /* 0 */
};

struct corpus_header {
    char magic[8];
    uint32_t version, streams;
    uint64_t file_bytes, sentences, words, bytes;
    uint64_t words_at, bytes_at;
    struct corpus_stream_header stream[CORPUS_STREAMS];
};

_Static_assert(sizeof(struct corpus_header) == 192, "the header is what the format says");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "corpora are read as they are, little-endian");

/* Computes every section offset and the file's size from the counts. Returns false on overflow. */
static inline bool corpus_lay_out(struct corpus_header *header)
{
    size_t at = sizeof *header, size;
    for (uint32_t i = 0; i < header->streams; i++) {
        struct corpus_stream_header *stream = &header->stream[i];
        stream->tokens_at = at;
        if (!checked_mul(&size, stream->tokens, stream->token_bytes) || !checked_add(&at, at, size) ||
            !checked_align(&at, at, CORPUS_ALIGNMENT))
            return false;
    }
    for (uint32_t i = 0; i < header->streams; i++) {
        header->stream[i].offsets_at = at;
        if (!checked_add(&size, header->sentences, 1) || !checked_mul(&size, size, sizeof(uint64_t)) ||
            !checked_add(&at, at, size) || !checked_align(&at, at, CORPUS_ALIGNMENT))
            return false;
    }
    uint64_t *const places[] = {&header->words_at, &header->bytes_at};
    for (int i = 0; i < 2; i++) {
        *places[i] = at;
        if (!checked_mul(&size, header->sentences, sizeof(uint32_t)) || !checked_add(&at, at, size) ||
            !checked_align(&at, at, CORPUS_ALIGNMENT))
            return false;
    }
    header->file_bytes = at;
    return true;
}

#endif
