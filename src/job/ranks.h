/* Who am I: the rank of this process and the size of its job, from the options or from whoever started it.
 *
 *     struct ranks ranks;
 *     ELBO_TRY(ranks_detect(&ranks, &config->parallel, ranks_environment, NULL, error));
 *     char line[RANKS_LINE];
 *     ranks_line(line, &ranks);          -- "rank 3 of 8 (torchrun), 3 of 8 on this host, meeting at 127.0.0.1:29501"
 *
 * The first of these that is there is taken, whole: --parallel.rank, `elbo launch`, torchrun, Open MPI, Hydra (MPICH,
 * Intel MPI), a Slurm step; else the process is alone. docs/parallel.md lists the variables. Nothing but the getter is
 * asked, so that environments can be tested as tables. */
#ifndef JOB_RANKS_H
#define JOB_RANKS_H

#include "elbo/status.h"
#include "job/config.h"

#include <stdbool.h>
#include <stddef.h>

enum { RANKS_LINE = 512, RANKS_ADDRESS = 256, RANKS_JOB = 64 };
enum { RANKS_MOST = 1 << 20 }; /* ranks of a job: far above any, far below what could overflow */

enum ranks_source {
    RANKS_SINGLE, /* nobody started several              */
    RANKS_GIVEN,  /* --parallel.rank and --parallel.ranks */
    RANKS_ELBO,   /* elbo launch                         */
    RANKS_TORCHRUN,
    RANKS_OPENMPI,
    RANKS_HYDRA, /* MPICH, Intel MPI                    */
    RANKS_SLURM, /* srun                                */
};

struct ranks {
    size_t world, rank;             /* rank < world                                                         */
    size_t local_world, local_rank; /* of this host                                                         */
    size_t nodes, node;             /* hosts, and which of them this is; nodes 0: the launcher does not say */
    enum ranks_source source;
    char address[RANKS_ADDRESS]; /* where rank 0 is met; "" when the launcher does not say               */
    unsigned port;               /* the first port to try there ...                                      */
    unsigned ports;              /* ... and how many from it on                                          */
    bool one_host;               /* every rank runs on this host                                         */
    unsigned restart;            /* how often the job was started again                                  */
    char job[RANKS_JOB];         /* tells the job from the user's others on this host; a file name       */
};

/* Fills `ranks`. A value that is malformed or contradicts another is refused with its variable's or option's name. */
elbo_status ranks_detect(struct ranks *ranks, const struct parallel_config *given,
                         const char *(*get)(void *context, const char *name), void *context, elbo_error *error);

/* The getter that asks the process's own environment; it needs no context. */
const char *ranks_environment(void *context, const char *name);

/* One line for people: who this is and what said so. */
void ranks_line(char line[RANKS_LINE], const struct ranks *ranks);

/* The launcher's name, as people write it. */
const char *ranks_source_name(enum ranks_source source);

#endif
