/* The options of the section `parallel`. */
#ifndef JOB_CONFIG_H
#define JOB_CONFIG_H

#include "base/option_rows.h"

#include <stddef.h>

struct parallel_config {
    size_t ranks;            /* 0: as many as the launcher says */
    const char *rank;        /* "auto": as the launcher says; else this number */
    const char *address;     /* host where rank 0 is met; "": as the launcher says */
    size_t port;             /* its TCP port; 0: from the launcher */
    double timeout;          /* seconds to wait for a missing rank */
    const char *secret_file; /* holds the job's secret; "": none */
    size_t lanes;            /* of determinism world_invariant; 0: the smaller of 8 and the slots */
    double bandwidth;        /* GB/s that a rank sends, for plans; 0: unknown */
    double latency;          /* microseconds of a message, for plans */
    double bucket;           /* MiB of gradients summed at once */
    size_t zero;             /* 1: each rank keeps its share of the moments */
    size_t always;           /* 1: collectives for a single rank too */
    size_t check_every;      /* steps between comparisons of the ranks' weights; 0: never */
};
#define AT(field) offsetof(struct parallel_config, field)
static const struct option parallel_rows[] = {
    ROW_SIZE("lanes", lanes, "0", 0, 65536, "", KEPT_CHANGE,
             "number of sums added along one tree on any number of ranks (determinism=world_invariant); 0: the smaller "
             "of 8 and train.slots"),
    ROW_NUMBER("bucket", bucket, "32", 0.004, 1 << 20, "MiB", KEPT_FREE,
               "size of the gradients that travel between ranks at once"),
    ROW_SIZE("zero", zero, "0", 0, 1, "stage", KEPT_FREE,
             "stage of ZeRO; 1: each rank keeps and updates its share of the moments; same bits, no more bytes between "
             "ranks"),
    ROW_SIZE("always", always, "0", 0, 1, "", KEPT_FREE,
             "sum through NCCL or MPI on a single rank too, to measure the cost (1: yes, 0: no)"),
    ROW_SIZE("check_every", check_every, "500", 0, OPTION_MANY, "steps", KEPT_FREE,
             "number of steps between comparisons of the ranks' weights; 0: never"),
    ROW_NUMBER("bandwidth", bandwidth, "0", 0, 1e6, "GB/s", COMMAND_PLAN,
               "bandwidth at which a rank sends while it receives as much, for the estimate of waiting (see `elbo "
               "bench collectives`); 0: unknown"),
    ROW_NUMBER("latency", latency, "0", 0, 1e9, "microseconds", COMMAND_PLAN,
               "latency of a message, for the estimate of waiting"),
    ROW_SIZE("ranks", ranks, "0", 0, 1048576, "", KEPT_CHANGE,
             "number of processes that train together; 0: as many as the launcher started"),
    ROW_TEXT("rank", rank, "auto", KEPT_OWN(TAKEN_BY_RANKS, OPTION_FREE),
             "number of this process among the ranks, from 0, where no launcher gives it; needs parallel.ranks"),
    ROW_TEXT("address", address, "", KEPT_OWN(TAKEN_BY_RANKS, OPTION_FREE),
             "host of rank 0; empty: the launcher's, or this host; another host needs a secret"),
    ROW_SIZE("port", port, "0", 0, 65535, "", KEPT_OWN(TAKEN_BY_RANKS, OPTION_FREE),
             "TCP port of rank 0; 0: from the launcher or the job's number"),
    ROW_NUMBER("timeout", timeout, "300", 0.1, 86400, "seconds", KEPT(TAKEN_BY_RANKS, OPTION_FREE),
               "time that a rank waits for another one before it gives up; must exceed the longest save"),
    ROW_TEXT(
        "secret_file", secret_file, "", KEPT_OWN(TAKEN_BY_RANKS, OPTION_FREE),
        "file of mode 0600 with the secret that the job's ranks prove to each other; empty: the variable ELBO_SECRET"),
};
#undef AT

#endif
