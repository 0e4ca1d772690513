/* Weights from a model's file of few bits (infer/file.h), in the place of a checkpoint's: what the rounding costs. */
#ifndef TRAIN_ROUNDED_H
#define TRAIN_ROUNDED_H

#include "model/model.h"

/* Overwrites the weights; what training alone reads stays. ELBO_INPUT: the file is damaged, or of another model. */
elbo_status rounded_weights(struct model *m, const char *path, elbo_error *error);

#endif
