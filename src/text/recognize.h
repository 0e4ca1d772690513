/* What is no text with a sentence a line: files that are recognized by their first bytes, and refused with the command
 * that makes text of them. The rules are in docs/formats.md. */
#ifndef TEXT_RECOGNIZE_H
#define TEXT_RECOGNIZE_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

enum { TEXT_HEAD = 1 << 20 }; /* bytes that are looked at */

/* ELBO_INPUT for what is no text. `head` is the first `size` bytes of `name` and all of them if `whole`; `name` is NULL
 * for standard input. A table is refused by its name, unless `table`. */
elbo_status text_recognize(const char *name, const char *head, size_t size, bool whole, bool table, elbo_error *error);

/* The same of what commands other than prepare read: encodings, archives and line ends alone, since a sentence may look
 * like JSON and hold any bytes. */
elbo_status text_recognize_stream(const char *head, size_t size, bool whole, elbo_error *error);

/* Is this file text? For messages about a file that stands in the place of something else. */
bool text_is_text(const char *path);

#endif
