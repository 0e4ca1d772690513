/* The job's secret, which its ranks prove to each other, as a key.
 *
 * It is a text of at least 16 bytes: the file of parallel.secret_file, which must be a regular file of this user and of
 * mode 0600 or 0400, or ELBO_SECRET. A job on one host needs neither: rank 0 then leaves a random one in a file of mode
 * 0600, in a folder of mode 0700 that belongs to this user alone ($XDG_RUNTIME_DIR/elbo, or /tmp/elbo-UID), for as long
 * as the ranks meet. Whoever could read that could read the ranks' memory. */
#ifndef JOB_SECRET_H
#define JOB_SECRET_H

#include "job/rendezvous.h"
#include "job/wire.h"

#include <stdbool.h>

enum { SECRET_LEAST = 16, SECRET_MOST = 4096 }; /* bytes */

struct secret {
    unsigned char key[WIRE_KEY];
    bool met;         /* it is in the file that rank 0 makes */
    int folder, file; /* of it, on rank 0; else -1           */
    char name[RANKS_JOB + 16];
    char folder_path[256];
};

/* On rank 0 the secret is there afterwards. Elsewhere too, unless secret->met: then secret_look. secret_close it,
 * whatever this returned. */
elbo_status secret_open(struct secret *secret, const struct ranks *ranks, const struct rendezvous_options *options,
                        elbo_error *error);

/* Reads what rank 0 left; *there is false while there is nothing. It may be an earlier job's, so look again before each
 * try. */
elbo_status secret_look(struct secret *secret, bool *there, elbo_error *error);

/* Forgets the key; rank 0 removes its file. */
void secret_close(struct secret *secret);

#endif
