/* The backends that a program may ask for: each makes a `struct backend` (execute.h). */
#ifndef DEVICE_BACKENDS_H
#define DEVICE_BACKENDS_H

#include "graph/execute.h"

/* The CPU; threads = 0 takes the processors of this process. `variant` null: the best instruction set it has; else
 * "generic", "avx2", "avx512" or "amx", and ELBO_DEVICE where the processor has not got it. */
elbo_status cpu_backend_create(struct backend **backend, size_t threads, const char *variant, elbo_error *error);

/* A GPU; `threads` work for the host. `device` below 0: number -1 - device, counted round those that there are, for
 * ranks of one host. ELBO_DEVICE says why none can be used, also in a program built without CUDA. */
elbo_status cuda_backend_create(struct backend **backend, int device, size_t threads, elbo_error *error);

/* The CUDA backend's table without a device: for plans, on machines that have none. Nothing can be allocated or run on
 * it. ELBO_DEVICE in a program built without CUDA. */
elbo_status cuda_backend_plan(struct backend **backend, elbo_error *error);

/* By name: "cpu", "cpu:avx2", "cuda", "cuda:1", or "auto": a GPU if one can be used, else the CPU. */
elbo_status backend_open(struct backend **backend, const char *device, size_t threads, elbo_error *error);
/* The same for the `local`-th rank of a host, which takes the GPU of that number unless the name says which. */
elbo_status backend_open_local(struct backend **backend, const char *device, size_t local, size_t threads,
                               elbo_error *error);

#endif
