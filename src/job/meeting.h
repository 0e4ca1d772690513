/* The two sides of rendezvous_share, for it and for tests. */
#ifndef JOB_MEETING_H
#define JOB_MEETING_H

#include "job/bonds.h"
#include "job/rendezvous.h"
#include "job/sockets.h"
#include "job/wire.h"

#include <stdbool.h>

/* ---- rank 0: meeting_serve.c ---- */

/* Gives `bytes` to every other rank, over the connections of the listening sockets, which stay open. `name` is
 * "host:port", for messages; `began` and `deadline` are times of clock_seconds(). */
struct meeting {
    const struct ranks *ranks;
    const unsigned char *key; /* (WIRE_KEY) */
    const int *listening;     /* (count)    */
    size_t count;
    const char *name;
    double began, deadline;
    struct bonds *bonds; /* who has thanked stays connected here; null: nobody does */
};
elbo_status meeting_serve(const struct meeting *meeting, const void *bytes, size_t size, elbo_error *error);

/* ---- the other ranks: meeting_join.c ---- */

enum joined {
    JOIN_DONE,
    JOIN_NOBODY,  /* no connection: errno                                        */
    JOIN_SILENT,  /* connected, and no answer in time                            */
    JOIN_CLOSED,  /* the other side ended it: it does not take this rank for one */
    JOIN_FOREIGN, /* the answer is none of the protocol's                        */
    JOIN_FALSE,   /* the answer was not made with the job's secret               */
};

/* One conversation over a socket that connects or is connected, until `until` (clock_seconds()). `bytes` (size) are
 * written only when the result is JOIN_DONE. The socket stays open. */
enum joined meeting_join(void *bytes, size_t size, int fd, const struct ranks *ranks, const unsigned char key[WIRE_KEY],
                         double until);

#endif
