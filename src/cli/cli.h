/* The part that commands share. A command is one file with one function, and one row in base/commands.h. */
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
    const char *const *arguments; /* (argument_count) what is not an option                       */
    size_t argument_count;
    const char *const *overrides; /* (override_count) the --key=value of the command line, in order, already applied */
    size_t override_count;
    char **command; /* of launch: the words after --, ended by null; null: no --      */
    unsigned mask;  /* the command's bit, enum command                       */
    struct log log; /* standard error                                               */
};

typedef elbo_status (*cli_function)(struct cli *cli, elbo_error *error);

struct cli_command {
    const char *name;
    const char *arguments; /* as --help shows them: "RUN", "[CONFIG.yaml]"                     */
    const char *help;      /* one line                                                         */
    unsigned mask;         /* enum command: which options it takes                      */
    size_t fewest, most;   /* arguments                                                        */
    bool reads_config;     /* its argument is a configuration, read before the overrides       */
    cli_function run;
    const char *example;
};

/* The list of base/commands.h, for help and completion. */
const struct cli_command *cli_commands(size_t *count);
const struct cli_command *cli_find_command(const char *name); /* null: there is none */

/* help.c */
void cli_help_overview(void); /* elbo --help                       */
/* elbo COMMAND --help, -h or --help=all: `how` is that word. Commands of many options show those that matter, and the
 * rest with all. */
elbo_status cli_help_command(const struct cli_command *command, const char *how, elbo_error *error);

/* One file each. */
#define PROTOTYPE(bit, name, ...) elbo_status cli_##name(struct cli *cli, elbo_error *error);
ELBO_COMMANDS(PROTOTYPE)
#undef PROTOTYPE

/* ---- small things ---- */

/* Refuses options of the command line that have no effect beside the others, says those of files, and settles what the
 * options leave open, as for a new run (train/effects.h). */
elbo_status cli_check_effects(struct cli *cli, elbo_error *error);

#endif
