/* Going back to an earlier checkpoint of the same run. Nothing that was saved is lost: later checkpoints become
 * checkpoints/abandoned-step-N, and the rows so far metrics.abandoned-N.jsonl. */
#ifndef TRAIN_REWIND_H
#define TRAIN_REWIND_H

#include "base/files.h"
#include "train/config.h"
#include "train/console.h"

/* `from`: the checkpoint of config.rewind, or, where the run has gone back to that step before, its newest one: a
 * command that is started again goes on. The run directory is locked. ELBO_USAGE: the run has no such checkpoint. */
elbo_status rewind_run(struct train_report *report, const struct elbo_config *config, char from[FILES_PATH],
                       elbo_error *error);

#endif
