/* A warm start: a new run that begins with the weights of another (init.from, init.parts). */
#ifndef TRAIN_WARM_START_H
#define TRAIN_WARM_START_H

#include "base/files.h"
#include "train/trainer_private.h"

/* Loads weights by name and shape into the model, which is initialized already. `path` is a run or a checkpoint, and
 * becomes the checkpoint that was taken. ELBO_INPUT: another tokenizer, a part of init.parts that does not fit, or
 * nothing that fits; ELBO_USAGE: an unknown part. */
elbo_status warm_start(struct trainer *t, char path[FILES_PATH], elbo_error *error);

#endif
