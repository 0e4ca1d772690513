/* Lets the ranks of a job meet. Rank 0's bytes (NCCL's id, 128 bytes) reach every rank, and nobody else.
 *
 *     struct rendezvous_options options = rendezvous_here(&config->parallel);
 *     unsigned char id[128];                        -- rank 0 fills it, the others receive it
 *     ELBO_TRY(rendezvous_share(&ranks, &options, id, sizeof id, error));
 *
 * Rank 0 listens at ranks->address:port. The others connect, and retry until rank 0 is there. Both sides prove that
 * they know the job's secret before a byte of the content is sent; the content is then encrypted (wire.h). The secret
 * is the file of parallel.secret_file, or ELBO_SECRET, or on one host a file that rank 0 makes and only its user can
 * read. A job on several hosts without a secret is refused. On one host rank 0 listens only on the loopback.
 *
 * Only the look-up of a name blocks. Every socket is polled, so a stranger that connects does not delay the ranks. */
#ifndef JOB_RENDEZVOUS_H
#define JOB_RENDEZVOUS_H

#include "elbo/status.h"
#include "job/bonds.h"
#include "job/config.h"
#include "job/ranks.h"

#include <stddef.h>

enum { RENDEZVOUS_MOST = 4096 }; /* most bytes that can be shared */

struct rendezvous_options {
    const char *secret_file;    /* parallel.secret_file; "": none */
    const char *secret;         /* ELBO_SECRET; null: not set */
    const char *runtime_folder; /* XDG_RUNTIME_DIR; null: not set */
    double timeout;             /* seconds until missing ranks are given up */
};

/* Takes the options from the configuration and the environment. */
struct rendezvous_options rendezvous_here(const struct parallel_config *config);

/* Gives rank 0's `bytes` (size), 1 to RENDEZVOUS_MOST, to every rank. Rank 0 returns when every rank has them. A job of
 * one rank does nothing. The connections stay open as `bonds`, which the caller passes zeroed and closes also after a
 * failure; if `bonds` is null, the connections end. ELBO_USAGE: no secret, or one that others can read; ELBO_IO: the
 * time is up, or rank 0's port is taken. */
elbo_status rendezvous_share(const struct ranks *ranks, const struct rendezvous_options *options, void *bytes,
                             size_t size, struct bonds *bonds, elbo_error *error);

#endif
