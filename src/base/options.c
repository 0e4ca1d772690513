/* The option engine: defaults, parsing of values, ranges, overrides, and suggestions for unknown keys. */
#include "base/options_private.h"

#include "base/utf8.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct options_string {
    struct options_string *next;
    char text[];
};

static const char *keep(struct options *options, const char *text)
{
    size_t size = strlen(text);
    struct options_string *string = malloc(sizeof *string + size + 1);
    if (!string) return NULL;
    memcpy(string->text, text, size + 1);
    string->next = options->strings;
    options->strings = string;
    return string->text;
}

size_t options_concatenate(struct option *rows, size_t room, char *keys, size_t size,
                           const struct option_section *sections, size_t count)
{
    size_t n = 0, used = 0;
    for (const struct option_section *s = sections; s < sections + count; s++)
        for (size_t i = 0; i < s->count; i++) {
            int length = snprintf(keys + used, size - used, "%s%s%s", s->prefix, *s->prefix ? "." : "", s->rows[i].key);
            if (n == room || (size_t)length >= size - used) return n;
            rows[n] = s->rows[i];
            rows[n].key = keys + used;
            rows[n++].offset += s->offset;
            used += (size_t)length + 1;
        }
    return n;
}

const struct option *options_find(const struct option_table *table, const char *key)
{
    for (size_t i = 0; i < table->count; i++)
        if (!strcmp(table->rows[i].key, key)) return &table->rows[i];
    return NULL;
}

/* ---- suggestions ---- */

enum { MOST_EDITS = 4 }; /* a word further away is not near */

/* Returns the Damerau-Levenshtein distance (a swap of neighbors counts once), computed in three rows. Returns 64 for
 * words longer than 63 bytes; distances above MOST_EDITS may be reported as 64. */
static size_t edit_distance(const char *a, const char *b)
{
    enum { LONGEST = 64 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= LONGEST || m >= LONGEST || n > m + MOST_EDITS || m > n + MOST_EDITS) return LONGEST;
    size_t rows[3][LONGEST], *before = rows[0], *above = rows[1], *row = rows[2];
    for (size_t j = 0; j <= m; j++) above[j] = j;
    for (size_t i = 1, least = 0, least_above; i <= n; i++) {
        least_above = least;
        least = row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
            if (best < least) least = best;
        }
        if (least > MOST_EDITS && least_above > MOST_EDITS) return LONGEST; /* the distance only grows from here */
        size_t *spare = before;
        before = above;
        above = row;
        row = spare;
    }
    return above[m];
}

static size_t near_enough(const char *word)
{
    size_t limit = strlen(word) / 3;
    return limit < 1 ? 1 : limit > MOST_EDITS ? MOST_EDITS : limit;
}

const char *nearest_word(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    size_t least = near_enough(word) + 1;
    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(word, words[i]);
        if (distance < least) {
            least = distance;
            best = words[i];
        }
    }
    return best;
}

static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* Copies the key with - replaced by _, because most keys are written with _. */
static void underscored(char *out, size_t size, const char *key)
{
    snprintf(out, size, "%s", key);
    for (char *c = out; *c; c++)
        if (*c == '-') *c = '_';
}

static const struct option_alias *find_alias(const struct option_table *table, const char *key, unsigned mask)
{
    char name[128];
    underscored(name, sizeof name, last_part(key));
    for (size_t i = 0; i < table->alias_count; i++) {
        const struct option *row = options_find(table, table->aliases[i].key);
        if (row && (row->commands & mask) && !strcmp(table->aliases[i].name, name)) return &table->aliases[i];
    }
    return NULL;
}

/* Returns the switch behind "no-tf32" or "no_greedy", or null. */
static const struct option *negated(const struct option_table *table, const char *key, unsigned mask)
{
    if (strncmp(key, "no-", 3) && strncmp(key, "no_", 3)) return NULL;
    char name[128];
    underscored(name, sizeof name, key + 3);
    const struct option *row = options_find(table, name);
    return row && row->type == OPTION_BOOL && (row->commands & mask) ? row : NULL;
}

