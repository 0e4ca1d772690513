/* Opening a backend by a device's name: "cpu", "cpu:avx2", "cuda", "cuda:1" or "auto". */
#include "device/backends.h"

#include <stdlib.h>
#include <string.h>

_Static_assert((int)CUDA_ID == (int)DEVICE_ID, "an id of NCCL's");

/* Returns the part of a device's name after the colon; null: none. */
static const char *which_of(const char *device)
{
    const char *colon = strchr(device, ':');
    return colon ? colon + 1 : NULL;
}

static elbo_status open_cpu(struct backend **backend, const char *device, size_t local, size_t threads,
                            elbo_error *error)
{
    (void)local;
    return cpu_backend_create(backend, threads, which_of(device), error);
}

static elbo_status plan_cpu(struct backend **backend, size_t threads, elbo_error *error)
{
    return cpu_backend_create(backend, threads, NULL, error);
}

static elbo_status unknown(const char *device, elbo_error *error)
{
    return elbo_fail(error, ELBO_USAGE, "--device=%.60s: a device is cpu, cpu:avx2, cuda, cuda:1 or auto", device);
}

static elbo_status open_cuda(struct backend **backend, const char *device, size_t local, size_t threads,
                             elbo_error *error)
{
    const char *which = which_of(device);
    char *end;
    if (!which) return cuda_backend_create(backend, local < 1024 ? -1 - (int)local : -1, threads, error);
    long number = strtol(which, &end, 10);
    if (number < 0 || number > 1023 || !*which || *end) return unknown(device, error);
    return cuda_backend_create(backend, (int)number, threads, error);
}

static elbo_status plan_cuda(struct backend **backend, size_t threads, elbo_error *error)
{
    (void)threads;
    return cuda_backend_plan(backend, error);
}

static const struct device_kind kinds[] = {
    {.name = "cpu", .open = open_cpu, .plan = plan_cpu},
    {.name = "cuda", .open = open_cuda, .plan = plan_cuda, .make_id = cuda_make_id, .join = cuda_join},
};

enum { KINDS = sizeof kinds / sizeof *kinds };

/* Returns the kind named by `name` up to its end or a colon; null: none. */
static const struct device_kind *find(const char *name)
{
    size_t n = strcspn(name, ":"), k = 0;
    while (k < KINDS && (strlen(kinds[k].name) != n || strncmp(kinds[k].name, name, n) != 0)) k++;
    return k < KINDS ? &kinds[k] : NULL;
}

const struct device_kind *device_of(const struct backend *backend)
{
    return find(backend->name);
}

elbo_status backend_open(struct backend **backend, const char *device, size_t threads, elbo_error *error)
{
    return backend_open_local(backend, device, 0, threads, error);
}

elbo_status backend_open_local(struct backend **backend, const char *device, size_t local, size_t threads,
                               elbo_error *error)
{
    if (!strcmp(device, "auto")) {
        if (!open_cuda(backend, "cuda", local, threads, error)) return ELBO_OK;
        return open_cpu(backend, "cpu", local, threads, error);
    }
    const struct device_kind *kind = find(device);
    return kind ? kind->open(backend, device, local, threads, error) : unknown(device, error);
}

elbo_status backend_open_plan(struct backend **backend, const char *device, size_t threads, elbo_error *error)
{
    const struct device_kind *kind = find(device);
    elbo_status status = backend_open(backend, device, threads, error);
    if (status == ELBO_DEVICE && kind) status = kind->plan(backend, threads, error); /* the device is missing */
    if (status == ELBO_DEVICE) status = plan_cpu(backend, threads, error);
    return status;
}
