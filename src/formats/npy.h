/* NumPy's .npy, version 1.0, for matrices of f32: "\x93NUMPY", version, u16 header length, a Python dictionary padded
 * to 64 bytes, then the rows. numpy.load reads what is written here; the reader takes 1 or 2 dimensions of '<f4' in C
 * order. */
#ifndef FORMATS_NPY_H
#define FORMATS_NPY_H

#include "elbo/status.h"
#include "formats/sink.h"

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

#endif
