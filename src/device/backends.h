/* The devices that a program can request by name: each kind makes a `struct backend` (graph/backend.h). */
#ifndef DEVICE_BACKENDS_H
#define DEVICE_BACKENDS_H

#include "cpu/backend.h"
#include "cuda/backend.h"

enum { DEVICE_ID = 128 }; /* bytes of the id by which the devices of several ranks find each other */

struct device_kind {
    const char *name; /* name of its backends, and first part of its devices' names: "cpu", "cuda" */
    /* Opens a backend, as backend_open_local does. */
    elbo_status (*open)(struct backend **backend, const char *device, size_t local, size_t threads, elbo_error *error);
    /* Opens a backend for plans, on machines without the device. */
    elbo_status (*plan)(struct backend **backend, size_t threads, elbo_error *error);
    /* Connect ranks with one device each: rank 0 makes the id, and all ranks join with it. The caller owns `bonds`,
     * which every wait of the collectives checks. `timeout` in seconds. Null: ranks cannot connect through this
     * kind. */
    elbo_status (*make_id)(struct backend *backend, unsigned char id[DEVICE_ID], elbo_error *error);
    elbo_status (*join)(struct backend *backend, const unsigned char id[DEVICE_ID], size_t ranks, size_t rank,
                        double timeout, struct bonds *bonds, struct collectives **out, elbo_error *error);
};

/* Returns the kind that made the backend. */
const struct device_kind *device_of(const struct backend *backend);

/* Opens a device by name: "cpu", "cpu:avx2", "cuda", "cuda:1", or "auto": a GPU if one can be used, else the CPU. */
elbo_status backend_open(struct backend **backend, const char *device, size_t threads, elbo_error *error);
/* Opens it for the `local`-th rank of a host, which takes the GPU of that number unless the name gives one. */
elbo_status backend_open_local(struct backend **backend, const char *device, size_t local, size_t threads,
                               elbo_error *error);
/* Opens it for plans. If the device is missing, uses its kind's backend for plans, or else the CPU. */
elbo_status backend_open_plan(struct backend **backend, const char *device, size_t threads, elbo_error *error);

#endif
