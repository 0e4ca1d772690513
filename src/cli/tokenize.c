/* elbo tokenize: turns lines of text into lines of ids, or back. */
#include "cli/cli.h"
#include "base/json.h"
#include "cli/input.h"

#include "elbo/tokenizer.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct work {
    struct elbo_tokenizer *tokenizer;
    struct elbo_text text;
    struct elbo_ids ids;
    size_t number; /* number of the line */
};

/* Parses one line of ids "5 17 3" into work->ids. */
static elbo_status parse_ids(struct work *work, struct cli_line line, elbo_error *error)
{
    work->ids.count = 0;
    for (const char *at = line.text;;) { /* a NUL follows the line */
        at += strspn(at, " \t");
        if (at == line.text + line.size) return ELBO_OK;
        size_t digits = strspn(at, "0123456789"), word = strcspn(at, " \t");
        if (digits != word || digits > 10 || !digits)
            return elbo_fail(error, ELBO_INPUT,
                             "line %zu: '%.*s' is not a token id; --decode reads whole numbers with "
                             "spaces between",
                             work->number, (int)(word < 40 ? word : 40), at);
        uint64_t id = strtoull(at, NULL, 10);
        if (work->ids.count == work->ids.capacity) {
            size_t capacity = work->ids.capacity ? 2 * work->ids.capacity : 64;
            uint32_t *larger = realloc(work->ids.ids, capacity * sizeof *larger);
            if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory for %zu token ids", capacity);
            work->ids.ids = larger;
            work->ids.capacity = capacity;
        }
        work->ids.ids[work->ids.count++] = id > UINT32_MAX ? UINT32_MAX : (uint32_t)id;
        at += word;
    }
}

static elbo_status from_ids(struct work *work, struct cli_line line, bool json, elbo_error *error)
{
    ELBO_TRY(parse_ids(work, line, error));
    elbo_status status = elbo_tokenizer_decode(work->tokenizer, &work->text, work->ids.ids, work->ids.count, error);
    if (status != ELBO_OK) return elbo_fail_in(error, "line %zu: ", work->number);
    const char *text = work->text.text ? work->text.text : "";
    if (!json) {
        if (memchr(text, '\n', work->text.size) || memchr(text, '\r', work->text.size))
            return elbo_fail(error, ELBO_INPUT,
                             "line %zu: the ids spell a line end, which cannot stand in a line; --json writes a string",
                             work->number);
        fwrite(text, 1, work->text.size, stdout);
        putchar('\n');
        return ELBO_OK;
    }
    size_t replaced, first; /* JSON is UTF-8, but ids can spell other bytes */
    struct elbo_text clean = {0};
    status = elbo_text_repair(&clean, &replaced, &first, text, work->text.size, error);
    if (!status)
        status = json_print(stdout, json_stringn(clean.text ? clean.text : "", clean.size), JSON_ENCODE_ANY,
                            "a sentence", error);
    elbo_text_free(&clean);
    return status;
}

static elbo_status to_ids(struct work *work, struct cli_line line, bool json, elbo_error *error)
{
    ELBO_TRY(elbo_tokenizer_encode(work->tokenizer, &work->ids, line.text, line.size, error));
    if (json) putchar('[');
    for (size_t i = 0; i < work->ids.count; i++) printf("%s%" PRIu32, !i ? "" : json ? ", " : " ", work->ids.ids[i]);
    puts(json ? "]" : "");
    return ELBO_OK;
}

elbo_status cli_tokenize(struct cli *cli, elbo_error *error)
{
    struct work work = {0};
    struct cli_input in = {.log = &cli->log};
    struct cli_line line;
    elbo_status status = elbo_tokenizer_find(&work.tokenizer, cli->arguments[0], error);
    while (status == ELBO_OK && (status = cli_input_line(&in, true, &line, error)) == ELBO_OK && line.text) {
        work.number++;
        if (in.replaced && cli->config.prepare.strict)
            status = elbo_fail(error, ELBO_INPUT,
                               "standard input:%zu: not valid UTF-8; correct it, or leave out "
                               "--strict to replace it by U+FFFD",
                               work.number);
        else
            status = cli->config.decode ? from_ids(&work, line, cli->config.json, error)
                                        : to_ids(&work, line, cli->config.json, error);
        if (status == ELBO_OK && ferror(stdout)) status = cli_flush(error);
    }
    if (status == ELBO_OK && in.replaced)
        log_warning(&cli->log, "%zu ill-formed parts of UTF-8 became U+FFFD; --strict refuses them", in.replaced);
    elbo_tokenizer_close(work.tokenizer);
    cli_input_close(&in);
    elbo_text_free(&work.text);
    elbo_ids_free(&work.ids);
    return status;
}
