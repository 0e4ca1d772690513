/* The trainer: one run, from the first step or from a checkpoint, to its end or to a signal.
 *
 *     struct trainer *t;
 *     trainer_open(&t, &config, options, &report, &error);     -- data, model, optimizer, resume
 *     trainer_run(t, &error);                                  -- trains, logs, evaluates, saves
 *     trainer_close(t);
 *
 * A step runs every slot of the batch forward and backward and accumulates the gradients; then it takes the norm. If
 * the loss or the gradient is not finite, the update is skipped: only the data cursor and the draw counter advance.
 * Otherwise the gradient is clipped and the weights are updated. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "base/options.h"
#include "train/config.h"
#include "train/console.h"

#include <jansson.h>

struct trainer;

/* Opens a run. `options` gives the text of the saved configuration; options that are left open are settled in it
 * (effects.h). `config` is the target of `options`. ELBO_BUSY: another process trains in the run directory. */
elbo_status trainer_open(struct trainer **t, const struct elbo_config *config, struct options *options,
                         const struct train_report *report, elbo_error *error);

/* Trains. ELBO_INTERRUPTED after a signal (SIGTERM, SIGINT, SIGUSR1), when all is saved; ELBO_DIVERGED after
 * train.max_bad_steps steps in a row that were not finite. */
elbo_status trainer_run(struct trainer *t, elbo_error *error);

/* Returns the state of the run: step, run_dir, the last step's figures and, if there was one, the last evaluation's and
 * the best one. Null on ranks other than 0, and if memory ran out. The caller releases it. */
json_t *trainer_result(const struct trainer *t);
void trainer_close(struct trainer *t);

#endif
