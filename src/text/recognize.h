/* Recognizes files that are not text with one sentence per line by their first bytes. The error names the command that
 * converts the file to text. The rules are in docs/formats.md. */
#ifndef TEXT_RECOGNIZE_H
#define TEXT_RECOGNIZE_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { TEXT_HEAD = 1 << 20 }; /* bytes inspected */

/* Returns ELBO_INPUT for input that is not text. `head` is the first `size` bytes of `name`, and all of them if
 * `whole`; `name` is NULL for standard input. A file whose name says that it is a table is refused unless `table`. */
elbo_status text_recognize(const char *name, const char *head, size_t size, bool whole, bool table, elbo_error *error);

/* Checks input of commands other than prepare: only encodings, archives and line ends, because a sentence may look like
 * JSON and hold any bytes. */
elbo_status text_recognize_stream(const char *head, size_t size, bool whole, elbo_error *error);

/* Whether a file is text. Used in messages about a file given in the place of a corpus. */
bool text_is_text(const char *path);

#endif
