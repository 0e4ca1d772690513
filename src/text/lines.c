/* Reads lines of text files: see lines.h. */
#include "text/lines.h"

#include "text/recognize.h"
#include "text/strings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 1 << 18 };

/* ---- opening ---- */

static elbo_status read_stream(struct line_source *source, const char *path, elbo_error *error)
{
    bool standard = !strcmp(path, "-");
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return file_fail(error, "open", path, errno);
    elbo_status status = file_read_descriptor(&source->owned, &source->size, fd, source->name, error);
    if (!standard) close(fd);
    source->text = source->owned;
    source->end = source->at = source->size;
    return status;
}

static elbo_status open_file(struct line_source *source, const char *path, elbo_error *error)
{
    source->file = true;
    source->running = XXH3_createState();
    if (!source->running) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", path);
    return file_open_regular(&source->descriptor, &source->size, path, error);
}

/* Refuses a source that is not text. The name of the file decides whether it is a table. */
static elbo_status recognize(const struct line_source *source, const char *path, bool table, elbo_error *error)
{
    size_t size = source->size < TEXT_HEAD ? source->size : TEXT_HEAD;
    const char *name = strcmp(path, "-") ? path : NULL;
    if (!source->file) return text_recognize(name, source->text, size, size == source->size, table, error);
    char *head = malloc(size);
    elbo_status status = head ? file_read_at(source->descriptor, head, size, 0, path, error)
                              : elbo_fail(error, ELBO_MEMORY, "no memory to read %s", path);
    if (status == ELBO_OK) status = text_recognize(name, head, size, size == source->size, table, error);
    free(head);
    return status;
}

static elbo_status open_source(struct line_source *source, const char *path, bool table, elbo_error *error)
{
    bool standard = !strcmp(path, "-");
    bool stream = standard || (access(path, F_OK) == 0 && !file_is_regular(path) && !file_is_folder(path));
    *source = (struct line_source){.name = standard ? "standard input" : path, .descriptor = -1};
    elbo_status status = stream ? read_stream(source, path, error) : open_file(source, path, error);
    if (status == ELBO_OK && !source->size)
        status = elbo_fail(error, ELBO_INPUT, "%s is empty; give text with a sentence a line", source->name);
    if (status == ELBO_OK) status = recognize(source, path, table, error);
    if (status == ELBO_OK)
        line_source_rewind(source);
    else
        line_source_close(source);
    return status;
}

elbo_status line_source_open(struct line_source *source, const char *path, elbo_error *error)
{
    return open_source(source, path, false, error);
}

elbo_status line_source_open_table(struct line_source *source, const char *path, elbo_error *error)
{
    return open_source(source, path, true, error);
}

void line_source_memory(struct line_source *source, const char *name, const char *text, size_t size)
{
    *source = (struct line_source){.name = name, .text = text, .size = size, .descriptor = -1};
    line_source_rewind(source);
}

/* Closes the descriptor and frees the block buffer, which a file holds only during a pass. */
static void leave_file(struct line_source *source)
{
    if (source->descriptor >= 0) close(source->descriptor);
    source->descriptor = -1;
    free(source->owned);
    source->text = source->owned = NULL;
    source->room = source->begin = source->end = 0;
}

void line_source_rewind(struct line_source *source)
{
    source->number = 0;
    if (source->file) {
        leave_file(source);
        source->at = 0;
        XXH3_64bits_reset(source->running);
    } else {
        source->end = source->at = source->size;
        source->begin = text_skip_bom(source->text, source->size);
    }
}

void line_source_close(struct line_source *source)
{
    leave_file(source);
    XXH3_freeState(source->running);
    *source = (struct line_source){.descriptor = -1};
}

/* ---- reading ---- */

static elbo_status enter_file(struct line_source *source, elbo_error *error)
{
    size_t size; /* current size, unused: bytes appended since the source was opened are not read */
    ELBO_TRY(file_open_regular(&source->descriptor, &size, source->name, error));
    source->room = source->size < BLOCK ? source->size + 1 : BLOCK;
    source->text = source->owned = malloc(source->room);
    if (!source->owned) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", source->name);
    return ELBO_OK;
}

/* Moves the unread bytes to the front and reads on behind them; doubles the buffer if a line fills more than half of
 * it. */
static elbo_status refill(struct line_source *source, elbo_error *error)
{
    size_t left = source->end - source->begin;
    if (source->descriptor < 0) ELBO_TRY(enter_file(source, error));
    if (left) memmove(source->owned, source->owned + source->begin, left);
    source->begin = 0;
    source->end = left;
    if (2 * left > source->room) {
        char *larger = realloc(source->owned, 2 * source->room);
        if (!larger)
            return elbo_fail(error, ELBO_MEMORY,
                             "%s:%zu: no memory for a line of more than %zu bytes; give a sentence a line",
                             source->name, source->number + 1, left);
        source->text = source->owned = larger;
        source->room *= 2;
    }
    size_t n = source->size - source->at;
    if (n > source->room - left) n = source->room - left;
    ELBO_TRY(file_read_at(source->descriptor, source->owned + left, n, source->at, source->name, error));
    XXH3_64bits_update(source->running, source->owned + left, n);
    if (!source->at) source->begin = text_skip_bom(source->owned, n);
    source->at += n;
    source->end += n;
    return ELBO_OK;
}

/* Checks at the end of a pass that the file's bytes are those of the first pass. */
static elbo_status end_pass(struct line_source *source, elbo_error *error)
{
    if (!source->file) return ELBO_OK;
    leave_file(source);
    uint64_t sum = XXH3_64bits_digest(source->running);
    if (source->summed && sum != source->sum)
        return elbo_fail(error, ELBO_INPUT, "%s changed while it was read; try again", source->name);
    source->sum = sum;
    source->summed = true;
    return ELBO_OK;
}

elbo_status line_next(bool *more, struct line *line, struct line_source *source, elbo_error *error)
{
    const char *stop = NULL;
    size_t seen = 0; /* bytes of the line already searched for a line end */
    *more = false;
    for (;;) {
        const char *start = source->text + source->begin;
        size_t left = source->end - source->begin;
        if (left > seen) stop = memchr(start + seen, '\n', left - seen);
        if (stop || source->at == source->size) break;
        if (left > LINE_LONGEST) break;
        seen = left;
        ELBO_TRY(refill(source, error));
    }
    const char *start = source->text + source->begin;
    size_t size = stop ? (size_t)(stop - start) : source->end - source->begin;
    if (!stop && !size) return end_pass(source, error);
    source->number++;
    if (size > LINE_LONGEST)
        return elbo_fail(error, ELBO_INPUT, "%s:%zu: a line of more than %d bytes is too long; give a sentence a line",
                         source->name, source->number, LINE_LONGEST);
    source->begin += size + !!stop;
    while (size && start[size - 1] == '\r') size--;
    *line = (struct line){start, size, source->number};
    *more = true;
    return ELBO_OK;
}
