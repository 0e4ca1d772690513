/* elbo launch: starts the ranks of a job on this host, watches them, and starts them again when that can help.
 *
 *     struct launch launch = {.ranks = 4, .command = words, .max_restarts = 3, .grace = 1.5, .pause = 1, .say = say};
 *     int code;
 *     ELBO_TRY(launcher_run(&code, &launch, error));      -- `code` is what the program should end with
 *
 * Each rank gets ELBO_RANK, ELBO_WORLD_SIZE, ELBO_LOCAL_RANK, ELBO_LOCAL_WORLD_SIZE, ELBO_ADDRESS, ELBO_PORT, a fresh
 * ELBO_SECRET, ELBO_RESTART, and ELBO_HEARTBEAT_FD when hangs are looked for. Rank 0 keeps the standard output;
 * whatever else the ranks write goes to the standard error, each line behind "[rank] ".
 *
 * When a rank fails, the others are ended: SIGTERM, and SIGKILL after the grace. A rank that ends with ELBO_OK or
 * ELBO_INTERRUPTED has not failed, and the others may finish what they do. SIGTERM, SIGINT and SIGUSR1 go to every rank
 * (SIGHUP as SIGTERM), and nothing is started again after one. Nobody is left behind: not a rank, nor a process of one.
 */
#ifndef JOB_LAUNCHER_H
#define JOB_LAUNCHER_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

struct launch {
    size_t ranks;         /* 0: the command is started once, as it is: a launcher of its own (mpirun), or one process */
    char *const *command; /* a program and its arguments, ended by null                                               */
    size_t max_restarts;
    bool beats;          /* what is started sends heartbeats; else a process below it that is stopped is looked for  */
    double hang_timeout; /* seconds without a heartbeat, or stopped, until a rank counts as hung; 0: never           */
    double grace;        /* seconds between SIGTERM and SIGKILL                                                      */
    double pause;        /* seconds before the first restart; doubles with each, up to half a minute                 */
    void (*say)(void *context, const char *line); /* to people: what ended how, what is started again */
    void *context;
};

/* *code is the exit code of the rank that failed first, 128 + the signal that killed it, or 0 (or ELBO_INTERRUPTED)
 * when none did; `error` then says how. Other failures of the launcher's own are returned. The caller has one thread
 * and no other children. */
elbo_status launcher_run(int *code, const struct launch *launch, elbo_error *error);

#endif
