/* Standard input of the commands that answer line by line. Lines are taken as they come: a command asks for one and
 * waits, then asks for further ones that are there already, and works on all of them at once. Before waiting, what was
 * written goes out, so that every line is answered before the next one is needed. Memory is that of the longest line.
 *
 *     struct cli_input in = {.log = &cli->log};
 *     while (!(status = cli_input_line(&in, true, &line, error)) && line.text) ...
 *     cli_input_close(&in); */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include "base/log.h"
#include "elbo/tokenizer.h"

struct cli_input {
    struct log *log; /* told that a terminal is being read          */
    char *bytes;     /* (room) what was read: begin .. end is left  */
    size_t begin, end, room;
    size_t looked;             /* no line ends before this place              */
    bool begun, finished;      /* a first byte was asked for; no more to read */
    size_t lines, replaced;    /* so far: lines, ill-formed parts of UTF-8    */
    struct elbo_text repaired; /* the last line                               */
};

struct cli_line {
    const char *text; /* until the next call; null: at the end, or no line is there without waiting */
    size_t size;      /* without the line end; may hold NUL                                         */
};

/* The next line, valid UTF-8 (ill-formed parts become U+FFFD) without a byte order mark in front of the first. */
elbo_status cli_input_line(struct cli_input *in, bool wait, struct cli_line *line, elbo_error *error);

/* Waits until `wanted` bytes or the end are there, and says how many: *bytes is valid until the next call.
 * cli_input_skip takes them. */
elbo_status cli_input_bytes(struct cli_input *in, size_t wanted, const char **bytes, size_t *size, elbo_error *error);
void cli_input_skip(struct cli_input *in, size_t size);

void cli_input_close(struct cli_input *in);

/* Sends what was written to standard output on its way; fails when it cannot go. */
elbo_status cli_flush(elbo_error *error);

#endif
