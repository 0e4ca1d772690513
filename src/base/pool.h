/* A small thread pool that runs one list of tiles at a time. Idle threads sleep soon.
 *
 * Tiles split outputs, never a reduction, so results do not depend on the number of threads. The calling thread works
 * too: a pool of n threads starts n - 1. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "elbo/status.h"

#include <stddef.h>

struct pool;

/* Computes one tile. `worker` is 0 .. threads - 1 and names the scratch that the tile may use. */
typedef void (*pool_tile)(void *argument, size_t tile, size_t worker);

/* Creates a pool; threads = 0 takes the number of processors that this process may run on. */
elbo_status pool_create(struct pool **pool, size_t threads, elbo_error *error);
void pool_destroy(struct pool *pool);
size_t pool_threads(const struct pool *pool);

/* Runs tiles 0 .. tiles - 1 in any order and returns when all are done. Not reentrant. Allocates nothing. */
void pool_run(struct pool *pool, size_t tiles, pool_tile run, void *argument);

#endif
