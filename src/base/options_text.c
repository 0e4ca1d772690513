/* The option table as people read it: effective and default YAML, --help, and the reference page. */
#include "base/options_private.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Prints the shortest decimal that reads back as the same double. A mantissa before an exponent always has a point,
 * because YAML 1.1 reads 1e-08 as text. */
static void print_double(FILE *out, double value)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) break;
    }
    char *exponent = strchr(text, 'e');
    if (exponent && !memchr(text, '.', (size_t)(exponent - text)))
        fprintf(out, "%.*s.0%s", (int)(exponent - text), text, exponent);
    else
        fputs(text, out);
}

/* Prints text in YAML's double-quoted style. Characters that a YAML reader would fold or refuse are escaped. */
static void print_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (size_t size = strlen(text); size;) {
        uint32_t code;
        size_t n = utf8_next(&code, text, size);
        if (!n) break;
        if (code == '"' || code == '\\')
            fprintf(out, "\\%c", (int)code);
        else if (code < 0x20 || (code >= 0x7f && code <= 0xa0))
            fprintf(out, "\\x%02x", (unsigned)code);
        else if (code == 0x2028 || code == 0x2029 || code == 0xfeff || code == 0xfffe || code == 0xffff)
            fprintf(out, "\\u%04x", (unsigned)code);
        else
            fwrite(text, 1, n, out);
        text += n;
        size -= n;
    }
    fputc('"', out);
}

static void print_set(FILE *out, const struct option *row, unsigned bits)
{
    const char *between = "";
    for (size_t i = 0; row->choices[i]; i++)
        if (bits >> i & 1) {
            fprintf(out, "%s%s", between, row->choices[i]);
            between = ",";
        }
}

void options_print_value(FILE *out, const struct option *row, const void *target)
{
    const void *field = (const unsigned char *)target + row->offset;
    switch (row->type) {
    case OPTION_SIZE:
        fprintf(out, "%zu", *(const size_t *)field);
        break;
    case OPTION_SEED:
        fprintf(out, "%" PRIu64, *(const uint64_t *)field);
        break;
    case OPTION_DOUBLE:
        print_double(out, *(const double *)field);
        break;
    case OPTION_BOOL:
        fputs(*(const bool *)field ? "true" : "false", out);
        break;
    case OPTION_STRING:
        print_string(out, *(const char *const *)field);
        break;
    case OPTION_CHOICE:
        fputs(row->choices[*(const int *)field], out);
        break;
    case OPTION_SET:
        print_set(out, row, *(const unsigned *)field);
        break;
    }
}

void options_value(char *out, size_t size, const struct option *row, const void *target)
{
    FILE *text = fmemopen(out, size, "w");
    *out = 0;
    if (!text) return;
    options_print_value(text, row, target);
    fclose(text);
    out[size - 1] = 0;
}

/* Returns the length of "section" in "section.key"; 0 for a top-level key. */
static size_t section_size(const char *key)
{
    const char *dot = strchr(key, '.');
    return dot ? (size_t)(dot - key) : 0;
}

static bool same_section(const char *a, const char *b)
{
    size_t size = section_size(a);
    return size == section_size(b) && !strncmp(a, b, size);
}

/* Walks the rows of `mask`: top-level keys first, then section by section in the table's order. `step` gets the row and
 * whether a new section begins. */
static void walk(const struct option_table *table, unsigned mask, FILE *out, const void *context,
                 void (*step)(FILE *out, const struct option *row, bool begins, const void *context))
{
    const struct option *last = NULL;
    for (int sections = 0; sections < 2; sections++)
        for (size_t i = 0; i < table->count; i++) {
            const struct option *row = &table->rows[i];
            if (!(row->commands & mask) || !!section_size(row->key) != sections) continue;
            step(out, row, !last || !same_section(last->key, row->key), context);
            last = row;
        }
}

static void yaml_row(FILE *out, const struct option *row, bool begins, const void *target)
{
    size_t size = section_size(row->key);
    if (size && begins) fprintf(out, "%.*s:\n", (int)size, row->key);
    fprintf(out, "%s%s: ", size ? "  " : "", row->key + size + !!size);
    options_print_value(out, row, target);
    fputc('\n', out);
}

static void shared_row(FILE *out, const struct option *row, bool begins, const void *target)
{
    if (!row->own) yaml_row(out, row, begins, target);
}

static void commented_row(FILE *out, const struct option *row, bool begins, const void *unused)
{
    (void)unused;
    char range[512];
    options_describe(range, sizeof range, row);
    size_t size = section_size(row->key);
    const char *indent = size ? "  " : "";
    if (size && begins) fprintf(out, "\n%.*s:\n", (int)size, row->key);
    fprintf(out, "%s# %s", indent, row->help);
    if (row->type != OPTION_STRING) fprintf(out, " [%s]", range);
    fprintf(out, "\n%s%s: ", indent, row->key + size + !!size);
    if (row->type == OPTION_STRING)
        print_string(out, row->fallback);
    else
        fputs(row->fallback, out);
    fputc('\n', out);
}

enum { HELP_LEFT = 36, BRIEF_LEFT = 34, HELP_COLUMNS = 100 };

/* Prints `text` in lines that begin at column HELP_LEFT + 3 and end before HELP_COLUMNS. The first line already has
 * `column` columns. */
static void put_folded(FILE *out, const char *text, size_t column)
{
    for (const char *word = text; *word; word += strspn(word, " ")) {
        size_t size = strcspn(word, " "), wide = 0;
        for (size_t i = 0; i < size; i++) wide += ((unsigned char)word[i] & 0xc0) != 0x80; /* characters, not bytes */
        if (column + 1 + wide > HELP_COLUMNS) {
            fprintf(out, "\n%*s", HELP_LEFT + 2, "");
            column = HELP_LEFT + 2;
        }
        fprintf(out, " %.*s", (int)size, word);
        column += 1 + wide;
        word += size;
    }
    fputc('\n', out);
}

