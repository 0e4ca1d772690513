/* Lines of text files: see lines.h. */
#include "text/lines.h"

#include "text/strings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static elbo_status read_stream(struct line_source *source, const char *path, elbo_error *error)
{
    bool standard = !strcmp(path, "-");
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return file_fail(error, "open", path, errno);
    elbo_status status = file_read_descriptor(&source->owned, &source->size, fd, source->name, error);
    if (!standard) close(fd);
    source->text = source->owned;
    return status;
}

elbo_status line_source_open(struct line_source *source, const char *path, elbo_error *error)
{
    bool standard = !strcmp(path, "-");
    *source = (struct line_source){.name = standard ? "standard input" : path};
    if (standard || (access(path, F_OK) == 0 && !file_is_regular(path) && !file_is_folder(path))) {
        ELBO_TRY(read_stream(source, path, error));
    } else {
        ELBO_TRY(file_map_open(&source->map, path, error));
        source->text = (const char *)source->map.data;
        source->size = source->map.size;
    }
    if (source->size) return ELBO_OK;
    line_source_close(source);
    return elbo_fail(error, ELBO_INPUT, "%s is empty; give text with a sentence a line", source->name);
}

void line_source_close(struct line_source *source)
{
    file_map_close(&source->map);
    free(source->owned);
    source->owned = NULL;
    source->text = NULL;
    source->size = 0;
}

bool line_next(struct line *line, const struct line_source *source, size_t *at)
{
    if (!*at) *at = text_skip_bom(source->text, source->size);
    if (*at >= source->size) return false;
    const char *start = source->text + *at, *end = memchr(start, '\n', source->size - *at);
    size_t size = end ? (size_t)(end - start) : source->size - *at;
    *at += size + !!end;
    if (size && start[size - 1] == '\r') size--;
    line->text = start;
    line->size = size;
    line->number++;
    return true;
}
