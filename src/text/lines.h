/* Lines of text files, read as often as needed: regular files are mapped, pipes and standard input kept in memory. */
#ifndef TEXT_LINES_H
#define TEXT_LINES_H

#include "base/files.h"
#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

struct line_source {
    const char *name; /* for messages */
    const char *text;
    size_t size;
    struct file_map map;
    char *owned;
};

/* `path` "-" is standard input. An empty source is refused. */
elbo_status line_source_open(struct line_source *source, const char *path, elbo_error *error);
void line_source_close(struct line_source *source);

struct line {
    const char *text; /* without its line end; a byte order mark at the beginning of the source is left out */
    size_t size;
    size_t number;    /* from 1 */
};

/* The next line; begin with *at = 0 and a zeroed line. False at the end. */
bool line_next(struct line *line, const struct line_source *source, size_t *at);

#endif
