/* Options of the rooms below, from the configuration of a run. */
#ifndef TRAIN_STEP_OPTIONS_H
#define TRAIN_STEP_OPTIONS_H

#include "step/step.h"
#include "train/config.h"

/* Slots of a training batch. */
struct slot_options slot_options_of(const struct elbo_config *config);

/* The step of a run of so many ranks (0: one); `model` has its vocabulary and positions. */
struct step_options step_options_of(const struct elbo_config *config, const struct model_config *model, size_t ranks,
                                    size_t rank);

#endif
