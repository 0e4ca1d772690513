/* JSON by jansson, safe when memory runs out, which jansson overlooks in places. Use these functions instead of
 * json_load*, json_dumps and json_dumpf. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "elbo/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Parses `size` bytes. On NULL, `*starved` says whether memory ran out; otherwise `reason` (may be NULL) says what is
 * malformed. */
json_t *json_read(const char *text, size_t size, size_t flags, json_error_t *reason, bool *starved);

/* Returns the complete text of `root`; NULL when memory ran out or `root` is NULL. free() it. */
char *json_text(const json_t *root, size_t flags);

/* Prints a whole value and a newline, or nothing of it, and frees `root`. A NULL `root` means that memory ran out.
 * `what` is for the message: "the plan". */
elbo_status json_print(FILE *out, json_t *root, size_t flags, const char *what, elbo_error *error);

#endif
