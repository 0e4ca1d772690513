/* The two sides of rendezvous_share, for it and for tests. */
#ifndef JOB_MEETING_H
#define JOB_MEETING_H

#include "job/bonds.h"
#include "job/rendezvous.h"
#include "job/sockets.h"
#include "job/wire.h"

#include <stdbool.h>

/* ---- rank 0: meeting_serve.c ---- */

/* Gives `bytes` to every other rank, over connections of the listening sockets, which stay open. `name` is "host:port",
 * for messages; `began` and `deadline` are times of clock_seconds(). */
struct meeting {
    const struct ranks *ranks;
    const unsigned char *key; /* (WIRE_KEY) */
    const int *listening;     /* (count) */
    size_t count;
    const char *name;
    double began, deadline;
    struct bonds *bonds; /* keeps the connections of ranks that sent thanks; null: closes them */
};
elbo_status meeting_serve(const struct meeting *meeting, const void *bytes, size_t size, elbo_error *error);

/* ---- the other ranks: meeting_join.c ---- */

enum joined {
    JOIN_DONE,
    JOIN_NOBODY,  /* no connection; see errno */
    JOIN_SILENT,  /* connected, but no answer in time */
    JOIN_CLOSED,  /* closed by the other side, which does not accept this rank */
    JOIN_FOREIGN, /* the answer does not follow the protocol */
    JOIN_FALSE,   /* the answer was not made with the job's secret */
};

/* Holds one conversation over a socket that connects or is connected, until `until` (clock_seconds()). Writes `bytes`
 * (size) only if the result is JOIN_DONE. The socket stays open. */
enum joined meeting_join(void *bytes, size_t size, int fd, const struct ranks *ranks, const unsigned char key[WIRE_KEY],
                         double until);

#endif