/* Lists the command's options whose last part equals the key's, separated by " or "; "" when there are none. */
static void same_names(char *out, size_t size, const struct option_table *table, const char *key, unsigned mask)
{
    *out = 0;
    for (size_t i = 0; i < table->count; i++) {
        const char *other = table->rows[i].key;
        if ((table->rows[i].commands & mask) && !strcmp(last_part(key), last_part(other)) &&
            strlen(out) + strlen(other) + 6 < size)
            snprintf(out + strlen(out), size - strlen(out), "%s%s", *out ? " or " : "", other);
    }
}

static elbo_status unknown_key(const struct option_table *table, const char *key, unsigned mask, const char *where,
                               elbo_error *error)
{
    const struct option_alias *alias = find_alias(table, key, mask);
    const struct option *negative = negated(table, key, mask);
    if (negative)
        return elbo_fail(error, ELBO_USAGE, "%s: unknown option '%s'; write %s=false", where, key, negative->key);
    if (alias)
        return elbo_fail(error, ELBO_USAGE, "%s: unknown option '%s'; did you mean %s?%s%s", where, key, alias->key,
                         alias->note ? " " : "", alias->note ? alias->note : "");
    const char *best = NULL, *nearly = NULL;
    size_t least = near_enough(key) + 1, least_part = least;
    char others[256], name[128];
    for (size_t i = 0; i < table->count; i++) {
        const struct option *row = &table->rows[i];
        if (!(row->commands & mask)) continue;
        size_t distance = edit_distance(key, row->key), part = edit_distance(key, last_part(row->key));
        if (distance < least) least = distance, best = row->key;
        if (part < least_part) least_part = part, nearly = row->key; /* a key without its section, misspelled */
    }
    same_names(others, sizeof others, table, key, mask);
    if (*others && !(best && least <= 1)) best = others;
    if (!best) best = nearly;
    underscored(name, sizeof name, key);
    if (!best && strcmp(name, key)) return unknown_key(table, name, mask, where, error); /* e.g. learning-rate */
    if (best) return elbo_fail(error, ELBO_USAGE, "%s: unknown option '%s'; did you mean %s?", where, key, best);
    return elbo_fail(error, ELBO_USAGE, "%s: unknown option '%s'; `elbo help --reference` lists them all", where, key);
}

/* ---- values ---- */

void options_describe(char *out, size_t size, const struct option *row)
{
    int n = 0;
    switch (row->type) {
    case OPTION_SIZE:
        n = snprintf(out, size, "a whole number from %.0f to %.0f", row->min, row->max);
        break;
    case OPTION_SEED:
        n = snprintf(out, size, "a whole number from 0 to 18446744073709551615");
        break;
    case OPTION_DOUBLE:
        n = snprintf(out, size, "a number from %.10g to %.10g", row->min, row->max);
        break;
    case OPTION_BOOL:
        n = snprintf(out, size, "true or false");
        break;
    case OPTION_STRING:
        n = snprintf(out, size, "text");
        break;
    case OPTION_CHOICE:
    case OPTION_SET:
        n = snprintf(out, size, row->type == OPTION_SET ? "a comma list of" : "one of");
        for (size_t i = 0; row->choices[i] && n >= 0 && (size_t)n < size; i++)
            n += snprintf(out + n, size - (size_t)n, "%s %s", i ? " |" : "", row->choices[i]);
        break;
    }
    if (row->unit && *row->unit && n >= 0 && (size_t)n < size) snprintf(out + n, size - (size_t)n, " (%s)", row->unit);
}

static elbo_status bad_value(const struct option *row, const char *value, const char *what, const char *where,
                             elbo_error *error)
{
    char range[512];
    options_describe(range, sizeof range, row);
    return elbo_fail(error, ELBO_USAGE, "%s: %s = '%.200s' %s; %s takes %s", where, row->key, value, what, row->key,
                     range);
}

