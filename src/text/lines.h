/* Lines of text files, read as often as needed: regular files in blocks, by pread, so that one that shrinks is an error
 * and not the end of the process; pipes and standard input are kept in memory. */
#ifndef TEXT_LINES_H
#define TEXT_LINES_H

#include "base/files.h"
#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <xxhash.h>

enum { LINE_LONGEST = 1 << 30 }; /* bytes */

struct line_source {
    const char *name;  /* for messages                                                          */
    size_t size;       /* bytes, as of its opening                                              */
    size_t at;         /* bytes read so far in this pass                                        */
    size_t number;     /* of the last line                                                      */
    bool file;         /* read in blocks; false: all of it is in memory                         */
    int descriptor;    /* of a file within a pass, or -1: many files are not open at once       */
    const char *text;  /* (end) what is in memory: all, or a block                              */
    size_t begin, end; /* what is left of it                                                    */
    char *owned;       /* (room) `text`, unless it is somebody else's                           */
    size_t room;
    XXH3_state_t *running; /* of this pass                                                          */
    uint64_t sum;          /* of the first pass                                                     */
    bool summed;
};

/* `path` "-" is standard input. What is empty or no text (text/recognize.h) is refused. */
elbo_status line_source_open(struct line_source *source, const char *path, elbo_error *error);
/* The same, but fields with separators between them are no reason to refuse it: a table of labels and text. */
elbo_status line_source_open_table(struct line_source *source, const char *path, elbo_error *error);
/* Text in memory, which must outlive the source. */
void line_source_memory(struct line_source *source, const char *name, const char *text, size_t size);
/* Begins another pass. */
void line_source_rewind(struct line_source *source);
void line_source_close(struct line_source *source);

struct line {
    const char *text; /* without its line end; valid until the next line; a byte order mark at the beginning of the
                         source and carriage returns before the line end are left out */
    size_t size;
    size_t number; /* from 1 */
};

/* The next line; *more is false at the end. ELBO_INPUT: the file has become shorter or changed since the first pass, or
 * a line is longer than LINE_LONGEST. */
elbo_status line_next(bool *more, struct line *line, struct line_source *source, elbo_error *error);

#endif
