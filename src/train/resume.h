/* Compares the options of a resumed run with those of the checkpoint, each by its class (enum option_class). */
#ifndef TRAIN_RESUME_H
#define TRAIN_RESUME_H

#include "base/options.h"
#include "train/config.h"

/* `yaml` is the checkpoint's config.yaml, `name` its path. ELBO_USAGE names the options of class OPTION_MODEL that
 * differ, and the remedy. *changed lists those of class OPTION_CHANGE as "train.steps 12 -> 24, ..."; the caller frees
 * it; null: none. Options without effect in both configurations are not compared (train/effects.h). */
elbo_status resume_compare(char **changed, const struct options *now, const struct elbo_config *config,
                           const char *yaml, size_t size, const char *name, elbo_error *error);

/* Reads objective.dropped_mark from the config.yaml of a run or checkpoint; leaves `*mark` unchanged without that
 * file. */
elbo_status resume_mark(int *mark, const char *from, elbo_error *error);

#endif
