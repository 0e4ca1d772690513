/* Reading options from YAML by libyaml's events. Nested maps become "section.key"; values are scalars. All other YAML
 * (sequences, anchors, aliases, several documents, duplicate keys) is refused with its line and column. */
#include "base/files.h"
#include "base/options_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum { DEEPEST = 8, LARGEST = 1 << 20 };

struct reader {
    struct options *options;
    const char *name;
    yaml_parser_t parser;
    char path[256];         /* "section." of the map being read */
    size_t starts[DEEPEST]; /* length of `path` before each open map */
    size_t depth;
    bool *seen;     /* (rows) keys set by this file */
    char *sections; /* sections opened so far, "\n"-separated */
    size_t sections_used;
};

static elbo_status fail_at(const struct reader *reader, yaml_mark_t mark, elbo_error *error, const char *what)
{
    return elbo_fail(error, ELBO_USAGE, "%s:%zu:%zu: %s", reader->name, mark.line + 1, mark.column + 1, what);
}

static elbo_status next_event(struct reader *reader, yaml_event_t *event, elbo_error *error)
{
    if (yaml_parser_parse(&reader->parser, event)) return ELBO_OK;
    const yaml_parser_t *p = &reader->parser;
    if (p->error == YAML_MEMORY_ERROR) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", reader->name);
    if (p->error == YAML_READER_ERROR)
        return elbo_fail(error, ELBO_USAGE, "%s: byte %zu: %s; a configuration is UTF-8 text", reader->name,
                         p->problem_offset + 1, p->problem ? p->problem : "cannot be read");
    char what[512];
    snprintf(what, sizeof what, "malformed YAML: %s%s%s", p->problem ? p->problem : "cannot be read",
             p->context ? " " : "", p->context ? p->context : "");
    return fail_at(reader, p->problem_mark, error, what);
}

static elbo_status check_plain_node(const struct reader *reader, const yaml_event_t *event, elbo_error *error)
{
    const yaml_char_t *anchor = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return fail_at(reader, event->start_mark, error, "aliases are not accepted; write the value out");
    case YAML_SEQUENCE_START_EVENT:
        return fail_at(reader, event->start_mark, error, "a list is not accepted here; options are `key: value`");
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        break;
    default:
        break;
    }
    if (anchor) return fail_at(reader, event->start_mark, error, "anchors are not accepted; write the value out");
    return ELBO_OK;
}

static elbo_status open_section(struct reader *reader, const char *key, yaml_mark_t mark, elbo_error *error)
{
    size_t used = strlen(reader->path), size = strlen(key);
    if (reader->depth == DEEPEST) return fail_at(reader, mark, error, "maps are nested too deeply");
    if (used + size + 2 > sizeof reader->path) return fail_at(reader, mark, error, "the key is too long");
    reader->starts[reader->depth++] = used;
    memcpy(reader->path + used, key, size);
    memcpy(reader->path + used + size, ".", 2);
    /* a repeated section is refused even when no single option is given twice */
    size_t length = used + size + 1;
    for (const char *at = reader->sections; at && (at = strstr(at, reader->path)); at++)
        if ((at == reader->sections || at[-1] == '\n') && at[length] == '\n')
            return fail_at(reader, mark, error, "this section stands twice; merge the two");
    char *larger = realloc(reader->sections, reader->sections_used + length + 2);
    if (!larger) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", reader->name);
    reader->sections = larger;
    reader->sections_used += (size_t)sprintf(larger + reader->sections_used, "%s\n", reader->path);
    return ELBO_OK;
}

static elbo_status set_option(struct reader *reader, const char *key, const yaml_event_t *value, yaml_mark_t mark,
                              elbo_error *error)
{
    char full[512], where[FILES_PATH + 64];
    if (snprintf(full, sizeof full, "%s%s", reader->path, key) >= (int)sizeof full)
        return fail_at(reader, mark, error, "the key is too long");
    const struct option_table *table = reader->options->table;
    const struct option *row = options_find(table, full);
    if (row && reader->seen[row - table->rows]) {
        char what[256];
        snprintf(what, sizeof what, "%.100s stands twice; keep one", full);
        return fail_at(reader, mark, error, what);
    }
    if (row) {
        reader->seen[row - table->rows] = true;
        mark = value->start_mark;
    }
    snprintf(where, sizeof where, "%s:%zu:%zu", reader->name, mark.line + 1, mark.column + 1);
    const char *text = (const char *)value->data.scalar.value;
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
    bool null = false;
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls && value->data.scalar.style == YAML_PLAIN_SCALAR_STYLE; i++)
        null |= !strcmp(text, nulls[i]);
    size_t size = strlen(full);
    for (size_t i = 0; null && !row && i < table->count; i++) /* accepts `train:` with nothing below it */
        if (!strncmp(table->rows[i].key, full, size) && table->rows[i].key[size] == '.') return ELBO_OK;
    if (null && row && row->type == OPTION_STRING)
        text = "";
    else if (null && row)
        return elbo_fail(error, ELBO_USAGE, "%s: %s has no value; leave the line out for the default, %s", where, full,
                         row->fallback);
    if (!null && strlen(text) != value->data.scalar.length)
        return fail_at(reader, mark, error, "a value holds a NUL character");
    return options_set(reader->options, full, text, where, error);
}

