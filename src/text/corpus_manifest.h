/* The manifests of corpora. A manifest lists the files of a corpus or the parts of a split, with their hashes
 * (docs/formats.md). A manifest is a sealed JSON object (base/sealed.h). */
#ifndef TEXT_CORPUS_MANIFEST_H
#define TEXT_CORPUS_MANIFEST_H

#include "elbo/corpus.h"

#include <jansson.h>

#define CORPUS_FORMAT "elbo-corpus"
#define SPLIT_FORMAT  "elbo-split"
enum { SPLIT_VERSION = 1, CORPUS_HEX = 17, CORPUS_LONGEST_JSON = 1 << 30 };

extern const char *const corpus_part_names[ELBO_PREPARE_PARTS]; /* train, valid, test */

/* Reads and checks the manifest of a corpus. If `folder` is a text file, a run or a split corpus, the error says so.
 * ELBO_IO: missing; ELBO_INPUT: damaged, foreign, of another version. */
elbo_status corpus_manifest_read(json_t **manifest, const char *folder, elbo_error *error);

/* Identifies the folder at a path. A corpus may be replaced while its files are opened one by one; the caller then
 * opens it again. */
struct corpus_place {
    uint64_t device, node;
    int64_t changed; /* nanoseconds */
};
struct corpus_place corpus_look(const char *folder);
/* Whether another folder has taken the place since `seen`. */
bool corpus_was_replaced(const struct corpus_place *seen, const char *folder);
enum { CORPUS_TRIES = 20 };

/* Whether the folder has corpus.bin or the manifest of a corpus. */
bool corpus_is_there(const char *folder);

/* Hashes the `size` bytes of a file and, unless `chunks` is null, each SEALED_CHUNK of them (hexadecimal strings). */
elbo_status corpus_sums(uint64_t *sum, json_t **chunks, int descriptor, size_t size, const char *path,
                        elbo_error *error);

/* Checks that an open file of the corpus has the size in the manifest. `name` is the file's name in the folder. */
elbo_status corpus_check_size(const json_t *manifest, const char *folder, const char *name, size_t size,
                              elbo_error *error);
/* Checks the file's hash. If the hash is wrong, the message names the damaged chunk. */
elbo_status corpus_check_sum(const json_t *manifest, const char *folder, const char *name, uint64_t sum, int descriptor,
                             size_t size, elbo_error *error);

/* Reads a whole file of the corpus and checks it. The caller frees `*data`; `hash` may be null. */
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

/* Sets *there to false if the folder has no manifest of a split. */
elbo_status corpus_split_read(struct corpus_split *split, bool *there, const char *folder, elbo_error *error);
/* Computes `set` from the other fields. */
void corpus_split_name(struct corpus_split *split);

/* ---- a place for a new corpus ---- */

/* Returns ELBO_USAGE if `folder` is a part of a split, or holds an entry that is not of the present corpus; the message
 * names the entry. */
elbo_status corpus_may_replace(const char *folder, elbo_error *error);

#endif
