/* A process that a launcher starts. It has a process group of its own and is killed when the launcher dies; the
 * launcher reads its output and its heartbeat. */
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
    char *const *command; /* a program, looked up in PATH, and its arguments; ends with null */
    const struct child_variable *variables;
    size_t variable_count;
    bool own_output;      /* the process keeps the launcher's standard output */
    bool own_errors;      /* the process keeps the launcher's standard error */
    bool heartbeat;       /* ELBO_HEARTBEAT_FD leads to `beat` */
    int death_signal;     /* sent when the launcher dies */
    const sigset_t *mask; /* its signal mask */
};

struct child {
    pid_t pid;  /* 0: not started, or already reaped */
    int output; /* output that the process does not keep; -1: none */
    int beat;   /* one byte per beat; -1: none */
};

/* Starts the process. If the program cannot be executed, fails and leaves no process. */
elbo_status child_start(struct child *child, const struct child_plan *plan, elbo_error *error);

/* Sends a signal to the whole process group. */
void child_signal(const struct child *child, int number);

void child_close(struct child *child); /* closes the descriptors */

/* Kills and reaps every descendant of this process, including those that left their groups (the launcher is their
 * subreaper), so that none stays behind. */
void child_end_descendants(void);

#endif
