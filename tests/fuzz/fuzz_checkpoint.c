/* Fuzzes a checkpoint's folder. The first byte selects the rest: the manifest without its seal, beside a good file of
 * tensors; or the file of tensors, beside a manifest with its checksums. */
#include "fuzz/harness.h"
#include "fuzz/small_checkpoint.h"
#include "checkpoint/checkpoint.h"

#include <stdlib.h>

enum { MANIFEST, TENSORS, KINDS };

static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}   ";
enum { TENSORS_BYTES = 8 + sizeof header - 1 + 8 };

static size_t tensors(unsigned char *out)
{
    memset(out, 0, TENSORS_BYTES);
    out[0] = sizeof header - 1;
    memcpy(out + 8, header, sizeof header - 1);
    return TENSORS_BYTES;
}

static elbo_status first_byte(void *context, const void *data, size_t first, size_t elements, elbo_error *error)
{
    (void)error;
    if (!first && elements) *(unsigned char *)context = *(const unsigned char *)data;
    return ELBO_OK;
}

int fuzz_one(const unsigned char *data, size_t size)
{
    static unsigned char file[FUZZ_LARGEST + 1024];
    static char manifest[FUZZ_LARGEST + 1024], body[1024];
    int kind = size ? data[0] % KINDS : 0;
    size_t length = size ? size - 1 : 0, manifest_size;
    if (length > FUZZ_LARGEST) return 1;
    if (kind == MANIFEST) {
        manifest_size = seal(manifest, data + 1, length);
        length = tensors(file);
    } else {
        if (length) memcpy(file, data + 1, length);
        manifest_size = seal(manifest, body, small_checkpoint(body, "model.safetensors", file, length));
    }
    fuzz_put("model.safetensors", file, length);
    fuzz_put("manifest.json", manifest, manifest_size);
    struct checkpoint *checkpoint;
    elbo_error error;
    elbo_status status = checkpoint_open(&checkpoint, fuzz_folder(), NULL, NULL, &error);
    if (status) return (int)status;
    struct safetensors *opened;
    status = checkpoint_tensors(&opened, checkpoint, "model.safetensors", &error);
    if (status == ELBO_OK) {
        const struct safetensors_tensor *first = safetensors_count(opened) ? safetensors_at(opened, 0) : NULL;
        unsigned char byte = 0;
        if (first) status = safetensors_each_piece(opened, first, first_byte, &byte, &error);
        FUZZ_PLANTED(first && byte == 0xff);
        safetensors_free(opened);
    }
    checkpoint_close(checkpoint);
    return (int)status;
}

size_t fuzz_seed(size_t index, unsigned char *out, size_t room)
{
    static char body[1024];
    (void)room;
    out[0] = (unsigned char)index;
    if (index == TENSORS) return 1 + tensors(out + 1);
    if (index != MANIFEST) return 0;
    size_t length = small_checkpoint(body, "model.safetensors", out + 1, tensors(out + 1));
    memcpy(out + 1, body, length);
    return length + 1;
}
