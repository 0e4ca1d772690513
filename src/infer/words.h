/* The tokenizer of a model's file: text to ids and back, with the results of elbo's own tokenizers, and with libc
 * alone. */
#ifndef INFER_WORDS_H
#define INFER_WORDS_H

#include "elbo/tokenizer.h"
#include "infer/file.h"

struct infer_coder;

/* ELBO_INPUT: the file's pieces are longer than any tokenizer makes them, or occur twice. */
elbo_status infer_coder_open(struct infer_coder **out, const struct infer_file *f, elbo_error *error);
void infer_coder_close(struct infer_coder *c);

/* Replace the contents of `ids` or `text`. Text is repaired first, as elbo does. ELBO_USAGE: the file has only ids. */
elbo_status infer_encode_text(struct infer_coder *c, struct elbo_ids *ids, const char *text, size_t size,
                              elbo_error *error);
elbo_status infer_decode_text(const struct infer_coder *c, struct elbo_text *text, const uint32_t *ids, size_t count,
                              elbo_error *error);

/* Returns the bytes of the word at the beginning of `text` by GPT-2's expression. `text` is valid UTF-8, `size` at
 * least 1. */
size_t infer_split_gpt2(const char *text, size_t size);

#endif
