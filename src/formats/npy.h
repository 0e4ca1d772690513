/* NumPy's .npy, version 1.0, for matrices of f32: "\x93NUMPY", version, u16 header length, a Python dictionary padded
 * to 64 bytes, then the rows. numpy.load reads what is written here; the reader takes 1 or 2 dimensions of '<f4' in C
 * order. */
#ifndef FORMATS_NPY_H
#define FORMATS_NPY_H

#include "elbo/status.h"
#include "formats/sink.h"

#include <stdbool.h>
#include <stddef.h>

/* The header alone, so that rows can follow as they are computed; all `rows` must follow. */
elbo_status npy_write_header(const struct sink *sink, size_t rows, size_t width, elbo_error *error);

/* The whole file from data (rows, width). */
elbo_status npy_write(const struct sink *sink, const float *data, size_t rows, size_t width, elbo_error *error);

struct npy {
    size_t rows, width; /* one dimension: width 1 */
    const void *data;   /* (rows, width) f32 little-endian, into the parsed bytes, perhaps unaligned */
};
elbo_status npy_parse(struct npy *out, const void *bytes, size_t size, elbo_error *error);

/* ---- the same piece by piece, for streams ---- */

enum { NPY_BEGINNING = 12 }; /* bytes that say how long the header is */

/* Do the first bytes say that this is a .npy? */
bool npy_begins(const void *bytes, size_t size);
/* The bytes in front of the rows, from the first NPY_BEGINNING of the file (or all, when it is shorter). */
elbo_status npy_header_size(size_t *header, const void *bytes, size_t size, elbo_error *error);
/* The shape, from so many bytes; out->data is null. The rows' bytes do not overflow. */
elbo_status npy_parse_header(struct npy *out, const void *bytes, size_t header, elbo_error *error);

#endif
