/* Keeps the connections over which ranks met while they work. Rank 0 has one to every other rank, and every other rank
 * has one to rank 0.
 *
 * The connections are silent until a rank ends in order and sends a farewell. A connection that ends without a farewell
 * tells at once that a process died, which NCCL between the GPUs of a host does not notice. A connection to a host that
 * no longer answers tells it within the time-out. When rank 0 ends for this reason, all other ranks learn it from their
 * connections. A stopped rank still has its connection, so only the time-out of a waiting rank notices it. */
#ifndef JOB_BONDS_H
#define JOB_BONDS_H

#include "elbo/status.h"

#include <stdbool.h>
#include <stddef.h>

#define BONDS_NONE ((size_t)-1)

struct pollfd;
struct bonds {
    struct pollfd *polled; /* (room) the first `count` are in use */
    size_t *ranks;         /* (room) rank at the other end */
    size_t count, room;
    double timeout; /* seconds until a host that does not answer counts as lost */
    size_t lost;    /* rank that ended at clock_seconds() `since`, valid if since > 0 */
    double since;
};

/* Makes room for `wanted` connections and raises the limit of open files if necessary. If the limit cannot be raised,
 * there is less room, and ranks without room are not watched. */
elbo_status bonds_open(struct bonds *bonds, size_t wanted, double timeout, elbo_error *error);
/* Takes over the connection to `rank`. Returns false if there is no room; the connection is then still the caller's. */
bool bonds_keep(struct bonds *bonds, int fd, size_t rank);
/* Returns the rank that ended without a farewell, or BONDS_NONE. The rank is named a quarter of a second after it was
 * noticed, so that its last messages are read first. Takes a few microseconds per rank. */
size_t bonds_lost(struct bonds *bonds);
/* Sends a farewell over `fd`, as far as the socket takes it now: this end closes in order. */
void bonds_say_farewell(int fd);
/* Closes all connections. Without a farewell the other ends take this rank for dead. */
void bonds_close(struct bonds *bonds, bool farewell);

#endif
