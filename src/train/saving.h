/* Saves a run and restores it from a checkpoint. Private to the trainer. */
#ifndef TRAIN_SAVING_H
#define TRAIN_SAVING_H

#include "base/files.h"
#include "train/trainer_private.h"

/* Saves a checkpoint. Every rank calls it when every launched step is finished. */
elbo_status save(struct trainer *t, elbo_error *error);
/* Saves during training. A failure gives a warning and returns false; nothing is lost, training goes on, and the next
 * save is due as before. */
bool save_on_the_way(struct trainer *t);

/* Resumes from `path`, a run directory or a checkpoint, and sets `path` to the checkpoint that was taken. */
elbo_status resume_from(struct trainer *t, char path[FILES_PATH], elbo_error *error);

/* Restores the state of a checkpoint of this run, whose configuration was compared before. */
elbo_status restore_state(struct trainer *t, const struct checkpoint *c, elbo_error *error);

#endif
