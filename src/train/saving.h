/* Saves of a run, and its way back from a checkpoint. Private to the trainer. */
#ifndef TRAIN_SAVING_H
#define TRAIN_SAVING_H

#include "base/files.h"
#include "train/trainer_private.h"

/* All ranks, when every step launched is finished. */
elbo_status save(struct trainer *t, elbo_error *error);
/* A save on the way that fails is told, nothing is lost, and training goes on; the next one is due as before. */
bool save_on_the_way(struct trainer *t);

/* From `path`: a run directory or a checkpoint; it names the checkpoint that was taken then. */
elbo_status resume_from(struct trainer *t, char path[FILES_PATH], elbo_error *error);

/* What a checkpoint of this run holds, of a configuration that was compared before. */
elbo_status restore_state(struct trainer *t, const struct checkpoint *c, elbo_error *error);

#endif
