/* A process that a launcher starts: in a process group of its own, killed when the launcher dies, with its output and
 * its heartbeat read by the launcher. */
#ifndef JOB_CHILD_H
#define JOB_CHILD_H

#include "elbo/status.h"

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct child_variable {
    const char *name;
    char value[96];
};

struct child_plan {
    char *const *command; /* a program, which is looked for in PATH, and its arguments, ended by null */
    const struct child_variable *variables;
    size_t variable_count;
    bool own_output;      /* it keeps the launcher's standard output                                  */
    bool own_errors;      /* and error                                                                */
    bool heartbeat;       /* ELBO_HEARTBEAT_FD leads to `beat`                                        */
    int death_signal;     /* when the launcher dies                                                   */
    const sigset_t *mask; /* its signal mask                                                          */
};

struct child {
    pid_t pid;  /* 0: not started, or reaped                                                */
    int output; /* what it writes, but for what it keeps; -1: it keeps both                 */
    int beat;   /* a byte a beat; -1: none                                                  */
};

/* Fails, with the process gone again, when the program cannot be executed. */
elbo_status child_start(struct child *child, const struct child_plan *plan, elbo_error *error);

/* A signal for the process's whole group. */
void child_signal(const struct child *child, int number);

void child_close(struct child *child); /* the descriptors */

/* Kills and reaps every process that descends from this one, those that left their groups included (the launcher is
 * their subreaper): nobody stays behind. */
void child_end_descendants(void);

#endif
