/* Host work between executions, on the backend's thread pool. */
#include "graph/backend.h"
#include "base/pool.h"

void backend_host_run(struct backend *backend, size_t tiles, void (*run)(void *argument, size_t tile, size_t worker),
                      void *argument)
{
    pool_run(backend->pool, tiles, run, argument);
}

size_t backend_threads(const struct backend *backend)
{
    return pool_threads(backend->pool);
}
