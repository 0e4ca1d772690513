/* The connections over which ranks met, kept while they work: rank 0 has one to every other rank, those have one to
 * rank 0.
 *
 * Nothing is said over them until a rank ends as it should and says so. One that ends without a word tells at once that
 * a process died, which NCCL between the GPUs of a host does not notice, and one whose host no longer answers tells it
 * within the time-out. When rank 0 ends for that, all the others learn it from theirs. A rank that is stopped still has
 * its connection: that is for the time-out of whoever waits for it. */
#ifndef JOB_BONDS_H
#define JOB_BONDS_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

#define BONDS_NONE ((size_t)-1)

struct pollfd;
struct bonds {
    struct pollfd *polled; /* (room), the first `count` are there */
    size_t *ranks;         /* (room) at the other end             */
    size_t count, room;
    double timeout; /* seconds until a host that does not answer is given up */
    size_t lost;    /* the rank that ended, `since` clock_seconds(), while since > 0 */
    double since;
};

/* Room for `wanted` connections: the limit of open files is raised where it must be; where it cannot, there is less
 * room, and who finds none is not watched. */
elbo_status bonds_open(struct bonds *bonds, size_t wanted, double timeout, elbo_error *error);
/* Takes the connection to `rank`; false where there is no room: it stays the caller's. */
bool bonds_keep(struct bonds *bonds, int fd, size_t rank);
/* The rank that ended without a word, or BONDS_NONE. It is named a quarter of a second after it was noticed, so that
 * what it sent before it ended is heard first. A few microseconds for each rank. */
size_t bonds_lost(struct bonds *bonds);
/* Over `fd`, as far as it takes it now: this end goes as it should. */
void bonds_say_farewell(int fd);
/* Ends all of them; without a farewell the other ends take this rank for dead. */
void bonds_close(struct bonds *bonds, bool farewell);

#endif
