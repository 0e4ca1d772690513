/* Reads and writes a model's configuration as lines "section.key=value". The rows are those of model/config.h, which
 * train/config.c also puts into the table of all options. */
#include "base/options.h"
#include "infer/file.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct model_config, field)
static const struct option size_rows[] = {
    ROW_SIZE("vocabulary", vocabulary, "1", 1, 1 << 30, "V", 0, "number of tokens in the vocabulary"),
    ROW_SIZE("positions", positions, "3", 3, 1000002, "", 0, "positions of a sentence with its marks"),
    ROW_SIZE("labels", labels, "0", 0, 1 << 20, "", 0, "number of classes of sentences"),
};

#define SECTION(name, rows, offset)                                                                                    \
    {                                                                                                                  \
        name, rows, sizeof rows / sizeof *rows, offset                                                                 \
    }
static const struct option_section sections[] = {
    SECTION("encoder", stack_rows, AT(encoder)), SECTION("encoder", encoder_rows, 0),
    SECTION("decoder", stack_rows, AT(decoder)), SECTION("decoder", decoder_rows, 0),
    SECTION("latent", latent_rows, AT(latent)),  SECTION("objective", rate_rows, AT(latent)),
    SECTION("objective", mark_rows, 0),          SECTION("", size_rows, 0),
};
#undef SECTION
#undef AT

#define COUNT(rows) sizeof rows / sizeof *rows
enum {
    ROWS = 2 * COUNT(stack_rows) + COUNT(encoder_rows) + COUNT(decoder_rows) + COUNT(latent_rows) + COUNT(rate_rows) +
           COUNT(mark_rows) + COUNT(size_rows),
    MOST_LINE = 320
};
#undef COUNT

struct rows {
    struct option_table table;
    struct option row[ROWS];
    char keys[32 * ROWS];
};

static void list_rows(struct rows *r)
{
    r->table = (struct option_table){.rows = r->row};
    r->table.count =
        options_concatenate(r->row, ROWS, r->keys, sizeof r->keys, sections, sizeof sections / sizeof *sections);
}

size_t infer_config_text(char *to, size_t size, const struct model_config *c)
{
    struct rows r;
    size_t used = 0;
    list_rows(&r);
    for (const struct option *row = r.row; row < r.row + r.table.count; row++) {
        char text[MOST_LINE];
        options_value(text, sizeof text, row, c);
        if (!*text) continue; /* an empty set, which is the default */
        used +=
            (size_t)snprintf(used < size ? to + used : NULL, used < size ? size - used : 0, "%s=%s\n", row->key, text);
    }
    return used;
}

static elbo_status read_line(struct options *options, char *line, elbo_error *error)
{
    elbo_error why = {0};
    char *value = strchr(line, '=');
    if (!value) return elbo_fail(error, ELBO_INPUT, "its configuration has a line that is none: %.60s", line);
    *value++ = 0;
    if (options_given(options, line)) return elbo_fail(error, ELBO_INPUT, "its configuration has %.60s twice", line);
    elbo_status status = options_set(options, line, value, "", &why);
    if (status == ELBO_MEMORY) *error = why;
    if (!status || status == ELBO_MEMORY) return status;
    return elbo_fail(error, ELBO_INPUT,
                     "its configuration has %.60s = %.60s, which this version does not take; a newer elbo made it, or "
                     "the file is damaged",
                     line, value);
}

static elbo_status read_lines(struct options *options, const char *text, size_t size, elbo_error *error)
{
    for (size_t at = 0; at < size;) {
        char line[MOST_LINE];
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - (text + at)) : size - at;
        if (length >= sizeof line || memchr(text + at, 0, length))
            return elbo_fail(error, ELBO_INPUT, "its configuration has a line that is none, at byte %zu", at);
        memcpy(line, text + at, length);
        line[length] = 0;
        ELBO_TRY(read_line(options, line, error));
        at += length + 1;
    }
    if (!options_given(options, "vocabulary") || !options_given(options, "positions"))
        return elbo_fail(error, ELBO_INPUT, "its configuration lacks vocabulary or positions");
    return ELBO_OK;
}

elbo_status infer_config_read(struct model_config *c, const char *text, size_t size, elbo_error *error)
{
    struct rows r;
    struct options *options;
    memset(c, 0, sizeof *c);
    list_rows(&r);
    ELBO_TRY(options_open(&options, &r.table, c, error));
    elbo_status status = read_lines(options, text, size, error);
    options_free(options);
    return status;
}
