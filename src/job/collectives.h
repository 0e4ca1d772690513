/* The work that ranks do together: one table, with MPI behind it between CPU ranks and NCCL between GPUs.
 *
 * Every rank makes the same calls in the same order. Data lie in the memory of the backend and calls are ordered with
 * its work: behind what was launched before, in front of what is launched later. Who waits gives up after `timeout`
 * seconds with ELBO_PEER and words that name the ranks that did not come; after any error a rank may only end. */
#ifndef JOB_COLLECTIVES_H
#define JOB_COLLECTIVES_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

/* One piece of memory on its way to a peer, or from it. Between two ranks pieces arrive in the order in which they were
 * sent. */
struct transfer {
    size_t peer;
    void *data;
    size_t bytes;
    bool receive;
};

/* Notes under way at once: by number, one for each step in flight, and the one of collectives_gather. */
enum { COLLECTIVES_NOW = 2, COLLECTIVES_POSTS };

struct collectives {
    const char *name; /* "MPI", "NCCL" */
    size_t ranks, rank;
    double timeout; /* seconds */
    bool broken;    /* a call failed here, or the rank ends for another reason: the others are not waited for */
    /* All pieces set out at once; and x (count) f32 = the sum over the ranks, in whatever order. What was begun is the
     * collectives' own until poll says that all of it is through, or wait returns: complete in the backend's order of
     * work. */
    elbo_status (*begin)(struct collectives *, const struct transfer *list, size_t count, elbo_error *error);
    elbo_status (*begin_sum)(struct collectives *, float *x, size_t count, elbo_error *error);
    elbo_status (*poll)(struct collectives *, bool *through, elbo_error *error);
    elbo_status (*wait)(struct collectives *, elbo_error *error);
    /* A few bytes of host memory from every rank to every rank. post: `bytes` are the same everywhere and may change on
     * return; collect: all of them, (ranks, bytes), waits. */
    elbo_status (*post)(struct collectives *, unsigned which, const void *mine, size_t bytes, elbo_error *error);
    elbo_status (*collect)(struct collectives *, unsigned which, void *all, elbo_error *error);
    void (*destroy)(struct collectives *);
};

/* begin and wait in one. */
elbo_status collectives_exchange(struct collectives *c, const struct transfer *list, size_t count, elbo_error *error);

/* post and collect in one: all (ranks, bytes). */
elbo_status collectives_gather(struct collectives *c, const void *mine, size_t bytes, void *all, elbo_error *error);

/* A step that every rank takes: ELBO_OK only if `status` is that everywhere. A rank that failed keeps its own `error`,
 * the others get the first such rank's, with its number in front. */
elbo_status collectives_agree(struct collectives *c, elbo_status status, elbo_error *error);

/* Rank 0's bytes reach every rank. */
elbo_status collectives_share(struct collectives *c, void *bytes, size_t size, elbo_error *error);

/* MPI_COMM_WORLD, which this call initializes. ELBO_USAGE where elbo was built without MPI. */
elbo_status mpi_collectives_open(struct collectives **c, double timeout, elbo_error *error);

#endif
