/* A JSON object that detects its own damage. Its last member, "checksum", is XXH3-64 of the bytes before the comma that
 * precedes it, as 16 hexadecimal digits. The same digits serve for the sums of files that such an object lists.
 *
 *     {"format": "elbo-corpus", ..., "checksum": "0123456789abcdef"} */
#ifndef BASE_SEALED_H
#define BASE_SEALED_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SEALED_HEX = 16, SEALED_CHUNK = 16 << 20 }; /* bytes of a file that share one sum */

/* Returns the text of `root` with its checksum; free() it. `root` is borrowed, and NULL means that memory ran out.
 * `what` is for the message. */
elbo_status sealed_compose(char **text, size_t *size, const json_t *root, const char *what, elbo_error *error);

/* Fails with ELBO_INPUT when the text is truncated, foreign or damaged. The message begins with a verb, so put the
 * file's name before it. */
elbo_status sealed_check(const char *text, size_t size, elbo_error *error);

/* Reads exactly sixteen lower-case hexadecimal digits; returns false for any other text and for NULL. */
bool sealed_read_hex(uint64_t *out, const char *text);
json_t *sealed_hex(uint64_t value);

#endif
