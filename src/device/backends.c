#include "device/backends.h"

#include <stdlib.h>
#include <string.h>

elbo_status backend_open(struct backend **backend, const char *device, size_t threads, elbo_error *error)
{
    return backend_open_local(backend, device, 0, threads, error);
}

elbo_status backend_open_local(struct backend **backend, const char *device, size_t local, size_t threads,
                               elbo_error *error)
{
    int own = local < 1024 ? -1 - (int)local : -1;
    if (!strcmp(device, "cpu")) return cpu_backend_create(backend, threads, NULL, error);
    if (!strncmp(device, "cpu:", 4)) return cpu_backend_create(backend, threads, device + 4, error);
    if (!strcmp(device, "auto")) {
        if (!cuda_backend_create(backend, own, threads, error)) return ELBO_OK;
        return cpu_backend_create(backend, threads, NULL, error);
    }
    if (!strcmp(device, "cuda")) return cuda_backend_create(backend, own, threads, error);
    char *end;
    long number = strncmp(device, "cuda:", 5) ? -1 : strtol(device + 5, &end, 10);
    if (number < 0 || number > 1023 || !device[5] || *end)
        return elbo_fail(error, ELBO_USAGE, "--device=%.60s: a device is cpu, cpu:avx2, cuda, cuda:1 or auto", device);
    return cuda_backend_create(backend, (int)number, threads, error);
}
