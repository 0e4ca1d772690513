/* The CUDA backend's interface to the rest of the program. It needs no CUDA header. A program built without CUDA has
 * the same functions, which fail (absent.c). */
#ifndef CUDA_BACKEND_H
#define CUDA_BACKEND_H

#include "graph/backend.h"

#include <stdbool.h>

struct bonds;
struct collectives;

enum { CUDA_ID = 128 }; /* bytes of NCCL's id */

/* Creates a backend on a GPU; `threads` threads work for the host. A negative `device` means number -1 - device, modulo
 * the number of devices, for the ranks of one host. ELBO_DEVICE says why no GPU can be used, also in a program built
 * without CUDA. */
elbo_status cuda_backend_create(struct backend **backend, int device, size_t threads, elbo_error *error);

/* Whether the program was built with CUDA. */
bool cuda_backend_built(void);

/* Creates the CUDA backend's table without a device, for plans on machines without a GPU. It cannot allocate or run.
 * ELBO_DEVICE in a program built without CUDA. */
elbo_status cuda_backend_plan(struct backend **backend, elbo_error *error);

/* Ranks with one GPU each join through NCCL: rank 0 makes the id, and all ranks join with it. The caller keeps `bonds`,
 * and every wait of the collectives checks them. `timeout` in seconds. */
elbo_status cuda_make_id(struct backend *base, unsigned char id[CUDA_ID], elbo_error *error);
elbo_status cuda_join(struct backend *base, const unsigned char id[CUDA_ID], size_t ranks, size_t rank, double timeout,
                      struct bonds *bonds, struct collectives **out, elbo_error *error);

#endif