/* Reads the value of one `key: value` whose key event was already read. */
static elbo_status read_entry(struct reader *reader, const yaml_event_t *key, elbo_error *error)
{
    ELBO_TRY(check_plain_node(reader, key, error));
    if (key->type != YAML_SCALAR_EVENT) return fail_at(reader, key->start_mark, error, "a key must be a plain word");
    const char *name = (const char *)key->data.scalar.value;
    if (!*name || strlen(name) != key->data.scalar.length)
        return fail_at(reader, key->start_mark, error, "a key must be a plain word");
    yaml_event_t value;
    ELBO_TRY(next_event(reader, &value, error));
    elbo_status status = check_plain_node(reader, &value, error);
    if (status == ELBO_OK) {
        if (value.type == YAML_SCALAR_EVENT)
            status = set_option(reader, name, &value, key->start_mark, error);
        else
            status = open_section(reader, name, key->start_mark, error);
    }
    yaml_event_delete(&value);
    return status;
}

static elbo_status read_document(struct reader *reader, elbo_error *error)
{
    bool in_map = false, done = false, documents = false;
    while (!done) {
        yaml_event_t event;
        ELBO_TRY(next_event(reader, &event, error));
        elbo_status status = ELBO_OK;
        switch (event.type) {
        case YAML_STREAM_END_EVENT:
            done = true;
            break;
        case YAML_DOCUMENT_START_EVENT:
            if (documents) status = fail_at(reader, event.start_mark, error, "a second document; keep one");
            documents = true;
            break;
        case YAML_MAPPING_START_EVENT:
            if (in_map)
                status = read_entry(reader, &event, error);
            else
                status = check_plain_node(reader, &event, error);
            in_map = true;
            break;
        case YAML_MAPPING_END_EVENT:
            if (reader->depth) reader->path[reader->starts[--reader->depth]] = 0;
            break;
        case YAML_SCALAR_EVENT:
        case YAML_SEQUENCE_START_EVENT:
        case YAML_ALIAS_EVENT:
            if (in_map) status = read_entry(reader, &event, error);
            /* some writers emit a file of comments alone as an empty scalar */
            else if (event.type != YAML_SCALAR_EVENT || event.data.scalar.length)
                status = fail_at(reader, event.start_mark, error, "a configuration is a map of `key: value` lines");
            break;
        default:
            break;
        }
        yaml_event_delete(&event);
        ELBO_TRY(status);
    }
    return ELBO_OK;
}

/* Parses the whole file without setting an option, so that malformed YAML is reported before unknown keys. */
static elbo_status check_syntax(struct reader *reader, elbo_error *error)
{
    for (bool done = false; !done;) {
        yaml_event_t event;
        ELBO_TRY(next_event(reader, &event, error));
        done = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    return ELBO_OK;
}

/* Returns whether the text looks like TOML or an ini file: its first line is "[section]" or "key = value". */
static bool is_toml(const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        const char *line = text + at, *end = memchr(line, '\n', size - at);
        size_t length = end ? (size_t)(end - line) : size - at;
        at += length + 1;
        while (length && (line[length - 1] == ' ' || line[length - 1] == '\r')) length--;
        if (!length || *line == '#' || *line == ';') continue;
        const char *equals = memchr(line, '=', length), *colon = memchr(line, ':', length);
        return (*line == '[' && line[length - 1] == ']') || (equals && (!colon || colon > equals));
    }
    return false;
}

static elbo_status with_parser(struct reader *reader, const char *text, size_t size,
                               elbo_status (*walk)(struct reader *reader, elbo_error *error), elbo_error *error)
{
    if (!yaml_parser_initialize(&reader->parser))
        return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", reader->name);
    yaml_parser_set_encoding(&reader->parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&reader->parser, (const unsigned char *)text, size);
    elbo_status status = walk(reader, error);
    yaml_parser_delete(&reader->parser);
    return status;
}

elbo_status options_read_yaml_text(struct options *options, const char *text, size_t size, const char *name,
                                   elbo_error *error)
{
    struct reader reader = {.options = options, .name = name};
    reader.seen = calloc(options->table->count, sizeof *reader.seen);
    if (!reader.seen) return elbo_fail(error, ELBO_MEMORY, "no memory to read %s", name);
    elbo_status status = is_toml(text, size)
                             ? elbo_fail(error, ELBO_USAGE,
                                         "%s looks like TOML, and a configuration is YAML: `section:`, and "
                                         "below it `  key: value`; `elbo init config.yaml` writes one",
                                         name)
                             : with_parser(&reader, text, size, check_syntax, error);
    if (status == ELBO_OK) status = with_parser(&reader, text, size, read_document, error);
    free(reader.seen);
    free(reader.sections);
    return status;
}

/* Reads a pipe, such as a shell's <(...) makes; "-" is standard input. */
static elbo_status read_pipe(char **text, size_t *size, const char *path, elbo_error *error)
{
    bool standard = !strcmp(path, "-");
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return file_fail(error, "open", path, errno);
    elbo_status status = file_read_descriptor(text, size, fd, standard ? "standard input" : path, error);
    if (!standard) close(fd);
    ELBO_TRY(status);
    if (*size <= LARGEST) return ELBO_OK;
    free(*text);
    return elbo_fail(error, ELBO_INPUT, "%s has more than %d bytes; a configuration is smaller", path, LARGEST);
}

elbo_status options_read_yaml(struct options *options, const char *path, elbo_error *error)
{
    char *text;
    size_t size;
    struct stat about;
    bool pipe = !strcmp(path, "-") || (!stat(path, &about) && S_ISFIFO(about.st_mode));
    ELBO_TRY(pipe ? read_pipe(&text, &size, path, error) : file_read(&text, &size, path, LARGEST, error));
    elbo_status status = options_read_yaml_text(options, text, size, path, error);
    free(text);
    return status;
}
