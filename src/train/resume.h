/* A run that goes on: its options held against those of the checkpoint, each by its class (enum option_class). */
#ifndef TRAIN_RESUME_H
#define TRAIN_RESUME_H

#include "base/options.h"
#include "train/config.h"

/* `yaml` is the checkpoint's config.yaml, `name` its path. ELBO_USAGE names the options of class OPTION_MODEL that
 * differ, and the remedy. *changed lists those of class OPTION_CHANGE as "train.steps 12 -> 24, ...", to be free()d;
 * null: none. Options without effect in both configurations are not compared (train/effects.h). */
elbo_status resume_compare(char **changed, const struct options *now, const struct elbo_config *config,
                           const char *yaml, size_t size, const char *name, elbo_error *error);

/* The objective.dropped_mark of a run or checkpoint, from its config.yaml; unchanged where it has none. */
elbo_status resume_mark(int *mark, const char *from, elbo_error *error);

#endif
