/* safetensors: named tensors in one file, in the common exchange format.
 *
 *   0      8   N, u64 little-endian, at most 100,000,000
 *   8      N   JSON {"__metadata__": {text: text}, "name": {"dtype", "shape", "data_offsets": [begin, end)}, ...},
 *              padded with spaces so that the tensors start on 8 bytes
 *   8 + N      the tensors' bytes, little-endian, row-major, no holes, no overlap, nothing after
 *
 * The writer orders tensors as the reference implementation does (widest element first, then by name). The reader
 * validates everything. It accepts what the reference accepts, except element types narrower than a byte and ranks
 * above SAFETENSORS_MOST_DIMENSIONS. */
#ifndef FORMATS_SAFETENSORS_H
#define FORMATS_SAFETENSORS_H

#include "elbo/status.h"
#include "formats/sink.h"

#include <stddef.h>
#include <stdint.h>

enum { SAFETENSORS_MOST_DIMENSIONS = 8 };

/* In the reference's order, which the writer reverses: the last type comes first in a file. */
enum safetensors_dtype {
    SAFETENSORS_BOOL,
    SAFETENSORS_U8,
    SAFETENSORS_I8,
    SAFETENSORS_F8_E5M2,
    SAFETENSORS_F8_E4M3,
    SAFETENSORS_I16,
    SAFETENSORS_U16,
    SAFETENSORS_F16,
    SAFETENSORS_BF16,
    SAFETENSORS_I32,
    SAFETENSORS_U32,
    SAFETENSORS_F32,
    SAFETENSORS_F64,
    SAFETENSORS_I64,
    SAFETENSORS_U64,
    SAFETENSORS_DTYPES
};

struct safetensors_tensor {
    const char *name; /* UTF-8 */
    enum safetensors_dtype dtype;
    size_t rank; /* 0 for a scalar */
    size_t shape[SAFETENSORS_MOST_DIMENSIONS];
    const void *data; /* writing: the bytes; reading: inside the file's bytes, perhaps unaligned, or null */
    const struct safetensors_source *source; /* writing: when not null, used instead of data */
    size_t at; /* writing: first element in the source; reading: offset of the first byte in the file */
};

/* Elements that the writer cannot access directly: in a device's memory, or of another type. */
struct safetensors_source {
    elbo_status (*read)(const struct safetensors_source *source, void *to, size_t at, size_t elements,
                        elbo_error *error);
};

enum { SAFETENSORS_PIECE = 1 << 20 }; /* bytes read from a source at a time */

struct safetensors_note {
    const char *key, *value;
};

const char *safetensors_dtype_name(enum safetensors_dtype dtype);
size_t safetensors_dtype_bytes(enum safetensors_dtype dtype);

/* Returns the bytes of a tensor whose shape is known not to overflow. */
size_t safetensors_bytes(const struct safetensors_tensor *tensor);

/* Writes a whole file in pieces: the header, then each tensor's bytes. `notes` become __metadata__. Fails with
 * ELBO_INTERNAL on two tensors of one name, ELBO_MEMORY, or the sink's error. */
elbo_status safetensors_write(const struct sink *sink, const struct safetensors_tensor *tensors, size_t count,
                              const struct safetensors_note *notes, size_t note_count, elbo_error *error);

/* ---- reading ---- */

struct safetensors;

/* Checks the whole header and keeps pointers into `bytes`, which must outlive the result. ELBO_INPUT names the tensor
 * and the offset of the fault. */
elbo_status safetensors_parse(struct safetensors **out, const void *bytes, size_t size, elbo_error *error);

/* Access to a file that is not in memory: `read` gives exactly `size` bytes from byte `at` on, or fails. */
struct safetensors_reader {
    elbo_status (*read)(void *context, void *to, uint64_t at, size_t size, elbo_error *error);
    void *context;
    uint64_t size; /* of the file, in bytes */
};

/* Does the same for a file that is read piece by piece; only the header stays in memory. The reader's context must
 * outlive the result. */
elbo_status safetensors_open(struct safetensors **out, const struct safetensors_reader *reader, elbo_error *error);
void safetensors_free(struct safetensors *file);

size_t safetensors_count(const struct safetensors *file);
const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index);       /* in file order */
const struct safetensors_tensor *safetensors_find(const struct safetensors *file, const char *name); /* or NULL */
const char *safetensors_note(const struct safetensors *file, const char *key);                       /* or NULL */

/* Finds the tensor that `wanted` names and requires exactly that dtype and shape (wanted->data unused). */
elbo_status safetensors_match(const struct safetensors_tensor **found, const struct safetensors *file,
                              const struct safetensors_tensor *wanted, elbo_error *error);

/* Passes the bytes of one of the file's tensors to `use`, in order, in pieces of whole elements and at most
 * SAFETENSORS_PIECE bytes: elements first .. first + elements. */
typedef elbo_status (*safetensors_use)(void *context, const void *data, size_t first, size_t elements,
                                       elbo_error *error);
elbo_status safetensors_each_piece(const struct safetensors *file, const struct safetensors_tensor *tensor,
                                   safetensors_use use, void *context, elbo_error *error);

/* Copies the tensor that `wanted` names into `out`; requires exactly that dtype and shape (wanted->data unused). */
elbo_status safetensors_copy(const struct safetensors *file, void *out, const struct safetensors_tensor *wanted,
                             elbo_error *error);

#endif
