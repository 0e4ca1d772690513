/* elbo launch: starts the ranks of a job on this host, watches them, and restarts them when a restart can help.
 *
 *     struct launch launch = {.ranks = 4, .command = words, .max_restarts = 3, .grace = 1.5, .pause = 1, .say = say};
 *     int code;
 *     ELBO_TRY(launcher_run(&code, &launch, error));      -- `code` is the exit code for the program
 *
 * Each rank gets ELBO_RANK, ELBO_WORLD_SIZE, ELBO_LOCAL_RANK, ELBO_LOCAL_WORLD_SIZE, ELBO_ADDRESS, ELBO_PORT, a fresh
 * ELBO_SECRET, ELBO_RESTART, and ELBO_HEARTBEAT_FD when hangs are looked for. Rank 0 keeps the standard output; all
 * other output of the ranks goes to the standard error, each line behind "[rank] ".
 *
 * When a rank fails, the others are ended by SIGTERM, and by SIGKILL after the grace. A rank that ends with ELBO_OK or
 * ELBO_INTERRUPTED has not failed, and the others may finish. SIGTERM, SIGINT and SIGUSR1 go to every rank (SIGHUP as
 * SIGTERM), and no restart follows them. No process stays behind, neither a rank nor a descendant of one. */
#ifndef JOB_LAUNCHER_H
#define JOB_LAUNCHER_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

struct launch {
    size_t ranks;         /* 0: start the command once, as it is: another launcher (mpirun), or one process */
    char *const *command; /* a program and its arguments; ends with null */
    size_t max_restarts;
    bool beats;          /* true: the ranks send heartbeats; false: look for stopped processes below this one */
    double hang_timeout; /* seconds without a heartbeat, or stopped, until a rank counts as hung; 0: never */
    double grace;        /* seconds between SIGTERM and SIGKILL */
    double pause;        /* seconds before the first restart; doubles with each, up to half a minute */
    void (*say)(void *context, const char *line); /* messages for people: how a rank ended, what is restarted */
    void *context;
};

/* Runs the job. *code is the exit code of the rank that failed first, 128 + the signal that killed it, or 0 (or
 * ELBO_INTERRUPTED) if no rank failed; `error` then says how. Failures of the launcher itself are returned. The caller
 * has one thread and no other children. */
elbo_status launcher_run(int *code, const struct launch *launch, elbo_error *error);

#endif
