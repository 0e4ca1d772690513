/* Checks options that have no effect beside the others, for commands that read a configuration but do not train. */
#include "cli/cli.h"
#include "train/effects.h"

#include <stdlib.h>

elbo_status cli_check_effects(struct cli *cli, elbo_error *error)
{
    char *said;
    ELBO_TRY(effects_check(&said, cli->options, &cli->config, error));
    if (said) log_line(&cli->log, "%s", said);
    free(said);
    return effects_settle_mark(cli->options, &cli->config, -1, error);
}
