/* Looks for a process below this one that a signal has stopped: a hanging rank that another launcher started. */
#ifndef JOB_STOPPED_H
#define JOB_STOPPED_H

#include <sys/types.h>

struct stopped {
    pid_t pid;          /* process that is stopped now; 0: none */
    double since, seen; /* time it was first found stopped; time of the last look */
};

/* Looks now. Returns the seconds for which a process has been stopped, or 0. Call it every second or more often: a
 * longer time between two calls does not count, because this process was then stopped itself, as by ^Z. */
double stopped_seconds(struct stopped *s);

#endif
