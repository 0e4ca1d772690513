/* Allows one process per run directory by an advisory lock on RUN/lock, which the system drops however the process
 * ends. The file stays and holds the last owner's process number, only for messages. */
#ifndef TRAIN_RUN_LOCK_H
#define TRAIN_RUN_LOCK_H

#include "elbo/status.h"

struct run_lock {
    int fd;
};

/* Locks a run directory, which must exist. ELBO_BUSY: another process holds it; the message has its number if it is
 * known. */
elbo_status run_directory_lock(struct run_lock *lock, const char *run_dir, elbo_error *error);
void run_directory_unlock(struct run_lock *lock);

#endif
