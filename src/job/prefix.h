/* Copies the output of several processes as whole lines, each behind "[rank] ". */
#ifndef JOB_PREFIX_H
#define JOB_PREFIX_H

#include <stdbool.h>
#include <stddef.h>

enum { PREFIX_LINE = 8192 }; /* a longer line is broken */

struct prefix {
    size_t rank, used;
    char line[PREFIX_LINE];
};

/* Reads the available bytes of `from` (non-blocking) and writes their whole lines to `to`. Returns false at the end of
 * the input, after writing a last line without an end too. */
bool prefix_copy(struct prefix *prefix, int from, int to);

/* Writes the unfinished line, with a line end. */
void prefix_flush(struct prefix *prefix, int to);

#endif
