/* Watches the latent. The evaluations on data.valid tell whether the decoder still reads z, and train.on_collapse says
 * what to do if it does not.
 *
 *   alive    a sentence's own z is worth train.collapse_gain nats or more to the decoder (own_z_gain)
 *   dead     it was alive and is no longer; or it is not alive after a quarter of the steps, or of the steps since the
 *            last rollback
 *
 * warn: a line names the option to try. rollback: weights and moments become those of the last alive checkpoint, which
 * is kept for this. If none was ever alive and a quarter of the steps is left, first weights are drawn anew. The rate
 * that the objective asks for is raised (objective_raise). The data cursor, the draws and the schedules go on. A run
 * rolls back at most MONITOR_MOST times. The state of the watch is part of a checkpoint. */
#ifndef TRAIN_MONITOR_H
#define TRAIN_MONITOR_H

#include "train/trainer_private.h"

struct evaluation;

enum { MONITOR_MOST = 3 };

/* Notes an evaluation of the state after `draws` steps. Returns true if the latent is dead and a rollback is due. */
bool monitor_note(struct trainer *t, const struct evaluation *e);

/* Whether to save and keep the state evaluated last as a target of rollbacks. States are kept at most as often as
 * checkpoints are saved, so that the watch costs no more saves than the run has. */
bool monitor_keeps(const struct trainer *t);

/* Rolls back. Every rank calls it between two steps. */
elbo_status monitor_roll_back(struct trainer *t, elbo_error *error);

#endif
