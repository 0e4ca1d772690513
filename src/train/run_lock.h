/* One process per run directory: an advisory lock on RUN/lock, which the system drops when the process ends, however it
 * ends. The file stays and holds the last owner's process number, for messages only. */
#ifndef TRAIN_RUN_LOCK_H
#define TRAIN_RUN_LOCK_H

#include "elbo/status.h"

struct run_lock {
    int fd;
};

/* The run directory must exist. ELBO_BUSY when another process holds it, with its number where that can be read. */
elbo_status run_directory_lock(struct run_lock *lock, const char *run_dir, elbo_error *error);
void run_directory_unlock(struct run_lock *lock);

#endif