/* Writes "--key=default", or "--key" for a switch. */
static void put_key(char *left, size_t size, const struct option *row)
{
    snprintf(left, size, row->type == OPTION_BOOL ? "--%s" : "--%s=%s", row->key,
             *row->fallback ? row->fallback : "...");
}

static void help_row(FILE *out, const struct option *row, bool begins, const void *context)
{
    char range[512], left[128], text[2048];
    (void)context;
    options_describe(range, sizeof range, row);
    if (begins) fputc('\n', out);
    put_key(left, sizeof left, row);
    if (row->type == OPTION_BOOL)
        snprintf(text, sizeof text, "%s [default %s]", row->help, row->fallback);
    else if (row->type != OPTION_STRING)
        snprintf(text, sizeof text, "%s [%s]", row->help, range);
    else
        snprintf(text, sizeof text, "%s", row->help);
    fprintf(out, "  %-*s", HELP_LEFT, left);
    put_folded(out, text, strlen(left) > HELP_LEFT ? strlen(left) + 2 : HELP_LEFT + 2);
}

/* ---- one line an option ---- */

struct brief {
    const char *const *only, *const *without;
};

static bool among(const char *const *keys, const char *key)
{
    while (*keys && strcmp(*keys, key) != 0) keys++;
    return *keys != NULL;
}

/* Returns how many bytes of `text` make a line of at most `columns`: all of it, or its first clauses, or its first
 * words, in which case `*cut` is set. */
static size_t brief_size(const char *text, size_t columns, bool *cut)
{
    size_t clause = 0, word = 0, wide = 0, at = 0;
    *cut = false;
    for (; text[at]; at++) {
        wide += ((unsigned char)text[at] & 0xc0) != 0x80; /* characters, not bytes */
        if (wide > columns) break;
        if (text[at] == ' ' && at > 0) {
            if (text[at - 1] == ';') clause = at - 1;
            if (wide + 4 <= columns) word = at;
        }
    }
    if (!text[at]) return at;
    if (clause) return clause;
    *cut = true;
    return word;
}

static void brief_row(FILE *out, const struct option *row, bool begins, const void *context)
{
    const struct brief *b = context;
    char left[128], text[2048];
    bool cut;
    (void)begins;
    if ((b->only && !among(b->only, row->key)) || (b->without && among(b->without, row->key))) return;
    put_key(left, sizeof left, row);
    snprintf(text, sizeof text, *row->unit ? "%s (%s)" : "%s", row->help, row->unit);
    size_t used = (strlen(left) > BRIEF_LEFT ? strlen(left) : (size_t)BRIEF_LEFT) + 3;
    size_t size = brief_size(text, used < HELP_COLUMNS ? HELP_COLUMNS - used : 0, &cut);
    fprintf(out, "  %-*s %.*s%s\n", BRIEF_LEFT, left, (int)size, text, cut ? " ..." : "");
}

static void reference_row(FILE *out, const struct option *row, bool begins, const void *context)
{
    const struct option_table *table = context;
    char range[512];
    options_describe(range, sizeof range, row);
    if (begins) {
        size_t size = section_size(row->key);
        if (size)
            fprintf(out, "\n## `%.*s`\n", (int)size, row->key);
        else
            fputs("\n## Without a section\n", out);
        fputs("\n| option | default | takes | meaning | commands | in a resumed run |\n|---|---|---|---|---|---|\n",
              out);
    }
    fprintf(out, "| `%s` | %s%s%s | ", row->key, *row->fallback ? "`" : "", row->fallback, *row->fallback ? "`" : "");
    for (const char *c = range; *c; c++) fprintf(out, *c == '|' ? "\\|" : "%c", *c);
    fprintf(out, " | %s | ", row->help);
    const char *comma = "";
    for (size_t i = 0; i < table->command_count; i++)
        if (row->commands & table->commands[i].mask) {
            fprintf(out, "%s%s", comma, table->commands[i].name);
            comma = ", ";
        }
    static const char *const classes[] = {"", "must be the same", "may change, and is reported", "without effect"};
    fprintf(out, " | %s |\n", classes[row->class]);
}

static char *collect(const struct option_table *table, unsigned mask, const void *context,
                     void (*step)(FILE *, const struct option *, bool, const void *))
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    walk(table, mask, out, context, step);
    bool failed = ferror(out);
    if (fclose(out) || failed) {
        free(text);
        return NULL;
    }
    return text;
}

char *options_yaml(const struct options *options, unsigned mask)
{
    return collect(options->table, mask, options->target, yaml_row);
}

char *options_shared_yaml(const struct options *options, unsigned mask)
{
    return collect(options->table, mask, options->target, shared_row);
}

char *options_commented_yaml(const struct option_table *table, unsigned mask)
{
    return collect(table, mask, NULL, commented_row);
}

char *options_help(const struct option_table *table, unsigned mask)
{
    return collect(table, mask, NULL, help_row);
}

char *options_brief_help(const struct option_table *table, unsigned mask, const char *const *only,
                         const char *const *without)
{
    return collect(table, mask, &(struct brief){only, without}, brief_row);
}

size_t options_count(const struct option_table *table, unsigned mask)
{
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++) count += (table->rows[i].commands & mask) != 0;
    return count;
}

char *options_reference(const struct option_table *table)
{
    unsigned mask = 0;
    for (size_t i = 0; i < table->command_count; i++) mask |= table->commands[i].mask;
    return collect(table, mask, table, reference_row);
}
