/* What several processes write, told apart: whole lines, each behind "[rank] ". */
#ifndef JOB_PREFIX_H
#define JOB_PREFIX_H

#include <stdbool.h>
#include <stddef.h>

enum { PREFIX_LINE = 8192 }; /* a longer line is broken */

struct prefix {
    size_t rank, used;
    char line[PREFIX_LINE];
};

/* Reads what is there from `from` (non-blocking) and writes its whole lines to `to`; false at the end, where a line
 * without an end goes out too. */
bool prefix_copy(struct prefix *prefix, int from, int to);

/* The line that has no end yet, with one. */
void prefix_flush(struct prefix *prefix, int to);

#endif
