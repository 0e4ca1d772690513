/* Looks for a process below this one that was stopped by a signal: a rank that another launcher started, and that
 * hangs. */
#ifndef JOB_STOPPED_H
#define JOB_STOPPED_H

#include <sys/types.h>

struct stopped {
    pid_t pid;          /* that is stopped now; 0: none                */
    double since, seen; /* when it was first found so, and when looked */
};

/* Looks now; returns the seconds for which one has been stopped, 0 where none is. Called every second or more often: a
 * longer time between two calls does not count, for this process was stopped itself then, as by ^Z. */
double stopped_seconds(struct stopped *s);

#endif