/* Parses digits only, because strtoull alone would accept signs and blanks. */
static bool parse_whole(uint64_t *out, const char *value)
{
    if (!*value || strspn(value, "0123456789") != strlen(value)) return false;
    errno = 0;
    *out = strtoull(value, NULL, 10);
    return errno == 0;
}

static bool parse_double(double *out, const char *value)
{
    if (!*value || strspn(value, "0123456789+-.eE") != strlen(value)) return false;
    char *end;
    *out = strtod(value, &end);
    return !*end && isfinite(*out);
}

/* Returns the index of `name` among the choices, or their count when the name is unknown. */
static size_t choice_of(const struct option *row, const char *name)
{
    size_t i = 0;
    while (row->choices[i] && strcmp(row->choices[i], name)) i++;
    return i;
}

static size_t choices_of(const struct option *row)
{
    return choice_of(row, "");
}

/* Writes " (did you mean x?)", or "" when no choice is near. */
static const char *near_choice(char *out, size_t size, const struct option *row, const char *name)
{
    const char *near = nearest_word(name, row->choices, choices_of(row));
    *out = 0;
    if (near) snprintf(out, size, " (did you mean %s?)", near);
    return out;
}

/* Parses a comma-separated list of names. Blanks around a name are ignored. */
static elbo_status parse_set(unsigned *bits, const struct option *row, const char *value, const char *where,
                             elbo_error *error)
{
    char what[256], near[96], name[64];
    *bits = 0;
    for (const char *at = value;; at += strcspn(at, ",") + 1) {
        const char *first = at + strspn(at, " ");
        size_t length = strcspn(first, ",");
        while (length && first[length - 1] == ' ') length--;
        snprintf(name, sizeof name, "%.*s", (int)length, first);
        size_t i = choice_of(row, name);
        if (!length) return bad_value(row, value, "has an empty name in it", where, error);
        if (!row->choices[i]) {
            snprintf(what, sizeof what, "has '%s', which is not known%s", name,
                     near_choice(near, sizeof near, row, name));
            return bad_value(row, value, what, where, error);
        }
        if (*bits >> i & 1) {
            snprintf(what, sizeof what, "has %s twice", name);
            return bad_value(row, value, what, where, error);
        }
        *bits |= 1u << i;
        if (!first[strcspn(first, ",")]) return ELBO_OK;
    }
}

static elbo_status set_row(struct options *options, const struct option *row, const char *value, const char *where,
                           elbo_error *error)
{
    void *field = options->target + row->offset;
    uint64_t whole;
    double number;
    switch (row->type) {
    case OPTION_SIZE:
        if (!parse_whole(&whole, value)) {
            bool range = parse_double(&number, value) && number < 0;
            return bad_value(row, value, range ? "is out of range" : "is not a whole number", where, error);
        }
        if ((double)whole < row->min || (double)whole > row->max || whole > SIZE_MAX)
            return bad_value(row, value, "is out of range", where, error);
        memcpy(field, &(size_t){(size_t)whole}, sizeof(size_t));
        return ELBO_OK;
    case OPTION_SEED:
        if (!parse_whole(&whole, value)) return bad_value(row, value, "is not a whole number", where, error);
        memcpy(field, &whole, sizeof whole);
        return ELBO_OK;
    case OPTION_DOUBLE:
        if (!parse_double(&number, value)) return bad_value(row, value, "is not a number", where, error);
        if (number < row->min || number > row->max) return bad_value(row, value, "is out of range", where, error);
        memcpy(field, &number, sizeof number);
        return ELBO_OK;
    case OPTION_BOOL: {
        static const char *const words[2][4] = {{"false", "no", "off", "0"}, {"true", "yes", "on", "1"}};
        for (size_t i = 0; i < 8; i++)
            if (!strcasecmp(value, words[i / 4][i % 4])) {
                memcpy(field, &(bool){i / 4 != 0}, sizeof(bool));
                return ELBO_OK;
            }
        return bad_value(row, value, "is not true or false", where, error);
    }
    case OPTION_STRING: {
        if (utf8_valid(value, strlen(value)) != strlen(value))
            return bad_value(row, value, "is not valid UTF-8", where, error);
        const char *text = keep(options, value);
        if (!text) return elbo_fail(error, ELBO_MEMORY, "no memory for the value of %s", row->key);
        memcpy(field, &text, sizeof text);
        return ELBO_OK;
    }
    case OPTION_CHOICE: {
        char what[128], near[96];
        size_t i = choice_of(row, value);
        if (row->choices[i]) {
            memcpy(field, &(int){(int)i}, sizeof(int));
            return ELBO_OK;
        }
        snprintf(what, sizeof what, "is not known%s", near_choice(near, sizeof near, row, value));
        return bad_value(row, value, what, where, error);
    }
    case OPTION_SET: {
        unsigned bits;
        ELBO_TRY(parse_set(&bits, row, value, where, error));
        memcpy(field, &bits, sizeof bits);
        return ELBO_OK;
    }
    }
    return elbo_fail(error, ELBO_INTERNAL, "the row of %s has no type", row->key);
}

