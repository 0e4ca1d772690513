/* The CPU backend, as the rest of the program sees it. */
#ifndef CPU_BACKEND_H
#define CPU_BACKEND_H

#include "graph/backend.h"

/* The CPU; threads = 0 takes the processors of this process. `variant` null: the best instruction set it has; else
 * "generic", "avx2", "avx512" or "amx", and ELBO_DEVICE where the processor has not got it. */
elbo_status cpu_backend_create(struct backend **backend, size_t threads, const char *variant, elbo_error *error);

/* Weights in few bits that products of several rows read are kept packed, too, after some uses, up to so many bytes
 * (0: none, which a new backend begins with), as long as the backend lives. They may not change meanwhile. */
void cpu_backend_keep_packed(struct backend *b, size_t bytes);

#endif
