/* Writing a GGUF file: the keys and values, the list of tensors, and the tensors' f32 bytes with zeros up to the
 * alignment. */
#include "formats/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { VERSION = 3, UINT32 = 4, INT32 = 5, FLOAT32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, TYPE_F32 = 0 };
enum { PIECE = 1 << 16 }; /* elements read from a source at a time */

static void add_text(struct bytes *b, const char *text, size_t size)
{
    bytes_add64(b, size);
    bytes_add(b, text, size);
}

static void begin(struct gguf *g, const char *key, uint32_t type)
{
    add_text(&g->keys, key, strlen(key));
    bytes_add32(&g->keys, type);
    g->count++;
}

void gguf_text(struct gguf *g, const char *key, const char *text, size_t size)
{
    begin(g, key, STRING);
    add_text(&g->keys, text, size);
}

void gguf_unsigned(struct gguf *g, const char *key, uint32_t number)
{
    begin(g, key, UINT32);
    bytes_add32(&g->keys, number);
}

void gguf_integer(struct gguf *g, const char *key, int32_t number)
{
    begin(g, key, INT32);
    bytes_add(&g->keys, &number, sizeof number);
}

void gguf_real(struct gguf *g, const char *key, float number)
{
    begin(g, key, FLOAT32);
    bytes_add(&g->keys, &number, sizeof number);
}

void gguf_truth(struct gguf *g, const char *key, bool truth)
{
    begin(g, key, BOOL);
    bytes_add(&g->keys, truth ? "\1" : "\0", 1);
}

void gguf_integers(struct gguf *g, const char *key, const int32_t *numbers, size_t count)
{
    begin(g, key, ARRAY);
    bytes_add32(&g->keys, INT32);
    bytes_add64(&g->keys, count);
    bytes_add(&g->keys, numbers, count * sizeof *numbers);
}

void gguf_texts(struct gguf *g, const char *key, size_t count)
{
    begin(g, key, ARRAY);
    bytes_add32(&g->keys, STRING);
    bytes_add64(&g->keys, count);
}

void gguf_item(struct gguf *g, const char *text, size_t size)
{
    add_text(&g->keys, text, size);
}

void gguf_free(struct gguf *g)
{
    bytes_free(&g->keys);
    g->count = 0;
}

/* ---- the file ---- */

static uint64_t aligned(uint64_t size)
{
    return (size + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

static elbo_status check_names(const struct safetensors_tensor *tensors, size_t count, elbo_error *error)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(tensors[i].name) > GGUF_MOST_NAME)
            return elbo_fail(error, ELBO_INTERNAL, "%s is too long for a tensor of GGUF", tensors[i].name);
        for (size_t j = 0; j < i; j++)
            if (!strcmp(tensors[i].name, tensors[j].name))
                return elbo_fail(error, ELBO_INTERNAL, "there are two tensors %s", tensors[i].name);
    }
    return ELBO_OK;
}

static elbo_status zeros(const struct sink *sink, uint64_t count, elbo_error *error)
{
    static const char none[GGUF_ALIGNMENT];
    return count ? sink_write(sink, none, (size_t)count, error) : ELBO_OK;
}

static elbo_status write_tensor(const struct sink *sink, const struct safetensors_tensor *t, elbo_error *error)
{
    size_t bytes = safetensors_bytes(t), elements = bytes / sizeof(float);
    if (!t->source) return sink_write(sink, t->data, bytes, error);
    float *piece = malloc((elements < PIECE ? elements : PIECE) * sizeof *piece + 1);
    elbo_status status = piece ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a piece of %s", t->name);
    for (size_t at = 0; at < elements && !status; at += PIECE) {
        size_t now = elements - at < PIECE ? elements - at : PIECE;
        status = t->source->read(t->source, piece, t->at + at, now, error);
        if (!status) status = sink_write(sink, piece, now * sizeof *piece, error);
    }
    free(piece);
    return status;
}

elbo_status gguf_write(const struct sink *sink, const struct gguf *g, const struct safetensors_tensor *tensors,
                       size_t count, elbo_error *error)
{
    struct bytes head = {0};
    uint64_t offset = 0;
    ELBO_TRY(check_names(tensors, count, error));
    bytes_add(&head, "GGUF", 4);
    bytes_add32(&head, VERSION);
    bytes_add64(&head, count);
    bytes_add64(&head, g->count);
    bytes_add(&head, g->keys.at, g->keys.size);
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_tensor *t = &tensors[i];
        add_text(&head, t->name, strlen(t->name));
        bytes_add32(&head, (uint32_t)t->rank);
        for (size_t d = t->rank; d; d--) bytes_add64(&head, t->shape[d - 1]);
        bytes_add32(&head, TYPE_F32);
        bytes_add64(&head, offset);
        offset += aligned(safetensors_bytes(t));
    }
    elbo_status status = g->keys.failed || head.failed
                             ? elbo_fail(error, ELBO_MEMORY, "no memory for the head of a GGUF file")
                             : sink_write(sink, head.at, head.size, error);
    if (!status) status = zeros(sink, aligned(head.size) - head.size, error);
    for (size_t i = 0; i < count && !status; i++) {
        size_t bytes = safetensors_bytes(&tensors[i]);
        status = write_tensor(sink, &tensors[i], error);
        if (!status) status = zeros(sink, aligned(bytes) - bytes, error);
    }
    bytes_free(&head);
    return status;
}
