/* Reads standard input without stdio; see input.h. */
#include "cli/input.h"

#include "text/recognize.h"
#include "text/strings.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

elbo_status cli_flush(elbo_error *error)
{
    if (!fflush(stdout) && !ferror(stdout)) return ELBO_OK;
    return elbo_fail(error, ELBO_IO, "cannot write to standard output: %s", strerror(errno));
}

static bool ready(int milliseconds)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&input, 1, milliseconds) > 0;
}

static elbo_status make_room(struct cli_input *in, elbo_error *error)
{
    if (in->begin) {
        memmove(in->bytes, in->bytes + in->begin, in->end - in->begin);
        in->looked -= in->begin;
        in->end -= in->begin;
        in->begin = 0;
    }
    if (in->room - in->end >= 1 << 12) return ELBO_OK;
    size_t room = in->room ? 2 * in->room : 1 << 16;
    char *grown = room > in->room ? realloc(in->bytes, room) : NULL;
    if (!grown)
        return elbo_fail(error, ELBO_MEMORY, "no memory for a line of standard input beyond %zu bytes", in->room);
    in->bytes = grown;
    in->room = room;
    return ELBO_OK;
}

/* Reads more input. With `wait` unset it reads only what is there already. *got: bytes or the end of the input came. */
static elbo_status read_more(struct cli_input *in, bool wait, bool *got, elbo_error *error)
{
    *got = false;
    if (!ready(0)) {
        if (!wait) return ELBO_OK;
        ELBO_TRY(cli_flush(error));
        if (!in->begun && isatty(STDIN_FILENO)) log_line(in->log, "reading standard input; end with Ctrl-D");
        while (!ready(-1))
            if (errno != EINTR) break; /* read reports the error */
    }
    in->begun = true;
    ELBO_TRY(make_room(in, error));
    ssize_t size;
    do size = read(STDIN_FILENO, in->bytes + in->end, in->room - in->end);
    while (size < 0 && (errno == EINTR || (errno == EAGAIN && ready(-1))));
    if (size < 0) return elbo_fail(error, ELBO_IO, "cannot read standard input: %s", strerror(errno));
    in->finished = size == 0;
    in->end += (size_t)size;
    *got = true;
    return ELBO_OK;
}

elbo_status cli_input_line(struct cli_input *in, bool wait, struct cli_line *line, elbo_error *error)
{
    const char *feed = NULL;
    *line = (struct cli_line){0};
    for (bool got = true;;) {
        if (in->end > in->looked) feed = memchr(in->bytes + in->looked, '\n', in->end - in->looked);
        in->looked = in->end;
        if (feed || in->finished) break;
        ELBO_TRY(read_more(in, wait, &got, error));
        if (!got) return ELBO_OK;
    }
    if (!feed && in->begin == in->end) return ELBO_OK;
    char *text = in->bytes + in->begin;
    size_t size = feed ? (size_t)(feed - text) : in->end - in->begin, replaced, first;
    in->begin += size + (feed != NULL);
    in->looked = in->begin;
    if (!in->lines++) {
        ELBO_TRY(text_recognize_stream(text, in->end - (size_t)(text - in->bytes), in->finished, error));
        size_t mark = text_skip_bom(text, size);
        text += mark;
        size -= mark;
    }
    if (size && text[size - 1] == '\r') size--;
    ELBO_TRY(elbo_text_repair(&in->repaired, &replaced, &first, text, size, error));
    in->replaced += replaced;
    *line = (struct cli_line){in->repaired.text ? in->repaired.text : "", in->repaired.size};
    return ELBO_OK;
}

elbo_status cli_input_bytes(struct cli_input *in, size_t wanted, const char **bytes, size_t *size, elbo_error *error)
{
    bool got;
    while (in->end - in->begin < wanted && !in->finished) ELBO_TRY(read_more(in, true, &got, error));
    *bytes = in->bytes + in->begin;
    *size = in->end - in->begin;
    return ELBO_OK;
}

void cli_input_skip(struct cli_input *in, size_t size)
{
    in->begin += size;
    if (in->looked < in->begin) in->looked = in->begin;
}

void cli_input_close(struct cli_input *in)
{
    free(in->bytes);
    elbo_text_free(&in->repaired);
}
