/* The pool of a program without threads: the caller runs all tiles. */
#include "base/pool.h"

#include <stdlib.h>

struct pool {
    char none;
};

elbo_status pool_create(struct pool **out, size_t threads, elbo_error *error)
{
    (void)threads;
    *out = calloc(1, sizeof **out);
    return *out ? ELBO_OK : elbo_fail(error, ELBO_MEMORY, "no memory for a pool of threads");
}

void pool_destroy(struct pool *pool)
{
    free(pool);
}

size_t pool_threads(const struct pool *pool)
{
    (void)pool;
    return 1;
}

void pool_run(struct pool *pool, size_t tiles, pool_tile run, void *argument)
{
    (void)pool;
    for (size_t tile = 0; tile < tiles; tile++) run(argument, tile, 0);
}
