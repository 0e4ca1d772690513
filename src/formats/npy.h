/* NumPy's .npy, version 1.0, for matrices of f32: "\x93NUMPY", version, u16 header length, a Python dictionary padded
 * to 64 bytes, then the rows. numpy.load reads the files written here. The reader takes versions 1.0 to 3.0 with 1 or 2
 * dimensions of '<f4' in C order. */
#ifndef FORMATS_NPY_H
#define FORMATS_NPY_H

#include "elbo/status.h"
#include "formats/sink.h"

#include <stdbool.h>
#include <stddef.h>

/* Writes the header alone, so that rows can follow as they are computed. Exactly `rows` rows must follow. */
elbo_status npy_write_header(const struct sink *sink, size_t rows, size_t width, elbo_error *error);

/* Writes the whole file from data (rows, width). */
elbo_status npy_write(const struct sink *sink, const float *data, size_t rows, size_t width, elbo_error *error);

struct npy {
    size_t rows, width; /* width is 1 for one dimension */
    const void *data;   /* (rows, width) f32 little-endian, inside the parsed bytes, perhaps unaligned */
};
elbo_status npy_parse(struct npy *out, const void *bytes, size_t size, elbo_error *error);

/* ---- reading piece by piece, for streams ---- */

enum { NPY_BEGINNING = 12 }; /* bytes that hold the header's length */

/* Returns whether the first bytes are those of a .npy. */
bool npy_begins(const void *bytes, size_t size);
/* Sets `*header` to the number of bytes before the rows, from the file's first NPY_BEGINNING bytes (or all of a shorter
 * file). */
elbo_status npy_header_size(size_t *header, const void *bytes, size_t size, elbo_error *error);
/* Reads the shape from the first `header` bytes; out->data is null. The byte count of the rows does not overflow. */
elbo_status npy_parse_header(struct npy *out, const void *bytes, size_t header, elbo_error *error);

#endif
