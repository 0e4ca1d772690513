/* The words of a command line, sorted into arguments and options; and what people type instead of what a command takes.
 */
#ifndef CLI_WORDS_H
#define CLI_WORDS_H

#include "cli/cli.h"

struct words {
    const char **arguments, **overrides; /* (argument_count), (override_count)        */
    size_t argument_count, override_count;
    size_t literal;   /* arguments from here on stood behind "--"  */
    const char *help; /* "-h", "--help" or "--help=...", or null   */
    char **command;   /* of launch: behind "--", ended by null     */
};

/* Sorts argv[2 ..]; the arrays have room for argc words each. */
elbo_status words_sort(struct words *words, int argc, char **argv, const struct cli_command *command,
                       elbo_error *error);
/* Too few, too many, or of the wrong look. */
elbo_status words_check(const struct words *words, const struct cli_command *command, elbo_error *error);
/* argv[1] is no command: what may have been meant. */
elbo_status words_no_command(int argc, char **argv, elbo_error *error);
/* The options together, after all were read: what is no use in this combination, and paths that lead elsewhere. */
elbo_status words_check_values(const struct cli *cli, const struct cli_command *command, elbo_error *error);

#endif
