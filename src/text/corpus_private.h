/* An open corpus: corpus.c checks it and corpus_content.c reads it. The columns per sentence (16 bytes) stay in memory.
 * Tokens are read by pread, because a file that shrinks or changes must give an error and not end the process. */
#ifndef TEXT_CORPUS_PRIVATE_H
#define TEXT_CORPUS_PRIVATE_H

#include "base/files.h"
#include "text/corpus_format.h"
#include "text/corpus_manifest.h"

#define CORPUS_REMEDY "prepare the corpus again"

struct elbo_corpus {
    int descriptor;   /* of corpus.bin */
    size_t size;      /* bytes of corpus.bin */
    int64_t modified; /* time of the last change in nanoseconds */
    uint64_t sum;
    struct corpus_header header;
    uint64_t *offsets;       /* (sentences + 1) first tokens of the one stream */
    uint32_t *words, *bytes; /* (sentences) */
    uint32_t *labels;        /* (sentences) null: the corpus has no labels */
    json_t *classes;         /* names of the classes */
    char labels_hash[CORPUS_HEX];
    uint64_t first_bad, bad, unknown; /* place and id of the first bad token; unknown marks */
    struct elbo_tokenizer *tokenizer;
    char hash[CORPUS_HEX], tokenizer_hash[CORPUS_HEX], set[CORPUS_HEX];
    char folder[FILES_PATH], path[FILES_PATH + sizeof CORPUS_FILE];
};

#endif
