/* Reads the lines of text files as often as needed. Regular files are read in blocks by pread, because a file that
 * shrinks must give an error and not end the process. Pipes and standard input are kept in memory. */
#ifndef TEXT_LINES_H
#define TEXT_LINES_H

#include "base/files.h"
#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <xxhash.h>

enum { LINE_LONGEST = 1 << 30 }; /* bytes of a line */

struct line_source {
    const char *name;  /* for messages */
    size_t size;       /* bytes, as of its opening */
    size_t at;         /* bytes read in this pass */
    size_t number;     /* number of the last line */
    bool file;         /* true: read in blocks; false: all text is in memory */
    int descriptor;    /* open only during a pass, else -1, because many files must not be open at once */
    const char *text;  /* (end) the whole text, or the current block */
    size_t begin, end; /* unread range of `text` */
    char *owned;       /* (room) memory behind `text`; null if the caller owns the text */
    size_t room;
    XXH3_state_t *running; /* hash of this pass */
    uint64_t sum;          /* hash of the first pass */
    bool summed;
};

/* Opens a file; `path` "-" is standard input. Refuses empty input and input that is not text (text/recognize.h). */
elbo_status line_source_open(struct line_source *source, const char *path, elbo_error *error);
/* Opens a table of labels and text: does as line_source_open, but does not refuse fields with separators. */
elbo_status line_source_open_table(struct line_source *source, const char *path, elbo_error *error);
/* Reads text in memory, which must outlive the source. */
void line_source_memory(struct line_source *source, const char *name, const char *text, size_t size);
/* Begins another pass. */
void line_source_rewind(struct line_source *source);
void line_source_close(struct line_source *source);

struct line {
    const char *text; /* without its line end, the carriage returns before it, and the byte order mark at the start of
                         the source; valid until the next line */
    size_t size;
    size_t number; /* counted from 1 */
};

/* Reads the next line; *more is false at the end. ELBO_INPUT: the file has shrunk or changed since the first pass, or a
 * line is longer than LINE_LONGEST. */
elbo_status line_next(bool *more, struct line *line, struct line_source *source, elbo_error *error);

#endif
