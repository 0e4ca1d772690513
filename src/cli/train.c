/* elbo train: trains, or goes on with, a run. */
#include "cli/cli.h"

#include "train/trainer.h"

#include <stdio.h>

static void line(void *context, const char *text)
{
    struct cli *cli = context;
    log_line(&cli->log, "%s", text);
}

static void warning(void *context, const char *text)
{
    struct cli *cli = context;
    log_warning(&cli->log, "%s", text);
}

elbo_status cli_train(struct cli *cli, elbo_error *error)
{
    struct train_report report = {line, warning, cli};
    struct trainer *trainer;
    ELBO_TRY(trainer_open(&trainer, &cli->config, cli->options, &report, error));
    elbo_status status = trainer_run(trainer, error);
    trainer_close(trainer);
    return status;
}
