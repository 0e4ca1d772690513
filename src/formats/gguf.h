/* GGUF, version 3: keys with values, a list of tensors, their bytes at multiples of 32.
 *
 *     struct gguf g = {0};
 *     gguf_text(&g, "general.architecture", "gpt2", 4);
 *     gguf_unsigned(&g, "gpt2.block_count", 12);
 *     status = gguf_write(&sink, &g, tensors, count, &error);
 *     gguf_free(&g);
 *
 * Tensors are f32 and described as safetensors tensors. A shape (rows, columns) is written columns first, as GGUF
 * orders it. Little-endian machines only. */
#ifndef FORMATS_GGUF_H
#define FORMATS_GGUF_H

#include "formats/bytes.h"
#include "formats/safetensors.h"

#include <stdbool.h>

enum { GGUF_ALIGNMENT = 32, GGUF_MOST_NAME = 63 };

struct gguf {
    struct bytes keys; /* gguf_write reports a failed allocation */
    size_t count;
};

void gguf_text(struct gguf *g, const char *key, const char *text, size_t size);
void gguf_unsigned(struct gguf *g, const char *key, uint32_t number);
void gguf_integer(struct gguf *g, const char *key, int32_t number);
void gguf_real(struct gguf *g, const char *key, float number);
void gguf_truth(struct gguf *g, const char *key, bool truth);
void gguf_integers(struct gguf *g, const char *key, const int32_t *numbers, size_t count);
/* Begins a list of texts; `count` calls of gguf_item must follow. */
void gguf_texts(struct gguf *g, const char *key, size_t count);
void gguf_item(struct gguf *g, const char *text, size_t size);

/* Writes the whole file. ELBO_INTERNAL: a tensor's name is too long or not unique. */
elbo_status gguf_write(const struct sink *sink, const struct gguf *g, const struct safetensors_tensor *tensors,
                       size_t count, elbo_error *error);
void gguf_free(struct gguf *g);

#endif
