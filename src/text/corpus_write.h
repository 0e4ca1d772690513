/* Writes the files of a corpus. Tokens stream into corpus.bin. The columns per sentence stay in memory until the end,
 * when the header is filled in. The caller commits the folder later (base/stage.h).
 *
 *     corpus_writer_open, corpus_writer_add for each sentence, corpus_writer_finish, corpus_writer_manifest */
#ifndef TEXT_CORPUS_WRITE_H
#define TEXT_CORPUS_WRITE_H

#include "base/files.h"
#include "elbo/corpus.h"
#include "text/corpus_manifest.h"
#include "text/labels.h"

struct corpus_writer {
    struct elbo_prepare_part *part; /* receives the counts */
    size_t vocabulary;
    char folder[FILES_PATH];
    struct file_writer file;
    uint32_t *rows; /* (capacity, 4) tokens, words, bytes, class of each sentence */
    size_t capacity;
    json_t *files; /* the manifest's "files", filled in once they are written */
    char hash[CORPUS_HEX], tokenizer_hash[CORPUS_HEX];
};

/* `folder` must exist. The writer must be closed even if opening failed. */
elbo_status corpus_writer_open(struct corpus_writer *writer, struct elbo_prepare_part *part, const char *folder,
                               size_t vocabulary, elbo_error *error);
/* Adds one sentence of class `label` (0 without labels). `unknown` is the id of the unknown mark, which is counted.
 * `bytes` includes the line end. */
elbo_status corpus_writer_add(struct corpus_writer *writer, const struct elbo_ids *ids, uint32_t unknown, size_t words,
                              size_t bytes, uint32_t label, elbo_error *error);
/* Completes corpus.bin and writes tokenizer.json and, if there are classes, labels.bin. */
elbo_status corpus_writer_finish(struct corpus_writer *writer, const struct elbo_tokenizer *tokenizer,
                                 const struct labels *labels, elbo_error *error);
/* `set` is the hash of the split that the corpus belongs to, or "". */
elbo_status corpus_writer_manifest(struct corpus_writer *writer, const struct elbo_prepare_report *report,
                                   const char *set, const char *tokenizer_kind, const struct labels *labels,
                                   elbo_error *error);
void corpus_writer_close(struct corpus_writer *writer);

/* Writes the manifest of a split into its folder. */
elbo_status corpus_write_split(const struct corpus_split *split, const char *folder, elbo_error *error);

#endif
