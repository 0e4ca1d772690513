/* Shared by all commands. A command is one file with one function, and one row in base/commands.h. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/log.h"
#include "base/options.h"
#include "elbo/status.h"
#include "train/config.h"

#include <stddef.h>

struct cli {
    struct elbo_config config;    /* defaults, then the configuration file, then the command line */
    struct options *options;      /* owns the strings of `config`                                 */
    const char *const *arguments; /* (argument_count) words that are not options */
    size_t argument_count;
    const char *const *overrides; /* (override_count) --key=value words of the command line, in order and applied */
    size_t override_count;
    char **command; /* launch: the words after --, ended by null; null without -- */
    unsigned mask;  /* the command's bit of enum command */
    struct log log; /* writes to standard error */
};

typedef elbo_status (*cli_function)(struct cli *cli, elbo_error *error);

struct cli_command {
    const char *name;
    const char *arguments; /* as --help shows them: "RUN", "[CONFIG.yaml]"                     */
    const char *help;      /* one line                                                         */
    unsigned mask;         /* bit of enum command: the options that the command takes */
    size_t fewest, most;   /* number of arguments */
    bool reads_config;     /* the first argument is a configuration, read before the overrides */
    cli_function run;
    const char *example;
};

/* Returns the list of base/commands.h, for help and completion. */
const struct cli_command *cli_commands(size_t *count);
const struct cli_command *cli_find_command(const char *name); /* null for an unknown name */

/* help.c */
void cli_help_overview(void); /* elbo --help                       */
/* elbo COMMAND --help, -h or --help=all; `how` is that word. Without "all", commands with many options show only the
 * options that matter most. */
/* Prints the manual page of a command, or of elbo where name is null. */
elbo_status cli_manual(const char *name, elbo_error *error);
elbo_status cli_help_command(const struct cli_command *command, const char *how, elbo_error *error);

/* One file each. */
#define PROTOTYPE(bit, name, ...) elbo_status cli_##name(struct cli *cli, elbo_error *error);
ELBO_COMMANDS(PROTOTYPE)
#undef PROTOTYPE

/* ---- options without effect ---- */

/* Refuses options of the command line that have no effect beside the others and logs ineffective options of files. Then
 * settles the options that are left open, as for a new run (train/effects.h). */
elbo_status cli_check_effects(struct cli *cli, elbo_error *error);

#endif
