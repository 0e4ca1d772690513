/* The devices that a program may ask for by name: each kind makes a `struct backend` (graph/backend.h). */
#ifndef DEVICE_BACKENDS_H
#define DEVICE_BACKENDS_H

#include "cpu/backend.h"
#include "cuda/backend.h"

enum { DEVICE_ID = 128 }; /* bytes by which the devices of several ranks find each other */

struct device_kind {
    const char *name; /* its backends' name, and the first part of its devices' names: "cpu", "cuda" */
    /* As backend_open_local. */
    elbo_status (*open)(struct backend **backend, const char *device, size_t local, size_t threads, elbo_error *error);
    /* A backend for plans, on machines that have no such device. */
    elbo_status (*plan)(struct backend **backend, size_t threads, elbo_error *error);
    /* Between ranks with a device each: rank 0 makes the id, and all ranks join with it. The caller keeps `bonds`, and
     * every wait of the collectives looks at them. `timeout` in seconds. Null: ranks do not meet through it. */
    elbo_status (*make_id)(struct backend *backend, unsigned char id[DEVICE_ID], elbo_error *error);
    elbo_status (*join)(struct backend *backend, const unsigned char id[DEVICE_ID], size_t ranks, size_t rank,
                        double timeout, struct bonds *bonds, struct collectives **out, elbo_error *error);
};

/* The kind that made the backend. */
const struct device_kind *device_of(const struct backend *backend);

/* By name: "cpu", "cpu:avx2", "cuda", "cuda:1", or "auto": a GPU if one can be used, else the CPU. */
elbo_status backend_open(struct backend **backend, const char *device, size_t threads, elbo_error *error);
/* The same for the `local`-th rank of a host, which takes the GPU of that number unless the name says which. */
elbo_status backend_open_local(struct backend **backend, const char *device, size_t local, size_t threads,
                               elbo_error *error);
/* The same for plans: where the device is missing, its kind's table without a device, or else the CPU. */
elbo_status backend_open_plan(struct backend **backend, const char *device, size_t threads, elbo_error *error);

#endif
