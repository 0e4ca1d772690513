/* A JSON object that finds its own damage: its last member, "checksum", is XXH3-64 of its bytes before the comma that
 * precedes it, as 16 hexadecimal digits. And the sums of files that such an object lists.
 *
 *     {"format": "elbo-corpus", ..., "checksum": "0123456789abcdef"} */
#ifndef BASE_SEALED_H
#define BASE_SEALED_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEALED_HEX = 16, SEALED_CHUNK = 16 << 20 }; /* bytes of a file that have a sum of their own */

/* The text of `root` (borrowed, NULL for want of memory) with its checksum; `what` is for the message. free() it. */
elbo_status sealed_compose(char **text, size_t *size, const json_t *root, const char *what, elbo_error *error);

/* ELBO_INPUT when the text is truncated, foreign or damaged. The message begins with a verb: put the file's name
 * before. */
elbo_status sealed_check(const char *text, size_t size, elbo_error *error);

/* Sixteen lower-case digits, nothing else; NULL is none. */
bool sealed_read_hex(uint64_t *out, const char *text);
json_t *sealed_hex(uint64_t value);

#endif
