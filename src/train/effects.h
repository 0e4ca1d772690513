/* Which options have no effect beside the values of others: heads where there is no encoder, a momentum of AdamW.
 *
 * On the command line such an option is refused; in a file, whose options may serve several models, it is said in one
 * line; a value that is the default's is never spoken of. */
#ifndef TRAIN_EFFECTS_H
#define TRAIN_EFFECTS_H

#include "base/options.h"
#include "train/config.h"

/* Why the option has no effect: "latent.kind=none has no encoder"; null: it has one. */
const char *effects_idle(const struct elbo_config *config, const char *key);

/* ELBO_USAGE names the first idle option of the command line. *said lists those of files, to be shown and free()d;
 * null: none. */
elbo_status effects_check(char **said, const struct options *options, const struct elbo_config *config,
                          elbo_error *error);

/* Settles objective.dropped_mark where it is not given, or no word is dropped: a run that goes on keeps the mark that
 * it has, `kept`; a new one (kept < 0) has no mark that nothing would become. */
elbo_status effects_settle_mark(struct options *options, const struct elbo_config *config, int kept, elbo_error *error);

#endif
