/* The CUDA backend, as the rest of the program sees it. No CUDA header is needed here, and a program built without CUDA
 * has the same functions, which fail (absent.c). */
#ifndef CUDA_BACKEND_H
#define CUDA_BACKEND_H

#include "graph/backend.h"

#include <stdbool.h>

struct bonds;
struct collectives;

enum { CUDA_ID = 128 }; /* bytes of NCCL's id */

/* A GPU; `threads` work for the host. `device` below 0: number -1 - device, counted round those that there are, for
 * ranks of one host. ELBO_DEVICE says why none can be used, also in a program built without CUDA. */
elbo_status cuda_backend_create(struct backend **backend, int device, size_t threads, elbo_error *error);

/* Whether the program was built with CUDA. */
bool cuda_backend_built(void);

/* The CUDA backend's table without a device: for plans, on machines that have none. Nothing can be allocated or run on
 * it. ELBO_DEVICE in a program built without CUDA. */
elbo_status cuda_backend_plan(struct backend **backend, elbo_error *error);

/* Ranks with a GPU each meet through NCCL: rank 0 makes the id, and all ranks join with it. The caller keeps `bonds`,
 * and every wait of the collectives looks at them. `timeout` in seconds. */
elbo_status cuda_make_id(struct backend *base, unsigned char id[CUDA_ID], elbo_error *error);
elbo_status cuda_join(struct backend *base, const unsigned char id[CUDA_ID], size_t ranks, size_t rank, double timeout,
                      struct bonds *bonds, struct collectives **out, elbo_error *error);

#endif
