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

#endif
