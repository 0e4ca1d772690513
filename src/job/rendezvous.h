/* The ranks of a job meet: what rank 0 holds (NCCL's id, 128 bytes) reaches every rank, and nobody else.
 *
 *     struct rendezvous_options options = rendezvous_here(&config->parallel);
 *     unsigned char id[128];                        -- rank 0 fills it, the others receive it
 *     ELBO_TRY(rendezvous_share(&ranks, &options, id, sizeof id, error));
 *
 * Rank 0 listens at ranks->address:port; the others connect, and go on trying until it is there. Both sides prove that
 * they know the job's secret before a byte of the content is sent, which is encrypted then (wire.h). The secret is the
 * file of parallel.secret_file, or ELBO_SECRET, or on one host a file that rank 0 makes where only its user can read; a
 * job on several hosts without one is refused. On one host rank 0 listens on the loopback only.
 *
 * Nothing blocks but the look-up of a name: every socket is polled, and whoever connects and does not belong here costs
 * the others nothing. */
#ifndef JOB_RENDEZVOUS_H
#define JOB_RENDEZVOUS_H

#include "elbo/status.h"
#include "job/bonds.h"
#include "job/config.h"
#include "job/ranks.h"

#include <stddef.h>

enum { RENDEZVOUS_MOST = 4096 }; /* bytes that can be shared */

struct rendezvous_options {
    const char *secret_file;    /* parallel.secret_file; "" for none          */
    const char *secret;         /* ELBO_SECRET; null when not set             */
    const char *runtime_folder; /* XDG_RUNTIME_DIR; null when not set         */
    double timeout;             /* seconds until missing ranks are given up   */
};

/* From the configuration and the environment. */
struct rendezvous_options rendezvous_here(const struct parallel_config *config);

/* Gives rank 0's `bytes` (size), 1 to RENDEZVOUS_MOST, to every rank. On rank 0 it returns when every rank has them; a
 * job of one rank does nothing. The connections stay open as `bonds` (zeros before; the caller's also after a failure),
 * or where it is null they end. ELBO_USAGE: no secret, or one that others can read; ELBO_IO: the time is up, or rank
 * 0's port is taken. */
elbo_status rendezvous_share(const struct ranks *ranks, const struct rendezvous_options *options, void *bytes,
                             size_t size, struct bonds *bonds, elbo_error *error);

#endif
