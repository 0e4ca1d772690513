/* elbo train: starts or continues a run. */
#include "cli/cli.h"

#include "base/json.h"
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

static elbo_status result(const struct trainer *trainer, elbo_error *error)
{
    json_t *all = trainer_result(trainer);
    return all ? json_print(stdout, all, JSON_INDENT(2) | JSON_REAL_PRECISION(9), "the result", error)
               : ELBO_OK; /* only rank 0 has a result */
}

elbo_status cli_train(struct cli *cli, elbo_error *error)
{
    struct train_report report = {line, warning, cli};
    struct trainer *trainer;
    ELBO_TRY(trainer_open(&trainer, &cli->config, cli->options, &report, error));
    elbo_status status = trainer_run(trainer, error);
    if (cli->config.json && (!status || status == ELBO_INTERRUPTED)) {
        elbo_error lost;
        if (result(trainer, &lost) && !status) *error = lost, status = lost.code;
    }
    trainer_close(trainer);
    return status;
}
