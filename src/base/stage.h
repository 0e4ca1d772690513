/* A folder that is built next to its place and then put there whole. Readers find the old folder or the new one, never
 * a mix.
 *
 *     struct stage stage;
 *     ELBO_TRY(stage_open(&stage, "corpus", error));         -- makes the empty folder .corpus.elbo-new
 *     ... durable files (file_seal) below stage.work, in it or in folders of its own ...
 *     status = stage_commit(&stage, error);
 *     stage_close(&stage);                                   -- removes what was not committed
 *
 * All files are in the place's parent, under hidden names: .NAME.elbo-new, the work; .NAME.elbo-lock, held by flock
 * while a stage is open and removed with it; .NAME.elbo-old, see below. A process that dies leaves these files, and the
 * next stage of the same place sweeps them.
 *
 * A commit syncs the work's folders, exchanges work and place by one system call, syncs the parent, and only then
 * removes the old folder. A file system that cannot exchange gets two renames: the place to .NAME.elbo-old, the work to
 * the place. A process that dies between the two leaves both folders whole and the place empty; the next stage_open
 * puts the old folder back. */
#ifndef BASE_STAGE_H
#define BASE_STAGE_H

#include "base/files.h"

struct stage {
    char place[FILES_PATH]; /* the destination folder; symbolic links on the way to it are resolved */
    char work[FILES_PATH];  /* the folder to fill */
    char old[FILES_PATH];
    char lock_path[FILES_PATH];
    int lock; /* -1: closed */
};

/* Returns the path that a stage of this folder replaces, without a trailing slash. ELBO_USAGE: the folder there cannot
 * be exchanged whole (the current folder, a mount point, a symbolic link to nothing). ELBO_IO: a file is there. Changes
 * nothing on disk. */
elbo_status stage_place(char place[FILES_PATH], const char *folder, elbo_error *error);

/* Locks the place, sweeps the leftovers of a dead process, and makes the work folder and the place's missing parents.
 * ELBO_BUSY: another process holds the place. */
elbo_status stage_open(struct stage *stage, const char *folder, elbo_error *error);
elbo_status stage_commit(struct stage *stage, elbo_error *error);
/* Removes the work and releases the lock. Harmless when stage_open failed. */
void stage_close(struct stage *stage);

#endif
