/* Options: one table of rows fills one struct and generates every view of the options.
 *
 * A row is (key, type, place in the struct, default, range, unit, help, commands). The table drives the YAML reader,
 * the overrides of the command line, `--help`, the commented default file, the reference page, and errors with "did you
 * mean".
 *
 *     struct elbo_config config;
 *     struct options *options;
 *     options_open(&options, &table, &config, &error);                      -- defaults
 *     options_read_yaml(options, "config.yaml", &error);                    -- then a file
 *     options_read_argument(options, "--train.steps=200", mask, &error);    -- then the command line
 *     ... strings in `config` live until options_free(options)
 *
 * A string that was not given is "", never null. */
#ifndef BASE_OPTIONS_H
#define BASE_OPTIONS_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum option_type {
    OPTION_SIZE,   /* size_t */
    OPTION_SEED,   /* uint64_t, the full range */
    OPTION_DOUBLE, /* double, finite */
    OPTION_BOOL,   /* bool; `--key` alone means true; yes, on, 1 and no, off, 0 are accepted too */
    OPTION_STRING, /* const char *, valid UTF-8 */
    OPTION_CHOICE, /* int: index into `choices` */
    OPTION_SET,    /* unsigned: bit i for choices[i], written as a comma list of one name or more */
};

/* The rule for an option whose value differs from the checkpoint's when a run resumes. */
enum option_class {
    OPTION_NONE,   /* not kept with a run */
    OPTION_MODEL,  /* part of the model or its state: must equal the checkpoint's value, or is refused */
    OPTION_CHANGE, /* may change at the resume: reported in one line */
    OPTION_FREE,   /* has no influence on the run's results */
};

struct option {
    const char *key; /* "section.name" or "name"; rows of a section are neighbors */
    enum option_type type;
    size_t offset;        /* of the field in the struct */
    const char *fallback; /* the default, as a user would write it */
    double min, max;      /* of OPTION_SIZE and OPTION_DOUBLE, both inclusive */
    const char *unit;     /* "" for none */
    const char *help;
    unsigned commands;          /* bit mask of the commands that take the option */
    const char *const *choices; /* OPTION_CHOICE, OPTION_SET: names, ended by null */
    enum option_class class;
    bool own; /* each rank of a job may have its own value */
};

/* The rows of one struct: keys without `prefix`, field offsets within the struct, and the struct's offset in the
 * whole. */
struct option_section {
    const char *prefix; /* "" for keys without a section */
    const struct option *rows;
    size_t count, offset;
};

/* Concatenates the rows of all sections, as if of one struct, into `rows` (room); `keys` (size) holds their names.
 * Returns the number of rows. A table that does not fit is cut, which the tests of the table notice. */
size_t options_concatenate(struct option *rows, size_t room, char *keys, size_t size,
                           const struct option_section *sections, size_t count);

struct option_command {
    const char *name;
    unsigned mask;
};

/* A name that other programs use for an option. If several rows have one name, the first one that the command
 * takes applies. */
struct option_alias {
    const char *name; /* with _ for - */
    const char *key;  /* of the row */
    const char *note; /* null: none */
};

struct option_table {
    const struct option *rows;
    size_t count;
    const struct option_command *commands; /* names of the mask bits, for messages and the reference page */
    size_t command_count;
    const struct option_alias *aliases;
    size_t alias_count;
};

/* Returns null when there is no such row. */
const struct option *options_find(const struct option_table *table, const char *key);

struct options;

/* Fills `target` with the defaults. `table` and `target` must outlive the options. */
elbo_status options_open(struct options **options, const struct option_table *table, void *target, elbo_error *error);
void options_free(struct options *options);

/* ---- reading ---- */

/* Reads a regular file, a pipe, or standard input for "-". */
elbo_status options_read_yaml(struct options *options, const char *path, elbo_error *error);
/* Reads YAML from memory; `name` stands for the path in messages. */
elbo_status options_read_yaml_text(struct options *options, const char *text, size_t size, const char *name,
                                   elbo_error *error);
/* Reads "--key=value" or "--flag". Refuses an option that no command in `mask` takes. */
elbo_status options_read_argument(struct options *options, const char *argument, unsigned mask, elbo_error *error);
/* Sets one key; `where` is "config.yaml:3:9" or "the command line". */
elbo_status options_set(struct options *options, const char *key, const char *value, const char *where,
                        elbo_error *error);

/* Returns whether a file or the command line set the key. */
bool options_given(const struct options *options, const char *key);
/* Returns the origin of the value: "default", "config.yaml:3:9", "the command line". */
const char *options_where(const struct options *options, const char *key);
#define OPTIONS_COMMAND_LINE "the command line"

/* Calls `each` for every row that a file or the command line set, with the place, and whether the value equals the
 * default. */
void options_each_given(const struct options *options,
                        void (*each)(void *context, const struct option *row, const char *where, bool is_default),
                        void *context);

/* Calls `each` for every row whose value differs between the two, which share one table. Both values are passed as a
 * user would write them (valid during the call). */
void options_compare(const struct options *now, const struct options *before,
                     void (*each)(void *context, const struct option *row, const char *now, const char *before),
                     void *context);

/* ---- writing ---- */

/* Writes a row's value as YAML, strings quoted; cuts it to `size` with its NUL. */
void options_value(char *out, size_t size, const struct option *row, const void *target);

/* The next five functions return a string to free(), or null when memory ran out. */

/* Returns the effective values of the rows of `mask` as YAML. Reading it back gives the same struct. */
char *options_yaml(const struct options *options, unsigned mask);
/* Returns the rows in which ranks may not differ, as YAML, for comparisons between ranks. */
char *options_shared_yaml(const struct options *options, unsigned mask);
/* Returns the defaults of the rows of `mask` as YAML, each under a comment that explains it. */
char *options_commented_yaml(const struct option_table *table, unsigned mask);
/* Returns all options of one command with their ranges, for --help=all, in lines of at most 100 columns. */
char *options_help(const struct option_table *table, unsigned mask);
/* Returns the options of one command for --help, one line of at most 100 columns each: a help text that does not fit is
 * cut at the end of a clause. `only` and `without` (each ended by null, or null) choose among the keys. */
char *options_brief_help(const struct option_table *table, unsigned mask, const char *const *only,
                         const char *const *without);
/* Describes a row's values: "a whole number from 1 to 1000 (steps)". */
void options_describe(char *out, size_t size, const struct option *row);
/* Returns the number of options of one command. */
size_t options_count(const struct option_table *table, unsigned mask);
/* Returns the rows as Markdown tables, one per section. */
char *options_reference(const struct option_table *table);

/* Returns the known word nearest to `word`, or null when none is near. Commands use this too. */
const char *nearest_word(const char *word, const char *const *words, size_t count);

#endif
