/* The job's secret as a key, which its ranks prove to each other.
 *
 * The secret is a text of at least 16 bytes. It is the file of parallel.secret_file, which must be a regular file of
 * this user with mode 0600 or 0400, or it is ELBO_SECRET. A job on one host needs neither: rank 0 writes a random
 * secret into a file of mode 0600, in a folder of mode 0700 that belongs to this user alone ($XDG_RUNTIME_DIR/elbo, or
 * /tmp/elbo-UID), while the ranks meet. A process that could read this file could also read the ranks' memory. */
#ifndef JOB_SECRET_H
#define JOB_SECRET_H

#include "job/rendezvous.h"
#include "job/wire.h"

#include <stdbool.h>

enum { SECRET_LEAST = 16, SECRET_MOST = 4096 }; /* bytes */

struct secret {
    unsigned char key[WIRE_KEY];
    bool met;         /* the secret is in the file that rank 0 makes */
    int folder, file; /* descriptors of that file, on rank 0; else -1 */
    char name[RANKS_JOB + 16];
    char folder_path[256];
};

/* Opens the secret. Afterwards rank 0 has it, and so have the others unless secret->met; those then call secret_look.
 * The caller calls secret_close even after a failure. */
elbo_status secret_open(struct secret *secret, const struct ranks *ranks, const struct rendezvous_options *options,
                        elbo_error *error);

/* Reads the file that rank 0 made; *there is false while it is missing. The file may be an earlier job's, so read it
 * again before each try. */
elbo_status secret_look(struct secret *secret, bool *there, elbo_error *error);

/* Forgets the key; rank 0 removes its file. */
void secret_close(struct secret *secret);

#endif