elbo_status options_set(struct options *options, const char *key, const char *value, const char *where,
                        elbo_error *error)
{
    const struct option *row = options_find(options->table, key);
    if (!row) return unknown_key(options->table, key, ~0u, where, error);
    ELBO_TRY(set_row(options, row, value, where, error));
    const char *kept = keep(options, where);
    if (!kept) return elbo_fail(error, ELBO_MEMORY, "no memory for the options");
    options->where[row - options->table->rows] = kept;
    return ELBO_OK;
}

/* ---- the object ---- */

elbo_status options_open(struct options **out, const struct option_table *table, void *target, elbo_error *error)
{
    struct options *options = calloc(1, sizeof *options);
    const char **where = calloc(table->count, sizeof *where);
    if (!options || !where) {
        free(options);
        free(where);
        return elbo_fail(error, ELBO_MEMORY, "no memory for the options");
    }
    *options = (struct options){.table = table, .target = target, .where = where};
    for (size_t i = 0; i < table->count; i++) {
        elbo_status status = set_row(options, &table->rows[i], table->rows[i].fallback, "default", error);
        if (status != ELBO_OK) {
            options_free(options);
            return status;
        }
    }
    *out = options;
    return ELBO_OK;
}

void options_free(struct options *options)
{
    if (!options) return;
    while (options->strings) {
        struct options_string *next = options->strings->next;
        free(options->strings);
        options->strings = next;
    }
    free(options->where);
    free(options);
}

const char *options_where(const struct options *options, const char *key)
{
    const struct option *row = options_find(options->table, key);
    const char *where = row ? options->where[row - options->table->rows] : NULL;
    return where ? where : "default";
}

bool options_given(const struct options *options, const char *key)
{
    const struct option *row = options_find(options->table, key);
    return row && options->where[row - options->table->rows];
}

static bool is_fallback(const struct option *row, const void *target)
{
    const void *field = (const unsigned char *)target + row->offset;
    switch (row->type) {
    case OPTION_SIZE:
        return *(const size_t *)field == strtoull(row->fallback, NULL, 10);
    case OPTION_SEED:
        return *(const uint64_t *)field == strtoull(row->fallback, NULL, 10);
    case OPTION_DOUBLE:
        return !(*(const double *)field < strtod(row->fallback, NULL) ||
                 *(const double *)field > strtod(row->fallback, NULL));
    case OPTION_BOOL:
        return *(const bool *)field == !strcmp(row->fallback, "true");
    case OPTION_STRING:
        return !strcmp(*(const char *const *)field, row->fallback);
    case OPTION_CHOICE:
        return !strcmp(row->choices[*(const int *)field], row->fallback);
    case OPTION_SET: {
        char text[256];
        options_value(text, sizeof text, row, target);
        return !strcmp(text, row->fallback);
    }
    }
    return false;
}

