/* The trainer: one run, from the first step or from a checkpoint, to its end or to a signal.
 *
 *     struct trainer *t;
 *     trainer_open(&t, &config, options, &report, &error);     -- data, model, optimizer, resume
 *     trainer_run(t, &error);                                  -- trains, logs, evaluates, saves
 *     trainer_close(t);
 *
 * A step: every slot of the batch runs forward and backward, gradients accumulate; the norm is taken; a loss or
 * gradient that is not finite skips the update (data cursor and draw counter advance, nothing else does); else clip and
 * update. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "base/options.h"
#include "train/config.h"
#include "train/console.h"

#include <jansson.h>

struct trainer;

/* `options` gives the text of the configuration that is saved; what they leave open is settled in them (effects.h).
 * `config` is their target. ELBO_BUSY when another process trains there. */
elbo_status trainer_open(struct trainer **t, const struct elbo_config *config, struct options *options,
                         const struct train_report *report, elbo_error *error);

/* ELBO_INTERRUPTED after a signal (SIGTERM, SIGINT, SIGUSR1), when all is saved; ELBO_DIVERGED after
 * train.max_bad_steps steps that were not finite. */
elbo_status trainer_run(struct trainer *t, elbo_error *error);

/* How far the run is: step, run_dir, checkpoint, the last step's figures and, where there was one, the last
 * evaluation's and the best one. Null on other ranks than the first, and for want of memory. The caller's to release.
 */
json_t *trainer_result(const struct trainer *t);
void trainer_close(struct trainer *t);

#endif
