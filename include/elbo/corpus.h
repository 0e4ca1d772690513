/* A corpus: sentences as token ids in a file, with the tokenizer that made them.
 *
 *     elbo_corpus *corpus;
 *     elbo_corpus_open(&corpus, "corpus/train", &error);
 *     for (size_t i = 0; i < elbo_corpus_sentences(corpus); i++)
 *         size_t length = elbo_corpus_length(corpus, ELBO_STREAM_DECODER, i);   -- tokens without marks
 *
 * A corpus is a folder with corpus.bin (docs/formats.md), tokenizer.json and manifest.json. The manifest is written
 * last and holds the hashes of the other files. A corpus has one stream of tokens that encoder and decoder share, or
 * two aligned ones. */
#ifndef ELBO_CORPUS_H
#define ELBO_CORPUS_H

#include "elbo/status.h"
#include "elbo/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct elbo_corpus;
typedef struct elbo_corpus elbo_corpus;

enum elbo_stream { ELBO_STREAM_ENCODER, ELBO_STREAM_DECODER };

/* Opens a corpus and checks all of it: hashes, sizes, offsets, ids. ELBO_IO: missing; ELBO_INPUT: truncated, foreign,
 * damaged, or of another version. */
ELBO_API elbo_status elbo_corpus_open(struct elbo_corpus **corpus, const char *folder, elbo_error *error);
ELBO_API void elbo_corpus_close(struct elbo_corpus *corpus);

/* Checks that the opened file is still the same. Compares size and time; when the time is neither that of the opening
 * nor `*seen`, compares the hash too. `*seen` is 0 at first. ELBO_INPUT: the file became shorter or changed. */
ELBO_API elbo_status elbo_corpus_unchanged(const struct elbo_corpus *corpus, int64_t *seen, elbo_error *error);

/* Opens a corpus, or every part of a split, and checks that the parts belong together. `*count` is 1 for a corpus by
 * itself. Close each part. */
enum { ELBO_PREPARE_PARTS = 3 };
ELBO_API elbo_status elbo_corpus_open_parts(struct elbo_corpus *parts[ELBO_PREPARE_PARTS], size_t *count,
                                            const char *folder, elbo_error *error);

ELBO_API size_t elbo_corpus_sentences(const struct elbo_corpus *corpus);
ELBO_API size_t elbo_corpus_tokens(const struct elbo_corpus *corpus, enum elbo_stream stream); /* without marks */
ELBO_API size_t elbo_corpus_words(const struct elbo_corpus *corpus); /* without end marks       */
ELBO_API size_t elbo_corpus_bytes(const struct elbo_corpus *corpus); /* with one line end each */
ELBO_API size_t elbo_corpus_longest(const struct elbo_corpus *corpus,
                                    enum elbo_stream stream); /* in tokens without marks */
ELBO_API size_t elbo_corpus_unknown(const struct elbo_corpus *corpus,
                                    enum elbo_stream stream); /* number of unknown marks */
ELBO_API size_t elbo_corpus_vocabulary(const struct elbo_corpus *corpus, enum elbo_stream stream); /* V */
ELBO_API bool elbo_corpus_shares_stream(const struct elbo_corpus *corpus); /* encoder and decoder share one stream */
ELBO_API const struct elbo_marks *elbo_corpus_marks(const struct elbo_corpus *corpus, enum elbo_stream stream);
ELBO_API struct elbo_tokenizer *elbo_corpus_tokenizer(const struct elbo_corpus *corpus, enum elbo_stream stream);
ELBO_API const char *elbo_corpus_folder(const struct elbo_corpus *corpus);
/* XXH3 of corpus.bin and of tokenizer.json, 16 hexadecimal digits each: "the same data", "the same vocabulary". */
ELBO_API const char *elbo_corpus_hash(const struct elbo_corpus *corpus);
ELBO_API const char *elbo_corpus_tokenizer_hash(const struct elbo_corpus *corpus);
/* Returns the split's id, 16 digits, which only the parts of one split share; "" for a corpus by itself. */
ELBO_API const char *elbo_corpus_set(const struct elbo_corpus *corpus);

/* ---- labels: a class for each sentence ---- */

