/* Options: one table of rows fills one struct, and makes everything that people see of it.
 *
 * A row is (key, type, place in the struct, default, range, unit, help, commands). From the table come the YAML reader,
 * the overrides of the command line, `--help`, the commented default file, the reference page, and errors with
 * "did you mean".
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
    OPTION_SIZE,   /* size_t                                */
    OPTION_SEED,   /* uint64_t, the whole range             */
    OPTION_DOUBLE, /* double, finite                        */
    OPTION_BOOL,   /* bool; `--key` alone means true; yes, on, 1 and no, off, 0 are taken too */
    OPTION_STRING, /* const char *, valid UTF-8             */
    OPTION_CHOICE, /* int: index into `choices`             */
    OPTION_SET,    /* unsigned: bit i for choices[i], written as a comma list of one name or more */
};

/* A run goes on, and the option has another value than its checkpoint: what happens then. */
enum option_class {
    OPTION_NONE,   /* not kept with a run                                                             */
    OPTION_MODEL,  /* part of what the model or its state is: must equal the checkpoint's, or is refused */
    OPTION_CHANGE, /* may change from here on: said in one line                                       */
    OPTION_FREE,   /* has no bearing on the run's figures                                             */
};

struct option {
    const char *key; /* "section.name" or "name"; rows of a section are neighbours       */
    enum option_type type;
    size_t offset;        /* of the field in the struct                                       */
    const char *fallback; /* the default, written as a user would write it                    */
    double min, max;      /* of OPTION_SIZE and OPTION_DOUBLE, both inclusive                 */
    const char *unit;     /* "" for none                                                      */
    const char *help;
    unsigned commands;          /* bit mask: which commands take it                                 */
    const char *const *choices; /* OPTION_CHOICE, OPTION_SET: names, ended by null                  */
    enum option_class class;
    bool own; /* each rank of a job may have a value of its own                     */
};

/* The rows of one struct, whose offsets are within it, and where the struct lies in the whole; keys without `prefix`.
 */
struct option_section {
    const char *prefix; /* "" for keys of no section */
    const struct option *rows;
    size_t count, offset;
};

/* The rows of all sections, as of one struct, into rows (room); `keys` (size) holds their names. Returns how many; a
 * table that does not fit is cut there, which the tests of the table notice. */
size_t options_concatenate(struct option *rows, size_t room, char *keys, size_t size,
                           const struct option_section *sections, size_t count);

struct option_command {
    const char *name;
    unsigned mask;
};

/* A name that other programs give an option, for people who type that. Several rows of one name: the first that the
 * command takes. */
struct option_alias {
    const char *name; /* with _ for - */
    const char *key;  /* of the row   */
    const char *note; /* null: none   */
};

struct option_table {
    const struct option *rows;
    size_t count;
    const struct option_command *commands; /* names of the bits, for messages and the reference page */
    size_t command_count;
    const struct option_alias *aliases;
    size_t alias_count;
};

/* Null when there is no such row. */
const struct option *options_find(const struct option_table *table, const char *key);

struct options;

/* Fills `target` with the defaults. `table` and `target` must outlive the options. */
elbo_status options_open(struct options **options, const struct option_table *table, void *target, elbo_error *error);
void options_free(struct options *options);

/* ---- reading ---- */

/* A regular file, a pipe, or "-" for standard input. */
elbo_status options_read_yaml(struct options *options, const char *path, elbo_error *error);
/* The same from memory; `name` stands for the path in messages. */
elbo_status options_read_yaml_text(struct options *options, const char *text, size_t size, const char *name,
                                   elbo_error *error);
/* "--key=value" or "--flag". An option that none of the commands in `mask` takes is refused. */
elbo_status options_read_argument(struct options *options, const char *argument, unsigned mask, elbo_error *error);
/* One key; `where` is "config.yaml:3:9" or "the command line". */
elbo_status options_set(struct options *options, const char *key, const char *value, const char *where,
                        elbo_error *error);

/* Was the key set by a file or the command line? */
bool options_given(const struct options *options, const char *key);
/* Where its value came from: "default", "config.yaml:3:9", "the command line". */
const char *options_where(const struct options *options, const char *key);
#define OPTIONS_COMMAND_LINE "the command line"

/* Calls `each` for every row that a file or the command line set, with the place where, and whether the value is the
 * default's. */
void options_each_given(const struct options *options,
                        void (*each)(void *context, const struct option *row, const char *where, bool is_default),
                        void *context);

/* Calls `each` for every row whose value is not the same in both, which have one table: with both values as a user
 * would write them (valid during the call). */
void options_compare(const struct options *now, const struct options *before,
                     void (*each)(void *context, const struct option *row, const char *now, const char *before),
                     void *context);

/* ---- writing ---- */

/* A row's value as YAML, cut to `size` with its end; strings quoted. */
void options_value(char *out, size_t size, const struct option *row, const void *target);

/* Each of these returns a string to free(), or null when memory is out. */

/* The effective values of the rows of `mask` as YAML; reading it back gives the same struct. */
char *options_yaml(const struct options *options, unsigned mask);
/* The rows in which ranks may not differ, for comparisons between them. */
char *options_shared_yaml(const struct options *options, unsigned mask);
/* The same as the first with the defaults, each under a comment that explains it. */
char *options_commented_yaml(const struct option_table *table, unsigned mask);
/* The options of one command, for --help, in lines of at most 100 columns; of those in `only` (ended by null), or all
 * when it is null. */
char *options_help(const struct option_table *table, unsigned mask, const char *const *only);
/* The rows as Markdown tables, a section each. */
char *options_reference(const struct option_table *table);

/* The known word nearest to `word`, or null when none is near: for commands too. */
const char *nearest_word(const char *word, const char *const *words, size_t count);

#endif
