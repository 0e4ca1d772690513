/* An open corpus: what corpus.c checks and corpus_content.c reads. What is known per sentence (16 bytes) is kept in
 * memory; tokens are read by pread, so that a file that shrinks or changes is an error and not the end of the process.
 */
#ifndef TEXT_CORPUS_PRIVATE_H
#define TEXT_CORPUS_PRIVATE_H

#include "base/files.h"
#include "text/corpus_format.h"
#include "text/corpus_manifest.h"

#define CORPUS_REMEDY "prepare the corpus again"

struct elbo_corpus {
    int descriptor;   /* of corpus.bin                            */
    size_t size;      /* bytes                                    */
    int64_t modified; /* nanoseconds                              */
    uint64_t sum;
    struct corpus_header header;
    uint64_t *offsets;       /* (sentences + 1) of its one stream        */
    uint32_t *words, *bytes; /* (sentences)                              */
    uint32_t *labels;        /* (sentences) null: there are none         */
    json_t *classes;         /* their names                              */
    char labels_hash[CORPUS_HEX];
    uint64_t first_bad, bad, unknown; /* a token outside the vocabulary and its place; unknown marks */
    struct elbo_tokenizer *tokenizer;
    char hash[CORPUS_HEX], tokenizer_hash[CORPUS_HEX], set[CORPUS_HEX];
    char folder[FILES_PATH], path[FILES_PATH + sizeof CORPUS_FILE];
};

#endif
