/* A corpus of three sentences, "a b", "" and "c ?"; fuzzers replace a part of it. Include after harness.h. */
#ifndef TESTS_FUZZ_SMALL_CORPUS_H
#define TESTS_FUZZ_SMALL_CORPUS_H

#include "fuzz/seal.h"
#include "text/corpus_format.h"

enum { SMALL_SENTENCES = 3 };

static const char small_tokenizer[] = "{\"format\":\"elbo-tokenizer\",\"version\":1,\"kind\":\"word\",\"vocabulary\":6,"
                                      "\"marks\":{\"start\":0,\"end\":1,\"unknown\":2},"
                                      "\"words\":[\"a\",\"b\",\"c\"]}";

/* Writes a manifest's entry of a file. */
static inline size_t small_entry(char *out, const char *name, const void *bytes, size_t size)
{
    return (size_t)sprintf(out, "\"%s\": {\"bytes\": %zu, \"xxh3\": \"%016" PRIx64 "\"}", name, size,
                           (uint64_t)XXH3_64bits(bytes, size));
}

/* Writes this corpus.bin's manifest up to the tokenizer's entry; "}" closes the list of files. */
static inline size_t small_manifest(char *out, const void *binary, size_t size)
{
    size_t at = (size_t)sprintf(out, "{\n \"format\": \"elbo-corpus\",\n \"version\": 1,\n \"files\": {");
    at += small_entry(out + at, CORPUS_FILE, binary, size);
    at += (size_t)sprintf(out + at, ", ");
    return at + small_entry(out + at, CORPUS_TOKENIZER, small_tokenizer, sizeof small_tokenizer - 1);
}

static inline size_t small_corpus(unsigned char *out)
{
    struct corpus_header header = {.magic = {'E', 'L', 'B', 'O', 'T', 'E', 'X', 'T'},
                                   .version = CORPUS_VERSION,
                                   .streams = 1,
                                   .sentences = SMALL_SENTENCES,
                                   .words = 4,
                                   .bytes = 9};
    header.stream[0] =
        (struct corpus_stream_header){.vocabulary = 6, .tokens = 4, .token_bytes = 2, .longest = 2, .unknown = 1};
    corpus_lay_out(&header);
    memset(out, 0, header.file_bytes);
    memcpy(out, &header, sizeof header);
    memcpy(out + header.stream[0].tokens_at, (uint16_t[]){3, 4, 5, 2}, 8);
    memcpy(out + header.stream[0].offsets_at, (uint64_t[]){0, 2, 2, 4}, 32);
    memcpy(out + header.words_at, (uint32_t[]){2, 0, 2}, 12);
    memcpy(out + header.bytes_at, (uint32_t[]){4, 1, 4}, 12);
    return header.file_bytes;
}

/* Writes tokenizer.json once. */
static inline void small_put_tokenizer(void)
{
    static bool there;
    if (!there) fuzz_put(CORPUS_TOKENIZER, small_tokenizer, sizeof small_tokenizer - 1);
    there = true;
}

#endif
