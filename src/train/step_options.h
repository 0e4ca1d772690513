/* Options of slots and steps from the configuration of a run. */
#ifndef TRAIN_STEP_OPTIONS_H
#define TRAIN_STEP_OPTIONS_H

#include "step/step.h"
#include "train/config.h"

/* Returns the options of the slots of a training batch. */
struct slot_options slot_options_of(const struct elbo_config *config);

/* Returns the options of the step for a run of `ranks` ranks (0: one). `model` has its vocabulary and positions. */
struct step_options step_options_of(const struct elbo_config *config, const struct model_config *model, size_t ranks,
                                    size_t rank);

#endif