void options_each_given(const struct options *options,
                        void (*each)(void *context, const struct option *row, const char *where, bool is_default),
                        void *context)
{
    for (size_t i = 0; i < options->table->count; i++)
        if (options->where[i])
            each(context, &options->table->rows[i], options->where[i],
                 is_fallback(&options->table->rows[i], options->target));
}

void options_compare(const struct options *now, const struct options *before,
                     void (*each)(void *context, const struct option *row, const char *now, const char *before),
                     void *context)
{
    for (size_t i = 0; i < now->table->count; i++) {
        const struct option *row = &now->table->rows[i];
        const void *a = now->target + row->offset, *b = before->target + row->offset;
        bool same = false;
        switch (row->type) {
        case OPTION_SIZE:
            same = *(const size_t *)a == *(const size_t *)b;
            break;
        case OPTION_SEED:
            same = *(const uint64_t *)a == *(const uint64_t *)b;
            break;
        case OPTION_DOUBLE:
            same = !memcmp(a, b, sizeof(double));
            break;
        case OPTION_BOOL:
            same = *(const bool *)a == *(const bool *)b;
            break;
        case OPTION_STRING:
            same = !strcmp(*(const char *const *)a, *(const char *const *)b);
            break;
        case OPTION_CHOICE:
            same = *(const int *)a == *(const int *)b;
            break;
        case OPTION_SET:
            same = *(const unsigned *)a == *(const unsigned *)b;
            break;
        }
        if (same) continue;
        char text[2][256];
        options_value(text[0], sizeof text[0], row, now->target);
        options_value(text[1], sizeof text[1], row, before->target);
        each(context, row, text[0], text[1]);
    }
}

/* ---- the command line ---- */

elbo_status options_read_argument(struct options *options, const char *argument, unsigned mask, elbo_error *error)
{
    const char *where = OPTIONS_COMMAND_LINE;
    if (strncmp(argument, "--", 2) || !argument[2])
        return elbo_fail(error, ELBO_USAGE, "%s: '%.200s' is not an option; options look like --section.key=value",
                         where, argument);
    const char *text = argument + 2, *equals = strchr(text, '=');
    char key[128];
    size_t size = equals ? (size_t)(equals - text) : strlen(text);
    if (size >= sizeof key)
        return elbo_fail(error, ELBO_USAGE, "%s: unknown option '--%.60s...'; `elbo help --reference` lists them all",
                         where, text);
    memcpy(key, text, size);
    key[size] = 0;
    const struct option *row = options_find(options->table, key);
    if (!row) return unknown_key(options->table, key, mask, where, error);
    if (!(row->commands & mask)) {
        char takers[256] = "";
        for (size_t i = 0; i < options->table->command_count; i++) {
            const struct option_command *command = &options->table->commands[i];
            if (row->commands & command->mask)
                snprintf(takers + strlen(takers), sizeof takers - strlen(takers), "%s%s", *takers ? ", " : "",
                         command->name);
        }
        const struct option_alias *alias = find_alias(options->table, key, mask);
        if (alias)
            return elbo_fail(error, ELBO_USAGE, "%s: this command does not take --%s; did you mean --%s?%s%s", where,
                             key, alias->key, alias->note ? " " : "", alias->note ? alias->note : "");
        char others[256];
        same_names(others, sizeof others, options->table, key, mask);
        if (*others)
            return elbo_fail(error, ELBO_USAGE, "%s: this command does not take --%s; did you mean --%s?", where, key,
                             others);
        return elbo_fail(error, ELBO_USAGE, "%s: this command does not take --%s; it belongs to: %s", where, key,
                         takers);
    }
    if (!equals && row->type != OPTION_BOOL) {
        char range[512];
        options_describe(range, sizeof range, row);
        return elbo_fail(error, ELBO_USAGE, "%s: --%s has no value; write --%s=VALUE, where VALUE is %s", where, key,
                         key, range);
    }
    return options_set(options, key, equals ? equals + 1 : "true", where, error);
}
