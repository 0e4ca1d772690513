/* What a model is, as lines "section.key=value": the rows of model/config.h, written and read without the machinery of
 * options, which needs more than libc. */
#include "infer/file.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct section {
    const char *name;
    const struct option *rows;
    size_t count, offset;
} sections[] = {
#define SECTION(name, rows, offset)                                                                                    \
    {                                                                                                                  \
        name, rows, sizeof rows / sizeof *rows, offset                                                                 \
    }
    SECTION("encoder", stack_rows, offsetof(struct model_config, encoder)),
    SECTION("decoder", stack_rows, offsetof(struct model_config, decoder)),
    SECTION("latent", latent_rows, offsetof(struct model_config, latent)),
    SECTION("objective", rate_rows, offsetof(struct model_config, latent)),
    SECTION("objective", mark_rows, 0),
    SECTION("encoder", encoder_rows, 0),
    SECTION("decoder", decoder_rows, 0),
#undef SECTION
};
enum { SECTIONS = sizeof sections / sizeof *sections, MOST_VALUE = 256 };

/* What comes from the corpus. */
static const struct {
    const char *key;
    size_t offset, least, most;
} sizes[] = {{"vocabulary", offsetof(struct model_config, vocabulary), 1, 1u << 30},
             {"positions", offsetof(struct model_config, positions), 3, 1000002},
             {"labels", offsetof(struct model_config, labels), 0, 1u << 20}};
enum { SIZES = sizeof sizes / sizeof *sizes };

/* ---- writing ---- */

static void value_text(char text[MOST_VALUE], const struct option *row, const void *field)
{
    text[0] = 0;
    switch (row->type) {
    case OPTION_SIZE:
        snprintf(text, MOST_VALUE, "%zu", *(const size_t *)field);
        break;
    case OPTION_DOUBLE:
        snprintf(text, MOST_VALUE, "%.17g", *(const double *)field);
        break;
    case OPTION_BOOL:
        snprintf(text, MOST_VALUE, "%s", *(const bool *)field ? "true" : "false");
        break;
    case OPTION_CHOICE:
        snprintf(text, MOST_VALUE, "%s", row->choices[*(const int *)field]);
        break;
    default: /* OPTION_SET */
        for (size_t i = 0; row->choices[i]; i++)
            if (*(const unsigned *)field >> i & 1)
                snprintf(text + strlen(text), MOST_VALUE - strlen(text), "%s%s", *text ? "," : "", row->choices[i]);
    }
}

size_t infer_config_text(char *to, size_t size, const struct model_config *c)
{
    size_t used = 0;
    char text[MOST_VALUE];
    for (size_t s = 0; s < SECTIONS; s++)
        for (size_t i = 0; i < sections[s].count; i++) {
            const struct option *row = &sections[s].rows[i];
            value_text(text, row, (const char *)c + sections[s].offset + row->offset);
            if (!*text) continue; /* a set of nothing: its default */
            used += (size_t)snprintf(used < size ? to + used : NULL, used < size ? size - used : 0, "%s.%s=%s\n",
                                     sections[s].name, row->key, text);
        }
    for (size_t i = 0; i < SIZES; i++)
        used += (size_t)snprintf(used < size ? to + used : NULL, used < size ? size - used : 0, "%s=%zu\n",
                                 sizes[i].key, *(const size_t *)((const char *)c + sizes[i].offset));
    return used;
}

/* ---- reading ---- */

static bool read_size(size_t *to, const char *text, double least, double most)
{
    char *end;
    if (!isdigit((unsigned char)*text)) return false;
    unsigned long long number = strtoull(text, &end, 10);
    *to = (size_t)number;
    return !*end && (double)number >= least && (double)number <= most;
}

static bool read_double(double *to, const char *text, double least, double most)
{
    char *end;
    *to = strtod(text, &end);
    return end != text && !*end && isfinite(*to) && *to >= least && *to <= most;
}

static bool read_choice(int *to, const char *text, size_t length, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (strlen(choices[i]) == length && !memcmp(choices[i], text, length)) {
            *to = i;
            return true;
        }
    return false;
}

static bool read_set(unsigned *to, const char *text, const char *const *choices)
{
    *to = 0;
    for (;;) {
        int bit;
        size_t length = strcspn(text, ",");
        if (!read_choice(&bit, text, length, choices)) return false;
        *to |= 1u << bit;
        if (!text[length]) return true;
        text += length + 1;
    }
}

static bool read_value(void *field, const struct option *row, const char *text)
{
    switch (row->type) {
    case OPTION_SIZE:
        return read_size(field, text, row->min, row->max);
    case OPTION_DOUBLE:
        return read_double(field, text, row->min, row->max);
    case OPTION_BOOL:
        *(bool *)field = !strcmp(text, "true");
        return *(bool *)field || !strcmp(text, "false");
    case OPTION_CHOICE:
        return read_choice(field, text, strlen(text), row->choices);
    default:
        return read_set(field, text, row->choices);
    }
}

static const struct option *find(void **field, struct model_config *c, const char *key)
{
    for (size_t s = 0; s < SECTIONS; s++) {
        size_t length = strlen(sections[s].name);
        if (strncmp(key, sections[s].name, length) || key[length] != '.') continue;
        for (size_t i = 0; i < sections[s].count; i++)
            if (!strcmp(sections[s].rows[i].key, key + length + 1)) {
                *field = (char *)c + sections[s].offset + sections[s].rows[i].offset;
                return &sections[s].rows[i];
            }
    }
    return NULL;
}

static elbo_status read_line(struct model_config *c, char *line, elbo_error *error)
{
    char *value = strchr(line, '=');
    void *field;
    if (!value) return elbo_fail(error, ELBO_INPUT, "its configuration has a line that is none: %.60s", line);
    *value++ = 0;
    for (size_t i = 0; i < SIZES; i++)
        if (!strcmp(sizes[i].key, line)) {
            size_t *to = (size_t *)((char *)c + sizes[i].offset);
            return read_size(to, value, (double)sizes[i].least, (double)sizes[i].most)
                       ? ELBO_OK
                       : elbo_fail(error, ELBO_INPUT, "its configuration has %s = %.60s", line, value);
        }
    const struct option *row = find(&field, c, line);
    if (!row)
        return elbo_fail(error, ELBO_INPUT,
                         "its configuration has %.60s, which this version does not know; a newer elbo made it", line);
    if (read_value(field, row, value)) return ELBO_OK;
    return elbo_fail(error, ELBO_INPUT, "its configuration has %s = %.60s, which is none of its values", line, value);
}

static void defaults(struct model_config *c)
{
    memset(c, 0, sizeof *c);
    for (size_t s = 0; s < SECTIONS; s++)
        for (size_t i = 0; i < sections[s].count; i++) {
            const struct option *row = &sections[s].rows[i];
            read_value((char *)c + sections[s].offset + row->offset, row, row->fallback);
        }
}

elbo_status infer_config_read(struct model_config *c, const char *text, size_t size, elbo_error *error)
{
    char line[MOST_VALUE + 64];
    defaults(c);
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t length = end ? (size_t)(end - (text + at)) : size;
        if (length >= sizeof line || memchr(text + at, 0, length))
            return elbo_fail(error, ELBO_INPUT, "its configuration has a line that is none, at byte %zu", at);
        memcpy(line, text + at, length);
        line[length] = 0;
        ELBO_TRY(read_line(c, line, error));
        at += length + 1;
    }
    if (!c->vocabulary || !c->positions)
        return elbo_fail(error, ELBO_INPUT, "its configuration lacks vocabulary or positions");
    return ELBO_OK;
}
