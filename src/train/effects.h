/* Finds options that have no effect beside the values of others, such as heads without an encoder, or a momentum with
 * AdamW.
 *
 * On the command line such an option is refused. In a file, whose options may serve several models, it is reported in
 * one line, unless its value is the default. */
#ifndef TRAIN_EFFECTS_H
#define TRAIN_EFFECTS_H

#include "base/options.h"
#include "train/config.h"

/* Returns why the option has no effect, such as "latent.kind=none has no encoder"; null: it has one. */
const char *effects_idle(const struct elbo_config *config, const char *key);

/* Refuses the first idle option of the command line with ELBO_USAGE. *said lists the idle options of files, for the
 * caller to show and free; null: none. */
elbo_status effects_check(char **said, const struct options *options, const struct elbo_config *config,
                          elbo_error *error);

/* Settles objective.dropped_mark if it is not given or no word is dropped. A resumed run keeps its mark, `kept`. A new
 * run (kept < 0) has a mark of its own only if dropped words can become it. */
elbo_status effects_settle_mark(struct options *options, const struct elbo_config *config, int kept, elbo_error *error);

#endif
