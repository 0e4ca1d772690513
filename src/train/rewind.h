/* Goes back to an earlier checkpoint of the same run. No saved data is lost: later checkpoints become
 * checkpoints/abandoned-step-N, and the rows so far become metrics.abandoned-N.jsonl. */
#ifndef TRAIN_REWIND_H
#define TRAIN_REWIND_H

#include "base/files.h"
#include "train/config.h"
#include "train/console.h"

/* Sets `from` to the checkpoint of step config.rewind. If the run has gone back to that step before, `from` is the run
 * itself, so that a command that is started again goes on from the newest checkpoint. The run directory is locked.
 * ELBO_USAGE: the run has no such checkpoint. */
elbo_status rewind_run(struct train_report *report, const struct elbo_config *config, char from[FILES_PATH],
                       elbo_error *error);

#endif
