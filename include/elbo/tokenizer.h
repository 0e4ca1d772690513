/* Tokenizers: text to token ids and back.
 *
 *   byte   each byte is a token                                       V = 259
 *   word   whitespace-separated words, a vocabulary by frequency      V <= size
 *   bpe    byte-level byte pair encoding, trained here                V <= size
 *
 * Ids 0, 1, 2 are the marks start, end, unknown in every kind. The 256 bytes (byte, bpe) or the words by falling
 * frequency follow. Text is UTF-8 (elbo_text_repair makes it so). Encoding never adds marks. Encoding takes time linear
 * in the text, or n log n for bpe.
 *
 *     struct elbo_ids ids = {0};
 *     elbo_tokenizer_encode(tokenizer, &ids, text, size, &error);      -- ids.ids[0 .. ids.count)
 *     elbo_ids_free(&ids);
 *
 * Only one thread at a time may use a tokenizer, because it holds scratch memory. */
#ifndef ELBO_TOKENIZER_H
#define ELBO_TOKENIZER_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum elbo_tokenizer_kind { ELBO_TOKENIZER_BYTE, ELBO_TOKENIZER_WORD, ELBO_TOKENIZER_BPE };

struct elbo_marks {
    uint32_t start, end, unknown;
};

struct elbo_ids { /* grows; begins as {0}, ends with elbo_ids_free */
    uint32_t *ids;
    size_t count, capacity;
};

struct elbo_text { /* grows; begins as {0}, ends with elbo_text_free; a NUL follows once written to */
    char *text;
    size_t size, capacity;
};

ELBO_API void elbo_ids_free(struct elbo_ids *ids);
ELBO_API void elbo_text_free(struct elbo_text *text);

struct elbo_tokenizer;

/* Replaces the content of `ids`. ELBO_INPUT when `text` is not valid UTF-8 (bpe), ELBO_MEMORY. */
ELBO_API elbo_status elbo_tokenizer_encode(struct elbo_tokenizer *tokenizer, struct elbo_ids *ids, const char *text,
                                           size_t size, elbo_error *error);

/* Replaces the content of `text`. Start and end marks write nothing; the unknown mark writes "<unk>" (word) or
 * U+FFFD. Bytes that are not valid UTF-8 (byte and bpe can produce any) are kept. ELBO_INPUT for an id outside the
 * vocabulary. */
ELBO_API elbo_status elbo_tokenizer_decode(const struct elbo_tokenizer *tokenizer, struct elbo_text *text,
                                           const uint32_t *ids, size_t count, elbo_error *error);

ELBO_API size_t elbo_tokenizer_vocabulary(const struct elbo_tokenizer *tokenizer); /* V: ids are 0 .. V - 1 */
ELBO_API const struct elbo_marks *elbo_tokenizer_marks(const struct elbo_tokenizer *tokenizer);
ELBO_API enum elbo_tokenizer_kind elbo_tokenizer_kind(const struct elbo_tokenizer *tokenizer);
ELBO_API const char *elbo_tokenizer_kind_name(enum elbo_tokenizer_kind kind); /* "byte", "word", "bpe" */

/* ---- making a tokenizer: counts of words and byte pairs come from the added text ---- */

struct elbo_tokenizer_trainer;

/* `size` is the largest V, marks included: at least 4 for word, 259 for byte and bpe (byte ignores it). */
ELBO_API elbo_status elbo_tokenizer_trainer_open(struct elbo_tokenizer_trainer **trainer, enum elbo_tokenizer_kind kind,
                                                 size_t size, elbo_error *error);
ELBO_API elbo_status elbo_tokenizer_trainer_add(struct elbo_tokenizer_trainer *trainer, const char *text, size_t size,
                                                elbo_error *error);
/* Makes the tokenizer; the trainer must still be closed. The same text in any order gives the same tokenizer. */
ELBO_API elbo_status elbo_tokenizer_trainer_finish(struct elbo_tokenizer_trainer *trainer,
                                                   struct elbo_tokenizer **tokenizer, elbo_error *error);
ELBO_API void elbo_tokenizer_trainer_close(struct elbo_tokenizer_trainer *trainer);

/* ---- files ---- */

/* Writes a tokenizer.json durably, replacing an existing one. */
ELBO_API elbo_status elbo_tokenizer_save(const struct elbo_tokenizer *tokenizer, const char *path, elbo_error *error);
/* Reads and checks a tokenizer.json. ELBO_INPUT: truncated, foreign, another version, or not consistent. */
ELBO_API elbo_status elbo_tokenizer_load(struct elbo_tokenizer **tokenizer, const char *path, elbo_error *error);
/* Loads the tokenizer of a corpus, a split, a checkpoint or a run directory, or a tokenizer.json itself. */
ELBO_API elbo_status elbo_tokenizer_find(struct elbo_tokenizer **tokenizer, const char *path, elbo_error *error);
ELBO_API void elbo_tokenizer_close(struct elbo_tokenizer *tokenizer);

/* ---- text ---- */

/* Copies `text` into `out` (replacing its content): each ill-formed part of UTF-8 becomes one U+FFFD, and U+FEFF, the
 * byte order mark, is dropped wherever it stands. `*replaced` counts the ill-formed parts; `*first_bad` is the offset
 * of the first one in `text`, or `size`. */
ELBO_API elbo_status elbo_text_repair(struct elbo_text *out, size_t *replaced, size_t *first_bad, const char *text,
                                      size_t size, elbo_error *error);

/* Counts the whitespace-separated words of a sentence, without the end mark. Whitespace is ASCII's. */
ELBO_API size_t elbo_text_words(const char *text, size_t size);

#ifdef __cplusplus
}
#endif

#endif