/* Returns the number of classes; 0 for a corpus without labels. All parts of a split have the same classes. */
ELBO_API size_t elbo_corpus_classes(const struct elbo_corpus *corpus);
ELBO_API const char *elbo_corpus_class(const struct elbo_corpus *corpus, size_t k); /* name of class k < classes */
ELBO_API uint32_t elbo_corpus_label(const struct elbo_corpus *corpus, size_t i);    /* class of sentence i       */
/* XXH3 of the labels and the classes' names, 16 digits: "the same labels". "" without labels. */
ELBO_API const char *elbo_corpus_labels_hash(const struct elbo_corpus *corpus);

/* Sentence i < sentences. elbo_corpus_read reads the first *count = min(length, capacity) ids from the file; several
 * threads may read at once. ELBO_INPUT: the file became shorter or changed; ELBO_IO. */
ELBO_API size_t elbo_corpus_length(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i);
ELBO_API elbo_status elbo_corpus_read(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t i,
                                      uint32_t *ids, size_t capacity, size_t *count, elbo_error *error);
ELBO_API size_t elbo_corpus_sentence_words(const struct elbo_corpus *corpus, size_t i); /* without the end mark */
ELBO_API size_t elbo_corpus_sentence_bytes(const struct elbo_corpus *corpus, size_t i); /* with the line end    */

/* Counts the sentences of more than `tokens` tokens without marks, and their tokens beyond that limit. */
ELBO_API void elbo_corpus_longer_than(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t tokens,
                                      size_t *sentences, size_t *tokens_cut);
/* lengths[k] is the least length, in tokens without marks, that a share shares[k] of the sentences does not exceed.
 * `shares` has `count` rising numbers in 0 .. 1. */
ELBO_API elbo_status elbo_corpus_percentiles(const struct elbo_corpus *corpus, enum elbo_stream stream, size_t *lengths,
                                             const double *shares, size_t count, elbo_error *error);

/* ---- making a corpus ---- */

enum elbo_label_column { ELBO_LABEL_NONE, ELBO_LABEL_FIRST, ELBO_LABEL_LAST };

struct elbo_prepare_options {
    const char *const *inputs; /* (input_count) files with a sentence a line; "-" is standard input */
    size_t input_count;
    const char *out;   /* folder to make or to replace                                        */
    const char *split; /* "95/2.5/2.5": out/train, out/valid, out/test; null or "": one corpus */
    enum elbo_tokenizer_kind tokenizer_kind;
    size_t tokenizer_size;               /* largest V                                                           */
    const char *tokenizer_from;          /* use this tokenizer; null or "": make one */
    bool strict;                         /* refuse invalid UTF-8 instead of replacing it                        */
    const char *labels;                  /* file with a label a line, one for each input line; null or "": none */
    enum elbo_label_column label_column; /* which TAB-separated field of a line is the label */
};

struct elbo_prepare_part {
    char name[8]; /* "train", "valid", "test"; "" for the whole corpus */
    size_t sentences, tokens, words, bytes, unknown, longest;
};

struct elbo_prepare_report {
    size_t lines, blank_lines;
    size_t replaced, replaced_lines; /* ill-formed parts of UTF-8, and lines with such parts */
    size_t vocabulary;
    enum elbo_tokenizer_kind tokenizer; /* the tokenizer's kind */
    size_t classes;                     /* number of labels; 0: none */
    size_t part_count;
    struct elbo_prepare_part parts[ELBO_PREPARE_PARTS];
};

/* Called from time to time with the share of the work done, 0 .. 1. */
typedef void (*elbo_prepare_progress)(void *context, double share, const char *what);

/* Makes `out`, or replaces it as a whole: if the process dies, `out` is the old folder or the new corpus. The
 * vocabulary comes from the train part alone. Carriage returns before a line end and byte order marks are dropped;
 * lines without a word are skipped and counted. `progress` may be null.
 *
 * ELBO_USAGE: `out` holds files that are not of a corpus, or cannot be replaced whole; ELBO_BUSY: another process is
 * making it; ELBO_INPUT: an input is empty, no text, or changed while it was read. */
ELBO_API elbo_status elbo_prepare(const struct elbo_prepare_options *options, struct elbo_prepare_report *report,
                                  elbo_prepare_progress progress, void *context, elbo_error *error);

#ifdef __cplusplus
}
#endif

#endif
