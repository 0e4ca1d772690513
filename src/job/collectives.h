/* Collective operations of the ranks: one table, implemented by MPI between CPU ranks and by NCCL between GPUs.
 *
 * Every rank makes the same calls in the same order. Data are in the memory of the backend, and calls are ordered with
 * its work: after work launched before, and before work launched later. A rank that waits gives up after `timeout`
 * seconds with ELBO_PEER and a message that names the missing ranks. After any error a rank may only end. */
#ifndef JOB_COLLECTIVES_H
#define JOB_COLLECTIVES_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

/* A piece of memory to send to a peer, or to receive from it. Between two ranks pieces arrive in the order in which
 * they were sent. */
struct transfer {
    size_t peer;
    void *data;
    size_t bytes;
    bool receive;
};

/* Numbers of the notes in flight: one for each step in flight, and one for collectives_gather. */
enum { COLLECTIVES_NOW = 2, COLLECTIVES_POSTS };

struct collectives {
    const char *name; /* "MPI", "NCCL" */
    size_t ranks, rank;
    double timeout; /* seconds */
    bool broken;    /* a call failed here, or the rank ends for another reason; the other ranks are not waited for */
    /* begin starts all transfers at once. begin_sum computes x (count) f32 = the sum over the ranks, in any order. The
     * memory belongs to the collectives until poll reports that all of it is done, or wait returns; the results are
     * complete in the backend's order of work. */
    elbo_status (*begin)(struct collectives *, const struct transfer *list, size_t count, elbo_error *error);
    elbo_status (*begin_sum)(struct collectives *, float *x, size_t count, elbo_error *error);
    elbo_status (*poll)(struct collectives *, bool *through, elbo_error *error);
    elbo_status (*wait)(struct collectives *, elbo_error *error);
    /* Exchange a few bytes of host memory between all ranks. post: `bytes` is equal on all ranks, and `mine` may change
     * on return. collect: waits for the bytes of all ranks, (ranks, bytes). */
    elbo_status (*post)(struct collectives *, unsigned which, const void *mine, size_t bytes, elbo_error *error);
    elbo_status (*collect)(struct collectives *, unsigned which, void *all, elbo_error *error);
    void (*destroy)(struct collectives *);
};

/* Begins transfers and waits for them. */
elbo_status collectives_exchange(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error);

/* Posts `mine` and collects all (ranks, bytes). */
elbo_status collectives_gather(struct collectives *c, const void *mine, size_t bytes, void *all, elbo_error *error);

/* Agrees on a status: ELBO_OK only if `status` is ELBO_OK on every rank. Every rank calls it. A rank that failed keeps
 * its own `error`; the others get the error of the first failed rank, with its number in front. */
elbo_status collectives_agree(struct collectives *c, elbo_status status, elbo_error *error);

/* Copies rank 0's bytes to every rank. */
elbo_status collectives_share(struct collectives *c, void *bytes, size_t size, elbo_error *error);

/* Opens the collectives of MPI_COMM_WORLD and initializes MPI. ELBO_USAGE: there is no elbo-mpi.so, or no MPI. */
elbo_status mpi_collectives_open(struct collectives **c, double timeout, elbo_error *error);

#endif
