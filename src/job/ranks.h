/* Finds the rank of this process and the size of its job, from the options or from the launcher's environment.
 *
 *     struct ranks ranks;
 *     ELBO_TRY(ranks_detect(&ranks, &config->parallel, ranks_environment, NULL, error));
 *     char line[RANKS_LINE];
 *     ranks_line(line, &ranks);          -- "rank 3 of 8 (torchrun), 3 of 8 on this host, meeting at 127.0.0.1:29501"
 *
 * The first source that is present is used for all values: --parallel.rank, `elbo launch`, torchrun, Open MPI, Hydra
 * (MPICH, Intel MPI), a Slurm step; else the process is alone. docs/parallel.md lists the variables. The environment is
 * read only through the getter, so that environments can be tested as tables. */
#ifndef JOB_RANKS_H
#define JOB_RANKS_H

#include "elbo/status.h"
#include "job/config.h"

#include <stdbool.h>
#include <stddef.h>

enum { RANKS_LINE = 512, RANKS_ADDRESS = 256, RANKS_JOB = 64 };
enum { RANKS_MOST = 1 << 20 }; /* most ranks of a job: far above any real job, far below overflow */

enum ranks_source {
    RANKS_SINGLE, /* no launcher started several */
    RANKS_GIVEN,  /* --parallel.rank and --parallel.ranks */
    RANKS_ELBO,   /* elbo launch */
    RANKS_TORCHRUN,
    RANKS_OPENMPI,
    RANKS_HYDRA, /* MPICH, Intel MPI */
    RANKS_SLURM, /* srun */
};

struct ranks {
    size_t world, rank;             /* rank < world */
    size_t local_world, local_rank; /* ranks on this host, and this rank's place among them */
    size_t nodes, node;             /* number of hosts, and index of this one; nodes 0: unknown */
    enum ranks_source source;
    char address[RANKS_ADDRESS]; /* where rank 0 is met; "": unknown */
    unsigned port;               /* first port to try there */
    unsigned ports;              /* number of ports to try from it on */
    bool one_host;               /* every rank runs on this host */
    unsigned restart;            /* number of restarts of the job */
    char job[RANKS_JOB];         /* tells the job from the user's other jobs on this host; a file name */
};

/* Fills in `ranks`. Refuses a value that is malformed or contradicts another, with the name of its variable or
 * option. */
elbo_status ranks_detect(struct ranks *ranks, const struct parallel_config *given,
                         const char *(*get)(void *context, const char *name), void *context, elbo_error *error);

/* Getter that reads the process's own environment; needs no context. */
const char *ranks_environment(void *context, const char *name);

/* Writes one line for people: the rank and its source. */
void ranks_line(char line[RANKS_LINE], const struct ranks *ranks);

/* Returns the launcher's name as people write it. */
const char *ranks_source_name(enum ranks_source source);

#endif
