/* The section `parallel` of the configuration; its rows stand in train/config.c. */
#ifndef JOB_CONFIG_H
#define JOB_CONFIG_H

#include <stddef.h>

struct parallel_config {
    size_t ranks;            /* 0: as many as the launcher says                   */
    const char *rank;        /* "auto": what the launcher says; else this number  */
    const char *address;     /* where rank 0 is met; "": what the launcher says   */
    size_t port;             /* its TCP port; 0: from the launcher                */
    double timeout;          /* seconds until a rank that does not come is missed */
    const char *secret_file; /* holds the job's secret; "": none                  */
    size_t lanes;            /* of determinism world_invariant; 0: the smaller of 8 and the slots */
    double bandwidth;        /* GB/s that a rank sends, for plans; 0: not known   */
    double latency;          /* microseconds of a message, for plans              */
    double bucket;           /* MiB of gradients that travel at once              */
    size_t zero;             /* 1: each rank keeps its share of the moments       */
    size_t always;           /* 1: collectives for a single rank too              */
    size_t check_every;      /* steps between comparisons of the ranks' weights; 0: never */
};

#endif
