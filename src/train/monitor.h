/* The watch over the latent: whether the decoder still reads z, by the evaluations on data.valid, and what is done when
 * it does not (train.on_collapse).
 *
 *   alive    a sentence's own z is worth train.collapse_gain nats or more to the decoder (own_z_gain)
 *   dead     it was alive and is not any more; or it is not after a quarter of the steps, or of those since the last
 *            rollback
 *
 * warn: a line names the option to try. rollback: weights and moments become those of the last checkpoint that was
 * alive, which is kept for that, or where none ever was and a quarter of the steps is left first ones, drawn anew; and
 * the rate that the objective asks for is raised (objective_raise). The data cursor, the draws and the schedules go on.
 * At most MONITOR_MOST times in a run. What the watch remembers is part of a checkpoint. */
#ifndef TRAIN_MONITOR_H
#define TRAIN_MONITOR_H

#include "train/trainer_private.h"

struct evaluation;

enum { MONITOR_MOST = 3 };

/* An evaluation of the state after `draws` steps. True: it is dead, and a rollback is due. */
bool monitor_note(struct trainer *t, const struct evaluation *e);

/* Whether the state that was evaluated last is to be saved and kept, to roll back to: as often as checkpoints are
 * saved, so that the watch costs no more saves than the run has. */
bool monitor_keeps(const struct trainer *t);

/* Rolls back: between two steps, on every rank. */
elbo_status monitor_roll_back(struct trainer *t, elbo_error *error);

#endif
