/* Sorts the words of a command line into arguments and options, and explains common mistakes. */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include "cli/cli.h"

struct words {
    const char **arguments, **overrides; /* (argument_count), (override_count)        */
    size_t argument_count, override_count;
    size_t literal;   /* arguments from this index on follow "--" */
    const char *help; /* "-h", "--help" or "--help=...", or null   */
    char **command;   /* launch: the words after "--", ended by null */
};

/* Sorts argv[2 ..]; the arrays have room for argc words each. */
elbo_status words_sort(struct words *words, int argc, char **argv, const struct cli_command *command,
                       elbo_error *error);
/* Refuses too few arguments, too many, and options written as arguments. */
elbo_status words_check(const struct words *words, const struct cli_command *command, elbo_error *error);
/* Reports that argv[1] is no command and suggests what may have been meant. */
elbo_status words_no_command(int argc, char **argv, elbo_error *error);
/* Checks the options together after all were read: values that do not suit this command or combination, and paths that
 * lead to another kind of thing. */
elbo_status words_check_values(const struct cli *cli, const struct cli_command *command, elbo_error *error);

#endif
