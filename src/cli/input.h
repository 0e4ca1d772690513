/* Standard input of the commands that answer line by line. A command waits for one line, then takes the further lines
 * that are already there, and works on all of them at once. Before each wait the output is flushed, so every line is
 * answered before the next one is needed. The buffer grows only to the longest line.
 *
 *     struct cli_input in = {.log = &cli->log};
 *     while (!(status = cli_input_line(&in, true, &line, error)) && line.text) ...
 *     cli_input_close(&in); */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include "base/log.h"
#include "elbo/tokenizer.h"

struct cli_input {
    struct log *log; /* gets a line when a terminal is being read */
    char *bytes;     /* (room) unread bytes are begin .. end */
    size_t begin, end, room;
    size_t looked;             /* bytes before this offset hold no line end */
    bool begun, finished;      /* reading has begun; the end was read */
    size_t lines, replaced;    /* so far: lines, ill-formed parts of UTF-8 */
    struct elbo_text repaired; /* the last line */
};

struct cli_line {
    const char *text; /* valid until the next call; null: the end, or no line yet without waiting */
    size_t size;      /* without the line end; may hold NUL                                         */
};

/* Reads the next line as valid UTF-8: ill-formed parts become U+FFFD, and a byte order mark before the first line is
 * dropped. */
elbo_status cli_input_line(struct cli_input *in, bool wait, struct cli_line *line, elbo_error *error);

/* Waits until `wanted` bytes are there or the input ends. *size is the number of bytes there; *bytes is valid until the
 * next call. cli_input_skip consumes bytes. */
elbo_status cli_input_bytes(struct cli_input *in, size_t wanted, const char **bytes, size_t *size, elbo_error *error);
void cli_input_skip(struct cli_input *in, size_t size);

void cli_input_close(struct cli_input *in);

/* Flushes standard output; fails when it cannot be written. */
elbo_status cli_flush(elbo_error *error);

#endif
