/* JSON by jansson, made fit for want of memory, which jansson itself overlooks in places: use these in the place of
 * json_load*, json_dumps and json_dumpf. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Parses `size` bytes. NULL: `*starved` says whether memory was wanting, else `reason` (may be NULL) says what is
 * malformed. */
json_t *json_read(const char *text, size_t size, size_t flags, json_error_t *reason, bool *starved);

/* json_dumps that leaves nothing out; NULL for want of memory, or for NULL; free() it. */
char *json_text(const json_t *root, size_t flags);

/* Prints a value whole, with an end of line, and frees it, or prints nothing of it; `root` may be NULL, for want of
 * memory. `what` is for the message: "the plan". */
elbo_status json_print(FILE *out, json_t *root, size_t flags, const char *what, elbo_error *error);

#endif
