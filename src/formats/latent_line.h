/* A latent as a line of JSON, which `elbo encode --format=jsonl` writes and `elbo decode` reads: an array of Z numbers,
 * or an object with such an array under "z" or "mu". */
#ifndef FORMATS_LATENT_LINE_H
#define FORMATS_LATENT_LINE_H

#include "elbo/status.h"

#include <stddef.h>

/* Fills z (width) from `size` bytes of text; `line` is for messages. Numbers beyond the range of f32 are refused. */
elbo_status latent_line_parse(float *z, size_t width, const char *text, size_t size, size_t line, elbo_error *error);

#endif
