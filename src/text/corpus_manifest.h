/* The manifests of corpora: which files belong to a corpus, which parts to a split, and the sums that hold them
 * together (docs/formats.md). A manifest is a sealed JSON object (base/sealed.h). */
#ifndef TEXT_CORPUS_MANIFEST_H
#define TEXT_CORPUS_MANIFEST_H

#include "elbo/corpus.h"

#include <jansson.h>

#define CORPUS_FORMAT "elbo-corpus"
#define SPLIT_FORMAT  "elbo-split"
enum { SPLIT_VERSION = 1, CORPUS_HEX = 17, CORPUS_LONGEST_JSON = 1 << 30 };

extern const char *const corpus_part_names[ELBO_PREPARE_PARTS]; /* train, valid, test */

/* Reads and checks the manifest of a corpus. Says what `folder` is when it is something else: a text file, a run, a
 * split corpus. ELBO_IO: missing; ELBO_INPUT: damaged, foreign, of another version. */
elbo_status corpus_manifest_read(json_t **manifest, const char *folder, elbo_error *error);

/* Which folder stands at a path: a corpus that is replaced while its files are opened one by one is opened again. */
struct corpus_place {
    uint64_t device, node;
    int64_t changed; /* nanoseconds */
};
struct corpus_place corpus_look(const char *folder);
/* Has another folder taken the place since? */
bool corpus_was_replaced(const struct corpus_place *seen, const char *folder);
enum { CORPUS_TRIES = 20 };

/* Has the folder a file of a corpus: corpus.bin, or a manifest of one? */
bool corpus_is_there(const char *folder);

/* Sum of a file's `size` bytes and, unless null, of each SEALED_CHUNK of them as hexadecimal strings. */
elbo_status corpus_sums(uint64_t *sum, json_t **chunks, int descriptor, size_t size, const char *path,
                        elbo_error *error);

/* Does an open file of the corpus have the size that its manifest says? `name` is its name in the folder. */
elbo_status corpus_check_size(const json_t *manifest, const char *folder, const char *name, size_t size,
                              elbo_error *error);
/* ... and the sum? One that is wrong is looked for by chunks, and the message says where the damage is. */
elbo_status corpus_check_sum(const json_t *manifest, const char *folder, const char *name, uint64_t sum, int descriptor,
                             size_t size, elbo_error *error);

/* Reads a file of the corpus whole and checks it. free() `*data`; `hash` may be null. */
elbo_status corpus_read_file(char **data, size_t *size, char hash[CORPUS_HEX], const json_t *manifest,
                             const char *folder, const char *name, elbo_error *error);

/* ---- a split ---- */

struct corpus_split {
    char set[CORPUS_HEX], tokenizer[CORPUS_HEX];
    size_t count;
    struct {
        char name[8], corpus[CORPUS_HEX];
    } parts[ELBO_PREPARE_PARTS];
};

/* *there is false where the folder has no manifest of a split. */
elbo_status corpus_split_read(struct corpus_split *split, bool *there, const char *folder, elbo_error *error);
/* Makes `set` of the other fields. */
void corpus_split_name(struct corpus_split *split);

/* ---- a place for a new corpus ---- */

/* ELBO_USAGE when the folder holds anything that is not of the corpus there, which the message names, or is a part of a
 * split. */
elbo_status corpus_may_replace(const char *folder, elbo_error *error);

#endif
