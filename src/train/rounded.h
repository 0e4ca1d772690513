/* Weights from a model's file of few bits (infer/file.h), in the place of a checkpoint's: what the rounding costs. */
#ifndef TRAIN_ROUNDED_H
#define TRAIN_ROUNDED_H

#include "model/model.h"

/* Overwrites the weights that the file has. ELBO_INPUT: the file is damaged, or of another model; ELBO_USAGE: it lacks
 * a tensor that generation or evaluation reads. */
elbo_status rounded_weights(struct model *m, const char *path, elbo_error *error);

#endif
